//! Folders of images, npy files and `lsqc data` on the command line: what is shown, what is refused.

use std::fs;
use std::path::Path;

use crate::common::{SMALL, data, folder, is_refusal, lsqc, names, noise, npz, refuses};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageEncoder, Rgb, RgbImage};
use serde_json::Value;
use tempfile::TempDir;

const SHOW: &str = "data model.onnxtxt --data images";

/// An image whose colours depend on `seed`.
fn picture(height: u32, width: u32, seed: u32) -> RgbImage {
    let level = |v: u32| u8::try_from(v % 256).unwrap();
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([level(x * 31 + seed * 50), level(y * 29 + seed), level(x * y * 7)])
    })
}

fn png(image: &RgbImage) -> Vec<u8> {
    let mut file = Vec::new();
    image::codecs::png::PngEncoder::new(&mut file)
        .write_image(image, image.width(), image.height(), image::ExtendedColorType::Rgb8)
        .unwrap();
    file
}

fn jpeg(image: &RgbImage) -> Vec<u8> {
    let mut file = Vec::new();
    DynamicImage::from(image.clone())
        .write_with_encoder(JpegEncoder::new_with_quality(&mut file, 95))
        .unwrap();
    file
}

/// Writes a file, and its folders.
fn put(folder: &TempDir, path: &str, content: &[u8]) {
    let path = folder.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// The small model, its settings, and four classes of four images of 8×8 in `images`.
fn with_images(toml: &str) -> TempDir {
    let folder = folder(&[("model.onnxtxt", SMALL.as_bytes()), ("lsqc.toml", toml.as_bytes())]);
    for class in 0..4 {
        for index in 0..4 {
            let image = picture(8, 8, class * 4 + index);
            put(&folder, &format!("images/{class}/{index}.png"), &png(&image));
        }
    }
    folder
}

/// Runs `line`, which must end well; gives standard output and standard error.
fn runs(folder: &Path, line: &str) -> (String, String) {
    let output = lsqc(folder, line);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{line}\n{err}");
    (out, err)
}

fn json(folder: &Path, line: &str) -> Value {
    serde_json::from_str(&runs(folder, &format!("{line} --json")).0).unwrap()
}

#[test]
fn one_file_spoils_a_folder() {
    let spoilt = |name: &str, content: &[u8], parts: &[&str]| {
        let folder = with_images("");
        put(&folder, name, content);
        let named = format!("image {name}");
        let parts: Vec<&str> = parts.iter().copied().chain([named.as_str(), "help:"]).collect();
        refuses(folder.path(), SHOW, 4, &parts);
        refuses(
            folder.path(),
            "quantize model.onnxtxt --data images --engine tract",
            4,
            &parts,
        );
    };
    let whole = jpeg(&picture(8, 8, 0));
    spoilt("images/2/notes.txt", b"not an image", &["neither a PNG nor a JPEG"]);
    spoilt("images/2/x.png", b"not an image", &["neither a PNG nor a JPEG"]);
    spoilt("images/2/x.png", b"", &["the file is empty"]);
    spoilt("images/2/x.jpg", &whole[..whole.len() * 3 / 4], &["the JPEG is truncated"]);
    let file = png(&picture(8, 8, 0));
    spoilt(
        "images/2/x.png",
        &file[..file.len() / 2],
        &["the PNG is damaged or truncated"],
    );
    // The frame of a JPEG of four channels.
    let cmyk = [
        &[0xff, 0xd8, 0xff, 0xc0, 0, 20, 8, 0, 8, 0, 8, 4][..],
        &[0; 12],
        &[0xff, 0xd9],
    ]
    .concat();
    spoilt("images/2/x.jpg", &cmyk, &["it is a CMYK JPEG", "save it in RGB"]);
    spoilt(
        "images/3/x.png",
        &png(&picture(9, 8, 0)),
        &["9×8 pixels (height × width)", "input \"x\" takes 8×8", "resize = ", "crop = "],
    );
}

#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_read() {
    let folder = with_images("");
    // Permissions do not hold for every user; a link to nowhere does.
    std::os::unix::fs::symlink("nowhere", folder.path().join("images/0/x.png")).unwrap();
    refuses(folder.path(), SHOW, 4, &["cannot read image images/0/x.png", "help:"]);
}

#[test]
fn folders_that_are_laid_out_otherwise() {
    let folder = with_images("");
    put(&folder, "images/stray.png", &png(&picture(8, 8, 0)));
    let parts = ["images and folders", "images/stray.png", "help: put each image"];
    refuses(folder.path(), SHOW, 4, &parts);

    let folder = with_images("");
    put(&folder, "images/4/x.png", &png(&picture(8, 8, 0)));
    let parts = ["class folder images/4 is class 4", "the model has 4 classes, 0 to 3", "help:"];
    refuses(folder.path(), SHOW, 4, &parts);

    let folder = with_images("");
    put(&folder, "images/zebra/x.png", &png(&picture(8, 8, 0)));
    let parts = ["class folder images/zebra is number 4 in the order of names", "help:"];
    refuses(folder.path(), SHOW, 4, &parts);

    let folder = with_images("");
    put(&folder, "images/1/deeper/x.png", &png(&picture(8, 8, 0)));
    refuses(folder.path(), SHOW, 4, &["class folder images/1 holds a folder", "help:"]);

    let folder = with_images("");
    put(&folder, "images/01/x.png", &png(&picture(8, 8, 0)));
    refuses(folder.path(), SHOW, 4, &["folders 01 and 1 are both class 1", "help:"]);

    let folder = with_images("");
    put(&folder, "parts/train/cat/x.png", &png(&picture(8, 8, 0)));
    put(&folder, "parts/test/cow/x.png", &png(&picture(8, 8, 0)));
    let parts = ["test/cow has no counterpart in the training set", "help:"];
    refuses(folder.path(), "data model.onnxtxt --data parts", 4, &parts);

    fs::create_dir(folder.path().join("empty")).unwrap();
    let parts = ["folder empty holds no data", "PNG or JPEG", "help:"];
    refuses(folder.path(), "data model.onnxtxt --data empty", 4, &parts);
    fs::create_dir(folder.path().join("empty/0")).unwrap();
    let parts = ["folder empty holds no images", "help:"];
    refuses(folder.path(), "data model.onnxtxt --data empty", 4, &parts);
}

#[test]
fn an_empty_class_is_a_warning() {
    let folder = with_images("");
    for index in 0..4 {
        fs::remove_file(folder.path().join(format!("images/2/{index}.png"))).unwrap();
    }
    let (_, err) = runs(folder.path(), SHOW);
    assert!(err.contains("warning: class folder images/2 is empty"), "{err}");
}

#[test]
fn settings_of_images() {
    let refused = |toml: &str, code: i32, parts: &[&str]| {
        refuses(with_images(toml).path(), SHOW, code, parts);
    };
    refused(
        "[input.x]\nresize = 0\n",
        2,
        &["lsqc.toml: [input.x]: resize is not 1 to 16384"],
    );
    refused("[input.x]\ncrop = \"8\"\n", 2, &["lsqc.toml, line 2", "[height, width]"]);
    refused("[input.x]\ncolor = \"CMYK\"\n", 2, &["lsqc.toml, line 2", "`BGR`"]);
    refused(
        "[input.x]\ncolor = \"GRAY\"\n",
        2,
        &["color GRAY has 1 channels", "has 3", "help:"],
    );
    refused(
        "[input.x]\ncrop = 9\n",
        4,
        &["images/0/0.png", "too few for a crop of 9×9", "help:"],
    );
    refused(
        "[input.x]\nresize = 9\n",
        4,
        &[
            "8×8 pixels (height × width), after resize and crop 9×9",
            "takes 8×8",
            "crop = N",
        ],
    );
    refused(
        "[input.x]\nlayout = \"NHWC\"\n",
        4,
        &[
            "images cannot be input \"x\"",
            "has 8 channels by layout NHWC",
            "help: set layout",
        ],
    );
    let flat = "v (float[N,5] x) => (float[N,4] y) <float[5,4] w = normal(seed = 1)> { y = MatMul (x, w) }";
    let folder = folder(&[
        ("model.onnxtxt", flat.as_bytes()),
        ("lsqc.toml", b"[input.x]\nresize = 8\n"),
        ("data.npz", &data("x", &[5], 8)),
    ]);
    let parts = ["resize, crop and color are for images", "rank 2", "help:"];
    refuses(folder.path(), "data model.onnxtxt --data data.npz", 2, &parts);
}

#[test]
fn images_of_any_size_with_a_resize_and_a_crop() {
    let folder = with_images("[input.x]\nresize = 9\ncrop = [8, 8]\nscale = 0.00392156862745098\n");
    put(&folder, "images/1/wide.jpg", &jpeg(&picture(40, 90, 0)));
    put(&folder, "images/1/tall.JPEG", &jpeg(&picture(90, 40, 0)));
    let samples: Vec<u8> = (0..64u16).flat_map(|v| (v * 1000).to_ne_bytes()).collect();
    let mut sixteen = Vec::new();
    image::codecs::png::PngEncoder::new(&mut sixteen)
        .write_image(&samples, 8, 8, image::ExtendedColorType::L16)
        .unwrap();
    put(&folder, "images/3/sixteen.png", &sixteen);
    let shown = json(folder.path(), SHOW);
    let samples = shown["train_samples"].as_u64().unwrap() + shown["test_samples"].as_u64().unwrap();
    assert_eq!((samples, &shown["test_set"]), (19, &Value::from("split")));
    assert_eq!(shown["files"].as_array().unwrap().len(), 1);
    assert_eq!(shown["inputs"][0]["shape"], serde_json::json!([3, 8, 8]));
    assert!(shown["inputs"][0]["max"].as_f64().unwrap() <= 1.0);
    assert_eq!(shown["classes"][3]["name"], "3");
}

#[test]
fn the_result_remembers_size_and_colour() {
    let folder = with_images("[input.x]\nresize = [12, 12]\ncrop = 8\ncolor = \"BGR\"\nscale = 0.01\n");
    let line =
        "quantize model.onnxtxt --data images --test-fraction 0.5 --bits 8 --steps 1 --batch 4 --proof-images 4 --engine tract";
    runs(folder.path(), &format!("{line} -o small.onnx"));
    let measure = |line: &str| runs(folder.path(), &format!("{line} --data images --engine tract -q")).0;
    let with_settings = measure("eval small.onnx");
    fs::remove_file(folder.path().join("lsqc.toml")).unwrap();
    assert_eq!(measure("eval small.onnx"), with_settings);
    put(&folder, "images/0/large.png", &png(&picture(30, 20, 1)));
    assert!(measure("eval small.onnx").contains("17 samples"));
    let line = "eval model.onnxtxt --data images --engine tract";
    refuses(folder.path(), line, 4, &["images/0/large.png has 30×20 pixels", "takes 8×8"]);
}

#[test]
fn data_shows_what_the_model_gets() {
    let folder = with_images("[augment]\nmirror = true\n");
    let (out, err) = runs(folder.path(), &format!("{SHOW} --test images -o sheet.png --count 7"));
    for part in [
        "training: 16 samples; test: 16 samples",
        "file images: ",
        "input \"x\": float [3, 8, 8], min 0.0000, max 25",
        "over 16 training samples",
        "class 3: 4 training samples, 4 test",
        "labels of the first 7: 0 0 0 0 1 1 1",
    ] {
        assert!(out.contains(part), "no \"{part}\" in\n{out}");
    }
    assert!(err.contains("wrote sheet.png: 7 samples of \"x\""), "{err}");
    let sheet = image::open(folder.path().join("sheet.png")).unwrap().to_rgb8();
    // Three columns and rows of images of 8×8, 14 times as large. The first pixel of image 1 has seed 1, a red of 50 between 0 and 255.
    assert_eq!((sheet.width(), sheet.height()), (3 * 116 + 4, 3 * 130 + 4));
    let (low, high) = (
        0.0,
        f64::from(*picture(8, 8, 0).iter().chain(picture(8, 8, 6).iter()).max().unwrap()),
    );
    let red = f64::from(sheet.get_pixel(120, 4).0[0]);
    assert!((red / 255.0 * (high - low) - 50.0).abs() <= high / 255.0, "{red}");

    let sheets = |seed: u32| {
        let line = format!("{SHOW} --test images -o augmented.png --count 7 --augmented --seed {seed}");
        let (out, _) = runs(folder.path(), &line);
        assert!(out.contains(", augmented"), "{out}");
        fs::read(folder.path().join("augmented.png")).unwrap()
    };
    assert_eq!(sheets(1), sheets(1));
    assert_ne!(sheets(1), sheets(2));
}

#[test]
fn data_without_images_or_files() {
    let flat = "v (float[N,5] x) => (float[N,4] y) <float[5,4] w = normal(seed = 1)> { y = MatMul (x, w) }";
    let folder = folder(&[("model.onnxtxt", flat.as_bytes()), ("data.npz", &data("x", &[5], 20))]);
    let (out, err) = runs(folder.path(), "data model.onnxtxt --data data.npz -o sheet.png --augmented");
    assert!(out.contains("input \"x\": float [5], min -"), "{out}");
    for part in [
        "no input of the model is an image",
        "sheet.png is not written",
        "no augmentation",
    ] {
        assert!(err.contains(part), "no \"{part}\" in\n{err}");
    }
    let (out, err) = runs(folder.path(), "data model.onnxtxt");
    assert!(
        out.contains("training: 1024 samples of noise") && out.contains("no labels"),
        "{out}"
    );
    assert!(err.contains("warning: there is no data"), "{err}");
    assert_eq!(names(folder.path()), ["data.npz", "model.onnxtxt"]);
}

#[test]
fn data_refuses() {
    let folder = with_images("");
    let refused = |line: &str, parts: &[&str]| refuses(folder.path(), &format!("{SHOW} {line}"), 2, parts);
    refused("--count 0", &["--count"]);
    refused("-o model.onnxtxt", &["is the model itself", "help:"]);
    refused("-o nowhere/sheet.png", &["there is no folder nowhere", "help:"]);
    let large = "v (float[N,1,2000,2000] x) => (float[N,1,1,1] y) { y = GlobalAveragePool (x) }";
    let large = crate::common::folder(&[("model.onnxtxt", large.as_bytes())]);
    let parts = ["a sheet of 30 images would have", "help: show fewer: --count"];
    let line = "data model.onnxtxt -o sheet.png --count 30";
    let output = lsqc(large.path(), line);
    // Noise is warned of, too, when the sheet could be drawn.
    is_refusal(&output, line, 2, &parts);
    assert_eq!(names(large.path()), ["model.onnxtxt"]);
}

#[test]
fn images_without_labels() {
    let folder = folder(&[("model.onnxtxt", SMALL.as_bytes())]);
    for index in 0..6 {
        put(&folder, &format!("images/{index}.png"), &png(&picture(8, 8, index)));
    }
    let (out, err) = runs(folder.path(), SHOW);
    assert!(
        out.contains("no labels") && err.contains("images has no labels"),
        "{out}{err}"
    );
    let line = "quantize model.onnxtxt --data images --loss ce --engine tract";
    refuses(folder.path(), line, 2, &["the loss ce needs labels", "help:"]);
}

#[test]
fn classes_by_name_are_said_and_numbered_as_in_training() {
    let folder = folder(&[("model.onnxtxt", SMALL.as_bytes())]);
    for (index, name) in ["ant", "bee", "cow"].iter().enumerate() {
        let image = png(&picture(8, 8, u32::try_from(index).unwrap()));
        put(&folder, &format!("images/train/{name}/0.png"), &image);
        if *name != "ant" {
            put(&folder, &format!("images/val/{name}/0.png"), &image);
        }
    }
    let (out, err) = runs(folder.path(), SHOW);
    for part in [
        "class 0 \"ant\": 1 training samples, 0 test",
        "class 2 \"cow\": 1 training samples, 1 test",
        "file train: ",
        "file val: ",
    ] {
        assert!(out.contains(part), "no \"{part}\" in\n{out}");
    }
    assert!(err.contains("has 3 class folders, but the model 4 classes"), "{err}");
}

/// A npy file of `f32` or `u8`, by its type's name.
fn npy(descr: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), bytes].concat()
}

#[test]
fn npy_files() {
    let values: Vec<u8> = noise(12 * 192).iter().flat_map(|value| value.to_le_bytes()).collect();
    let labels: Vec<u8> = (0..12).map(|index| index % 4).collect();
    let folder = folder(&[
        ("model.onnxtxt", SMALL.as_bytes()),
        ("x.npy", &npy("<f4", "12, 3, 8, 8", &values)),
        ("y.npy", &npy("|u1", "12,", &labels)),
        ("same.npz", &npz(&[("x", &[3, 8, 8], noise(12 * 192))], 12, 4)),
        ("short.npy", &npy("<f4", "12, 3, 8, 8", &values[1..])),
        ("two.toml", b"[data]\ntrain = { images = \"x.npy\", labels = \"y.npy\" }\n"),
    ]);
    let without_files = |line: &str| {
        let mut shown = json(folder.path(), line);
        shown["files"].take();
        shown
    };
    let same = without_files("data model.onnxtxt --data same.npz");
    assert_eq!(without_files("data model.onnxtxt --data x.npy,y.npy"), same);
    assert_eq!(without_files("data model.onnxtxt --config two.toml"), same);
    assert!(
        runs(folder.path(), "data model.onnxtxt --data x.npy")
            .1
            .contains("x.npy has no labels")
    );
    let refused = |line: &str, parts: &[&str]| refuses(folder.path(), line, 4, parts);
    refused(
        "data model.onnxtxt --data short.npy",
        &["short.npy cannot be used", "sizes disagree", "help: data is"],
    );
    refused("data model.onnxtxt --data x.npy,x.npy", &["x.npy: labels are float", "help:"]);
}
