//! Calibration: runs the float network on real data and gives every activation quantizer its first step and its sign.
//!
//! Each source keeps its smallest value and an even sample of all it showed, from which the step is computed. Unsigned is chosen where the
//! graph proves the source at least 0, else where no value below 0 was seen; else signed. What the settings say of a layer comes first, and a
//! target may have no unsigned levels of 8 bits.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use lsqc_passes::ir::{Model, Tensor};
use lsqc_passes::onnx::OwnOps;
use lsqc_passes::ops::QuantRange;
use lsqc_passes::quantize::{ActivationSteps, Sign, Site, Sites, StepInit, step_size};
use lsqc_passes::target::Target;
use rayon::prelude::*;

use crate::compiler::load_as_is;
use crate::data::{self, Dataset, EvalBatches};
use crate::engine::{Engine, LoadOptions, Tensors};
use crate::failure::Failure;
use crate::interrupt;
use crate::terminal::Terminal;

/// Samples that calibration sees: a few batches, as the method's own start from the first one.
pub const SAMPLES: usize = 512;
/// Samples in one calibration batch: every activation of the network is held at once.
const BATCH: usize = 32;
/// Values of each source that are kept for its step.
const KEPT: usize = 1 << 18;

/// Why a quantizer has the sign it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignReason {
    /// The graph proves that nothing is below 0.
    Proven,
    /// Nothing below 0 was seen.
    NotSeen,
    /// Values below 0 were seen.
    Seen,
    /// The settings say so.
    Asked,
    /// The target has no levels of so many bits without a sign.
    Target,
}

impl std::fmt::Display for SignReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SignReason::Proven => "the graph proves it at least 0",
            SignReason::NotSeen => "no value below 0 was seen in calibration",
            SignReason::Seen => "values below 0 were seen in calibration",
            SignReason::Asked => "the settings say so",
            SignReason::Target => "the target has no levels of so many bits without a sign",
        })
    }
}

/// How quantizers start.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Their steps.
    pub init: StepInit,
    /// The runtime, which may have no levels of many bits without a sign.
    pub target: &'static Target,
    /// Quantized values that no gradient reaches: they start where the error is least.
    pub untrained: &'a BTreeSet<String>,
}

/// What calibration found.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    /// Quantized values that no gradient reaches.
    pub untrained: BTreeSet<String>,
    /// Steps and signs, for `set-steps`.
    pub steps: ActivationSteps,
    /// Why each quantizer has its sign.
    pub reasons: BTreeMap<String, SignReason>,
    /// Quantizers whose source showed nothing but zeros.
    pub dead: Vec<String>,
    /// Samples seen.
    pub samples: usize,
}

/// What a source showed.
#[derive(Default)]
struct Seen {
    least: f32,
    kept: Vec<f32>,
}

/// Runs `float` (types inferred, standard ops) over a few samples of `data` and sets a step for every site; nothing where there are none.
///
/// # Errors
/// If the engine fails, or an activation is not finite: the error names it.
pub fn calibrate(
    float: &Model,
    sites: &Sites,
    data: &std::sync::Arc<dyn Dataset>,
    engine: &dyn Engine,
    options: &LoadOptions,
    start: Start,
    terminal: &Terminal,
) -> Result<Calibration> {
    if sites.activations.is_empty() {
        return Ok(Calibration::default());
    }
    let mut observed = float.clone();
    let sources: Vec<String> = {
        let mut names: Vec<String> = sites.activations.iter().map(|site| site.source.clone()).collect();
        names.sort();
        names.dedup();
        names
    };
    let is_input = |name: &str| {
        observed
            .graph
            .find(name)
            .is_some_and(|value| observed.graph.inputs().contains(&value))
    };
    let (fed, made): (Vec<String>, Vec<String>) = sources.into_iter().partition(|name| is_input(name));
    let outputs = made.iter().filter_map(|name| observed.graph.find(name)).collect();
    observed.graph.set_outputs(outputs);
    // Where only the inputs are quantized there is nothing to run.
    let mut session = if made.is_empty() {
        None
    } else {
        Some(load_as_is(engine, &observed, OwnOps::Refuse, options)?)
    };

    let batches = EvalBatches::new(data::few(data, SAMPLES), BATCH, None);
    let (samples, size) = (batches.samples(), batches.size());
    let stride_of = |values: usize| (values * samples.div_ceil(size.max(1))).div_ceil(KEPT).max(1);
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    let progress = terminal.progress("calibrate", samples as u64);
    for batch in batches {
        interrupt::check()?;
        let batch = batch?;
        let real = batch.samples.len();
        let batch = batch.padded(size)?;
        let shown = match &mut session {
            Some(session) => session.run(&batch.inputs)?,
            None => Tensors::new(),
        };
        let new: Vec<(String, Seen)> = made
            .par_iter()
            .filter_map(|name| Some((name, shown.get(name)?)))
            .chain(fed.par_iter().filter_map(|name| Some((name, batch.inputs.get(name)?))))
            .map(|(name, tensor)| Ok((name.clone(), look(name, tensor, (real, size), &stride_of)?)))
            .collect::<Result<_>>()?;
        for (name, look) in new {
            let so_far = seen.entry(name).or_default();
            so_far.least = so_far.least.min(look.least);
            so_far.kept.extend(look.kept);
        }
        progress.advance(real as u64, "");
    }
    drop(progress);
    Ok(Calibration {
        samples,
        untrained: start.untrained.clone(),
        ..choose(sites, &seen, start)
    })
}

/// What the first `real` of `size` samples of a tensor show.
fn look(name: &str, tensor: &Tensor, (real, size): (usize, usize), stride_of: &impl Fn(usize) -> usize) -> Result<Seen> {
    let values = tensor.to_f32().unwrap_or_default();
    let stride = stride_of(values.len());
    let values = values
        .get(..values.len() / size.max(1) * real)
        .filter(|_| real < size)
        .unwrap_or(&values);
    if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
        return Err(Failure::bad_input(format!(
            "the activation '{name}' of the float model is {bad} on the calibration data"
        ))
        .help("check the model's preprocessing (scale, mean, std in lsqc.toml) and the data")
        .into());
    }
    let least = values.iter().copied().fold(0.0f32, f32::min);
    Ok(Seen {
        least,
        kept: values.iter().copied().step_by(stride).collect(),
    })
}

fn choose(sites: &Sites, seen: &BTreeMap<String, Seen>, start: Start) -> Calibration {
    // Sites that share a step are one distribution: that of all their sources.
    let group_of = |site: &Site| site.shares.clone().unwrap_or_else(|| site.value.clone());
    let mut groups: BTreeMap<String, Vec<&Site>> = BTreeMap::new();
    for site in &sites.activations {
        groups.entry(group_of(site)).or_default().push(site);
    }
    // What products of two activations take second.
    let seconds: BTreeSet<&str> = sites.products.iter().map(|product| product.inputs[1].as_str()).collect();
    let chosen: Vec<_> = groups
        .into_par_iter()
        .map(|(_, members)| choose_group(&members, &seconds, seen, start))
        .collect();
    let mut calibration = Calibration::default();
    for (values, step, sign, reason) in chosen {
        for value in values {
            calibration.steps.0.insert(value.clone(), (step.unwrap_or(1.0), sign));
            calibration.reasons.insert(value.clone(), reason);
            if step.is_none() {
                calibration.dead.push(value);
            }
        }
    }
    calibration
}

fn choose_group(
    members: &[&Site],
    seconds: &BTreeSet<&str>,
    seen: &BTreeMap<String, Seen>,
    start: Start,
) -> (Vec<String>, Option<f32>, Sign, SignReason) {
    let proven = members.iter().all(|site| site.non_negative);
    let sources: Vec<&Seen> = members.iter().filter_map(|site| seen.get(&site.source)).collect();
    let below = sources.iter().any(|seen| seen.least < 0.0);
    let bits = members.iter().map(|site| site.bits).max().unwrap_or(8);
    let widest_unsigned = if members.iter().any(|site| seconds.contains(site.value.as_str())) {
        start.target.widest_unsigned_second
    } else {
        start.target.widest_unsigned
    };
    // A sign holds for all where one asks for it.
    let asked = members
        .iter()
        .filter_map(|site| site.asked)
        .max_by_key(|sign| *sign == Sign::Signed);
    let (sign, reason) = match (asked, proven, below) {
        (Some(sign), ..) => (sign, SignReason::Asked),
        (None, false, true) => (Sign::Signed, SignReason::Seen),
        _ if bits > widest_unsigned => (Sign::Signed, SignReason::Target),
        (None, true, _) => (Sign::Unsigned, SignReason::Proven),
        (None, false, false) => (Sign::Unsigned, SignReason::NotSeen),
    };
    let range = QuantRange {
        bits,
        signed: sign == Sign::Signed,
    };
    let values: Vec<f32> = sources.iter().flat_map(|seen| seen.kept.iter().copied()).collect();
    let init = if members.iter().any(|site| start.untrained.contains(&site.value)) {
        StepInit::MinMse
    } else {
        start.init
    };
    let step = step_size::initial(&values, range, init);
    (members.iter().map(|site| site.value.clone()).collect(), step, sign, reason)
}
