//! A contact sheet: samples as the model gets them, in one PNG, each with its class number under it.
//!
//! One linear map takes the least value of the sheet to black and the greatest to white, the same for all channels. Small images are
//! enlarged by whole factors. Three channels are shown in colour, where the input is BGR with blue as blue.
//!
//! Refused: sheets beyond reason. Inputs that are no images of one or three channels have no sheet.

use std::io::Cursor;

use anyhow::{Context, Result};
use image::{ImageFormat, Rgb, RgbImage};
use lsqc_passes::ir::Tensor;

use super::augment::Extents;
use super::preprocess::{Color, Preprocess};
use crate::failure::Failure;

/// Images with both sides below half of this are enlarged.
const SIDE: usize = 112;
/// Between cells, and around all.
const GAP: usize = 4;
/// The part under an image that has its class.
const STRIP: usize = 14;
/// Of a digit's pixel.
const DOT: usize = 2;
/// Sheets of more pixels are refused.
const MAX_PIXELS: usize = 1 << 26;

const BACKGROUND: Rgb<u8> = Rgb([40, 40, 40]);
const INK: Rgb<u8> = Rgb([255, 255, 255]);

/// The digits, 3 wide and 5 high, a row in three bits.
const DIGITS: [[u8; 5]; 10] = [
    [7, 5, 5, 5, 7],
    [2, 6, 2, 2, 7],
    [7, 1, 7, 4, 7],
    [7, 1, 7, 1, 7],
    [5, 5, 7, 1, 1],
    [7, 4, 7, 1, 7],
    [7, 4, 7, 5, 7],
    [7, 1, 1, 2, 2],
    [7, 5, 7, 5, 7],
    [7, 5, 7, 1, 7],
];

/// A finished sheet.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// The file.
    pub png: Vec<u8>,
    /// What is black.
    pub low: f32,
    /// What is white.
    pub high: f32,
}

/// Draws `samples` `[N, …]` of an input that is prepared by `how`; `None`, if they are no images.
///
/// # Errors
/// Usage, if the sheet would be too large.
pub fn contact_sheet(samples: &Tensor, how: &Preprocess, labels: Option<&[i64]>) -> Result<Option<Sheet>> {
    let Some((&count, sample_shape)) = samples.shape().split_first() else {
        return Ok(None);
    };
    let extents = match *sample_shape {
        [height, width] => Extents::of(&[1, height, width], super::Layout::Nchw),
        _ => Extents::of(sample_shape, how.layout),
    };
    let (Some(extents), Some(values)) = (extents, samples.to_f32()) else {
        return Ok(None);
    };
    let pixels = extents.height * extents.width;
    if !matches!(extents.channels, 1 | 3) || count == 0 || pixels == 0 {
        return Ok(None);
    }
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);

    let labels: Vec<String> = labels.unwrap_or_default().iter().map(ToString::to_string).collect();
    let grid = Grid::new(count, &extents, labels.iter().map(String::len).max().unwrap_or(0))?;
    let mut sheet = RgbImage::from_pixel(side(grid.width)?, side(grid.height)?, BACKGROUND);
    let swap = how.color == Some(Color::Bgr);
    for (index, image) in values.chunks_exact(pixels * extents.channels).enumerate() {
        let (left, top) = grid.place(index);
        for row in 0..extents.height * grid.scale {
            for column in 0..extents.width * grid.scale {
                let level = |channel: usize| {
                    let at = extents.offset(channel.min(extents.channels - 1), row / grid.scale, column / grid.scale);
                    byte(image.get(at).copied().unwrap_or(low), low, high)
                };
                let color = if swap {
                    [level(2), level(1), level(0)]
                } else {
                    [level(0), level(1), level(2)]
                };
                put(&mut sheet, left + column, top + row, Rgb(color));
            }
        }
        if let Some(label) = labels.get(index) {
            write(&mut sheet, left, top + extents.height * grid.scale + DOT, label);
        }
    }
    let mut png = Cursor::new(Vec::new());
    sheet
        .write_to(&mut png, ImageFormat::Png)
        .context("the sheet cannot be encoded")?;
    Ok(Some(Sheet {
        png: png.into_inner(),
        low,
        high,
    }))
}

/// Where images go.
struct Grid {
    columns: usize,
    scale: usize,
    cell: [usize; 2],
    height: usize,
    width: usize,
}

impl Grid {
    fn new(count: usize, extents: &Extents, digits: usize) -> Result<Grid> {
        let scale = (SIDE / extents.height.max(extents.width).max(1)).max(1);
        let columns = (1..=count).find(|columns| columns * columns >= count).unwrap_or(1);
        let rows = count.div_ceil(columns);
        let cell = [
            extents.height * scale + STRIP + GAP,
            (extents.width * scale).max(digits * 4 * DOT) + GAP,
        ];
        let (height, width) = (rows * cell[0] + GAP, columns * cell[1] + GAP);
        if height.checked_mul(width).is_none_or(|pixels| pixels > MAX_PIXELS) {
            return Err(
                Failure::usage(format!("a sheet of {count} images would have {height}×{width} pixels"))
                    .help("show fewer: --count")
                    .into(),
            );
        }
        Ok(Grid {
            columns,
            scale,
            cell,
            height,
            width,
        })
    }

    /// The left and top of an image.
    fn place(&self, index: usize) -> (usize, usize) {
        let (row, column) = (index / self.columns, index % self.columns);
        (GAP + column * self.cell[1], GAP + row * self.cell[0])
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn byte(value: f32, low: f32, high: f32) -> u8 {
    let range = if high > low { high - low } else { 1.0 };
    ((value - low) / range * 255.0).round() as u8
}

fn write(sheet: &mut RgbImage, left: usize, top: usize, text: &str) {
    for (position, digit) in text.chars().enumerate() {
        let shape = digit.to_digit(10).and_then(|digit| DIGITS.get(digit as usize));
        for (row, bits) in shape.into_iter().flatten().enumerate() {
            for column in (0..3).filter(|column| bits >> (2 - column) & 1 == 1) {
                for (x, y) in (0..DOT * DOT).map(|dot| (dot % DOT, dot / DOT)) {
                    put(sheet, left + (position * 4 + column) * DOT + x, top + row * DOT + y, INK);
                }
            }
        }
    }
}

fn put(sheet: &mut RgbImage, x: usize, y: usize, color: Rgb<u8>) {
    let pixel = side(x).and_then(|x| Ok((x, side(y)?)));
    if let Ok((x, y)) = pixel
        && let Some(pixel) = sheet.get_pixel_mut_checked(x, y)
    {
        *pixel = color;
    }
}

fn side(extent: usize) -> Result<u32> {
    Ok(u32::try_from(extent)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sheet: &Sheet) -> RgbImage {
        image::load_from_memory(&sheet.png).unwrap().to_rgb8()
    }

    #[test]
    fn values_are_mapped_and_labels_drawn() {
        let values: Vec<f32> = vec![-1.0, 0.0, 1.0, 3.0];
        let samples = Tensor::new(&[2, 1, 1, 2], values);
        let sheet = contact_sheet(&samples, &Preprocess::default(), Some(&[1, 7]))
            .unwrap()
            .unwrap();
        assert_eq!((sheet.low, sheet.high), (-1.0, 3.0));
        let image = read(&sheet);
        // Two images of 1×2, enlarged 56 times, side by side.
        assert_eq!((image.width(), image.height()), (2 * 116 + 4, 56 + 18 + 4));
        let at = |x, y| image.get_pixel(x, y).0;
        assert_eq!([at(4, 4), at(115, 59)], [[0; 3], [64; 3]]);
        assert_eq!([at(120, 4), at(231, 59)], [[128; 3], [255; 3]]);
        // The 7 has a full first row, the 1 has not.
        let inked = |left: u32| (left..left + 6).filter(|&x| at(x, 62) == INK.0).count();
        assert_eq!((inked(4), inked(120)), (2, 6));
    }

    #[test]
    fn colours_are_in_order() {
        let samples = Tensor::new(&[1, 3, 1, 1], vec![1.0f32, 0.5, 0.0]);
        let how = |color| Preprocess {
            color,
            ..Preprocess::default()
        };
        let first = |color| {
            let sheet = contact_sheet(&samples, &how(color), None).unwrap().unwrap();
            read(&sheet).get_pixel(4, 4).0
        };
        assert_eq!(first(None), [255, 128, 0]);
        assert_eq!(first(Some(Color::Bgr)), [0, 128, 255]);
    }

    #[test]
    fn what_has_no_sheet() {
        let sheet = |shape: &[usize]| {
            let samples = Tensor::new(shape, vec![0.0f32; shape.iter().product()]);
            contact_sheet(&samples, &Preprocess::default(), None)
        };
        assert!(sheet(&[2, 5]).unwrap().is_none() && sheet(&[1, 4, 2, 2]).unwrap().is_none());
        assert!(sheet(&[2, 5, 5]).unwrap().is_some());
        let error = sheet(&[64, 1, 2000, 2000]).err().unwrap();
        assert!(error.to_string().contains("64 images would have"), "{error}");
    }
}
