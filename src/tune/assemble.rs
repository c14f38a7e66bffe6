//! Makes the step graph: from a quantized model to one plain ONNX graph that takes one training step.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use lsqc_passes::analyze::{InputShapes, fold_of};
use lsqc_passes::ir::{Graph, Model, Role, Tensor, ValueId};
use lsqc_passes::legalize::{Codes, Dialect};
use lsqc_passes::ops::Quantizer;
use lsqc_passes::pipelines;
use lsqc_passes::quantize::Sites;
use lsqc_passes::train::{Loss, LossPlan, OptimizerPlan, Oscillations, OutputLoss, with_gradient};

use crate::compiler::Compiler;
use crate::config::Size;
use crate::engine::{StateBinding, Tensors};

/// BatchNormalization in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BnMode {
    /// By the batch, with running estimates.
    Batch,
    /// By its constants.
    Frozen,
}

/// What a step graph is made for.
#[derive(Clone, Debug)]
pub struct StepPlan {
    /// The shape of each input, batch included.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// The loss.
    pub loss: Loss,
    /// How each output is trained, by its name; one that is not named as its graph shows it.
    pub outputs: BTreeMap<String, OutputLoss>,
    /// BatchNormalization.
    pub bn: BnMode,
    /// Weight decay for every weight; `None`: by the weights' bits.
    pub weight_decay: Option<f32>,
    /// Are weights that oscillate frozen?
    pub oscillations: Oscillations,
    /// What the engine has beyond standard ops.
    pub dialect: Dialect,
    /// Are the gradients and every quantizer's v̄ outputs?
    pub gradients: Gradients,
}

/// Are gradients outputs of the step graph?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gradients {
    /// They stay inside.
    Hidden,
    /// They are, with every quantizer's v̄.
    Outputs,
}

/// A graph that takes one step, and the state that it starts from.
pub struct StepGraph {
    /// The graph: standard ops, every shape fixed.
    pub model: Model,
    /// The state before the first step, by input.
    pub state: Tensors,
    /// Which output is which input's next value.
    pub bindings: Vec<StateBinding>,
    /// The least values that each step may take, by input: one for each of its elements.
    pub floors: BTreeMap<String, Vec<f32>>,
}

impl StepGraph {
    /// What a step is estimated to take; see [`super::memory`].
    #[must_use]
    pub fn estimate(&self) -> Size {
        Size::of(super::memory::peak_bytes(&self.model.graph))
    }
}

/// Momentum of SGD (arXiv 1902.08153, section 2.3).
const MOMENTUM: f32 = 0.9;
/// A step may shrink to this part of its start and no further: by then its quantizer has lost the distribution, and at 0 it is undefined.
const STEP_FLOOR: f32 = 1.0 / 1024.0;
/// γ of a BatchNormalization that folds stays positive; a filter this faint is as good as dead.
const GAMMA_FLOOR: f32 = 1e-6;

/// Weight decay by the bits of the weight (arXiv 1902.08153, section 2.3: 1e-4 at 8 and 4 bits, half of it at 3, a quarter at 2).
#[must_use]
pub fn weight_decay(bits: u32) -> f32 {
    match bits {
        2 => 0.25e-4,
        3 => 0.5e-4,
        _ => 1e-4,
    }
}

/// Makes the step graph of `quantized`, whose steps are set. `teacher` is the float model.
///
/// # Errors
/// Bad input where a pass refuses the model.
pub fn assemble(
    compiler: &mut Compiler,
    quantized: &Model,
    teacher: &Model,
    sites: &Sites,
    plan: &StepPlan,
) -> Result<StepGraph> {
    let shapes = InputShapes(plan.shapes.clone());
    let mut model = quantized.clone();
    fix(compiler, &mut model, &shapes)?;
    let needs_teacher = plan.loss != Loss::CrossEntropy;
    let teacher = if needs_teacher {
        let mut teacher = teacher.clone();
        fix(compiler, &mut teacher, &shapes)?;
        Some(teacher)
    } else {
        None
    };
    set_gains(&mut model.graph)?;
    let floors = floors(&model.graph);
    let optimizer = OptimizerPlan {
        momentum: MOMENTUM,
        weight_decay: decays(&model.graph, sites, plan.weight_decay),
        floors: floors
            .iter()
            .map(|(name, (_, floor))| (name.clone(), floor.clone()))
            .collect(),
    };
    let passes = match plan.bn {
        BnMode::Batch => pipelines::TRAIN,
        BnMode::Frozen => pipelines::TRAIN_FROZEN,
    };
    let codes = if plan.gradients == Gradients::Outputs {
        Codes::Outputs
    } else {
        Codes::Hidden
    };
    let loss = LossPlan {
        loss: plan.loss,
        teacher,
        outputs: plan.outputs.clone(),
    };
    let prepare = |cx: &mut lsqc_passes::pass::PassCx| {
        cx.set(loss);
        cx.set(optimizer);
        cx.set(codes);
        cx.set(plan.oscillations);
        cx.set(plan.dialect.clone());
    };
    compiler.run(passes, &mut model, prepare, |_| ())?;
    if plan.gradients == Gradients::Hidden {
        let kept = model
            .graph
            .outputs()
            .iter()
            .copied()
            .filter(|&output| !matches!(model.graph[output].role, Role::Gradient(_)));
        let kept: Vec<ValueId> = kept.collect();
        model.graph.set_outputs(kept);
    }
    compiler.run(pipelines::CLEAN, &mut model, |_| (), |_| ())?;
    let (state, bindings) = take_state(&mut model.graph)?;
    let floors = floors
        .into_iter()
        .filter(|(_, (role, _))| *role == Role::Step)
        .map(|(name, (_, floor))| (name, floor))
        .collect();
    Ok(StepGraph {
        model,
        state,
        bindings,
        floors,
    })
}

/// The quantized layers whose weight no gradient of the loss reaches, by name. The steps of quantizers need not be set.
///
/// # Errors
/// As [`assemble`].
pub fn unreached(
    compiler: &mut Compiler,
    quantized: &Model,
    teacher: &Model,
    sites: &Sites,
    plan: &StepPlan,
) -> Result<BTreeSet<String>> {
    let shapes = InputShapes(plan.shapes.clone());
    let (mut model, mut teacher) = (quantized.clone(), teacher.clone());
    fix(compiler, &mut model, &shapes)?;
    fix(compiler, &mut teacher, &shapes)?;
    let stored: BTreeMap<&str, String> = sites
        .layers
        .iter()
        .filter_map(|layer| {
            let (_, quantizer) = model.graph.producer(model.graph.find(&layer.weight)?)?;
            Some((layer.name.as_str(), model.graph[quantizer.input(0)?].name().to_owned()))
        })
        .collect();
    let loss = LossPlan {
        loss: plan.loss,
        teacher: Some(teacher),
        outputs: plan.outputs.clone(),
    };
    // Its notes are those of the step graph, which follows.
    compiler.run(pipelines::GRADIENTS, &mut model, |cx| cx.set(loss), |_| ())?;
    let graph = &model.graph;
    let reached = with_gradient(graph);
    let apart = stored.into_iter().filter(|(_, weight)| !reached.contains(weight.as_str()));
    Ok(apart.map(|(layer, _)| layer.to_owned()).collect())
}

fn fix(compiler: &mut Compiler, model: &mut Model, shapes: &InputShapes) -> Result<()> {
    compiler.run(pipelines::FIX, model, |cx| cx.set(shapes.clone()), |_| ())
}

/// g = 1/√(N·Q_P): N is the number of weights that share the step, or of features of one example (arXiv 1902.08153, section 2.2).
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn set_gains(graph: &mut Graph) -> Result<()> {
    for id in graph.node_list() {
        let node = &graph[id];
        if !node.op.is_lsqc("FakeQuantize") {
            continue;
        }
        let x = node.input(0).context("a quantizer takes nothing")?;
        let quantizer = Quantizer::of(node).map_err(anyhow::Error::msg)?;
        let shape = graph[x]
            .shape()
            .with_context(|| format!("the shape of '{}' is not fixed", graph[x].name()))?;
        let is_weight = graph[x].initial().is_some();
        let count: usize = if let Some(block) = quantizer.block {
            let axis = quantizer.axis.and_then(|axis| usize::try_from(axis).ok());
            let extent = axis.and_then(|axis| shape.get(axis)).copied().unwrap_or(block);
            block.min(extent)
        } else if is_weight {
            let steps = node.input(1).and_then(|step| graph[step].shape());
            let steps: usize = steps.unwrap_or_default().iter().product();
            shape.iter().product::<usize>() / steps.max(1)
        } else {
            shape.iter().skip(1).product()
        };
        let gain = 1.0 / (count.max(1) as f64 * f64::from(quantizer.range.q_p())).sqrt();
        graph[id].set_attr("gain", gain as f32);
    }
    Ok(())
}

fn floors(graph: &Graph) -> BTreeMap<String, (Role, Vec<f32>)> {
    let mut floors = BTreeMap::new();
    for (id, node) in graph.nodes() {
        if node.op.is_lsqc("FakeQuantize")
            && let Some(step) = node.input(1)
            && let Some(starts) = graph[step].initial().and_then(Tensor::to_f32)
        {
            let least = starts.iter().map(|start| start * STEP_FLOOR).collect();
            floors.insert(graph[step].name().to_owned(), (Role::Step, least));
        }
        if node.op.is("BatchNormalization")
            && fold_of(graph, id).is_ok()
            && let Some(gamma) = node.input(1)
        {
            floors.insert(graph[gamma].name().to_owned(), (Role::Parameter, vec![GAMMA_FLOOR]));
        }
    }
    floors
}

fn decays(graph: &Graph, sites: &Sites, asked: Option<f32>) -> BTreeMap<String, f32> {
    let mut decays = BTreeMap::new();
    for (id, node) in graph.nodes() {
        let Ok(op) = lsqc_passes::analyze::weighted(graph, id) else {
            continue;
        };
        let label = node.label(graph);
        // A layer that stays in floats decays as the 8-bit ones do.
        let bits = sites.weights().find(|(name, ..)| *name == label).map_or(8, |(.., bits)| bits);
        decays.insert(
            graph[op.weight].name().to_owned(),
            asked.unwrap_or_else(|| weight_decay(bits)),
        );
    }
    decays
}

/// Takes the defaults out of the graph, so that the caller feeds them, and pairs each with its next value.
fn take_state(graph: &mut Graph) -> Result<(Tensors, Vec<StateBinding>)> {
    let mut bindings = Vec::new();
    for &output in graph.outputs() {
        if let Role::Next(input) = graph[output].role {
            bindings.push(StateBinding {
                current: graph[input].name().to_owned(),
                next: graph[output].name().to_owned(),
            });
        }
    }
    let mut state = Tensors::new();
    for input in graph.inputs().to_vec() {
        let name = graph[input].name().to_owned();
        if !bindings.iter().any(|binding| binding.current == name) {
            // Nothing updates it: it is a constant after all.
            graph.demote(input);
        } else if let Some(literal) = graph.take_default(input) {
            state.insert(name, literal.tensor);
        }
    }
    Ok((state, bindings))
}
