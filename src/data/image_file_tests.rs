//! Pictures that are made here, encoded, and read again.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbaImage};

use super::*;

/// A JPEG's samples are near those that were encoded, not the same; colours far apart stay so.
const JPEG: i32 = 12;

fn recipe(color: Color) -> Recipe {
    Recipe {
        resize: None,
        crop: None,
        color,
        layout: Layout::Nchw,
    }
}

fn png(samples: &[u8], width: u32, height: u32, color: ExtendedColorType) -> Vec<u8> {
    let mut file = Vec::new();
    PngEncoder::new(&mut file).write_image(samples, width, height, color).unwrap();
    file
}

fn jpeg(image: &DynamicImage) -> Vec<u8> {
    let mut file = Vec::new();
    image
        .write_with_encoder(JpegEncoder::new_with_quality(&mut file, 100))
        .unwrap();
    file
}

fn read(recipe: Recipe, content: &[u8]) -> (Extent, Vec<u8>) {
    let picture = recipe.read(content).unwrap();
    (picture.extent, picture.samples)
}

fn message(recipe: Recipe, content: &[u8]) -> String {
    crate::failure::render(&recipe.read(content).err().unwrap())
}

#[test]
fn channels_and_layouts() {
    let file = png(&[1, 2, 3, 4, 5, 6], 2, 1, ExtendedColorType::Rgb8);
    assert_eq!(read(recipe(Color::Rgb), &file), ([1, 2], vec![1, 4, 2, 5, 3, 6]));
    assert_eq!(read(recipe(Color::Bgr), &file), ([1, 2], vec![3, 6, 2, 5, 1, 4]));
    let last = Recipe {
        layout: Layout::Nhwc,
        ..recipe(Color::Bgr)
    };
    assert_eq!(read(last, &file).1, [3, 2, 1, 6, 5, 4]);
    // PIL: (1·19595 + 2·38470 + 3·7471 + 2¹⁵) >> 16 = 2, and 5.
    assert_eq!(read(recipe(Color::Gray), &file).1, [2, 5]);
    let gray = png(&[7, 9], 1, 2, ExtendedColorType::L8);
    assert_eq!(read(recipe(Color::Gray), &gray), ([2, 1], vec![7, 9]));
    assert_eq!(read(recipe(Color::Rgb), &gray).1, [7, 9, 7, 9, 7, 9]);
}

#[test]
fn grey_weights_are_those_of_pil() {
    for (color, level) in [
        ([255, 0, 0], 76),
        ([0, 255, 0], 150),
        ([0, 0, 255], 29),
        ([255, 255, 255], 255),
        ([10, 200, 30], 124),
    ] {
        let file = png(&color, 1, 1, ExtendedColorType::Rgb8);
        assert_eq!(read(recipe(Color::Gray), &file).1, [level], "{color:?}");
    }
}

#[test]
fn alpha_is_dropped_and_sixteen_bits_are_rounded() {
    let file = png(&[1, 2, 3, 0], 1, 1, ExtendedColorType::Rgba8);
    assert_eq!(read(recipe(Color::Rgb), &file).1, [1, 2, 3]);
    let file = png(&[9, 0], 1, 1, ExtendedColorType::La8);
    assert_eq!(read(recipe(Color::Gray), &file).1, [9]);
    // 257·k is k; half a step above 257·k is nearer to k + 1. PNG is big-endian, the encoder takes the machine's order.
    let samples: Vec<u8> = [0u16, 257 * 7, 257 * 7 + 129, 65_535]
        .iter()
        .flat_map(|v| v.to_ne_bytes())
        .collect();
    let file = png(&samples, 4, 1, ExtendedColorType::L16);
    assert_eq!(read(recipe(Color::Gray), &file).1, [0, 7, 8, 255]);
}

#[test]
fn sizes_are_those_of_torchvision() {
    assert_eq!(resized(Size::Side(256), 375, 500), (256, 341));
    assert_eq!(resized(Size::Side(256), 500, 375), (341, 256));
    assert_eq!(resized(Size::Side(8), 100, 100), (8, 8));
    assert_eq!(resized(Size::Each([3, 5]), 100, 100), (3, 5));
    // round(over / 2), halves to even.
    assert_eq!([0, 1, 2, 3, 4, 5, 7].map(middle), [0, 0, 1, 2, 2, 2, 4]);
}

#[test]
fn resize_and_crop() {
    let ramp: Vec<u8> = (0..16).map(|i| (i % 4) * 80).collect();
    let file = png(&ramp, 4, 4, ExtendedColorType::L8);
    let crop = |size| Recipe {
        crop: Some(size),
        ..recipe(Color::Gray)
    };
    assert_eq!(read(crop(Size::Side(2)), &file), ([2, 2], vec![80, 160, 80, 160]));
    assert_eq!(read(crop(Size::Each([1, 4])), &file), ([1, 4], vec![0, 80, 160, 240]));
    assert!(
        message(crop(Size::Side(5)), &file).contains("4×4 pixels (height × width) before the crop, too few for a crop of 5×5")
    );
    // The triangle over two pixels of four: weights 3 : 3 : 1 for 0, 80, 160, and their mirror.
    let half = Recipe {
        resize: Some(Size::Each([4, 2])),
        ..recipe(Color::Gray)
    };
    assert_eq!(read(half, &file).1[..2], [57, 183]);
}

#[test]
fn the_orientation_of_exif_is_applied() {
    // A red left half; turned a quarter clockwise the top half is red.
    let image = GrayImage::new(16, 8);
    let color = RgbImage::from_fn(image.width(), image.height(), |x, _| {
        Rgb(if x < 8 { [250, 10, 10] } else { [10, 10, 250] })
    });
    let plain = jpeg(&color.into());
    // TIFF, big-endian, one entry: tag 0x112, type SHORT, one value, 6: turn by 90° clockwise.
    let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    let turned = [&plain[..2], &[0xff, 0xe1], &length, exif, &plain[2..]].concat();
    assert_eq!(read(recipe(Color::Rgb), &plain).0, [8, 16]);
    let (extent, samples) = read(recipe(Color::Rgb), &turned);
    assert_eq!(extent, [16, 8]);
    let (top, bottom) = (i32::from(samples[0]), i32::from(samples[127]));
    assert!((top - 250).abs() < JPEG && (bottom - 10).abs() < JPEG, "{top} {bottom}");
}

#[test]
fn damaged_files() {
    let image: DynamicImage = RgbaImage::from_fn(32, 32, |x, y| {
        let level = |v: u32| u8::try_from(v % 256).unwrap();
        image::Rgba([level(x * 37), level(y * 91), level(x * y), 255])
    })
    .into();
    let whole = jpeg(&image.to_rgb8().into());
    assert!(recipe(Color::Rgb).read(&whole).is_ok());
    for length in [3, 4, 20, whole.len() / 2, whole.len() - 2, whole.len() - 1] {
        let text = message(recipe(Color::Rgb), &whole[..length]);
        assert!(
            text.contains("the JPEG is truncated") && text.contains("help:"),
            "{length}: {text}"
        );
    }
    let whole = png(image.as_bytes(), 32, 32, ExtendedColorType::Rgba8);
    for length in [8, 20, whole.len() / 2] {
        let text = message(recipe(Color::Rgb), &whole[..length]);
        assert!(text.contains("the PNG is damaged"), "{length}: {text}");
    }
    assert!(message(recipe(Color::Rgb), b"GIF89a").contains("neither a PNG nor a JPEG"));
    assert!(message(recipe(Color::Rgb), b"").contains("the file is empty"));
}

#[test]
fn frames_that_are_not_read() {
    let frame = |channels: u8| [&[0xff, 0xd8, 0xff, 0xc0, 0, 8, 8, 0, 1, 0, 1, channels, 0xff, 0xd9][..]].concat();
    assert!(message(recipe(Color::Rgb), &frame(4)).contains("it is a CMYK JPEG"));
    assert!(message(recipe(Color::Rgb), &frame(2)).contains("a JPEG of 2 channels"));
    assert!(message(recipe(Color::Rgb), &[0xff, 0xd8, 0xff, 0xd9]).contains("no image in it"));
    // A header that asks for 40 GB.
    let mut huge = png(&[0; 4], 1, 1, ExtendedColorType::Rgba8);
    huge[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
    let text = message(recipe(Color::Rgb), &huge);
    assert!(text.contains("damaged") || text.contains("more than lsqc decodes"), "{text}");
}
