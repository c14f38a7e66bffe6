//! Data: arrays of samples, one array per model input, and integer labels.
//!
//! A [`Dataset`] gives batches by sample index, preprocessed as the model wants them. [`open`] makes the training and the test set of
//! a plan: from arrays (idx, npz, npy) or folders of images, split by fraction and seed where no test set is given, or noise where there are no files at all.
//! Everything that can be wrong with data is found here, before any work: other shapes, NaN, labels out of range.

mod augment;
mod check;
mod draw;
mod idx;
mod image_file;
mod image_folder;
mod image_set;
mod loader;
mod npz;
mod preprocess;
mod sheet;
mod source;
mod split;
mod store;
mod synthetic;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use lsqc_passes::ir::{DType, Tensor};

pub use augment::{Augment, Mirror};
pub use image_folder::ImageFolder;
pub use loader::{EvalBatches, TrainBatches, TrainOptions};
pub use preprocess::{Channels, Color, Layout, Preprocess, Size};
pub use sheet::{Sheet, contact_sheet};
pub use source::{FileDigest, Part, Source, Spec, no_data};
pub use split::few;
pub use store::Store;
pub use synthetic::Synthetic;

use crate::engine::Tensors;
use crate::failure::{Classify, Failure};

/// What the model expects of one of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInput {
    /// The graph input's name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// The extents of one sample, that is without the batch axis if there is one; `None` where symbolic.
    pub sample_shape: Vec<Option<usize>>,
    /// What its first axis is.
    pub batch: BatchAxis,
}

/// The axis of an input along which samples stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchAxis {
    /// The first, for any number of samples.
    #[default]
    Any,
    /// The first, for one sample at a time.
    One,
    /// There is none: the whole input is one sample, and samples go through one at a time.
    Missing,
}

/// Which augmentation draws belong to a batch: the same seed, epoch and sample always give the same picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Augmented<'a> {
    /// What is done.
    pub how: &'a Augment,
    /// The run's seed.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
}

/// Samples for one step.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Which samples, as the dataset numbers them. After [`Batch::padded`] shorter than the tensors.
    pub samples: Vec<usize>,
    /// A tensor `[N, …]` for each model input.
    pub inputs: Tensors,
    /// `i64 [N]`, where the dataset has labels.
    pub labels: Option<Tensor>,
}

impl Batch {
    /// The batch with its last sample repeated up to `size`, for graphs whose batch is fixed. `samples` still has the real ones only:
    /// results beyond `samples.len()` are to be ignored.
    ///
    /// # Errors
    /// If the batch is empty.
    pub fn padded(mut self, size: usize) -> Result<Batch> {
        if self.samples.len() == size {
            return Ok(self);
        }
        for tensor in self.inputs.values_mut().chain(self.labels.as_mut()) {
            *tensor = repeat_last(tensor, size)?;
        }
        Ok(self)
    }
}

fn repeat_last(tensor: &Tensor, size: usize) -> Result<Tensor> {
    let (Some(&count), Some(sample_shape)) = (tensor.shape().first(), tensor.shape().get(1..)) else {
        anyhow::bail!("a batch needs a batch axis");
    };
    if count >= size {
        return Ok(tensor.clone());
    }
    let mut bytes = tensor.bytes().to_vec();
    let width = bytes.len().checked_div(count).unwrap_or(0);
    let last = bytes.get(bytes.len() - width..).unwrap_or(&[]).to_vec();
    for _ in count..size {
        bytes.extend_from_slice(&last);
    }
    let shape: Vec<usize> = std::iter::once(size).chain(sample_shape.iter().copied()).collect();
    Ok(Tensor::from_bytes(tensor.dtype(), &shape, bytes.into())?)
}

/// Samples that can be had in any order.
pub trait Dataset: Send + Sync {
    /// The number of samples.
    fn len(&self) -> usize;

    /// Is there none?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Are there labels?
    fn has_labels(&self) -> bool {
        self.labels().is_some()
    }

    /// The labels of all samples.
    fn labels(&self) -> Option<Vec<i64>>;

    /// The most samples that a batch may have, where the model takes only so many.
    fn largest_batch(&self) -> Option<usize> {
        None
    }

    /// The samples with these indices, in this order, preprocessed, and augmented if asked.
    ///
    /// # Errors
    /// If an index is out of range.
    fn batch(&self, samples: &[usize], augmented: Option<Augmented<'_>>) -> Result<Batch>;
}

/// Where samples came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Files.
    Real,
    /// Noise: good for timing and plumbing, never for accuracy.
    Synthetic,
}

/// Where the test samples came from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TestOrigin {
    /// A test set was given.
    Given,
    /// A part of the training set was set aside, and is not trained on.
    Split {
        /// The part, in (0, 1).
        fraction: f64,
    },
    /// Noise.
    Synthetic,
}

/// The data of a run.
#[derive(Clone)]
pub struct Data {
    /// What is trained and calibrated on.
    pub train: Arc<dyn Dataset>,
    /// What is measured on.
    pub test: Arc<dyn Dataset>,
    /// Whether results mean anything.
    pub origin: Origin,
    /// How the test set was made.
    pub test_origin: TestOrigin,
    /// The files that were read, in the order of reading; one entry for all of a folder's images.
    pub files: Vec<FileDigest>,
    /// What classes are called, where their folders' names say it.
    pub class_names: BTreeMap<i64, String>,
    /// What the user should know: fields that no input wants, and the like.
    pub warnings: Vec<String>,
}

/// Samples of a synthetic training and test set: enough for any calibration and a few steps.
const SYNTHETIC_SAMPLES: (usize, usize) = (1024, 256);

/// Opens the training and the test set.
///
/// `classes` is the number of classes that labels must be below, where the model has a classifier's output.
///
/// # Errors
/// Bad input, naming the file and the sample, if the data cannot be used with this model; usage, if preprocessing or augmentation asks
/// for what the data cannot have, or if data is required and there is none.
pub fn open(spec: &Spec, inputs: &[ModelInput], classes: Option<usize>, seed: u64) -> Result<Data> {
    preprocess::check_names(&spec.inputs, inputs)?;
    let Some(train) = &spec.train else {
        return open_synthetic(inputs, seed);
    };
    let mut reader = source::Reader::default();
    let train = Store::open(train.train(), &mut reader, inputs, &spec.inputs, classes)?;
    if !spec.augment.is_nothing() && !train.has_image() {
        return Err(
            Failure::usage("augmentation is asked for, but no input of the model is a float image (rank 4)")
                .help("remove [augment] from lsqc.toml")
                .into(),
        );
    }
    let train: Arc<dyn Dataset> = Arc::new(train);
    let (train, test, test_origin) = match test_part(spec)? {
        Some(test) => {
            let test = Store::open(&test, &mut reader, inputs, &spec.inputs, classes)?;
            (train, Arc::new(test) as Arc<dyn Dataset>, TestOrigin::Given)
        }
        None => {
            let fraction = spec.test_fraction;
            let (kept, set_aside) = split::by_fraction(train, fraction, seed).bad_input()?;
            (kept, set_aside, TestOrigin::Split { fraction })
        }
    };
    let read = reader.finish();
    Ok(Data {
        train,
        test,
        origin: Origin::Real,
        test_origin,
        files: read.digests,
        class_names: read.class_names,
        warnings: read.warnings,
    })
}

/// Opens what a model is to be measured on: the given test set, the test part of the data where it has one, else all of the data.
///
/// # Errors
/// As [`open`]; usage if there is no data.
pub fn open_test(spec: &Spec, inputs: &[ModelInput], classes: Option<usize>) -> Result<Data> {
    preprocess::check_names(&spec.inputs, inputs)?;
    let part = match (test_part(spec)?, &spec.train) {
        (Some(test), _) => test,
        (None, Some(data)) => data.train().clone(),
        (None, None) => return Err(source::no_data("there is no data to measure on").into()),
    };
    let mut reader = source::Reader::default();
    let test: Arc<dyn Dataset> = Arc::new(Store::open(&part, &mut reader, inputs, &spec.inputs, classes)?);
    let read = reader.finish();
    Ok(Data {
        train: Arc::clone(&test),
        test,
        origin: Origin::Real,
        test_origin: TestOrigin::Given,
        files: read.digests,
        class_names: read.class_names,
        warnings: read.warnings,
    })
}

/// The test part that is given. Its classes are numbered as those of the training part that it belongs to.
fn test_part(spec: &Spec) -> Result<Option<Part>> {
    let part = match (&spec.test, &spec.train) {
        (Some(test), _) => test.test(),
        (None, Some(data)) => match data.test_beside() {
            Some(test) => test,
            None => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    Ok(Some(match (part, spec.train.as_ref().map(Source::train)) {
        (Part::Images(test), Some(Part::Images(train))) => Part::Images(test.numbered_as(train)?),
        (part, _) => part.clone(),
    }))
}

fn open_synthetic(inputs: &[ModelInput], seed: u64) -> Result<Data> {
    let (train, test) = SYNTHETIC_SAMPLES;
    Ok(Data {
        train: Arc::new(Synthetic::new(inputs, train, 0, seed)?),
        // Numbered on from the training samples, so that no noise is shared.
        test: Arc::new(Synthetic::new(inputs, test, train, seed)?),
        origin: Origin::Synthetic,
        test_origin: TestOrigin::Synthetic,
        files: Vec::new(),
        class_names: BTreeMap::new(),
        warnings: vec![
            "there is no data: lsqc calibrates and trains on random noise, and its result is not to be trusted (give --data)"
                .to_owned(),
        ],
    })
}
