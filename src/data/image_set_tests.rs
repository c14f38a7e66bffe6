//! Images that are made here: kept in memory and decoded on demand, sizes and channels, digests.

use std::collections::BTreeMap;

use image::{Rgb, RgbImage};

use super::*;
use crate::data::image_folder::Found;
use crate::data::source::Part;
use crate::data::{Augment, Augmented, BatchAxis, Dataset, Mirror, Size, Store};

fn input(sample_shape: &[Option<usize>]) -> ModelInput {
    ModelInput {
        name: "x".to_owned(),
        dtype: DType::F32,
        sample_shape: sample_shape.to_vec(),
        batch: BatchAxis::Any,
    }
}

/// Two classes of three images each, of different sizes.
fn pictures() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for class in 0..2u32 {
        fs::create_dir(folder.path().join(class.to_string())).unwrap();
        for index in 0..3u32 {
            let level = |v: u32| u8::try_from(v % 256).unwrap();
            let pixel = |x, y| Rgb([level(x * 40 + class), level(y * 50 + index), level(x * y)]);
            RgbImage::from_fn(8 + index, 9, pixel)
                .save(folder.path().join(format!("{class}/{index}.png")))
                .unwrap();
        }
    }
    folder
}

fn store(folder: &Path, mut reader: Reader, preprocess: Preprocess, input: ModelInput) -> Result<Store> {
    let Some(Found::One(images)) = ImageFolder::find(folder)? else {
        panic!("no images")
    };
    let preprocess = BTreeMap::from([("x".to_owned(), preprocess)]);
    Store::open(&Part::Images(images), &mut reader, &[input], &preprocess, Some(2))
}

fn small() -> Preprocess {
    Preprocess {
        resize: Some(Size::Side(7)),
        crop: Some(Size::Side(6)),
        ..Preprocess::default()
    }
}

#[test]
fn memory_and_files_give_the_same() {
    let folder = pictures();
    let shape = [Some(3), Some(6), Some(6)];
    let open = |reader| store(folder.path(), reader, small(), input(&shape)).unwrap();
    let (kept, decoded) = (open(Reader::default()), open(Reader::with_room(6 * 3 * 36 - 1)));
    let how = Augment {
        mirror: Mirror::Half,
        crop_pad: 1,
    };
    let augmented = Augmented {
        how: &how,
        seed: 3,
        epoch: 1,
    };
    for augmented in [None, Some(augmented)] {
        let batch = |store: &Store| store.batch(&[5, 0, 3, 3], augmented).unwrap();
        assert_eq!(batch(&kept).inputs, batch(&decoded).inputs);
    }
    assert_eq!(decoded.labels(), Some(vec![0, 0, 0, 1, 1, 1]));
    assert!(decoded.batch(&[6], None).is_err());
    // A file that goes away later is an error, and no panic.
    fs::remove_file(folder.path().join("1/2.png")).unwrap();
    let text = crate::failure::render(&decoded.batch(&[5], None).unwrap_err());
    assert!(text.contains("cannot read image") && text.contains("2.png"), "{text}");
    assert!(kept.batch(&[5], None).is_ok());
}

#[test]
fn sizes_that_the_model_leaves_open() {
    let folder = pictures();
    let open = |preprocess, shape: &[Option<usize>]| {
        let opened = store(folder.path(), Reader::default(), preprocess, input(shape));
        opened.map(|store| store.batch(&[0], None).unwrap().inputs["x"].shape().to_vec())
    };
    let free = [Some(3), None, None];
    assert_eq!(open(small(), &free).unwrap(), [1, 3, 6, 6]);
    let text = crate::failure::render(&open(Preprocess::default(), &free).unwrap_err());
    assert!(
        text.contains("1.png has 9×9 pixels") && text.contains("0.png is 9×8"),
        "{text}"
    );
    // Grey, where the model has no axis for channels.
    assert_eq!(open(small(), &[Some(6), Some(6)]).unwrap(), [1, 6, 6]);
}

#[test]
fn channels_that_images_do_not_have() {
    let folder = pictures();
    let text = |color, shape: &[Option<usize>]| {
        let preprocess = Preprocess { color, ..small() };
        let error = store(folder.path(), Reader::default(), preprocess, input(shape)).unwrap_err();
        crate::failure::render(&error)
    };
    assert!(text(None, &[None, Some(6), Some(6)]).contains("say color"));
    assert!(text(None, &[Some(4), Some(6), Some(6)]).contains("has 4 channels by layout NCHW"));
    assert!(text(Some(Color::Gray), &[Some(3), Some(6), Some(6)]).contains("color GRAY has 1 channels"));
    assert!(text(None, &[Some(3)]).contains("its rank is 2"));
}

#[test]
fn one_digest_stands_for_all() {
    let folder = pictures();
    let digest = || {
        let mut reader = Reader::default();
        let Some(Found::One(images)) = ImageFolder::find(folder.path()).unwrap() else {
            panic!()
        };
        let shape = [Some(3), Some(6), Some(6)];
        open(&images, &mut reader, &input(&shape), &small(), None).unwrap();
        reader.finish().digests
    };
    let first = digest();
    assert_eq!(first.len(), 1);
    fs::rename(folder.path().join("0/0.png"), folder.path().join("0/00.png")).unwrap();
    assert_ne!(first[0].sha256, digest()[0].sha256);
    fs::rename(folder.path().join("0/00.png"), folder.path().join("0/0.png")).unwrap();
    assert_eq!(first, digest());
}
