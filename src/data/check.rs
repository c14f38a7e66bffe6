//! Checks of arrays against a model: shape, finite values, labels. Each refusal names the file, the sample and the cure.

use anyhow::Result;
use lsqc_passes::ir::Tensor;

use super::ModelInput;
use super::preprocess::{Layout, Preprocess};
use crate::failure::Failure;

/// The shape of a sample as the model takes it: the file's, or, for grey images without a channel axis, with one put in.
pub(super) fn fit_shape(file: &str, input: &ModelInput, shape: &[usize], preprocess: &Preprocess) -> Result<Vec<usize>> {
    let found = shape.get(1..).unwrap_or(&[]);
    let fits = |shape: &[usize]| {
        let wanted = &input.sample_shape;
        wanted.len() == shape.len()
            && wanted
                .iter()
                .zip(shape)
                .all(|(wanted, found)| wanted.is_none_or(|wanted| wanted == *found))
    };
    if !shape.is_empty() && fits(found) {
        return Ok(found.to_vec());
    }
    if let &[height, width] = found {
        let with_channel = match preprocess.layout {
            Layout::Nchw => [1, height, width],
            Layout::Nhwc => [height, width, 1],
        };
        if fits(&with_channel) {
            return Ok(with_channel.to_vec());
        }
    }
    let wanted: Vec<String> = input
        .sample_shape
        .iter()
        .map(|extent| extent.map_or_else(|| "?".to_owned(), |e| e.to_string()))
        .collect();
    let message = format!(
        "{file}: samples have shape {found:?}, but the model's input \"{}\" takes [{}]",
        input.name,
        wanted.join(", ")
    );
    let help =
        "write the data in the model's shape: resized, and with its axes in the model's order, as when the model was trained";
    Err(Failure::bad_input(message).help(help).into())
}

/// Refuses NaN and infinity.
pub(super) fn check_finite(file: &str, raw: &Tensor) -> Result<()> {
    if !raw.dtype().is_float() {
        return Ok(());
    }
    let values = raw.to_f32().unwrap_or_default();
    let Some(position) = values.iter().position(|value| !value.is_finite()) else {
        return Ok(());
    };
    let width: usize = raw.shape().get(1..).unwrap_or(&[]).iter().product();
    let value = values.get(position).copied().unwrap_or(f32::NAN);
    let message = format!(
        "{file}: sample {} has the value {value} (element {} of it)",
        position / width.max(1),
        position % width.max(1)
    );
    Err(Failure::bad_input(message)
        .help("remove or repair the sample; a network cannot be trained on it")
        .into())
}

/// Class numbers, one per sample, each below `classes`.
pub(super) fn read_labels(file: &str, labels: &Tensor, samples: usize, classes: Option<usize>) -> Result<Vec<i64>> {
    let whole = !labels.dtype().is_float();
    let Some(values) = labels.to_i64().filter(|_| whole) else {
        let message = format!("{file}: labels are {}, not integers", labels.dtype());
        return Err(Failure::bad_input(message).help("save class numbers, from 0").into());
    };
    if !matches!(labels.shape(), [_] | [_, 1]) {
        let message = format!(
            "{file}: labels have shape {:?}, where one class number per sample is needed",
            labels.shape()
        );
        return Err(Failure::bad_input(message)
            .help("save class numbers, not one-hot rows")
            .into());
    }
    if values.len() != samples {
        let message = format!("{file}: there are {} labels for {samples} samples", values.len());
        return Err(Failure::bad_input(message)
            .help("give the labels that belong to these images")
            .into());
    }
    let limit = classes.and_then(|classes| i64::try_from(classes).ok()).unwrap_or(i64::MAX);
    if let Some((index, value)) = values.iter().enumerate().find(|&(_, &value)| value < 0 || value >= limit) {
        let range = classes.map_or_else(
            || "labels start at 0".to_owned(),
            |n| format!("the model has {n} classes, 0 to {}", n.saturating_sub(1)),
        );
        let message = format!("{file}: label {index} is {value}, but {range}");
        return Err(Failure::bad_input(message)
            .help("number the classes as the model does")
            .into());
    }
    Ok(values)
}
