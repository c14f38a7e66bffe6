//! Which files hold samples: a npz or npy file, a pair of idx or npy files, a folder with them under the usual names, or one of images.
//!
//! A folder holds `train.npz` and `test.npz`, or MNIST's four files (`train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-…`),
//! each with or without `.gz`; else it is a folder of images, see `image_folder`. On the command line a pair is `IMAGES,LABELS`. What a
//! file is, is seen from its first bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::augment::Augment;
use super::image_folder::{Found, ImageFolder};
use super::preprocess::Preprocess;
use crate::failure::{Classify, Failure};
use crate::machine;

/// What a run asks of its data.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// What is trained on; `None`: noise.
    pub train: Option<Source>,
    /// What is measured on; `None`: the test part of `train`'s folder, or a fraction of `train`.
    pub test: Option<Source>,
    /// The fraction that is set aside where no test set is given, in (0, 1).
    pub test_fraction: f64,
    /// Preprocessing by the name of the model's input.
    pub inputs: BTreeMap<String, Preprocess>,
    /// What is done to training images.
    pub augment: Augment,
}

/// One set of samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A npz file, or an idx or npy file of images without labels.
    File(PathBuf),
    /// A folder of images.
    Images(ImageFolder),
    /// idx or npy files.
    Pair {
        /// Images, rank 2 or more.
        images: PathBuf,
        /// Labels, rank 1.
        labels: PathBuf,
    },
}

/// What `--data` or `--test` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Files.
    One(Part),
    /// A folder with a training and a test part; a folder with one of them only is [`Source::One`].
    Both {
        /// The training part.
        train: Part,
        /// The test part.
        test: Part,
    },
}

impl Source {
    /// Finds what `text` names: a folder, a file, or `IMAGES,LABELS`; relative paths start at `base`.
    ///
    /// # Errors
    /// Bad input if a file is not there, or the folder holds no data.
    pub fn find(text: &str, base: &Path) -> Result<Source> {
        let path = base.join(text);
        if path.is_dir() {
            return Source::folder(&path);
        }
        if !path.exists()
            && let Some((images, labels)) = text.split_once(',')
        {
            return Source::pair(&base.join(images), &base.join(labels));
        }
        Ok(Source::One(Part::File(existing(path)?)))
    }

    /// A pair of idx or npy files.
    ///
    /// # Errors
    /// Bad input if one is not there.
    pub fn pair(images: &Path, labels: &Path) -> Result<Source> {
        Ok(Source::One(Part::Pair {
            images: existing(images.to_owned())?,
            labels: existing(labels.to_owned())?,
        }))
    }

    /// A single file.
    ///
    /// # Errors
    /// Bad input if it is not there.
    pub fn file(path: &Path) -> Result<Source> {
        Ok(Source::One(Part::File(existing(path.to_owned())?)))
    }

    fn folder(path: &Path) -> Result<Source> {
        match (part_in(path, "train.npz", "train"), part_in(path, "test.npz", "t10k")) {
            (Some(train), Some(test)) => Ok(Source::Both { train, test }),
            (Some(part), None) | (None, Some(part)) => Ok(Source::One(part)),
            (None, None) => match ImageFolder::find(path)? {
                Some(Found::One(images)) => Ok(Source::One(Part::Images(images))),
                Some(Found::Both { train, test }) => Ok(Source::Both {
                    train: Part::Images(train),
                    test: Part::Images(test),
                }),
                None => {
                    let message = format!("folder {} holds no data that lsqc reads", path.display());
                    let help = "it may hold a folder of PNG or JPEG files for each class, train.npz and test.npz, or \
                                train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz], t10k-images-idx3-ubyte[.gz] and \
                                t10k-labels-idx1-ubyte[.gz]";
                    Err(Failure::bad_input(message).help(help).into())
                }
            },
        }
    }

    /// What to train on.
    pub(super) fn train(&self) -> &Part {
        match self {
            Source::One(part) | Source::Both { train: part, .. } => part,
        }
    }

    /// What to measure on where this was named as the test set.
    pub(super) fn test(&self) -> &Part {
        match self {
            Source::One(part) | Source::Both { test: part, .. } => part,
        }
    }

    /// The test part that lies in the same folder as a training part.
    pub(super) fn test_beside(&self) -> Option<&Part> {
        match self {
            Source::One(_) => None,
            Source::Both { test, .. } => Some(test),
        }
    }
}

fn part_in(folder: &Path, npz: &str, prefix: &str) -> Option<Part> {
    let npz = folder.join(npz);
    if npz.is_file() {
        return Some(Part::File(npz));
    }
    let find = |name: String| {
        [folder.join(&name), folder.join(name + ".gz")]
            .into_iter()
            .find(|path| path.is_file())
    };
    let images = find(format!("{prefix}-images-idx3-ubyte"))?;
    Some(match find(format!("{prefix}-labels-idx1-ubyte")) {
        Some(labels) => Part::Pair { images, labels },
        None => Part::File(images),
    })
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path);
    }
    let message = format!("there is no data file {}", path.display());
    Err(Failure::bad_input(message).help(FORMS).into())
}

/// What data may be.
pub(super) const FORMS: &str =
    "data is a .npz or .npy file, IMAGES,LABELS (idx or npy files), or a folder with them or with images";

/// The refusal to go on without data.
pub fn no_data(message: &str) -> Failure {
    Failure::usage(message).help("give --data FILE or DIR, or an lsqc.toml beside the model that names data")
}

/// A file that was read, or a folder of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDigest {
    /// The file's name, without its folder: where data lies is not what a result depends on.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its content, in hexadecimal; of a folder, that of what `sha256sum` prints of its files, in the order of samples.
    pub sha256: String,
}

impl FileDigest {
    /// Of a file with this content.
    #[must_use]
    pub fn of(path: &Path, content: &[u8]) -> FileDigest {
        FileDigest {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: content.len() as u64,
            sha256: hex(&Sha256::digest(content)),
        }
    }
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The part of the machine's memory that decoded images may take: the rest is for training.
const MEMORY_PART: u64 = 4;
/// What counts as the machine's memory where the system does not tell it.
const UNKNOWN_MEMORY: u64 = 8 << 30;

/// Reads data files and remembers what it read.
#[derive(Debug)]
pub(super) struct Reader {
    digests: Vec<FileDigest>,
    warnings: Vec<String>,
    class_names: BTreeMap<i64, String>,
    /// Bytes of images that may still be kept in memory.
    room: u64,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader::with_room(machine::memory_bytes().unwrap_or(UNKNOWN_MEMORY) / MEMORY_PART)
    }
}

impl Reader {
    /// A reader that keeps at most `room` bytes of images in memory.
    pub(super) fn with_room(room: u64) -> Reader {
        Reader {
            digests: Vec::new(),
            warnings: Vec::new(),
            class_names: BTreeMap::new(),
            room,
        }
    }

    /// May this many bytes more be kept in memory? They are counted if so.
    pub(super) fn keeps(&mut self, bytes: usize) -> bool {
        match self.room.checked_sub(bytes as u64) {
            Some(left) => {
                self.room = left;
                true
            }
            None => false,
        }
    }

    /// Remembers what was read elsewhere.
    pub(super) fn digest(&mut self, digest: FileDigest) {
        self.digests.push(digest);
    }

    /// Remembers what classes are called.
    pub(super) fn name_classes(&mut self, names: BTreeMap<i64, String>) {
        self.class_names.extend(names);
    }

    /// The content of a data file.
    pub(super) fn read(&mut self, path: &Path) -> Result<Vec<u8>> {
        let content = fs::read(path)
            .with_context(|| format!("cannot read data file {}", path.display()))
            .bad_input()?;
        self.digests.push(FileDigest::of(path, &content));
        Ok(content)
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// What it remembers.
    pub(super) fn finish(self) -> Remembered {
        Remembered {
            digests: self.digests,
            warnings: self.warnings,
            class_names: self.class_names,
        }
    }
}

/// What a [`Reader`] found on its way.
pub(super) struct Remembered {
    pub(super) digests: Vec<FileDigest>,
    pub(super) warnings: Vec<String>,
    pub(super) class_names: BTreeMap<i64, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(folder: &Path, names: &[&str]) {
        names.iter().for_each(|name| fs::write(folder.join(name), b"").unwrap());
    }

    #[test]
    fn folders() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(
            Source::find("", folder.path())
                .unwrap_err()
                .to_string()
                .contains("holds no data")
        );
        touch(
            folder.path(),
            &[
                "train-images-idx3-ubyte.gz",
                "train-labels-idx1-ubyte",
                "t10k-images-idx3-ubyte",
            ],
        );
        let source = Source::find(".", folder.path()).unwrap();
        let Part::Pair { images, labels } = source.train() else {
            panic!("{source:?}")
        };
        assert!(images.ends_with("train-images-idx3-ubyte.gz") && labels.ends_with("train-labels-idx1-ubyte"));
        assert_eq!(source.test_beside(), Some(&Part::File(at("./t10k-images-idx3-ubyte"))));
        touch(folder.path(), &["train.npz"]);
        assert_eq!(
            Source::find(".", folder.path()).unwrap().train(),
            &Part::File(at("./train.npz"))
        );
    }

    #[test]
    fn pairs_and_files() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["a", "b", "c,d"]);
        let pair = Source::find("a,b", folder.path()).unwrap();
        assert!(matches!(&pair, Source::One(Part::Pair { .. })) && pair.test_beside().is_none());
        assert!(matches!(
            Source::find("c,d", folder.path()).unwrap(),
            Source::One(Part::File(_))
        ));
        for missing in ["e", "a,e", "e,b"] {
            let error = Source::find(missing, folder.path()).unwrap_err();
            assert!(error.to_string().contains("there is no data file"), "{error}");
        }
    }

    #[test]
    fn digest() {
        let digest = FileDigest::of(Path::new("folder/x.npz"), b"abc");
        assert_eq!((digest.name.as_str(), digest.bytes), ("x.npz", 3));
        assert_eq!(
            digest.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
