//! The front of a run: the model is read and checked, quantizers are placed, their steps are set.
//!
//! `quantize`, `inspect` and `bench` all come this way, so that what one shows or times is what another does. Refused are patterns of
//! lsqc.toml that no layer matches, weights that are not finite, and operator sets that lsqc does not know.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use lsqc_passes::analyze::Halves;
use lsqc_passes::ir::{Model, Tensor};
use lsqc_passes::lower::{Form, RESTORE_HALVES, most_weight_bits};
use lsqc_passes::onnx::check_opset;
use lsqc_passes::pass::PassCx;
use lsqc_passes::pipelines;
use lsqc_passes::quantize::{self, QuantizePlan, SET_STEPS, Sites, StepInit, Untrained};
use lsqc_passes::target::{self, Sums};

use super::{batch, inputs};
use crate::calibrate::Calibration;
use crate::compiler::Compiler;
use crate::config::{Granularity, Init, Placement, Quantization, Signedness};
use crate::data::FileDigest;
use crate::engine::Tensors;
use crate::failure::Failure;
use crate::model_file::{self, ModelFile};

use super::weight_only;

/// A float model, read and checked.
pub struct Front {
    /// The model in plain form.
    pub float: Model,
    /// What of it was in half precision.
    pub halves: Halves,
    /// What is remarkable about the file.
    pub warnings: Vec<String>,
    /// The file.
    pub input: FileDigest,
}

/// Reads the model and brings it into plain form.
///
/// # Errors
/// Bad input for the model; usage for patterns that match nothing.
pub fn read(asked: &Quantization, compiler: &mut Compiler) -> Result<Front> {
    let ModelFile { model, warnings, bytes } = model_file::read(&asked.model)?;
    let warnings = warnings.iter().map(ToString::to_string);
    let Plain { float, halves, settled } = plain(asked, model, compiler)?;
    Ok(Front {
        float,
        halves,
        warnings: warnings.chain(settled).collect(),
        input: FileDigest::of(&asked.model, &bytes),
    })
}

/// A float model in plain form.
pub struct Plain {
    /// The model.
    pub float: Model,
    /// What of it was in half precision.
    pub halves: Halves,
    /// What the user should know of what became of it.
    pub settled: Vec<String>,
}

/// Brings a model that was read into plain form.
///
/// # Errors
/// As [`read`].
pub fn plain(asked: &Quantization, model: Model, compiler: &mut Compiler) -> Result<Plain> {
    check_opset(&model).map_err(|error| {
        let help = error.help();
        Failure::bad_input(format!("{}: {error}", asked.model.display())).help(help)
    })?;
    let mut float = model;
    inputs::settle(&mut float, &asked.inputs)?;
    let mut settled: Vec<String> = batch::settle(&mut float).into_iter().collect();
    let halves = widen(&mut float, compiler)?;
    settled.extend(widened(&halves));
    compiler.run(pipelines::SIMPLIFY, &mut float, |_| (), |_| ())?;
    check_runtime(asked, &float)?;
    check_globs(asked, &float)?;
    check_weights(asked, &float)?;
    Ok(Plain { float, halves, settled })
}

/// Lets a model in half precision compute in single precision.
fn widen(float: &mut Model, compiler: &mut Compiler) -> Result<Halves> {
    if Halves::of(&float.graph).is_none() && float.functions.is_empty() {
        return Ok(Halves::default());
    }
    compiler.run(pipelines::WIDEN, float, |_| (), |cx| cx.take().unwrap_or_default())
}

/// What the user should know of that.
fn widened(halves: &Halves) -> Option<String> {
    let mut border = halves.inputs.iter().chain(&halves.outputs);
    let dtype = halves.stored.or_else(|| border.next().map(|(_, dtype)| *dtype))?;
    Some(format!(
        "the model computes in {dtype}: it is calibrated, trained and measured in float, and so does the file, whose inputs and outputs keep \
         their types"
    ))
}

/// The inputs of a sample in the types that the border has.
#[must_use]
pub fn as_halves(mut inputs: Tensors, halves: &Halves) -> Tensors {
    for (name, dtype) in &halves.inputs {
        if let Some(tensor) = inputs.get_mut(name)
            && let Some(half) = tensor
                .to_f32()
                .and_then(|values| Tensor::of_floats(*dtype, tensor.shape(), values))
        {
            *tensor = half;
        }
    }
    inputs
}

/// Gives a finished network the half precision at its border that the model had.
///
/// # Errors
/// As a pass has them.
pub fn restore(halves: &Halves, model: &mut Model, compiler: &mut Compiler) -> Result<()> {
    let halves = halves.clone();
    compiler.run(&[&RESTORE_HALVES], model, |cx| cx.set(halves), |_| ())
}

/// Makes every γ of `float` positive, and gives the network with quantizers, their steps still unset.
///
/// # Errors
/// Bad input, if there is nothing to quantize; usage, if weights alone are asked for and no layer has them.
pub fn place(asked: &Quantization, compiler: &mut Compiler, float: &mut Model) -> Result<(Model, Sites)> {
    place_with(asked, &BTreeSet::new(), compiler, float)
}

/// As [`place`]; the `untrained` layers, which no gradient reaches, take 8 bits where no rule of the user says otherwise.
///
/// # Errors
/// As [`place`].
pub fn place_with(
    asked: &Quantization,
    untrained: &BTreeSet<String>,
    compiler: &mut Compiler,
    float: &mut Model,
) -> Result<(Model, Sites)> {
    compiler.run(&[&quantize::FLIP_GAMMAS], float, |_| (), |_| ())?;
    let mut initial = float.clone();
    let plan = quantize_plan(asked, untrained);
    if let Some(plan) = &plan.weight_only {
        weight_only::check(asked, &initial.graph, plan)?;
    }
    let sites = compiler.run(
        pipelines::QUANTIZE,
        &mut initial,
        |cx| cx.set(plan),
        |cx| cx.take().unwrap_or_default(),
    )?;
    Ok((initial, sites))
}

/// Gives every quantizer its first step and sign.
///
/// # Errors
/// If a step is missing.
pub fn set_steps(compiler: &mut Compiler, initial: &mut Model, calibration: &Calibration, init: StepInit) -> Result<()> {
    let steps = calibration.steps.clone();
    let untrained = Untrained(calibration.untrained.clone());
    let set = |cx: &mut PassCx| {
        cx.set(steps);
        cx.set(init);
        cx.set(untrained);
    };
    compiler.run(&[&SET_STEPS], initial, set, |_| ())
}

/// How steps start, in the compiler's word.
#[must_use]
pub fn step_init(init: Init) -> StepInit {
    match init {
        Init::Auto => StepInit::ByBits,
        Init::Lsq => StepInit::Lsq,
        Init::Mse => StepInit::MinMse,
    }
}

/// How the lowered file is written.
#[must_use]
pub fn form(asked: &Quantization) -> Form {
    Form {
        storage: asked.deployment.storage,
        sums: asked.deployment.sums,
        ..Form::of(asked.deployment.target)
    }
}

fn quantize_plan(asked: &Quantization, untrained: &BTreeSet<String>) -> QuantizePlan {
    let bits = |bits: crate::config::Bits| quantize::Bits {
        weight: bits.weights().into(),
        // Where they stay in floats nobody looks at it.
        activation: bits.activations().map_or(quantize::EDGE_BITS, u32::from),
        sign: bits.sign().map(|sign| match sign {
            Signedness::Unsigned => quantize::Sign::Unsigned,
            Signedness::Signed => quantize::Sign::Signed,
        }),
    };
    let deployment = &asked.deployment;
    let rules = asked.layers.clone();
    let untrained = untrained.clone();
    let eight = quantize::Bits {
        weight: quantize::EDGE_BITS,
        activation: quantize::EDGE_BITS,
        sign: None,
    };
    let form = form(asked);
    let weight_only = weight_only::plan(asked);
    QuantizePlan {
        bits: bits(asked.bits),
        placement: match deployment.placement {
            Placement::Q8 => target::Placement::EightBitAdds,
            Placement::Shared => target::Placement::Shared,
            Placement::Shortcut => target::Placement::Shortcut,
            Placement::Paper => target::Placement::Paper,
        },
        requantizing: deployment.target.requantizing,
        results: deployment.target.results,
        granularity: match deployment.granularity {
            Granularity::PerTensor => quantize::Granularity::PerTensor,
            Granularity::PerChannel => quantize::Granularity::PerChannel,
        },
        most_weight_bits: match deployment.sums {
            Sums::Wide => None,
            Sums::SixteenBit => Some(Arc::new(move |input| most_weight_bits(form, input))),
        },
        rule: Arc::new(move |name| match rules.for_layer(name) {
            Some(crate::config::LayerRule::Bits(asked)) => Some(quantize::LayerRule::Quantize(bits(asked))),
            Some(crate::config::LayerRule::Float) => Some(quantize::LayerRule::Float),
            None => untrained.contains(name).then_some(quantize::LayerRule::Quantize(eight)),
        }),
        weight_only,
    }
}

/// Refuses a model whose operator set is too new for the oldest runtime that is to load the result.
fn check_runtime(asked: &Quantization, float: &Model) -> Result<()> {
    let deployment = &asked.deployment;
    let opset = float.opset().max(deployment.opset);
    let oldest = deployment.target.oldest(opset, deployment.storage);
    let (Some(oldest), Some(least)) = (oldest, deployment.runtime_min) else {
        return Ok(());
    };
    if oldest <= least {
        return Ok(());
    }
    let title = deployment.target.title;
    let message = format!("the file will have operator set {opset}, which {title} {least} does not load");
    Err(Failure::usage(message)
        .help(format!(
            "give --runtime-min {oldest} or later, or export the model with an older operator set"
        ))
        .into())
}

/// Refuses patterns of lsqc.toml that no weighted layer matches.
fn check_globs(asked: &Quantization, float: &Model) -> Result<()> {
    let graph = &float.graph;
    let names: Vec<String> = graph
        .nodes()
        .filter(|(_, node)| lsqc_passes::ops::is_weighted(node))
        .map(|(_, node)| node.label(graph).into_owned())
        .collect();
    let unmatched = asked.layers.unmatched(names.iter().map(String::as_str));
    let Some(pattern) = unmatched.first() else { return Ok(()) };
    let shown: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
    let more = if names.len() > shown.len() { ", …" } else { "" };
    let config = asked.config.as_deref().unwrap_or_else(|| Path::new("lsqc.toml"));
    Err(Failure::usage(format!(
        "{}: the pattern \"{pattern}\" in [quantize] layers matches no layer",
        config.display()
    ))
    .help(format!("the layers of this model are {}{more}", shown.join(", ")))
    .into())
}

/// Refuses weights that are not finite: a Relu on some engines hides what they do.
fn check_weights(asked: &Quantization, float: &Model) -> Result<()> {
    let graph = &float.graph;
    for (_, node) in graph.nodes() {
        if !lsqc_passes::ops::is_weighted(node) && !node.op.is("BatchNormalization") {
            continue;
        }
        for &operand in node.inputs().iter().flatten() {
            let values = graph[operand].constant().and_then(Tensor::to_f32).unwrap_or_default();
            if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
                let (file, name) = (asked.model.display(), graph[operand].name());
                let message = format!("{file}: '{name}' of the node '{}' holds {bad}", node.label(graph));
                return Err(Failure::bad_input(message)
                    .help("export the model again, from a training run that did not diverge")
                    .into());
            }
        }
    }
    Ok(())
}
