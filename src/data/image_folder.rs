//! A folder of images: one folder for each class, or images without labels; and folders `train` and `test` (or `val`) of those.
//!
//! Where the names of all class folders are numbers, the number is the class. Else classes are numbered from 0 in the order of the names,
//! byte by byte, as torchvision does; a test set is numbered as the training set that it belongs to. Samples come in the order of classes,
//! then of file names. Names that start with a dot are not looked at; nor are, beside class folders, files that are no images.
//!
//! Refused: images beside class folders, folders in class folders, two folders for one class, classes of a test set that the training set
//! does not have, folders without an image.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::failure::{Classify, Failure};

/// What a file is called where it is taken for an image before it is opened.
const ENDINGS: [&str; 3] = ["png", "jpg", "jpeg"];

/// A folder of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFolder {
    root: PathBuf,
    /// `None`: there are no labels.
    classes: Option<Vec<Class>>,
    numbering: Numbering,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Class {
    number: usize,
    name: String,
    folder: PathBuf,
}

/// Where classes have their numbers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbering {
    /// Their names are numbers.
    Numbers,
    /// The order of their names.
    Order,
    /// The order of the names in the training set.
    TrainingSet,
}

/// What a folder turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// One set of images.
    One(ImageFolder),
    /// Two.
    Both {
        /// In `train`.
        train: ImageFolder,
        /// In `test`, or `val`.
        test: ImageFolder,
    },
}

/// One image file.
#[derive(Clone, Debug)]
pub(super) struct ImageFile {
    pub(super) path: PathBuf,
    /// Its path in the folder, with `/`.
    pub(super) name: String,
}

/// The files of a folder in order, and their classes.
pub(super) struct Listing {
    pub(super) files: Vec<ImageFile>,
    pub(super) labels: Option<Vec<i64>>,
    pub(super) warnings: Vec<String>,
}

impl ImageFolder {
    /// Looks at a folder; nothing, if there is neither an image nor a folder in it.
    ///
    /// # Errors
    /// Bad input if it cannot be read or is not laid out as it must be.
    pub(super) fn find(root: &Path) -> Result<Option<Found>> {
        let content = Content::read(root)?;
        let part = |name: &str| content.folders.iter().find(|(folder, _)| folder == name);
        // A data set of vehicles has a class `train`: only where nothing else is there are these parts.
        let are_parts = content
            .folders
            .iter()
            .all(|(name, _)| ["train", "test", "val"].contains(&name.as_str()));
        if !are_parts || content.folders.is_empty() {
            return Ok(ImageFolder::of(root, content)?.map(Found::One));
        }
        if content.images().next().is_some() {
            return Err(content.mixed(root));
        }
        let open = |(_, path): &(String, PathBuf)| -> Result<ImageFolder> {
            ImageFolder::of(path, Content::read(path)?)?.ok_or_else(|| no_images(path))
        };
        let test = part("test").or_else(|| part("val"));
        Ok(match (part("train"), test) {
            (Some(train), Some(test)) => {
                let train = open(train)?;
                let test = open(test)?.numbered_as(&train)?;
                Some(Found::Both { train, test })
            }
            (one, other) => one.or(other).map(open).transpose()?.map(Found::One),
        })
    }

    fn of(root: &Path, content: Content) -> Result<Option<ImageFolder>> {
        let folder = |classes, numbering| ImageFolder {
            root: root.to_owned(),
            classes,
            numbering,
        };
        if content.folders.is_empty() {
            let any = content.images().next().is_some();
            return Ok(any.then(|| folder(None, Numbering::Order)));
        }
        if content.images().next().is_some() {
            return Err(content.mixed(root));
        }
        let numbers: Option<Vec<usize>> = content.folders.iter().map(|(name, _)| number(name)).collect();
        let numbering = numbers.as_ref().map_or(Numbering::Order, |_| Numbering::Numbers);
        let numbers = numbers.unwrap_or_else(|| (0..content.folders.len()).collect());
        let with_numbers = content.folders.into_iter().zip(numbers);
        let mut classes: Vec<Class> = with_numbers
            .map(|((name, folder), number)| Class { number, name, folder })
            .collect();
        classes.sort_by_key(|class| class.number);
        if let Some((one, other)) = classes.iter().zip(classes.iter().skip(1)).find(|(a, b)| a.number == b.number) {
            let message = format!(
                "{}: the folders {} and {} are both class {}",
                root.display(),
                one.name,
                other.name,
                one.number
            );
            return Err(Failure::bad_input(message).help("keep one folder for each class").into());
        }
        Ok(Some(folder(Some(classes), numbering)))
    }

    /// The same folder, its classes numbered as those of the training set are.
    ///
    /// # Errors
    /// Bad input if it has a class that the training set does not have.
    pub(super) fn numbered_as(&self, train: &ImageFolder) -> Result<ImageFolder> {
        let (Some(mine), Some(theirs)) = (&self.classes, &train.classes) else {
            return Ok(self.clone());
        };
        if self.numbering == Numbering::Numbers && train.numbering == Numbering::Numbers {
            return Ok(self.clone());
        }
        let known: BTreeMap<&str, usize> = theirs.iter().map(|class| (class.name.as_str(), class.number)).collect();
        let mut classes = Vec::new();
        for class in mine {
            let Some(&number) = known.get(class.name.as_str()) else {
                let message = format!(
                    "class folder {} has no counterpart in the training set, {}",
                    class.folder.display(),
                    train.root.display()
                );
                return Err(Failure::bad_input(message)
                    .help("name the class folders of the test set as those of the training set")
                    .into());
            };
            classes.push(Class { number, ..class.clone() });
        }
        classes.sort_by_key(|class| class.number);
        Ok(ImageFolder {
            root: self.root.clone(),
            classes: Some(classes),
            numbering: Numbering::TrainingSet,
        })
    }

    /// Where it is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The names of its classes by number; none, where there are no labels.
    pub(super) fn class_names(&self) -> BTreeMap<i64, String> {
        let classes = self.classes.iter().flatten();
        classes
            .filter_map(|class| Some((i64::try_from(class.number).ok()?, class.name.clone())))
            .collect()
    }

    /// Its files in order. `model_classes` is how many classes the model has, if that is known.
    ///
    /// # Errors
    /// Bad input if there is no file, or a class that the model does not have.
    pub(super) fn list(&self, model_classes: Option<usize>) -> Result<Listing> {
        let mut listing = Listing {
            files: Vec::new(),
            labels: self.classes.as_ref().map(|_| Vec::new()),
            warnings: Vec::new(),
        };
        if let Some(classes) = &self.classes {
            self.check_numbers(classes, model_classes, &mut listing.warnings)?;
            for class in classes {
                let files = class.files()?;
                if files.is_empty() {
                    listing
                        .warnings
                        .push(format!("class folder {} is empty", class.folder.display()));
                }
                let label = i64::try_from(class.number).bad_input()?;
                listing
                    .labels
                    .get_or_insert_default()
                    .extend(std::iter::repeat_n(label, files.len()));
                listing.files.extend(files);
            }
        } else {
            let content = Content::read(&self.root)?;
            listing.files = content
                .files
                .into_iter()
                .map(|(name, path)| ImageFile { path, name })
                .collect();
        }
        if listing.files.is_empty() {
            return Err(no_images(&self.root));
        }
        Ok(listing)
    }

    fn check_numbers(&self, classes: &[Class], model_classes: Option<usize>, warnings: &mut Vec<String>) -> Result<()> {
        let Some(limit) = model_classes else { return Ok(()) };
        if let Some(class) = classes.iter().find(|class| class.number >= limit) {
            let (folder, last) = (class.folder.display(), limit.saturating_sub(1));
            let message = match self.numbering {
                Numbering::Numbers => {
                    format!(
                        "class folder {folder} is class {}, but the model has {limit} classes, 0 to {last}",
                        class.number
                    )
                }
                Numbering::Order | Numbering::TrainingSet => format!(
                    "class folder {folder} is number {} in the order of names, from 0, but the model has {limit} classes, 0 to {last}",
                    class.number
                ),
            };
            return Err(Failure::bad_input(message)
                .help("keep the model's classes only, or name each folder by the model's number for its class")
                .into());
        }
        if self.numbering == Numbering::Order && classes.len() < limit {
            warnings.push(format!(
                "{} has {} class folders, but the model {limit} classes: they are taken for classes 0 to {} in the order of their names; \
                 name each folder by the model's number for its class if that is wrong",
                self.root.display(),
                classes.len(),
                classes.len().saturating_sub(1)
            ));
        }
        Ok(())
    }
}

impl Class {
    fn files(&self) -> Result<Vec<ImageFile>> {
        let content = Content::read(&self.folder)?;
        if let Some((_, inner)) = content.folders.first() {
            let message = format!("class folder {} holds a folder: {}", self.folder.display(), inner.display());
            return Err(Failure::bad_input(message)
                .help("lay images out as DIR/CLASS/IMAGE, or DIR/train/CLASS/IMAGE and DIR/test/CLASS/IMAGE with nothing else beside train and test")
                .into());
        }
        let files = content.files.into_iter().map(|(name, path)| ImageFile {
            path,
            name: format!("{}/{name}", self.name),
        });
        Ok(files.collect())
    }
}

/// What lies in a folder, in the order of names.
struct Content {
    folders: Vec<(String, PathBuf)>,
    files: Vec<(String, PathBuf)>,
}

impl Content {
    fn read(folder: &Path) -> Result<Content> {
        let mut content = Content {
            folders: Vec::new(),
            files: Vec::new(),
        };
        let failed = || format!("cannot read folder {}", folder.display());
        for entry in fs::read_dir(folder).with_context(failed).bad_input()? {
            let path = entry.with_context(failed).bad_input()?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            if path.is_dir() {
                content.folders.push((name, path));
            } else {
                content.files.push((name, path));
            }
        }
        content.folders.sort();
        content.files.sort();
        Ok(content)
    }

    /// The files that are called like images.
    fn images(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(_, path)| path.as_path()).filter(|path| {
            let ending = path
                .extension()
                .map(|ending| ending.to_string_lossy().to_lowercase())
                .unwrap_or_default();
            ENDINGS.contains(&ending.as_str())
        })
    }

    fn mixed(&self, root: &Path) -> anyhow::Error {
        let name = |path: Option<&Path>| path.map_or_else(String::new, |path| path.display().to_string());
        let message = format!(
            "folder {} holds images and folders: {} beside {}",
            root.display(),
            name(self.images().next()),
            name(self.folders.first().map(|(_, path)| path.as_path()))
        );
        Failure::bad_input(message)
            .help("put each image into the folder of its class; or keep images only, and train by distillation without labels")
            .into()
    }
}

fn number(name: &str) -> Option<usize> {
    let digits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    name.parse().ok().filter(|_| digits)
}

fn no_images(folder: &Path) -> anyhow::Error {
    Failure::bad_input(format!("folder {} holds no images", folder.display()))
        .help("lay PNG or JPEG files out as DIR/CLASS/IMAGE; without labels as DIR/IMAGE")
        .into()
}

#[cfg(test)]
#[path = "image_folder_tests.rs"]
mod tests;
