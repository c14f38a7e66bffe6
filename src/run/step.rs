//! The step graph of a run: which batch, and with or without gradients; whether it fits the memory that it may take.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use lsqc_passes::ir::{Model, Tensor};
use lsqc_passes::legalize::Dialect;
use lsqc_passes::quantize::Sites;
use lsqc_passes::train;

use crate::compiler::Compiler;
use crate::config::{BatchNorm, Gradients as AskedGradients, Loss, Oscillations, Plan, Size};
use crate::data::Dataset;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::tune::{self, BnMode, Gradients, StepGraph, StepPlan};

/// What the step graph is asked for.
pub struct StepWish<'a> {
    /// What it is fed with.
    pub data: &'a Arc<dyn Dataset>,
    /// Samples in a batch.
    pub batch: usize,
    /// BatchNormalization in training.
    pub bn: BatchNorm,
    /// What is minimised.
    pub loss: Loss,
    /// How each output is trained, by its name; one that is not named as its graph shows it.
    pub outputs: BTreeMap<String, train::OutputLoss>,
    /// Weight decay; `None`: by the weights' bits.
    pub weight_decay: Option<f64>,
    /// Weights that oscillate.
    pub oscillations: Oscillations,
    /// What the engine has beyond standard ops; see [`tune::dialect`].
    pub dialect: Dialect,
}

/// A quantized network, its float teacher, and where the quantizers are.
pub type Networks<'a> = (&'a Model, &'a Model, &'a Sites);

/// The step graph of a run.
pub(super) struct Step {
    /// Samples in a batch.
    pub batch: usize,
    /// The shape of each input in a batch.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// The graph that is trained with; none where nothing is trained and nothing emitted.
    pub graph: Option<StepGraph>,
    /// The graph that is written, where one is asked for: in standard ops.
    pub emitted: Option<StepGraph>,
}

impl StepWish<'_> {
    /// What is assembled for this batch.
    ///
    /// # Errors
    /// If the data cannot give a sample.
    pub fn plan(&self, batch: usize) -> Result<StepPlan> {
        Ok(StepPlan {
            shapes: step_shapes(self.data, batch)?,
            loss: match self.loss {
                Loss::Ce => train::Loss::CrossEntropy,
                Loss::Kd => train::Loss::Distillation,
                Loss::Both => train::Loss::Both,
            },
            outputs: self.outputs.clone(),
            bn: if self.bn == BatchNorm::Batch {
                BnMode::Batch
            } else {
                BnMode::Frozen
            },
            weight_decay: self.weight_decay.map(to_f32),
            gradients: Gradients::Hidden,
            oscillations: match self.oscillations {
                Oscillations::Left => train::Oscillations::Left,
                Oscillations::Frozen => train::Oscillations::Frozen,
            },
            dialect: self.dialect.clone(),
        })
    }

    /// Assembles the step graph for this batch.
    ///
    /// # Errors
    /// Bad input where a pass refuses the model.
    pub fn assemble(&self, batch: usize, compiler: &mut Compiler, (initial, float, sites): Networks) -> Result<StepGraph> {
        tune::assemble(compiler, initial, float, sites, &self.plan(batch)?)
    }
}

/// Does the run make a step graph?
pub(super) fn is_wanted(plan: &Plan) -> bool {
    !plan.length.is_zero() || plan.outputs.step.is_some()
}

/// Refuses a batch whose step is estimated to take more than `limit`. The steps of quantizers need not be set.
pub(super) fn check_memory(
    wish: &StepWish,
    batch: usize,
    limit: Size,
    compiler: &mut Compiler,
    networks: Networks,
) -> Result<()> {
    let mut estimate = |batch: usize| -> Result<Size> { Ok(wish.assemble(batch, compiler, networks)?.estimate()) };
    let needed = estimate(batch)?;
    if needed <= limit {
        return Ok(());
    }
    let message = format!("a training step takes about {needed} (batch {batch}), more than the {limit} that --memory allows");
    let least = if batch == 1 { needed } else { estimate(1)? };
    let failure = Failure::usage(message);
    if least > limit {
        let help = format!("even --batch 1 takes about {least}: allow more, or take a smaller model");
        return Err(failure.help(help).into());
    }
    // Each value's bytes are linear in the batch and the peak is the largest sum of some of them, so it lies on or below its chord: what
    // fits there fits, unless a spelling changes with the shapes, which is why it is asked.
    let (over, span) = (needed.bytes() - least.bytes(), limit.bytes() - least.bytes());
    let on_chord = u128::from(span) * (batch as u128 - 1) / u128::from(over.max(1));
    let mut fits = 1 + usize::try_from(on_chord).unwrap_or(0).min(batch.saturating_sub(2));
    while fits > 1 && estimate(fits)? > limit {
        fits /= 2;
    }
    Err(failure.help(format!("--batch {fits} fits, or allow more")).into())
}

/// Makes the step graph. Where no limit is named, the batch is halved until what a step holds fits half of the machine's memory.
pub(super) fn step(
    plan: &Plan,
    wish: &StepWish,
    engine: &dyn Engine,
    compiler: &mut Compiler,
    networks: Networks,
    warnings: &mut Vec<String>,
) -> Result<Step> {
    let mut batch = wish.batch;
    if !is_wanted(plan) {
        return Ok(Step {
            batch,
            shapes: step_shapes(wish.data, batch)?,
            graph: None,
            emitted: None,
        });
    }
    let (memory, whose) = match engine.device_bytes() {
        Some(bytes) => (Some(bytes), "GPU"),
        None => (crate::machine::memory_bytes(), "machine"),
    };
    let half = memory.map_or(u64::MAX, |bytes| bytes / 2);
    let graph = loop {
        let graph = wish.assemble(batch, compiler, networks)?;
        let needed = graph.estimate();
        // A limit that was named was checked before.
        if plan.memory.is_some() || needed.bytes() <= half || batch == 1 {
            break graph;
        }
        batch /= 2;
        warnings.push(format!(
            "a step of {} samples would take about {needed}, more than half of the {whose}'s memory: the batch is {batch}",
            batch * 2,
        ));
    };
    if plan.oscillations == Oscillations::Frozen && graph.model.graph.find(train::names::FREEZE_THRESHOLD).is_none() {
        warnings.push(format!(
            "--freeze-oscillating has nothing to watch: no trained weight has {} bits or less",
            train::MAX_BITS
        ));
    }
    // What others are to run has standard ops only.
    let emitted = match &plan.outputs.step {
        None => None,
        Some(asked) => {
            let with = StepPlan {
                gradients: match asked.gradients {
                    AskedGradients::Emitted => Gradients::Outputs,
                    AskedGradients::Left => Gradients::Hidden,
                },
                dialect: Dialect::default(),
                ..wish.plan(batch)?
            };
            let (initial, float, sites) = networks;
            Some(tune::assemble(compiler, initial, float, sites, &with)?)
        }
    };
    Ok(Step {
        batch,
        shapes: step_shapes(wish.data, batch)?,
        graph: Some(graph),
        emitted,
    })
}

/// The shape of each input in a training batch, from one sample of the data.
fn step_shapes(data: &Arc<dyn Dataset>, batch: usize) -> Result<BTreeMap<String, Vec<usize>>> {
    let one = data.batch(&[0], None)?;
    let shape = |tensor: &Tensor| match batch {
        // Some inputs have no axis for it.
        1 => tensor.shape().to_vec(),
        _ => std::iter::once(batch).chain(tensor.shape().iter().skip(1).copied()).collect(),
    };
    Ok(one
        .inputs
        .iter()
        .map(|(name, tensor)| (name.clone(), shape(tensor)))
        .collect())
}

#[allow(clippy::cast_possible_truncation)]
fn to_f32(value: f64) -> f32 {
    value as f32
}
