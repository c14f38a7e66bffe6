//! How each output of a model is trained: chosen by its graph and by what the float model gives on some of the training data.
//!
//! The graph shows classes before a Softmax and probabilities before a Sigmoid (`lsqc_passes::train::head`). Of the rest data decides:
//!
//! - labels make classes of the output that they are about, the first `[N, classes]`;
//! - rows of a matrix multiply are classes if their softmax prefers some: its mean entropy is at most 0.9 of that of equal shares; else they
//!   are values, as of an embedding;
//! - rows that all have length 1 are directions, trained by their cosine;
//! - values get the float model's variance: one number, or one for each channel along axis 1 or the last one where that describes them
//!   better, as of a detector whose boxes and scores share an output. Better is: by more than [`CHANNEL_GAIN`] in mean ln var, which is twice
//!   the difference in log-likelihood of normal distributions;
//! - what never changes, and what is not finite, is ignored.
//!
//! `[output.NAME]` in lsqc.toml overrules the choice. Refused are names that are no outputs, kinds that integers cannot have, and, where there
//! is something to train, models without an output to train on.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use lsqc_passes::ir::{DType, Graph, Model, Tensor, ValueId};
use lsqc_passes::train::{Certainty, Head, OutputKind, OutputLoss, Variance, head};

use crate::compiler::load;
use crate::config::{OutputChoice, OutputRule};
use crate::data::{self, Dataset, EvalBatches};
use crate::engine::{Engine, LoadOptions};
use crate::failure::Failure;
use crate::interrupt;

/// Samples that the choice is made on: moments and shares of them are known well enough by then.
const SAMPLES: usize = 64;
/// Samples in one batch of them.
const BATCH: usize = 16;
/// Of the entropy of equal shares: a softmax above it prefers nothing. Networks that were trained on classes are far below it on data that
/// looks like theirs, rows that were never meant for a softmax mostly above.
const FLAT: f64 = 0.9;
/// Lengths of rows that were divided by their length differ from 1 by rounding alone.
const UNIT: f64 = 1e-3;
/// One variance for each channel must describe the values an e-fold better than one for all, or it is not worth its noise.
const CHANNEL_GAIN: f64 = 1.0;
/// Fewer values of a channel tell too little of its variance.
const LEAST_PER_CHANNEL: u64 = 32;
/// The least variance of a channel, as a part of that of all: one that hardly moves would outweigh every other.
const LEAST_VARIANCE: f64 = 1e-4;

/// How an output is trained, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
    /// How.
    pub loss: OutputLoss,
    /// The axis of classes, where it has classes.
    pub classes: Option<usize>,
}

/// How each output is trained, by its name.
#[must_use]
pub fn losses(chosen: &[Chosen]) -> BTreeMap<String, OutputLoss> {
    chosen
        .iter()
        .map(|output| (output.name.clone(), output.loss.clone()))
        .collect()
}

/// The axis of classes of an output, as far as the graph shows one.
#[must_use]
pub fn class_axis(graph: &Graph, output: ValueId) -> Option<usize> {
    let head = head(graph, output);
    (head.kind == OutputKind::Classes).then(|| own_axis(graph, output, &head))
}

/// The axis of classes at the output itself: where moves stand between, that of its shape.
fn own_axis(graph: &Graph, output: ValueId, head: &Head) -> usize {
    let rank = |value: ValueId| graph[value].ty.as_ref().and_then(lsqc_passes::ir::TensorType::rank);
    let moved = graph
        .producer(output)
        .is_some_and(|(_, node)| !node.inputs().contains(&Some(head.start)));
    match rank(output) {
        Some(rank) if moved && head.start != output => rank.saturating_sub(1),
        _ => head.axis,
    }
}

/// Refuses rules for outputs that the model does not have, and kinds that an output cannot have.
///
/// # Errors
/// Usage.
pub fn check(rules: &BTreeMap<String, OutputRule>, float: &Model) -> Result<()> {
    let graph = &float.graph;
    for (name, rule) in rules {
        let outputs = || graph.outputs().iter().copied();
        let Some(output) = outputs().find(|&output| graph[output].name() == name) else {
            let known: Vec<&str> = outputs().map(|output| graph[output].name()).collect();
            let message = format!("[output.{name}]: the model has no output named \"{name}\"");
            return Err(Failure::usage(message)
                .help(format!("its outputs are: {}", known.join(", ")))
                .into());
        };
        let dtype = graph[output].ty.as_ref().map(|ty| ty.dtype);
        let trains = rule.kind.is_some_and(|kind| kind != OutputChoice::Ignored);
        if let Some(dtype) = dtype.filter(|dtype| trains && *dtype != DType::F32) {
            let message = format!("[output.{name}]: its type is {dtype}, and only outputs of type float are trained on");
            return Err(Failure::usage(message).help("remove it, or say kind = \"ignored\"").into());
        }
    }
    Ok(())
}

/// Chooses for every output of `float`. `labelled` is the place of the output that the data's labels are about, if there are labels and one
/// is.
///
/// # Errors
/// If the engine fails.
pub fn choose(
    float: &Model,
    rules: &BTreeMap<String, OutputRule>,
    labelled: Option<usize>,
    data: &Arc<dyn Dataset>,
    (engine, options): (&dyn Engine, &LoadOptions),
) -> Result<Vec<Chosen>> {
    let graph = &float.graph;
    let mut seen: Vec<Seen> = graph
        .outputs()
        .iter()
        .map(|&output| Seen::of(head(graph, output), output, graph))
        .collect();
    let batches = EvalBatches::new(data::few(data, SAMPLES), BATCH, None);
    let size = batches.size();
    let mut session = load(engine, float, options)?;
    for batch in batches {
        interrupt::check()?;
        let batch = batch?;
        let real = batch.samples.len();
        let given = session.run(&batch.padded(size)?.inputs)?;
        for seen in &mut seen {
            if let Some(tensor) = given.get(graph[seen.output].name()) {
                seen.look(tensor, (real, size));
            }
        }
    }
    let choose_one = |(place, seen): (usize, &Seen)| {
        let name = graph[seen.output].name();
        let rule = rules.get(name).copied().unwrap_or_default();
        let (kind, reason) = match rule.kind {
            Some(kind) => (asked(kind), "lsqc.toml says so".to_owned()),
            None => seen.choose(labelled == Some(place)),
        };
        #[allow(clippy::cast_possible_truncation)]
        let weight = rule.weight.unwrap_or(1.0) as f32;
        let (variance, how) = match kind {
            OutputKind::Values => seen.variance(),
            _ => (Variance::default(), String::new()),
        };
        Chosen {
            name: name.to_owned(),
            reason: reason + &how,
            loss: OutputLoss { kind, weight, variance },
            classes: (kind == OutputKind::Classes).then(|| own_axis(graph, seen.output, &seen.head)),
        }
    };
    Ok(seen.iter().enumerate().map(choose_one).collect())
}

/// Refuses a model without an output to train on.
///
/// # Errors
/// Bad input.
pub fn refuse_none(chosen: &[Chosen]) -> Result<()> {
    if chosen.iter().any(|output| output.loss.kind != OutputKind::Ignored) {
        return Ok(());
    }
    let each: Vec<String> = chosen
        .iter()
        .map(|output| format!("'{}': {}", output.name, output.reason))
        .collect();
    let message = format!("the model has no output to train on ({})", each.join("; "));
    Err(Failure::bad_input(message)
        .help("--epochs 0 calibrates only; or export the model with the floats that its integers are made of")
        .into())
}

fn asked(kind: OutputChoice) -> OutputKind {
    match kind {
        OutputChoice::Classes => OutputKind::Classes,
        OutputChoice::Probabilities => OutputKind::Probabilities,
        OutputChoice::Values => OutputKind::Values,
        OutputChoice::Cosine => OutputKind::Cosine,
        OutputChoice::Ignored => OutputKind::Ignored,
    }
}

/// Count, sum and sum of squares.
#[derive(Clone, Copy, Debug, Default)]
struct Moments(u64, f64, f64);

impl Moments {
    fn add(&mut self, value: f64) {
        self.0 += 1;
        self.1 += value;
        self.2 += value * value;
    }

    #[allow(clippy::cast_precision_loss)]
    fn variance(self) -> f64 {
        let count = self.0.max(1) as f64;
        (self.2 / count - (self.1 / count).powi(2)).max(0.0)
    }
}

/// What the float model gave at one output.
struct Seen {
    output: ValueId,
    head: Head,
    all: Moments,
    /// By axis, for each of its channels.
    channels: Vec<(usize, Vec<Moments>)>,
    /// The least and the most length of a row along the last axis.
    lengths: Option<(f64, f64)>,
    /// The sum of the rows' entropies over that of equal shares, and rows.
    flatness: (f64, u64),
    /// The elements of one sample, and whether they are all finite.
    elements: usize,
    finite: bool,
}

impl Seen {
    fn of(head: Head, output: ValueId, graph: &Graph) -> Seen {
        let rank = graph[output]
            .ty
            .as_ref()
            .and_then(lsqc_passes::ir::TensorType::rank)
            .unwrap_or(0);
        let mut axes = vec![1, rank.saturating_sub(1)];
        axes.dedup();
        Seen {
            output,
            head,
            all: Moments::default(),
            channels: axes
                .into_iter()
                .filter(|&axis| rank > 1 && axis < rank)
                .map(|axis| (axis, Vec::new()))
                .collect(),
            lengths: None,
            flatness: (0.0, 0),
            elements: 0,
            finite: true,
        }
    }

    fn look(&mut self, tensor: &Tensor, (real, size): (usize, usize)) {
        let Some(values) = tensor.values::<f32>() else { return };
        let shape = tensor.shape();
        let part = if shape.first() == Some(&size) {
            values.len() / size.max(1) * real
        } else {
            values.len()
        };
        let values = values.get(..part).unwrap_or(&values);
        self.elements = values.len() / real.max(1);
        self.finite &= values.iter().all(|value| value.is_finite());
        for &value in values {
            self.all.add(value.into());
        }
        for (axis, channels) in &mut self.channels {
            let extent = shape.get(*axis).copied().unwrap_or(1).max(1);
            let inner: usize = shape.iter().skip(*axis + 1).product::<usize>().max(1);
            channels.resize(extent.max(channels.len()), Moments::default());
            for (at, &value) in values.iter().enumerate() {
                if let Some(moments) = channels.get_mut((at / inner) % extent) {
                    moments.add(value.into());
                }
            }
        }
        let Some(&last) = shape.last().filter(|&&last| last > 1 && shape.len() > 1) else {
            return;
        };
        for row in values.chunks_exact(last) {
            let length = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let (least, most) = self.lengths.unwrap_or((length, length));
            self.lengths = Some((least.min(length), most.max(length)));
            self.flatness.0 += flatness(row);
            self.flatness.1 += 1;
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn choose(&self, labelled: bool) -> (OutputKind, String) {
        let Head {
            kind, certainty, why, ..
        } = &self.head;
        if *kind == OutputKind::Ignored {
            return (*kind, why.clone());
        }
        if !self.finite {
            return (OutputKind::Ignored, "the float model's values are not all finite".to_owned());
        }
        if labelled {
            return (OutputKind::Classes, "the data has labels".to_owned());
        }
        if self.all.variance() == 0.0 {
            return (OutputKind::Ignored, "the float model gives one value everywhere".to_owned());
        }
        let directions = self
            .lengths
            .is_some_and(|(least, most)| least > 1.0 - UNIT && most < 1.0 + UNIT);
        if directions && (*certainty == Certainty::Guessed || *kind == OutputKind::Values) {
            return (OutputKind::Cosine, "all its rows have length 1".to_owned());
        }
        let flatness = self.flatness.0 / self.flatness.1.max(1) as f64;
        if *certainty == Certainty::Guessed && flatness > FLAT {
            let share = 100.0 * flatness;
            return (
                OutputKind::Values,
                format!("{why}, but their softmax is flat: its entropy is {share:.0} % of the most there can be"),
            );
        }
        (*kind, why.clone())
    }

    /// The variance that describes the values best, and what the report says of it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    fn variance(&self) -> (Variance, String) {
        let whole = self.all.variance();
        let least = (whole * LEAST_VARIANCE).max(f64::from(f32::MIN_POSITIVE));
        let floored = |moments: &Moments| moments.variance().max(least);
        let mut best: Option<(f64, usize, &Vec<Moments>)> = None;
        for (axis, channels) in &self.channels {
            let known = channels.len() > 1 && channels.iter().all(|moments| moments.0 >= LEAST_PER_CHANNEL);
            let mean = channels.iter().map(|moments| floored(moments).ln()).sum::<f64>() / channels.len().max(1) as f64;
            let gain = whole.ln() - mean;
            if known && gain > CHANNEL_GAIN && best.is_none_or(|(most, ..)| gain > most) {
                best = Some((gain, *axis, channels));
            }
        }
        match best {
            Some((_, axis, channels)) => (
                Variance {
                    axis: Some(axis),
                    values: channels.iter().map(|moments| floored(moments) as f32).collect(),
                },
                format!("; a variance for each of {} channels along axis {axis}", channels.len()),
            ),
            None => (
                Variance {
                    axis: None,
                    values: vec![whole.max(f64::from(f32::MIN_POSITIVE)) as f32],
                },
                String::new(),
            ),
        }
    }
}

/// The entropy of the softmax of a row, over that of equal shares.
#[allow(clippy::cast_precision_loss)]
fn flatness(row: &[f32]) -> f64 {
    let most = row.iter().fold(f64::NEG_INFINITY, |most, &z| most.max(z.into()));
    let (mut sum, mut weighted) = (0.0, 0.0);
    for &z in row {
        let z = f64::from(z) - most;
        sum += z.exp();
        weighted += z * z.exp();
    }
    (sum.ln() - weighted / sum) / (row.len() as f64).ln()
}
