//! The step graph of a run: which batch, and with or without gradients.

use std::collections::BTreeMap;

use anyhow::Result;
use lsqc_passes::ir::{Model, Tensor};
use lsqc_passes::legalize::Dialect;
use lsqc_passes::quantize::Sites;
use lsqc_passes::train;

use crate::compiler::Compiler;
use crate::config::{BatchNorm, Gradients as AskedGradients, Loss, Plan};
use crate::data::Data;
use crate::engine::Engine;
use crate::tune::{self, BnMode, Gradients, StepGraph, StepPlan};

/// What the step graph is asked for.
pub(super) struct StepWish<'a> {
    pub plan: &'a Plan,
    pub data: &'a Data,
    pub bn: BatchNorm,
    pub loss: Loss,
    pub engine: &'a dyn Engine,
}

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

/// Makes the step graph. The batch is halved until what a step holds fits half of the memory that the engine has: its device's, or the
/// machine's.
pub(super) fn step(
    wish: &StepWish,
    compiler: &mut Compiler,
    initial: &Model,
    float: &Model,
    sites: &Sites,
    warnings: &mut Vec<String>,
) -> Result<Step> {
    let &StepWish {
        plan,
        data,
        bn,
        loss,
        engine,
    } = wish;
    let mut step_plan = StepPlan {
        shapes: step_shapes(data, plan.batch)?,
        loss: match loss {
            Loss::Ce => train::Loss::CrossEntropy,
            Loss::Kd => train::Loss::Distillation,
            Loss::Both => train::Loss::Both,
        },
        bn: if bn == BatchNorm::Batch {
            BnMode::Batch
        } else {
            BnMode::Frozen
        },
        weight_decay: plan.weight_decay.map(to_f32),
        gradients: Gradients::Hidden,
        dialect: tune::dialect(engine),
    };
    let mut batch = plan.batch;
    if plan.length.is_zero() && plan.outputs.step.is_none() {
        return Ok(Step {
            batch,
            shapes: step_plan.shapes,
            graph: None,
            emitted: None,
        });
    }
    let (memory, whose) = match engine.device_bytes() {
        Some(bytes) => (Some(bytes), "GPU"),
        None => (crate::machine::memory_bytes(), "machine"),
    };
    let limit = memory.map_or(u64::MAX, |bytes| bytes / 2);
    let graph = loop {
        let graph = tune::assemble(compiler, initial, float, sites, &step_plan)?;
        let needed = tune::memory::peak_bytes(&graph.model.graph);
        if needed <= limit || batch == 1 {
            break graph;
        }
        batch /= 2;
        step_plan.shapes = step_shapes(data, batch)?;
        warnings.push(format!(
            "a step of {} samples would hold about {} MB, more than half of the {whose}'s memory: the batch is {batch}",
            batch * 2,
            needed >> 20
        ));
    };
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
                ..step_plan.clone()
            };
            Some(tune::assemble(compiler, initial, float, sites, &with)?)
        }
    };
    Ok(Step {
        batch,
        shapes: step_plan.shapes,
        graph: Some(graph),
        emitted,
    })
}

/// The shape of each input in a training batch, from one sample of the data.
fn step_shapes(data: &Data, batch: usize) -> Result<BTreeMap<String, Vec<usize>>> {
    let one = data.train.batch(&[0], None)?;
    let shape = |tensor: &Tensor| std::iter::once(batch).chain(tensor.shape().iter().skip(1).copied()).collect();
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
