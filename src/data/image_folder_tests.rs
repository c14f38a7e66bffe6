//! Trees of empty files, and what they are taken for.

use super::*;

/// A folder with these empty files; and folders, where a name ends in `/`.
fn tree(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let path = folder.path().join(file);
        if file.ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
    }
    folder
}

fn one(folder: &tempfile::TempDir) -> ImageFolder {
    match ImageFolder::find(folder.path()).unwrap() {
        Some(Found::One(one)) => one,
        other => panic!("{other:?}"),
    }
}

fn names(listing: &Listing) -> Vec<&str> {
    listing.files.iter().map(|file| file.name.as_str()).collect()
}

fn message(found: Result<Option<Found>>) -> String {
    crate::failure::render(&found.unwrap_err())
}

#[test]
fn numbers_are_classes() {
    let folder = tree(&["10/b.png", "10/a.png", "9/c.png", "2/z.png", ".git/x", "notes.txt"]);
    let listing = one(&folder).list(Some(11)).unwrap();
    assert_eq!(names(&listing), ["2/z.png", "9/c.png", "10/a.png", "10/b.png"]);
    assert_eq!(listing.labels.as_deref(), Some(&[2, 9, 10, 10][..]));
    assert!(listing.warnings.is_empty());
}

#[test]
fn names_are_numbered_in_order() {
    let folder = tree(&["dog/a.png", "cat/b.JPG", "10/x.jpeg", "Zebra/c.png"]);
    let listing = one(&folder).list(None).unwrap();
    assert_eq!(names(&listing), ["10/x.jpeg", "Zebra/c.png", "cat/b.JPG", "dog/a.png"]);
    assert_eq!(listing.labels.as_deref(), Some(&[0, 1, 2, 3][..]));
    let listing = one(&folder).list(Some(7)).unwrap();
    assert!(listing.warnings[0].contains("has 4 class folders, but the model 7 classes"));
}

#[test]
fn flat_and_nothing() {
    let folder = tree(&["b.png", "a.jpg"]);
    let listing = one(&folder).list(Some(3)).unwrap();
    assert!(names(&listing) == ["a.jpg", "b.png"] && listing.labels.is_none());
    assert_eq!(ImageFolder::find(tree(&["a.txt"]).path()).unwrap(), None);
}

#[test]
fn parts() {
    let folder = tree(&["train/cat/a.png", "train/dog/b.png", "train/eel/b.png", "val/eel/d.png"]);
    let Some(Found::Both { train, test }) = ImageFolder::find(folder.path()).unwrap() else {
        panic!()
    };
    assert_eq!(train.list(Some(3)).unwrap().labels.unwrap(), [0, 1, 2]);
    // Numbered as in training, without a warning.
    let test = test.list(Some(3)).unwrap();
    assert_eq!((test.labels.unwrap(), test.warnings.len()), (vec![2], 0));

    let folder = tree(&["test/cat/a.png"]);
    assert_eq!(names(&one(&folder).list(None).unwrap()), ["cat/a.png"]);
    let folder = tree(&["train/a.png", "bus/b.png"]);
    let vehicles = one(&folder).list(None).unwrap();
    assert_eq!(names(&vehicles), ["bus/b.png", "train/a.png"]);
    let text = message(ImageFolder::find(tree(&["train/cat/a.png", "test/cow/a.png"]).path()));
    assert!(text.contains("test/cow has no counterpart"), "{text}");
    let text = message(ImageFolder::find(tree(&["train/", "test/cow/a.png"]).path()));
    assert!(text.contains("train holds no images"), "{text}");
}

#[test]
fn refusals() {
    let text = message(ImageFolder::find(tree(&["1/a.png", "01/a.png"]).path()));
    assert!(text.contains("the folders 01 and 1 are both class 1"), "{text}");
    let folder = tree(&["cat/more/a.png"]);
    let inner = one(&folder).list(None).map(|_| None);
    assert!(message(inner).contains("holds a folder"));
}
