//! What a classifier gets right: top-1, top-5 and cross-entropy over a dataset, and how two networks' answers differ.

use std::sync::Arc;

use anyhow::{Context, Result};
use lsqc_passes::ir::{Model, Tensor};
use lsqc_passes::onnx::OwnOps;

use crate::compiler::serialize;
use crate::data::{Dataset, EvalBatches};
use crate::engine::{Engine, LoadOptions};
use crate::interrupt;
use crate::terminal::Terminal;

/// The scores of a network's first output over a dataset.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    /// Numbers in one row: classes.
    pub classes: usize,
    /// Row after row.
    pub values: Vec<f32>,
    /// A label for each row, where there are labels.
    pub labels: Vec<i64>,
}

/// Counts of right answers, and the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Samples measured.
    pub samples: usize,
    /// Samples whose label has the highest score.
    pub top1: usize,
    /// Samples whose label is among the five highest.
    pub top5: usize,
    /// Mean cross-entropy.
    pub loss: f64,
}

impl Scores {
    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.classes.max(1))
    }

    /// The class of the highest score of each row; the first of equals.
    #[must_use]
    pub fn answers(&self) -> Vec<usize> {
        self.rows().map(|row| row.iter().enumerate().fold((0, f32::NEG_INFINITY), best).0).collect()
    }

    /// Is each row's label the highest score?
    #[must_use]
    pub fn correct(&self) -> Vec<bool> {
        self.answers().iter().zip(&self.labels).map(|(&answer, &label)| i64::try_from(answer) == Ok(label)).collect()
    }

    /// Counts, where there are labels. The scores are logits; of a network that ends in Softmax they are `probabilities`.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn metric(&self, kind: ScoreKind) -> Option<Metric> {
        if self.labels.is_empty() {
            return None;
        }
        let (mut top1, mut top5, mut loss) = (0, 0, 0.0);
        for (row, &label) in self.rows().zip(&self.labels) {
            let label = usize::try_from(label).ok()?;
            let &own = row.get(label)?;
            // Ties count as the engine's arg-max would: the first of equals is the answer.
            let above = row.iter().enumerate().filter(|&(class, &score)| score > own || score == own && class < label).count();
            top1 += usize::from(above < 1);
            top5 += usize::from(above < 5);
            loss += cross_entropy(row, own, kind);
        }
        let samples = self.labels.len();
        Some(Metric { samples, top1, top5, loss: loss / samples as f64 })
    }

    /// The largest difference of any score, and how many rows answer alike.
    #[must_use]
    pub fn against(&self, other: &Scores) -> (f32, usize) {
        let largest = self.values.iter().zip(&other.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let alike = self.answers().iter().zip(other.answers()).filter(|(a, b)| **a == *b).count();
        (largest, alike)
    }
}

/// What a network's scores are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreKind {
    /// Any numbers; probabilities are their softmax.
    Logits,
    /// Probabilities.
    Probabilities,
}

/// What the first output of `model` is.
#[must_use]
pub fn score_kind(model: &Model) -> ScoreKind {
    let graph = &model.graph;
    let softmax = graph.outputs().first().and_then(|&output| graph.producer(output)).is_some_and(|(_, node)| node.op.is("Softmax"));
    if softmax { ScoreKind::Probabilities } else { ScoreKind::Logits }
}

fn best(best: (usize, f32), (class, &score): (usize, &f32)) -> (usize, f32) {
    if score > best.1 { (class, score) } else { best }
}

fn cross_entropy(row: &[f32], own: f32, kind: ScoreKind) -> f64 {
    if kind == ScoreKind::Probabilities {
        return -f64::from(own).max(f64::MIN_POSITIVE).ln();
    }
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&score| f64::from(score - most).exp()).sum();
    sum.ln() - f64::from(own - most)
}

/// Runs `model` over `data` in batches of `batch`.
///
/// # Errors
/// If the engine fails, or the first output is not one row of scores for each sample.
pub fn scores(
    model: &Model,
    data: &Arc<dyn Dataset>,
    batch: usize,
    engine: &dyn Engine,
    options: &LoadOptions,
    label: &str,
    terminal: &Terminal,
) -> Result<Scores> {
    let mut model = model.clone();
    let first = *model.graph.outputs().first().context("the model has no output")?;
    model.graph.set_outputs(vec![first]);
    let mut session = engine.load(&serialize(&model, OwnOps::Refuse)?, options)?;
    let name = model.graph[first].name().to_owned();
    let batches = EvalBatches::new(Arc::clone(data), batch, None);
    let progress = terminal.progress(label, batches.samples() as u64);
    let mut scores = Scores::default();
    let size = batch.min(batches.samples());
    for batch in batches {
        interrupt::check()?;
        let batch = batch?;
        let real = batch.samples.len();
        let batch = batch.padded(size)?;
        let outputs = session.run(&batch.inputs)?;
        let rows = outputs.get(&name).with_context(|| format!("'{name}' was not computed"))?;
        let values = rows.to_f32().with_context(|| format!("'{name}' is not numeric"))?;
        let per_row: usize = rows.shape().iter().skip(1).product();
        anyhow::ensure!(rows.shape().first() == Some(&size) && per_row > 0, "'{name}' has not one row for each sample");
        scores.classes = per_row;
        scores.values.extend(values.iter().take(real * per_row));
        if let Some(labels) = batch.labels.as_ref().and_then(Tensor::to_i64) {
            scores.labels.extend(labels.iter().take(real));
        }
        progress.advance(real as u64, "");
    }
    Ok(scores)
}
