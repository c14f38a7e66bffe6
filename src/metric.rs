//! Runs a network over a dataset and keeps its scores; compares the scores of two.

use std::sync::Arc;

use anyhow::{Context, Result};
use lsqc_passes::ir::{Model, Tensor};
use lsqc_passes::onnx::OwnOps;

use crate::compiler::serialize;
use crate::data::{Dataset, EvalBatches};
use crate::engine::{Engine, LoadOptions};
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
    let mut session = engine.load(&serialize(&model, OwnOps::Refuse)?, options)?;
    let name = model.graph[first].name().to_owned();
    let fixed = model
        .graph
        .inputs()
        .first()
        .and_then(|&input| model.graph[input].ty.clone())
        .and_then(|ty| ty.shape?.first()?.known());
    let batches = EvalBatches::new(Arc::clone(data), fixed.unwrap_or(BATCH), None);
    let size = fixed.unwrap_or(BATCH.min(batches.samples()));
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
