//! The images of a folder, decoded once as they are opened: so whatever is wrong with one of them is found before any work.
//!
//! They stay in memory, 8 bits a value, while the images of all sets take at most a quarter of the machine's; else each is decoded again
//! when a batch asks for it. Both give the same samples. What is reported of a folder is one digest over all of its files.
//!
//! Refused, besides what `image_folder` and `image_file` refuse: images of another size than the model takes, or of several sizes where the
//! model takes any; models whose input is no image or has other than one or three channels.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use lsqc_passes::ir::{DType, Tensor};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::ModelInput;
use super::image_file::{Extent, Picture, Recipe, show};
use super::image_folder::{ImageFile, ImageFolder};
use super::preprocess::{Color, Layout, Preprocess};
use super::source::{FileDigest, Reader, hex};
use crate::engine::quietly;
use crate::failure::{Classify, Failure};
use crate::interrupt;

/// Files that are decoded before an error among them ends the run.
const AT_ONCE: usize = 256;

/// Images and their labels.
pub(super) struct Opened {
    pub(super) images: Images,
    pub(super) labels: Option<Tensor>,
}

/// Where the samples are.
#[derive(Debug)]
pub(super) enum Images {
    /// `[samples, …]`.
    InMemory(Tensor),
    /// In their files.
    OnDemand(ImageSet),
}

impl Images {
    /// The number of samples, where there is an axis for it.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Images::InMemory(raw) => raw.shape().first().copied(),
            Images::OnDemand(images) => Some(images.files.len()),
        }
    }

    /// With the axis of samples.
    pub(super) fn shape(&self) -> Vec<usize> {
        match self {
            Images::InMemory(raw) => raw.shape().to_vec(),
            Images::OnDemand(images) => std::iter::once(images.files.len())
                .chain(images.sample_shape.iter().copied())
                .collect(),
        }
    }
}

/// Images that are decoded when they are asked for.
#[derive(Debug)]
pub(super) struct ImageSet {
    files: Vec<ImageFile>,
    fitting: Fitting,
    sample_shape: Vec<usize>,
}

/// What each image goes through, and what must come of it.
#[derive(Clone, Debug)]
struct Fitting {
    recipe: Recipe,
    input: String,
    /// Height and width, where the model says them or the first image did.
    extent: [Option<usize>; 2],
    /// What says so.
    authority: String,
}

/// Reads all images of `folder` for the model's one input.
pub(super) fn open(
    folder: &ImageFolder,
    reader: &mut Reader,
    input: &ModelInput,
    preprocess: &Preprocess,
    classes: Option<usize>,
) -> Result<Opened> {
    let mut fitting = Fitting::new(input, preprocess, folder.root())?;
    let listing = folder.list(classes)?;
    let first = listing.files.first().ok_or_else(|| anyhow!("a listing has a file"))?;
    let (extent, _) = fitting.read(first)?;
    if fitting.extent.iter().any(Option::is_none) {
        fitting.authority = format!("{} is", first.path.display());
    }
    fitting.extent = extent.map(Some);
    let sample_shape = fitting.sample_shape(input, extent);
    let width: usize = sample_shape.iter().product();
    let total = width.checked_mul(listing.files.len());
    let mut kept = total.filter(|&total| reader.keeps(total)).map(Vec::with_capacity);

    let mut digest = Sha256::new();
    let mut bytes = 0;
    for files in listing.files.chunks(AT_ONCE) {
        interrupt::check()?;
        let read = |file: &ImageFile| -> Result<_> {
            let content = content(file)?;
            let picture = fitting.picture(file, &content)?;
            Ok((picture.samples, content.len() as u64, hex(&Sha256::digest(&content))))
        };
        // All of them before the first error, so that it is always the same one.
        let read: Vec<Result<_>> = files.par_iter().map(read).collect();
        for (file, read) in files.iter().zip(read) {
            let (samples, length, sum) = read?;
            bytes += length;
            digest.update(format!("{sum}  {}\n", file.name));
            if let Some(kept) = &mut kept {
                kept.extend(samples);
            }
        }
    }
    reader.digest(FileDigest {
        name: folder_name(folder.root()),
        bytes,
        sha256: hex(&digest.finalize()),
    });
    listing.warnings.into_iter().for_each(|warning| reader.warn(warning));
    reader.name_classes(folder.class_names());

    let images = match kept {
        Some(samples) => {
            let shape: Vec<usize> = std::iter::once(listing.files.len()).chain(sample_shape).collect();
            Images::InMemory(Tensor::from_bytes(DType::U8, &shape, samples.into())?)
        }
        None => Images::OnDemand(ImageSet {
            files: listing.files,
            fitting,
            sample_shape,
        }),
    };
    let labels = listing.labels.map(Tensor::vector);
    Ok(Opened { images, labels })
}

impl ImageSet {
    /// Decodes these images, in this order.
    pub(super) fn decode(&self, samples: &[usize]) -> Result<Vec<Tensor>> {
        let decode = |&sample: &usize| -> Result<Tensor> {
            let file = self
                .files
                .get(sample)
                .ok_or_else(|| anyhow!("image {sample} is out of range"))?;
            let (_, picture) = self.fitting.read(file)?;
            Ok(Tensor::from_bytes(DType::U8, &self.sample_shape, picture.samples.into())?)
        };
        samples.par_iter().map(decode).collect()
    }
}

impl Fitting {
    fn new(input: &ModelInput, preprocess: &Preprocess, folder: &Path) -> Result<Fitting> {
        let name = &input.name;
        let refuse = |why: String, help: &str| -> anyhow::Error {
            let message = format!("{}: images cannot be input \"{name}\" of the model: {why}", folder.display());
            Failure::bad_input(message).help(help).into()
        };
        let layout = preprocess.layout;
        let (channels, extent) = match (input.sample_shape.as_slice(), layout) {
            (&[c, h, w], Layout::Nchw) | (&[h, w, c], Layout::Nhwc) => (c, [h, w]),
            (&[h, w], _) => (Some(1), [h, w]),
            (other, _) => {
                let why = format!("its rank is {}, where images have 4", other.len() + 1);
                return Err(refuse(why, "give a npz file with a field for each input"));
            }
        };
        let color = match (preprocess.color, channels) {
            (None, Some(1)) => Color::Gray,
            (None, Some(3)) => Color::Rgb,
            (Some(color), None) => color,
            (Some(color), Some(channels)) if color.channels() == channels => color,
            (Some(color), Some(channels)) => {
                let message = format!(
                    "[input.{name}]: color {} has {} channels, but the model's input has {channels}",
                    color.word(),
                    color.channels()
                );
                return Err(Failure::usage(message)
                    .help("give the color that the model was trained with, and the layout that it has")
                    .into());
            }
            (None, None) => {
                let help = format!("say color = \"RGB\" or another under [input.{name}] in lsqc.toml");
                return Err(refuse("its channels are symbolic".to_owned(), &help));
            }
            (None, Some(channels)) => {
                let why = format!(
                    "it has {channels} channels by layout {}, and images have 1 or 3",
                    layout.word()
                );
                let help = format!("set layout under [input.{name}] in lsqc.toml, or give a npz file");
                return Err(refuse(why, &help));
            }
        };
        Ok(Fitting {
            recipe: Recipe {
                resize: preprocess.resize,
                crop: preprocess.crop,
                color,
                layout,
            },
            input: name.clone(),
            extent,
            authority: format!("the model's input \"{name}\" takes"),
        })
    }

    fn sample_shape(&self, input: &ModelInput, [height, width]: Extent) -> Vec<usize> {
        let channels = self.recipe.color.channels();
        match (input.sample_shape.len(), self.recipe.layout) {
            (2, _) => vec![height, width],
            (_, Layout::Nchw) => vec![channels, height, width],
            (_, Layout::Nhwc) => vec![height, width, channels],
        }
    }

    fn read(&self, file: &ImageFile) -> Result<(Extent, Picture)> {
        let picture = self.picture(file, &content(file)?)?;
        Ok((picture.extent, picture))
    }

    fn picture(&self, file: &ImageFile, content: &[u8]) -> Result<Picture> {
        // What a decoder does with a damaged file is beyond our say.
        let picture = quietly(|| self.recipe.read(content))
            .unwrap_or_else(|panic| Err(anyhow!("the decoder failed: {panic}")))
            .with_context(|| format!("image {} cannot be used", file.path.display()))
            .bad_input()?;
        let fits = |(wanted, found): (&Option<usize>, &usize)| wanted.is_none_or(|wanted| wanted == *found);
        if self.extent.iter().zip(&picture.extent).all(fits) {
            return Ok(picture);
        }
        let wanted: Vec<String> = self
            .extent
            .iter()
            .map(|extent| extent.map_or_else(|| "?".to_owned(), |e| e.to_string()))
            .collect();
        let placed = if picture.found == picture.extent {
            String::new()
        } else {
            format!(", after resize and crop {}", show(picture.extent))
        };
        let message = format!(
            "image {} has {} pixels (height × width){placed}, but {} {}",
            file.path.display(),
            show(picture.found),
            self.authority,
            wanted.join("×")
        );
        let help = format!(
            "say under [input.{}] in lsqc.toml what was done in training: resize = N (the shorter side) and crop = N, or resize = [HEIGHT, WIDTH]",
            self.input
        );
        Err(Failure::bad_input(message).help(help).into())
    }
}

fn content(file: &ImageFile) -> Result<Vec<u8>> {
    fs::read(&file.path)
        .with_context(|| format!("cannot read image {}", file.path.display()))
        .help("make the file readable, or remove it from the folder")
        .bad_input()
}

/// Without where it lies.
fn folder_name(path: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    name(path).or_else(|| name(&fs::canonicalize(path).ok()?)).unwrap_or_default()
}

#[cfg(test)]
#[path = "image_set_tests.rs"]
mod tests;
