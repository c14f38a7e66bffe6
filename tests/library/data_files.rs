//! Data files against a model's inputs: what is read, and what is refused with the file and the sample.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use lsqc::data::{
    self, Augment, BatchAxis, Channels, Data, EvalBatches, Mirror, ModelInput, Preprocess, Source, Spec, TestOrigin,
    TrainBatches, TrainOptions,
};
use lsqc::failure::{kind_of, render};
use lsqc_passes::ir::DType;
use tempfile::TempDir;

fn image(sample_shape: &[usize]) -> ModelInput {
    ModelInput {
        name: "image".to_owned(),
        dtype: DType::F32,
        sample_shape: sample_shape.iter().map(|&extent| Some(extent)).collect(),
        batch: BatchAxis::Any,
    }
}

fn idx(code: u8, shape: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, code, u8::try_from(shape.len()).unwrap()];
    shape.iter().for_each(|extent| file.extend(extent.to_be_bytes()));
    file.extend(elements);
    file
}

fn npy(descr: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(elements);
    file
}

fn npz(fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, array) in fields {
        zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(array).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn spec(folder: &Path, data: &str) -> Spec {
    Spec {
        train: Some(Source::find(data, folder).unwrap()),
        test: None,
        test_fraction: 0.5,
        inputs: BTreeMap::new(),
        augment: Augment::default(),
    }
}

fn open(files: &[(&str, Vec<u8>)], data: &str, inputs: &[ModelInput], classes: Option<usize>) -> anyhow::Result<Data> {
    data::open(&spec(folder(files).path(), data), inputs, classes, 0)
}

/// Expects a refusal as bad input with all `parts` in its text.
fn refuses(files: &[(&str, Vec<u8>)], data: &str, inputs: &[ModelInput], parts: &[&str]) {
    let error = open(files, data, inputs, Some(3)).err().unwrap();
    let text = render(&error);
    assert_eq!(kind_of(&error).exit_code(), 4, "{text}");
    for part in parts {
        assert!(text.contains(part), "no \"{part}\" in\n{text}");
    }
}

#[test]
fn idx_pair() {
    let files = [
        ("i", idx(8, &[4, 1, 2], &[0, 1, 2, 3, 4, 5, 6, 7])),
        ("l", idx(8, &[4], &[0, 1, 2, 0])),
    ];
    let data = open(&files, "i,l", &[image(&[1, 1, 2])], Some(3)).unwrap();
    assert_eq!(
        (data.train.len(), data.test.len(), data.test_origin),
        (2, 2, TestOrigin::Split { fraction: 0.5 })
    );
    assert_eq!(
        data.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(),
        ["i", "l"]
    );
    let batch = data.train.batch(&[0, 1], None).unwrap();
    assert_eq!(batch.inputs["image"].shape(), [2, 1, 1, 2]);
    // Images keep their labels through the split: image k starts with 2k.
    let values = batch.inputs["image"].to_f32().unwrap();
    let labels = batch.labels.unwrap().to_i64().unwrap();
    for (pixels, label) in values.chunks(2).zip(labels) {
        assert_eq!((pixels[0] / 2.0) as i64 % 3, label);
    }
}

#[test]
fn idx_refusals() {
    let model = [image(&[1, 1, 2])];
    let labels = ("l", idx(8, &[2], &[0, 1]));
    let with = |images: Vec<u8>| [("i", images), labels.clone()];
    let good = idx(8, &[2, 1, 2], &[0; 4]);
    refuses(
        &with(good[..good.len() - 1].to_vec()),
        "i,l",
        &model,
        &["/i cannot be used", "truncated"],
    );
    refuses(
        &with(b"GIF89a".to_vec()),
        "i,l",
        &model,
        &["/i cannot be used", "not an idx file"],
    );
    refuses(&with(Vec::new()), "i,l", &model, &["/i cannot be used", "inside its header"]);
    refuses(
        &with(idx(8, &[u32::MAX, 9, 9], &[])),
        "i,l",
        &model,
        &["more than a file of this size can hold"],
    );
    refuses(&with(idx(8, &[0, 1, 2], &[])), "i,l", &model, &["/i: there are no samples"]);
    refuses(
        &with(idx(8, &[2, 2, 2], &[0; 8])),
        "i,l",
        &model,
        &["/i: samples have shape [2, 2]", "\"image\" takes [1, 1, 2]", "help:"],
    );
    refuses(
        &with(idx(8, &[3, 1, 2], &[0; 6])),
        "i,l",
        &model,
        &["/l: there are 2 labels for 3 samples"],
    );
    refuses(
        &[("i", good.clone()), ("l", idx(8, &[2], &[0, 3]))],
        "i,l",
        &model,
        &["/l: label 1 is 3", "3 classes, 0 to 2"],
    );
    refuses(
        &[("i", good.clone()), ("l", idx(9, &[2], &[0xff, 0]))],
        "i,l",
        &model,
        &["/l: label 0 is -1"],
    );
    refuses(
        &[("i", good.clone()), ("l", idx(8, &[2, 2], &[0; 4]))],
        "i,l",
        &model,
        &["labels have shape [2, 2]", "one-hot"],
    );
    refuses(
        &[("i", good.clone()), ("l", idx(13, &[2], &[0; 8]))],
        "i,l",
        &model,
        &["labels are float"],
    );
    let nan: Vec<u8> = [0.0, 0.0, f32::NAN, 0.0]
        .iter()
        .flat_map(|value: &f32| value.to_be_bytes())
        .collect();
    refuses(
        &with(idx(13, &[2, 1, 2], &nan)),
        "i,l",
        &model,
        &["/i: sample 1 has the value NaN (element 0 of it)"],
    );
    refuses(
        &with(good.clone()),
        "i,l",
        &[image(&[1, 1, 2]), image(&[1])],
        &["2 inputs", "npz"],
    );
    refuses(
        &with(b"nonsense".to_vec()),
        "i",
        &model,
        &["/i cannot be used", "help: data is a .npz or .npy file"],
    );
}

#[test]
fn npz_fields() {
    let tokens = ModelInput {
        name: "tokens".to_owned(),
        dtype: DType::I64,
        sample_shape: vec![None],
        batch: BatchAxis::Any,
    };
    let image_field = (
        "image",
        npy("<f8", "(2, 1, 1, 2)", &[0.5f64, 1.0, 1.5, 2.0].map(f64::to_le_bytes).concat()),
    );
    let fields = [
        image_field.clone(),
        ("tokens", npy("|u1", "(2, 3)", &[1, 2, 3, 4, 5, 6])),
        ("label", npy("<i8", "(2, 1)", &[0i64, 2].map(i64::to_le_bytes).concat())),
        ("other", npy("|u1", "(1,)", &[0])),
    ];
    let data = open(
        &[("d.npz", npz(&fields))],
        "d.npz",
        &[image(&[1, 1, 2]), tokens.clone()],
        Some(3),
    )
    .unwrap();
    assert!(
        data.warnings.iter().any(|warning| warning.contains("other")),
        "{:?}",
        data.warnings
    );
    let batch = data.train.batch(&[0], None).unwrap();
    assert_eq!(
        (batch.inputs["tokens"].dtype(), batch.inputs["tokens"].shape()),
        (DType::I64, &[1, 3][..])
    );
    assert_eq!(batch.inputs["image"].dtype(), DType::F32);

    let model = [image(&[1, 1, 2])];
    let one = |field: (&str, Vec<u8>)| [("d.npz", npz(&[field]))];
    refuses(
        &one(("picture", npy("|u1", "(1,)", &[0]))),
        "d.npz",
        &model,
        &["d.npz has no field \"image\"", "it has: picture", "\"label\""],
    );
    refuses(
        &one(("image", npy("<f4", "(2, 1, 1, 2)", &floats(&[0.0, 1.0, 2.0, f32::INFINITY])))),
        "d.npz",
        &model,
        &["sample 1 has the value inf"],
    );
    refuses(
        &one(("image", npy("<f4", "(2, 1, 1, 3)", &[0; 24]))),
        "d.npz",
        &model,
        &["[1, 1, 3]", "[1, 1, 2]"],
    );
    refuses(
        &one(("image", npy("<f4", "()", &[0; 4]))),
        "d.npz",
        &model,
        &["samples have shape []"],
    );
    refuses(
        &one(("image", npy("<f4", "(2, 1, 1, 2)", &[0; 15]))),
        "d.npz",
        &model,
        &["d.npz cannot be used", "array \"image\"", "sizes disagree"],
    );
    refuses(
        &[("d.npz", npz(&[image_field])[..60].to_vec())],
        "d.npz",
        &model,
        &["not a whole npz archive"],
    );
    refuses(
        &one(("tokens", npy("<f4", "(2, 3)", &[0; 24]))),
        "d.npz",
        &[tokens],
        &["holds float", "int64", "save it as integers"],
    );
}

#[test]
fn unlabelled_data_is_said() {
    let data = open(&[("i", idx(8, &[4, 2], &[0; 8]))], "i", &[image(&[2])], None).unwrap();
    assert!(!data.train.has_labels() && data.warnings.iter().any(|warning| warning.contains("no labels")));
}

#[test]
fn preprocessing_is_checked_against_the_model() {
    let folder = folder(&[("i", idx(8, &[4, 1, 2], &[0; 8]))]);
    let with = |name: &str, mean| {
        let mut spec = spec(folder.path(), "i");
        let preprocess = Preprocess {
            mean,
            ..Preprocess::default()
        };
        spec.inputs.insert(name.to_owned(), preprocess);
        data::open(&spec, &[image(&[1, 1, 2])], None, 0)
    };
    assert!(with("image", Channels::All(0.5)).is_ok());
    for (name, mean, part) in [
        ("imgae", Channels::All(0.5), "no input named \"imgae\""),
        (
            "image",
            Channels::Each(vec![1.0, 2.0]),
            "mean has 2 values, but the input has 1 channels",
        ),
    ] {
        let error = with(name, mean).err().unwrap();
        assert!(
            kind_of(&error).exit_code() == 2 && render(&error).contains(part),
            "{}",
            render(&error)
        );
    }
    let mut spec = spec(folder.path(), "i");
    spec.augment.mirror = Mirror::Half;
    assert!(data::open(&spec, &[image(&[1, 1, 2])], None, 0).is_ok());
    let flat = folder_of_vectors();
    spec.train = Some(Source::find("v", flat.path()).unwrap());
    assert_eq!(
        kind_of(&data::open(&spec, &[image(&[2])], None, 0).err().unwrap()).exit_code(),
        2
    );
}

fn folder_of_vectors() -> TempDir {
    folder(&[("v", idx(8, &[4, 2], &[0; 8]))])
}

#[test]
fn noise_without_data() {
    let mut spec = spec(folder_of_vectors().path(), "v");
    spec.train = None;
    let data = data::open(&spec, &[image(&[1, 4, 4])], Some(10), 0).unwrap();
    assert_eq!(
        (data.origin, data.test_origin),
        (data::Origin::Synthetic, TestOrigin::Synthetic)
    );
    assert!(data.warnings[0].contains("not to be trusted") && data.files.is_empty());
    assert!(data::open_test(&spec, &[image(&[1, 4, 4])], None).is_err());
}

/// The real images, where they are laid out.
fn fashion() -> Option<PathBuf> {
    Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/fashion"))
        .filter(|folder| folder.join("train-images-idx3-ubyte.gz").exists())
}

#[test]
fn fashion_mnist() {
    let Some(folder) = fashion() else {
        eprintln!("fixtures/fashion is not laid out; not tested");
        return;
    };
    let mut spec = spec(&folder, ".");
    let preprocess = Preprocess {
        scale: Channels::All(1.0 / 255.0),
        mean: Channels::Each(vec![0.286]),
        std: Channels::Each(vec![0.353]),
        ..Preprocess::default()
    };
    spec.inputs.insert("image".to_owned(), preprocess);
    spec.augment = Augment {
        mirror: Mirror::Half,
        crop_pad: 2,
    };
    let data = data::open(&spec, &[image(&[1, 28, 28])], Some(10), 0).unwrap();
    assert_eq!(
        (data.train.len(), data.test.len(), data.test_origin),
        (8000, 2000, TestOrigin::Given)
    );
    assert!(data.train.has_labels() && data.warnings.is_empty() && data.files.len() == 4);

    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
    for batch in EvalBatches::new(data.train.clone(), 500, None) {
        for value in batch.unwrap().inputs["image"].to_f64().unwrap() {
            (sum, squares, count) = (sum + value, squares + value * value, count + 1.0);
        }
    }
    // The constants are those of all 60,000 images; a subset is near.
    let mean: f64 = sum / count;
    assert!(
        mean.abs() < 0.02 && (squares / count - 1.0).abs() < 0.03,
        "{mean} {}",
        squares / count
    );

    let options = TrainOptions {
        batch: 128,
        seed: 1,
        augment: spec.augment,
    };
    let batches = |count: usize| -> Vec<_> {
        let mut batches = TrainBatches::start(data.train.clone(), options).unwrap();
        (0..count)
            .map(|_| batches.next_batch().unwrap())
            .map(|batch| (batch.inputs, batch.labels))
            .collect()
    };
    let (once, again) = (batches(70), batches(70));
    assert!(once == again);
    assert_eq!(once[0].0["image"].shape(), [128, 1, 28, 28]);
}
