//! Runs networks over a dataset side by side: keeps their scores, and how near their outputs are to each other.

use std::sync::Arc;

use anyhow::{Context, Result};
use lsqc_passes::ir::{Model, Tensor};

use crate::compiler::load;
use crate::data::{Batch, Dataset, EvalBatches};
use crate::engine::{Engine, LoadOptions};
use crate::failure::Failure;
use crate::fidelity::{Fidelity, Real};
use crate::interrupt;
use crate::report::{Agreement, Outcome};
use crate::terminal::Terminal;

/// Samples in one batch of a measurement.
pub const BATCH: usize = 100;

/// The scores of a network over a dataset.
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

    /// The number of rows for which both have the same first class.
    #[must_use]
    pub fn same_top1(&self, other: &Scores) -> u64 {
        self.answers().iter().zip(other.answers()).filter(|(a, b)| **a == *b).count() as u64
    }
}

/// The output that labels and top-1 are about: the first of floats `[N, classes]`, as a place among the outputs, with its classes.
#[must_use]
pub fn scored_output(model: &Model) -> Option<(usize, usize)> {
    let graph = &model.graph;
    graph.outputs().iter().enumerate().find_map(|(place, &output)| {
        let ty = graph[output].ty.as_ref().filter(|ty| ty.dtype.is_float())?;
        match ty.shape.as_deref()? {
            [_, classes] => Some((place, classes.known()?)),
            _ => None,
        }
    })
}

/// What the scores of `model` at this place among its outputs are.
#[must_use]
pub fn score_kind(model: &Model, place: usize) -> ScoreKind {
    let graph = &model.graph;
    let softmax = graph
        .outputs()
        .get(place)
        .and_then(|&output| graph.producer(output))
        .is_some_and(|(_, node)| node.op.is("Softmax"));
    if softmax {
        ScoreKind::Probabilities
    } else {
        ScoreKind::Logits
    }
}

/// A network, and how it is run.
#[derive(Clone, Copy)]
pub struct Measured<'a> {
    /// The network.
    pub model: &'a Model,
    /// Its data: the same samples as the others'.
    pub data: &'a Arc<dyn Dataset>,
    /// How it is loaded.
    pub options: &'a LoadOptions,
}

/// What is compared: one output of each network.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Its place among the outputs of each network.
    pub places: Vec<usize>,
    /// The axis of classes, if it has one.
    pub classes: Option<usize>,
}

/// What several networks give on the same samples.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Samples that were compared.
    pub samples: usize,
    /// Each network's scores; `None` where what was to be scored is not one row of scores for each sample.
    pub scores: Vec<Option<Scores>>,
    /// For each pair of networks that was asked for, how near each output is.
    pub pairs: Vec<Vec<Fidelity>>,
}

impl Comparison {
    /// How far a pair of networks agrees, as a pair of places among the networks; `at` is its place among the pairs.
    #[must_use]
    pub fn agreement(&self, at: usize, (a, b): (usize, usize)) -> Agreement {
        let scores = |side: usize| self.scores.get(side).and_then(Option::as_ref);
        let outputs = self.pairs.get(at).map(Vec::as_slice).unwrap_or_default();
        Agreement {
            samples: self.samples as u64,
            same_top1: scores(a).zip(scores(b)).map(|(a, b)| a.same_top1(b)),
            largest_difference: outputs
                .iter()
                .try_fold(0.0, |most: f64, next| Some(most.max(next.largest_difference()?))),
        }
    }
}

/// Runs networks over the same samples and compares `outputs` of the `pairs` of them, the first of a pair being the reference; `scored` is
/// the place of what is scored among `outputs`.
///
/// # Errors
/// If an engine fails, or the outputs have other shapes than each other.
pub fn compare(
    sides: &[Measured],
    outputs: &[Compared],
    (scored, pairs): (Option<usize>, &[(usize, usize)]),
    engine: &dyn Engine,
    terminal: &Terminal,
) -> Result<Comparison> {
    let fixed = common_batch(sides)?;
    let mut sessions = Vec::new();
    let mut feeds = Vec::new();
    for (at, side) in sides.iter().enumerate() {
        sessions.push(load(engine, side.model, side.options)?);
        let earlier = sides.iter().take(at).position(|other| Arc::ptr_eq(other.data, side.data));
        feeds.push(match earlier {
            Some(earlier) => Feed::As(earlier),
            None => Feed::Own(EvalBatches::new(Arc::clone(side.data), fixed.unwrap_or(BATCH), None)),
        });
    }
    let data = sides.first().context("there is nothing to compare")?.data;
    let samples = data.len();
    let size = match data.largest_batch() {
        Some(most) => most.min(fixed.unwrap_or(BATCH)),
        None => fixed.unwrap_or(BATCH.min(samples)),
    };
    let names: Vec<Vec<&str>> = sides
        .iter()
        .map(|side| {
            let graph = &side.model.graph;
            graph.outputs().iter().map(|&output| graph[output].name()).collect()
        })
        .collect();
    let place = |output: &Compared, side: usize| output.places.get(side).copied().unwrap_or_default();
    let scored = scored.and_then(|at| outputs.get(at));
    let mut found = Comparison {
        samples,
        scores: (0..sides.len())
            .map(|side| {
                let (scored, side_of) = (scored?, sides.get(side)?);
                Some(Scores {
                    kind: score_kind(side_of.model, place(scored, side)),
                    ..Scores::default()
                })
            })
            .collect(),
        pairs: vec![vec![Fidelity::default(); outputs.len()]; pairs.len()],
    };
    let progress = terminal.progress("measure", samples as u64);
    loop {
        interrupt::check()?;
        let mut batches: Vec<Arc<Batch>> = Vec::new();
        for feed in &mut feeds {
            let batch = match feed {
                Feed::As(earlier) => batches.get(*earlier).cloned(),
                Feed::Own(own) => own
                    .next()
                    .transpose()?
                    .map(|batch| batch.padded(size))
                    .transpose()?
                    .map(Arc::new),
            };
            batches.extend(batch);
        }
        let Some(first) = batches.first().filter(|_| batches.len() == sides.len()) else {
            break;
        };
        let (real, labels) = (first.samples.len(), first.labels.as_ref().and_then(Tensor::to_i64));
        let mut given = Vec::new();
        for (session, batch) in sessions.iter_mut().zip(&batches) {
            given.push(session.run(&batch.inputs)?);
        }
        let tensor = |output: &Compared, side: usize| -> Result<(&str, &Tensor)> {
            let name = names
                .get(side)
                .and_then(|names| names.get(place(output, side)).copied())
                .context("an output is missing")?;
            let tensor = given.get(side).and_then(|given| given.get(name));
            Ok((name, tensor.with_context(|| format!("'{name}' was not computed"))?))
        };
        for (&(a, b), fidelity) in pairs.iter().zip(&mut found.pairs) {
            for (output, fidelity) in outputs.iter().zip(fidelity) {
                let ((name, x), (_, y)) = (tensor(output, a)?, tensor(output, b)?);
                if x.shape() != y.shape() {
                    return Err(other_shapes(name, x, y));
                }
                let is_numeric = fidelity.add(x, y, Real { real, size }, output.classes);
                anyhow::ensure!(is_numeric, "'{name}' is not numeric");
            }
        }
        if let Some(output) = scored {
            for (side, scores) in found.scores.iter_mut().enumerate() {
                let (_, rows) = tensor(output, side)?;
                if !add_rows(scores, rows, (real, size), labels.as_deref()) {
                    *scores = None;
                }
            }
        }
        progress.advance(real as u64, "");
    }
    Ok(found)
}

/// Where a network's batches come from.
enum Feed {
    /// From its own data.
    Own(EvalBatches),
    /// They are those of the network at this place.
    As(usize),
}

fn other_shapes(name: &str, x: &Tensor, y: &Tensor) -> anyhow::Error {
    let message = format!(
        "the two models cannot be compared: output '{name}' has shape {:?} in the one, {:?} in the other",
        x.shape(),
        y.shape()
    );
    Failure::bad_input(message).help("give two forms of one network").into()
}

/// The batch that all take, where one takes no other.
fn common_batch(sides: &[Measured]) -> Result<Option<usize>> {
    let mut common: Option<usize> = None;
    for fixed in sides.iter().filter_map(|side| fixed_batch(side.model)) {
        match common {
            Some(other) if other != fixed => {
                let message =
                    format!("the two models cannot be compared: one has a fixed batch of {other}, the other of {fixed}");
                return Err(Failure::bad_input(message)
                    .help("export them with a dynamic batch axis")
                    .into());
            }
            _ => common = Some(fixed),
        }
    }
    Ok(common)
}

/// The batch of a network that takes no other.
fn fixed_batch(model: &Model) -> Option<usize> {
    let &input = model.graph.inputs().first()?;
    model.graph[input].ty.as_ref()?.shape.as_ref()?.first()?.known()
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
