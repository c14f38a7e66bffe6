//! One PNG or JPEG file: from its bytes to samples of 8 bits in the size, colours and layout that the model takes.
//!
//! In this order: decode; turn and mirror as the file's EXIF orientation says; to 8 bits a channel (16-bit PNG is rounded); drop alpha;
//! to grey (0.299 R + 0.587 G + 0.114 B, as PIL and torchvision compute it) or to three channels (grey three times); resize; crop from
//! the centre. The resize is bilinear over the whole area that a new pixel covers (a triangle filter, "antialias" elsewhere). Colour
//! profiles and gamma are ignored, as they are in training.
//!
//! Refused: other formats, damaged and truncated files, CMYK, images too large for memory, images smaller than the crop.

use std::io::Cursor;

use anyhow::{Context, Result};
use image::codecs::{jpeg::JpegDecoder, png::PngDecoder};
use image::imageops::{self, FilterType};
use image::{DynamicImage, GrayImage, ImageBuffer, ImageDecoder, Limits, Luma, Pixel, RgbImage};

use super::preprocess::{Color, Layout, Size};
use crate::failure::{Classify, Failure};

const PNG_MAGIC: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
const JPEG_MAGIC: [u8; 3] = [0xff, 0xd8, 0xff];

/// Decoded bytes of one file; no picture of a data set is near it, but a header of a few bytes can ask for more.
const MAX_DECODED: u64 = 1 << 29;

/// Height and width.
pub(super) type Extent = [usize; 2];

/// What is done to every image of an input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recipe {
    pub(super) resize: Option<Size>,
    pub(super) crop: Option<Size>,
    pub(super) color: Color,
    pub(super) layout: Layout,
}

/// One image as the model takes it, before scale, mean and standard deviation.
pub(super) struct Picture {
    /// As the file has it, upright.
    pub(super) found: Extent,
    /// As it is now.
    pub(super) extent: Extent,
    /// In the recipe's layout.
    pub(super) samples: Vec<u8>,
}

impl Recipe {
    /// Decodes and prepares a file's content.
    ///
    /// # Errors
    /// A message about the content; the caller adds the file's name.
    pub(super) fn read(&self, content: &[u8]) -> Result<Picture> {
        let image = decode(content)?;
        let found = extent(image.width(), image.height());
        let (extent, samples) = match self.color {
            Color::Gray => {
                let image = self.place(gray(&image))?;
                (extent(image.width(), image.height()), image.into_raw())
            }
            Color::Rgb | Color::Bgr => {
                let image = self.place(image.into_rgb8())?;
                (extent(image.width(), image.height()), self.arrange(image))
            }
        };
        Ok(Picture { found, extent, samples })
    }

    /// Resizes and crops.
    fn place<P: Pixel<Subpixel = u8> + 'static>(&self, image: ImageBuffer<P, Vec<u8>>) -> Result<ImageBuffer<P, Vec<u8>>> {
        let resized = match self.resize {
            None => image,
            Some(size) => {
                let (height, width) = resized(size, image.height(), image.width());
                imageops::resize(&image, width, height, FilterType::Triangle)
            }
        };
        let Some(crop) = self.crop else { return Ok(resized) };
        let [height, width] = crop.both();
        let (Some(below), Some(beside)) = (resized.height().checked_sub(height), resized.width().checked_sub(width)) else {
            let message = format!(
                "it has {} pixels (height × width) before the crop, too few for a crop of {}",
                show(extent(resized.width(), resized.height())),
                show(extent(width, height))
            );
            return refuse(
                message,
                "set a larger resize in lsqc.toml, or a smaller crop; or remove the image",
            );
        };
        Ok(imageops::crop_imm(&resized, middle(beside), middle(below), width, height).to_image())
    }

    /// Puts the channels of RGB where the model has them.
    fn arrange(&self, image: RgbImage) -> Vec<u8> {
        let mut samples = image.into_raw();
        if self.color == Color::Bgr {
            samples.chunks_exact_mut(3).for_each(<[u8]>::reverse);
        }
        match self.layout {
            Layout::Nhwc => samples,
            Layout::Nchw => (0..3)
                .flat_map(|channel| samples.iter().skip(channel).step_by(3).copied())
                .collect(),
        }
    }
}

/// `height × width`, for messages.
pub(super) fn show([height, width]: Extent) -> String {
    format!("{height}×{width}")
}

fn extent(width: u32, height: u32) -> Extent {
    [height as usize, width as usize]
}

/// Where a crop starts: half of what is over, a half rounded to even, as torchvision has it.
fn middle(over: u32) -> u32 {
    let half = over / 2;
    half + u32::from(over % 2 == 1 && half % 2 == 1)
}

/// Height and width after a resize. The longer side is rounded down, as torchvision has it.
fn resized(size: Size, height: u32, width: u32) -> (u32, u32) {
    let along = |short: u32, long: u32, to: u32| {
        let scaled = u64::from(to) * u64::from(long) / u64::from(short.max(1));
        u32::try_from(scaled).unwrap_or(u32::MAX)
    };
    match size {
        Size::Each([height, width]) => (height, width),
        Size::Side(side) if height <= width => (side, along(height, width, side)),
        Size::Side(side) => (along(width, height, side), side),
    }
}

fn gray(image: &DynamicImage) -> GrayImage {
    if !image.color().has_color() {
        return image.to_luma8();
    }
    let color = image.to_rgb8();
    GrayImage::from_fn(color.width(), color.height(), |x, y| {
        let [r, g, b] = color.get_pixel(x, y).0.map(u32::from);
        // The weights sum to 2¹⁶, so grey stays as it is.
        Luma([u8::try_from((r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16).unwrap_or(u8::MAX)])
    })
}

fn decode(content: &[u8]) -> Result<DynamicImage> {
    if content.starts_with(&PNG_MAGIC) {
        let limits = Limits::default();
        let decoder = PngDecoder::with_limits(Cursor::new(content), limits)
            .context("the PNG is damaged")
            .help(DAMAGED)?;
        upright(decoder).context("the PNG is damaged or truncated").help(DAMAGED)
    } else if content.starts_with(&JPEG_MAGIC) {
        match frame_of(content)? {
            1 | 3 => {}
            4 => return refuse("it is a CMYK JPEG", "save it in RGB, or remove it"),
            other => {
                return refuse(
                    format!("it is a JPEG of {other} channels"),
                    "save it in RGB or grey, or remove it",
                );
            }
        }
        let decoder = JpegDecoder::new(Cursor::new(content))
            .context("the JPEG is damaged")
            .help(DAMAGED)?;
        upright(decoder).context("the JPEG is damaged").help(DAMAGED)
    } else {
        let message = if content.is_empty() {
            "the file is empty"
        } else {
            "it is neither a PNG nor a JPEG"
        };
        refuse(message, "remove the file from the folder, or convert it to PNG or JPEG")
    }
}

const DAMAGED: &str = "get the file again, or remove it";

fn refuse<T>(message: impl Into<String>, cure: &str) -> Result<T> {
    Err(Failure::bad_input(message).help(cure).into())
}

fn upright(mut decoder: impl ImageDecoder) -> Result<DynamicImage> {
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > MAX_DECODED {
        let message = format!(
            "{} pixels (height × width) are more than lsqc decodes",
            show(extent(width, height))
        );
        return refuse(message, "make it smaller, or remove it");
    }
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Goes through a JPEG's segments to its end, and gives the number of channels. The decoder would fill what a truncated file lacks with
/// grey, and make some RGB of CMYK.
fn frame_of(content: &[u8]) -> Result<u8> {
    const END: u8 = 0xd9;
    let truncated = || Failure::bad_input("the JPEG is truncated").help(DAMAGED);
    let mut channels = None;
    let mut rest = content.get(2..).ok_or_else(truncated)?;
    loop {
        // Between segments: 0xff, perhaps repeated, and the marker. Anything else before it is skipped, as decoders do.
        let start = rest.iter().position(|&byte| byte == 0xff).ok_or_else(truncated)?;
        rest = rest.get(start..).unwrap_or(&[]);
        let filled = rest.iter().position(|&byte| byte != 0xff).ok_or_else(truncated)?;
        let marker = rest.get(filled).copied().ok_or_else(truncated)?;
        rest = rest.get(filled + 1..).unwrap_or(&[]);
        match marker {
            END => return channels.context("the JPEG has no image in it").help(DAMAGED),
            // An escaped 0xff, restarts, and markers that stand alone.
            0x00 | 0x01 | 0xd0..=0xd8 => continue,
            _ => {}
        }
        let &[high, low] = rest.first_chunk::<2>().ok_or_else(truncated)?;
        let segment = rest
            .get(..usize::from(u16::from_be_bytes([high, low])).max(2))
            .ok_or_else(truncated)?;
        // Frames are C0 to CF without C4 (tables), C8 (reserved), CC (conditioning): length, precision, height, width, channels.
        if matches!(marker, 0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf) {
            channels = channels.or(segment.get(7).copied());
        }
        rest = rest.get(segment.len()..).unwrap_or(&[]);
    }
}

#[cfg(test)]
#[path = "image_file_tests.rs"]
mod tests;
