//! Runs a network over a dataset and keeps its scores; compares the scores of two.

use std::sync::Arc;

use anyhow::{Context, Result};
use lsqc_passes::ir::{Model, Tensor};

use crate::compiler::load;
use crate::data::{Dataset, EvalBatches};
use crate::engine::{Engine, LoadOptions};
use crate::failure::Failure;
use crate::interrupt;
use crate::report::{Agreement, Outcome};
use crate::terminal::Terminal;

/// Samples in one batch of a measurement.
pub const BATCH: usize = 100;

/// The scores of a network's first output over a dataset.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    /// Numbers in one row: classes.
    pub classes: usize,
    /// Row after row.
    pub values: Vec<f32>,
    /// A label for each row, where there are labels.
    pub labels: Vec<i64>,
    /// What the numbers are.
    pub kind: ScoreKind,
}

/// What a network's scores are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScoreKind {
    /// Any numbers; probabilities are their softmax.
    #[default]
    Logits,
    /// Probabilities: the network ends in Softmax.
    Probabilities,
}

impl Scores {
    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.classes.max(1))
    }

    /// The class of the highest score of each row; the first of equals.
    #[must_use]
    pub fn answers(&self) -> Vec<usize> {
        let best = |best: (usize, f32), (class, &score): (usize, &f32)| if score > best.1 { (class, score) } else { best };
        self.rows()
            .map(|row| row.iter().enumerate().fold((0, f32::NEG_INFINITY), best).0)
            .collect()
    }

    /// How each row does by its label; `None` without labels, or with scores that are not numbers.
    #[must_use]
    pub fn outcomes(&self) -> Option<Vec<Outcome>> {
        if self.labels.is_empty() {
            return None;
        }
        let outcome = |(row, &label): (&[f32], &i64)| {
            let label = usize::try_from(label).ok()?;
            match self.kind {
                ScoreKind::Logits => Outcome::of(row, label),
                // The logarithms of probabilities are logits: their softmax gives the probabilities back.
                ScoreKind::Probabilities => {
                    let logs: Vec<f32> = row.iter().map(|p| p.max(f32::MIN_POSITIVE).ln()).collect();
                    Outcome::of(&logs, label)
                }
            }
        };
        self.rows().zip(&self.labels).map(outcome).collect()
    }

    /// How alike two networks answer.
    #[must_use]
    pub fn against(&self, other: &Scores) -> Agreement {
        let largest = self.values.iter().zip(&other.values).map(|(a, b)| f64::from((a - b).abs()));
        let largest = largest.fold(
            0.0,
            |most: f64, next| if next.is_nan() { f64::INFINITY } else { most.max(next) },
        );
        let answers = self.answers();
        Agreement {
            samples: answers.len() as u64,
            same_top1: answers.iter().zip(other.answers()).filter(|(a, b)| **a == *b).count() as u64,
            largest_difference: largest.is_finite().then_some(largest),
        }
    }
}

/// What the first output of `model` is.
#[must_use]
pub fn score_kind(model: &Model) -> ScoreKind {
    let graph = &model.graph;
    let softmax = graph
        .outputs()
        .first()
        .and_then(|&output| graph.producer(output))
        .is_some_and(|(_, node)| node.op.is("Softmax"));
    if softmax {
        ScoreKind::Probabilities
    } else {
        ScoreKind::Logits
    }
}

/// A network, and the data as it wants it.
#[derive(Clone, Copy)]
pub struct Measured<'a> {
    /// The network.
    pub model: &'a Model,
    /// Its data: the same samples as the other's.
    pub data: &'a Arc<dyn Dataset>,
}

/// What two networks give on the same samples.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// The scores of the first output; `None` where that is not one row of scores for each sample.
    pub scores: [Option<Scores>; 2],
    /// The largest difference of each output that was compared; `None` where it is not finite.
    pub differences: Vec<Option<f64>>,
}

/// Runs two networks over the same samples and compares `outputs`: places in the first and in the second.
///
/// # Errors
/// If the engine fails, or the outputs have other shapes than each other.
pub fn compare(
    pair: [Measured; 2],
    outputs: &[(usize, usize)],
    engine: &dyn Engine,
    options: &LoadOptions,
    terminal: &Terminal,
) -> Result<Comparison> {
    let size = common_batch(pair)?;
    let [a, b] = pair;
    let mut sessions = [load(engine, a.model, options)?, load(engine, b.model, options)?];
    let names = pair.map(|side| {
        let graph = &side.model.graph;
        graph
            .outputs()
            .iter()
            .map(|&output| graph[output].name().to_owned())
            .collect::<Vec<String>>()
    });
    let mut scores = pair.map(|side| {
        Some(Scores {
            kind: score_kind(side.model),
            ..Scores::default()
        })
    });
    let mut largest = vec![0.0f64; outputs.len()];
    let batches = EvalBatches::new(Arc::clone(a.data), size, None);
    let size = match a.data.largest_batch() {
        Some(_) => batches.size(),
        None => fixed_batch(a.model).or(fixed_batch(b.model)).unwrap_or(batches.size()),
    };
    let progress = terminal.progress("compare", batches.samples() as u64);
    for (first, second) in batches.zip(EvalBatches::new(Arc::clone(b.data), size, None)) {
        interrupt::check()?;
        let (first, second) = (first?, second?);
        let real = first.samples.len();
        let labels = first.labels.as_ref().and_then(Tensor::to_i64);
        let given = [
            sessions[0].run(&first.padded(size)?.inputs)?,
            sessions[1].run(&second.padded(size)?.inputs)?,
        ];
        let tensor = |side: usize, place: usize| -> Result<(&str, &Tensor)> {
            let name = names
                .get(side)
                .and_then(|names| names.get(place))
                .context("an output is missing")?;
            let tensor = given.get(side).and_then(|given| given.get(name));
            Ok((name, tensor.with_context(|| format!("'{name}' was not computed"))?))
        };
        for (&(left, right), most) in outputs.iter().zip(&mut largest) {
            let ((name, x), (_, y)) = (tensor(0, left)?, tensor(1, right)?);
            if x.shape() != y.shape() {
                let message = format!(
                    "the two models cannot be compared: output '{name}' has shape {:?} in the one, {:?} in the other",
                    x.shape(),
                    y.shape()
                );
                return Err(Failure::bad_input(message).help("give two forms of one network").into());
            }
            *most = most.max(difference(x, y, real, size).with_context(|| format!("'{name}' is not numeric"))?);
        }
        for (side, scores) in scores.iter_mut().enumerate() {
            let (_, rows) = tensor(side, 0)?;
            if !add_rows(scores, rows, (real, size), labels.as_deref()) {
                *scores = None;
            }
        }
        progress.advance(real as u64, "");
    }
    Ok(Comparison {
        scores,
        differences: largest.into_iter().map(|most| most.is_finite().then_some(most)).collect(),
    })
}

/// The batch that both take.
fn common_batch([a, b]: [Measured; 2]) -> Result<usize> {
    match (fixed_batch(a.model), fixed_batch(b.model)) {
        (Some(a), Some(b)) if a != b => {
            let message = format!("the two models cannot be compared: one has a fixed batch of {a}, the other of {b}");
            Err(Failure::bad_input(message)
                .help("export them with a dynamic batch axis")
                .into())
        }
        (a, b) => Ok(a.or(b).unwrap_or(BATCH)),
    }
}

/// The batch of a network that takes no other.
fn fixed_batch(model: &Model) -> Option<usize> {
    let &input = model.graph.inputs().first()?;
    model.graph[input].ty.as_ref()?.shape.as_ref()?.first()?.known()
}

/// The largest difference over the first `real` samples of `size`; infinite where one is not a number.
fn difference(x: &Tensor, y: &Tensor, real: usize, size: usize) -> Option<f64> {
    let (a, b) = (x.to_f64()?, y.to_f64()?);
    let by_sample = x.shape().first() == Some(&size) && size > 0;
    let count = if by_sample { a.len() / size * real } else { a.len() };
    let each = a.iter().zip(&b).take(count).map(|(a, b)| (a - b).abs());
    Some(each.fold(
        0.0,
        |most: f64, next| if next.is_nan() { f64::INFINITY } else { most.max(next) },
    ))
}

/// Adds the first `real` of `size` rows of scores, and labels; false if these are not rows of scores.
fn add_rows(scores: &mut Option<Scores>, rows: &Tensor, (real, size): (usize, usize), labels: Option<&[i64]>) -> bool {
    let (Some(scores), &[count, classes], Some(values)) = (scores, rows.shape(), rows.to_f32()) else {
        return false;
    };
    if count != size || classes == 0 || !rows.dtype().is_float() {
        return false;
    }
    scores.classes = classes;
    scores.values.extend(values.iter().take(real * classes));
    scores.labels.extend(labels.unwrap_or_default().iter().take(real));
    true
}

/// Runs `model` over `data`; `label` names the work to the user.
///
/// # Errors
/// If the engine fails, or the first output is not one row of scores for each sample.
pub fn scores(
    model: &Model,
    data: &Arc<dyn Dataset>,
    engine: &dyn Engine,
    options: &LoadOptions,
    label: &str,
    terminal: &Terminal,
) -> Result<Scores> {
    let mut model = model.clone();
    let first = *model.graph.outputs().first().context("the model has no output")?;
    let mut scores = Scores {
        kind: score_kind(&model),
        ..Scores::default()
    };
    model.graph.set_outputs(vec![first]);
    let mut session = load(engine, &model, options)?;
    let name = model.graph[first].name().to_owned();
    let fixed = fixed_batch(&model);
    let batches = EvalBatches::new(Arc::clone(data), fixed.unwrap_or(BATCH), None);
    let size = match data.largest_batch() {
        Some(_) => batches.size(),
        None => fixed.unwrap_or(batches.size()),
    };
    let progress = terminal.progress(label, batches.samples() as u64);
    for batch in batches {
        interrupt::check()?;
        let batch = batch?;
        let real = batch.samples.len();
        let batch = batch.padded(size)?;
        let outputs = session.run(&batch.inputs)?;
        let rows = outputs.get(&name).with_context(|| format!("'{name}' was not computed"))?;
        let values = rows.to_f32().with_context(|| format!("'{name}' is not numeric"))?;
        let per_row: usize = rows.shape().iter().skip(1).product();
        anyhow::ensure!(
            rows.shape().first() == Some(&size) && per_row > 0,
            "'{name}' has not one row for each sample"
        );
        scores.classes = per_row;
        scores.values.extend(values.iter().take(real * per_row));
        if let Some(labels) = batch.labels.as_ref().and_then(Tensor::to_i64) {
            scores.labels.extend(labels.iter().take(real));
        }
        progress.advance(real as u64, "");
    }
    Ok(scores)
}
