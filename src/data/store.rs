//! Samples, raw as the files have them; preprocessed when a batch is made. They are in memory, but for images too many for it.
//!
//! What is refused is in `check`, and here: fields that are missing, inputs of different lengths, integers that do not fit.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use lsqc_passes::ir::{DType, Tensor};

use super::augment::{Drawn, Extents};
use super::check::{check_finite, fit_shape, read_labels};
use super::image_set::{self, Images};
use super::preprocess::{Preprocess, Transform};
use super::source::{FORMS, Part, Reader};
use super::{Augmented, Batch, BatchAxis, Dataset, ModelInput, idx, npz};
use crate::engine::Tensors;
use crate::failure::{Classify, Failure};

/// The npz field that holds labels.
const LABEL_FIELD: &str = "label";

/// Samples from files.
#[derive(Debug)]
pub struct Store {
    len: usize,
    columns: Vec<Column>,
    labels: Option<Vec<i64>>,
}

/// The samples of one model input.
#[derive(Debug)]
struct Column {
    name: String,
    dtype: DType,
    /// As in the file.
    raw: Images,
    /// The shape of one sample as the model takes it.
    sample_shape: Vec<usize>,
    batch: BatchAxis,
    /// For float inputs.
    transform: Option<Transform>,
    /// For float images.
    image: Option<Extents>,
}

/// Arrays out of files, before they are checked against the model.
struct Arrays {
    file: String,
    label_file: String,
    by_input: Vec<(ModelInput, Images)>,
    labels: Option<Tensor>,
}

impl Store {
    /// Reads and checks a part.
    ///
    /// # Errors
    /// Bad input, naming the file; usage if preprocessing does not fit.
    pub(super) fn open(
        part: &Part,
        reader: &mut Reader,
        inputs: &[ModelInput],
        preprocess: &BTreeMap<String, Preprocess>,
        classes: Option<usize>,
    ) -> Result<Store> {
        let arrays = load(part, reader, inputs, preprocess, classes)?;
        let file = arrays.file.as_str();
        let mut columns = Vec::new();
        for (input, raw) in arrays.by_input {
            columns.push(Column::new(file, input, raw, preprocess)?);
        }
        let len = match columns.first().and_then(|column| column.raw.len()) {
            Some(len) if len > 0 => len,
            _ => return Err(Failure::bad_input(format!("{file}: there are no samples in it")).into()),
        };
        if let Some(other) = columns.iter().find(|column| column.raw.len() != Some(len)) {
            let message = format!(
                "{file}: \"{}\" has {} samples, but other inputs have {len}",
                other.name,
                other.raw.len().unwrap_or(0)
            );
            return Err(Failure::bad_input(message).into());
        }
        let labels = arrays
            .labels
            .map(|labels| read_labels(&arrays.label_file, &labels, len, classes))
            .transpose()?;
        if labels.is_none() {
            reader.warn(format!("{file} has no labels: accuracy cannot be measured on it"));
        }
        Ok(Store { len, columns, labels })
    }

    /// Is one of the inputs a float image, so that augmentation has something to work on?
    pub(super) fn has_image(&self) -> bool {
        self.columns.iter().any(|column| column.image.is_some())
    }
}

impl Dataset for Store {
    fn len(&self) -> usize {
        self.len
    }

    fn has_labels(&self) -> bool {
        self.labels.is_some()
    }

    fn labels(&self) -> Option<Vec<i64>> {
        self.labels.clone()
    }

    fn largest_batch(&self) -> Option<usize> {
        largest_batch(self.columns.iter().map(|column| column.batch))
    }

    fn batch(&self, samples: &[usize], augmented: Option<Augmented<'_>>) -> Result<Batch> {
        let out_of_range = || anyhow!("a sample index is out of range of {} samples", self.len);
        let mut inputs = Tensors::new();
        for column in &self.columns {
            inputs.insert(column.name.clone(), column.batch(samples, augmented)?);
        }
        let labels = match &self.labels {
            None => None,
            Some(labels) => {
                let chosen: Option<Vec<i64>> = samples.iter().map(|&sample| labels.get(sample).copied()).collect();
                Some(Tensor::vector(chosen.ok_or_else(out_of_range)?))
            }
        };
        Ok(Batch {
            samples: samples.to_vec(),
            inputs,
            labels,
        })
    }
}

impl Column {
    fn new(file: &str, input: ModelInput, raw: Images, preprocess: &BTreeMap<String, Preprocess>) -> Result<Column> {
        let chosen = preprocess.get(&input.name).cloned().unwrap_or_default();
        let sample_shape = fit_shape(file, &input, &raw.shape(), &chosen)?;
        let (transform, image) = if input.dtype.is_float() {
            if let Images::InMemory(raw) = &raw {
                check_finite(file, raw)?;
            }
            (
                Some(chosen.transform(&input.name, &sample_shape)?),
                Extents::of(&sample_shape, chosen.layout),
            )
        } else {
            if let Images::InMemory(raw) = &raw
                && raw.dtype().is_float()
            {
                let message = format!(
                    "{file}: \"{}\" holds {}, but the model's input is {}",
                    input.name,
                    raw.dtype(),
                    input.dtype
                );
                return Err(Failure::bad_input(message).help("save it as integers").into());
            }
            if !chosen.is_identity() {
                let message = format!(
                    "[input.{}]: the model's input is {}, and only floats are preprocessed",
                    input.name, input.dtype
                );
                return Err(Failure::usage(message).into());
            }
            (None, None)
        };
        Ok(Column {
            name: input.name,
            dtype: input.dtype,
            raw,
            sample_shape,
            batch: input.batch,
            transform,
            image,
        })
    }

    fn batch(&self, samples: &[usize], augmented: Option<Augmented<'_>>) -> Result<Tensor> {
        let shape = batch_shape(self.batch, samples.len(), &self.sample_shape)?;
        let Some(transform) = &self.transform else {
            let mut values = Vec::new();
            for raw in self.raw(samples)? {
                values.extend(raw.to_i64().ok_or_else(|| anyhow!("\"{}\" is not of integers", self.name))?);
            }
            return integer_tensor(self.dtype, &shape, &values)
                .with_context(|| format!("input \"{}\"", self.name))
                .bad_input();
        };
        let mut values = Vec::with_capacity(shape.iter().product());
        for (&sample, raw) in samples.iter().zip(self.raw(samples)?) {
            let mut raw = raw.to_f32().ok_or_else(|| anyhow!("\"{}\" is not of numbers", self.name))?;
            if let (Some(augmented), Some(extents)) = (augmented, self.image)
                && !augmented.how.is_nothing()
            {
                raw = Drawn::new(augmented.how, augmented.seed, augmented.epoch, sample).apply(&raw, extents);
            }
            transform.apply(&mut raw);
            values.extend(raw);
        }
        float_tensor(self.dtype, &shape, values)
    }

    /// Raw samples, in this order.
    fn raw(&self, samples: &[usize]) -> Result<Vec<Tensor>> {
        match &self.raw {
            Images::InMemory(raw) => samples.iter().map(|&sample| self.slice(raw, sample)).collect(),
            Images::OnDemand(images) => images.decode(samples),
        }
    }

    /// One raw sample; shares the file's bytes.
    fn slice(&self, raw: &Tensor, index: usize) -> Result<Tensor> {
        let width: usize = self.sample_shape.iter().product();
        let bytes = raw.dtype().byte_len(width).unwrap_or(0);
        let start = index.checked_mul(bytes).filter(|start| start + bytes <= raw.bytes().len());
        let start = start.ok_or_else(|| anyhow!("sample {index} of \"{}\" is out of range", self.name))?;
        Ok(Tensor::from_bytes(
            raw.dtype(),
            &self.sample_shape,
            raw.bytes().slice(start..start + bytes),
        )?)
    }
}

fn load(
    part: &Part,
    reader: &mut Reader,
    inputs: &[ModelInput],
    preprocess: &BTreeMap<String, Preprocess>,
    classes: Option<usize>,
) -> Result<Arrays> {
    let (path, labels) = match part {
        Part::File(path) => (path, None),
        Part::Pair { images, labels } => (images, Some(labels)),
        Part::Images(folder) => {
            let file = folder.root().display().to_string();
            let input = only_input(&file, "images for one input", inputs)?;
            let chosen = preprocess.get(&input.name).cloned().unwrap_or_default();
            let opened = image_set::open(folder, reader, input, &chosen, classes)?;
            return Ok(Arrays {
                label_file: file.clone(),
                file,
                by_input: vec![(input.clone(), opened.images)],
                labels: opened.labels,
            });
        }
    };
    let file = path.display().to_string();
    let content = reader.read(path)?;
    if labels.is_none() && content.starts_with(&npz::ZIP_MAGIC) {
        let arrays = npz::read(&content)
            .with_context(|| format!("{file} cannot be used"))
            .bad_input()?;
        return by_field(file, arrays, reader, inputs);
    }
    let raw = parse_array(path, &content, labels.map_or(Known::Nothing, |_| Known::Array))?;
    let input = only_input(&file, "one array", inputs)?;
    let label_file = labels.map_or_else(String::new, |labels| labels.display().to_string());
    let labels = labels
        .map(|path| parse_array(path, &reader.read(path)?, Known::Array))
        .transpose()?;
    Ok(Arrays {
        file,
        label_file,
        by_input: vec![(input.clone(), Images::InMemory(raw))],
        labels,
    })
}

/// The model's input, for data that has no names for several.
fn only_input<'a>(file: &str, holds: &str, inputs: &'a [ModelInput]) -> Result<&'a ModelInput> {
    if let [input] = inputs {
        return Ok(input);
    }
    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    let message = format!(
        "{file} holds {holds}, but the model has {} inputs: {}",
        inputs.len(),
        names.join(", ")
    );
    Err(Failure::bad_input(message)
        .help("give a npz file with a field for each")
        .into())
}

/// Is it known from the context that a file holds an array?
#[derive(Clone, Copy)]
enum Known {
    Array,
    Nothing,
}

/// A npy file by its first bytes, else an idx file.
fn parse_array(path: &Path, content: &[u8], known: Known) -> Result<Tensor> {
    let parsed = if content.starts_with(npz::NPY_MAGIC) {
        npz::read_npy(content)
    } else {
        idx::read(content)
    };
    let result = parsed.with_context(|| format!("{} cannot be used", path.display()));
    match known {
        Known::Array => result.bad_input(),
        Known::Nothing => result.help(FORMS).bad_input(),
    }
}

fn by_field(file: String, mut arrays: BTreeMap<String, Tensor>, reader: &mut Reader, inputs: &[ModelInput]) -> Result<Arrays> {
    let names: Vec<String> = arrays.keys().cloned().collect();
    let mut by_input = Vec::new();
    for input in inputs {
        let Some(raw) = arrays.remove(&input.name) else {
            let message = format!(
                "{file} has no field \"{}\" for the model's input of that name; it has: {}",
                input.name,
                names.join(", ")
            );
            let help = format!("name the fields after the model's inputs, and the labels \"{LABEL_FIELD}\"");
            return Err(Failure::bad_input(message).help(help).into());
        };
        by_input.push((input.clone(), Images::InMemory(raw)));
    }
    let labels = arrays.remove(LABEL_FIELD);
    if !arrays.is_empty() {
        let unused: Vec<String> = arrays.into_keys().collect();
        reader.warn(format!(
            "{file}: no input of the model is named {}; not used",
            unused.join(", ")
        ));
    }
    Ok(Arrays {
        label_file: format!("{file}, field \"{LABEL_FIELD}\""),
        file,
        by_input,
        labels,
    })
}

/// The most samples in a batch, for inputs with these axes.
pub(super) fn largest_batch(mut axes: impl Iterator<Item = BatchAxis>) -> Option<usize> {
    axes.any(|axis| axis != BatchAxis::Any).then_some(1)
}

/// The shape of an input for a batch of `samples`.
///
/// # Errors
/// If it takes one at a time, and these are more.
pub(super) fn batch_shape(axis: BatchAxis, samples: usize, sample_shape: &[usize]) -> Result<Vec<usize>> {
    anyhow::ensure!(
        axis == BatchAxis::Any || samples == 1,
        "the model takes one sample at a time, not {samples}"
    );
    let batch = (axis != BatchAxis::Missing).then_some(samples);
    Ok(batch.into_iter().chain(sample_shape.iter().copied()).collect())
}

/// A tensor of one of the types that stand for real numbers.
pub(super) fn float_tensor(dtype: DType, shape: &[usize], values: Vec<f32>) -> Result<Tensor> {
    Tensor::of_floats(dtype, shape, values).ok_or_else(|| anyhow!("{dtype} is no float type"))
}

fn integer_tensor(dtype: DType, shape: &[usize], values: &[i64]) -> Result<Tensor> {
    fn each<T: lsqc_passes::ir::Element + TryFrom<i64>>(shape: &[usize], values: &[i64]) -> Result<Tensor> {
        let convert = |&value: &i64| T::try_from(value).map_err(|_| anyhow!("the value {value} does not fit {}", T::DTYPE));
        Ok(Tensor::new(shape, values.iter().map(convert).collect::<Result<Vec<T>>>()?))
    }
    match dtype {
        DType::I64 => each::<i64>(shape, values),
        DType::I32 => each::<i32>(shape, values),
        DType::I16 => each::<i16>(shape, values),
        DType::I8 => each::<i8>(shape, values),
        DType::U64 => each::<u64>(shape, values),
        DType::U32 => each::<u32>(shape, values),
        DType::U16 => each::<u16>(shape, values),
        DType::U8 => each::<u8>(shape, values),
        DType::Bool => {
            let bytes: Vec<u8> = values.iter().map(|&value| u8::from(value != 0)).collect();
            Ok(Tensor::from_bytes(DType::Bool, shape, bytes.into())?)
        }
        _ => Err(anyhow!("inputs of type {dtype} cannot be filled from data")),
    }
}
