//! Folds every BatchNormalization that directly follows a quantized weighted op, exactly.
//!
//! With f = γ/√(σ² + ε), per output channel:  BN(s·v̄ ∗ x + b) = (s·f)·v̄ ∗ x + (b − μ)·f + β. The levels v̄ stay; the step becomes one for
//! each channel, s·f (if it was not before), and needs γ > 0, which `flip-gammas` and the floor of γ in training see to.
//!
//! A dead channel (f so small that its bias, on the grid of its scale, leaves 32 bits) gets zero levels and the old step: its convolution
//! contributes nothing beside its bias.
//!
//! It refuses, with a note: what `analyze::fold_of` refuses, layers that stay in floats, and γ below 0.

use super::snap_biases::BIAS_LIMIT;
use super::{Fixed, Form, input_quantizer};
use crate::analyze::{Fold, fold_of};
use crate::ir::{Attribute, Graph, Model, NodeId, Op, Tensor, ValueId};
use crate::ops::Quantizer;
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static FOLD_BATCH_NORMS: Pass = Pass {
    name: "fold-batch-norms",
    about: "fold BatchNormalization exactly into the step and bias of the quantized op before it",
    needs: "trained values are constants",
    gives: "weight steps per channel; no BatchNormalization directly after a quantized op",
    run,
};

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let form: Form = cx.get();
    let graph = &mut model.graph;
    let mut changed = false;
    for id in graph.node_list() {
        if !graph[id].op.is("BatchNormalization") {
            continue;
        }
        let folded = fold_of(graph, id).map_err(str::to_owned);
        match folded.and_then(|fold| Ok((fold.op.node, fold_into(graph, fold, form)?))) {
            Ok((op, dead)) => {
                changed = true;
                if dead > 0 {
                    cx.note(
                        graph,
                        op,
                        format!("dead output channels, which have zero weights now: {dead}"),
                    );
                }
            }
            Err(why) => cx.note(graph, id, format!("stays in floats: {why}")),
        }
    }
    Ok(Changed::from(changed))
}

/// Folds one; gives the number of dead channels.
fn fold_into(graph: &mut Graph, fold: Fold, form: Form) -> Result<usize, String> {
    let operand = graph[fold.op.node]
        .input(fold.op.weight_index)
        .ok_or("the weight is missing")?;
    let (quantizer_node, fixed) = Fixed::behind(graph, operand).ok_or("the op before it stays in floats")?;
    if fixed.quantizer.block.is_some() {
        return Err("weights alone are quantized: the op before it is computed in floats".to_owned());
    }
    let own_axis = fixed
        .quantizer
        .axis
        .is_none_or(|axis| usize::try_from(axis) == Ok(fold.op.axis));
    if !own_axis {
        return Err("its weight has steps along another axis than that of its output channels".to_owned());
    }
    let weight = graph[fixed.x].constant().cloned().ok_or("the weight is not constant")?;
    let levels = fixed.levels(&weight).ok_or("the weight is not a number")?;
    let parameter = |index: usize| -> Result<Vec<f32>, String> {
        let value = graph[fold.norm].input(index).ok_or("a parameter is missing")?;
        graph[value]
            .constant()
            .and_then(Tensor::to_f32)
            .ok_or_else(|| "a parameter is not constant".to_owned())
    };
    let (gamma, beta, mean, variance) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
    let epsilon = f64::from(crate::ops::normalize::epsilon(&graph[fold.norm]));
    let channels = weight.shape().get(fold.op.axis).copied().unwrap_or(0);
    if [&gamma, &beta, &mean, &variance]
        .iter()
        .any(|values| values.len() != channels)
    {
        return Err("its parameters are not one for each output channel".to_owned());
    }
    if gamma.iter().any(|&gamma| gamma < 0.0) {
        return Err("its γ is below 0".to_owned());
    }
    let old_bias: Vec<f32> = match fold.op.bias_index.and_then(|index| graph[fold.op.node].input(index)) {
        Some(bias) => graph[bias]
            .constant()
            .and_then(Tensor::to_f32)
            .ok_or("the bias is not constant")?,
        None => vec![0.0; channels],
    };
    let input = input_quantizer(graph, fold.op.node).and_then(|input| input.step());
    let grid = input.ok_or("its input stays in floats")? / (1u32 << form.shift(graph, &fixed)) as f32;

    let mut steps = Vec::with_capacity(channels);
    let mut bias = Vec::with_capacity(channels);
    let mut dead = vec![false; channels];
    for c in 0..channels {
        let step = fixed.steps.get(if fixed.steps.len() == 1 { 0 } else { c }).copied();
        let step = step.ok_or("its weight has not a step for each output channel")?;
        let factor = f64::from(gamma[c]) / (f64::from(variance[c]) + epsilon).sqrt();
        #[allow(clippy::cast_possible_truncation)]
        let (scaled, shifted) = (
            (f64::from(step) * factor) as f32,
            ((f64::from(old_bias[c]) - f64::from(mean[c])) * factor + f64::from(beta[c])) as f32,
        );
        let integer_bias = (shifted / (grid * scaled)).abs();
        dead[c] = !scaled.is_normal() || integer_bias.is_nan() || integer_bias >= BIAS_LIMIT;
        steps.push(if dead[c] { step } else { scaled });
        bias.push(shifted);
    }
    let inner: usize = weight.shape().iter().skip(fold.op.axis + 1).product();
    let channel_of = |index: usize| (index / inner.max(1)) % channels.max(1);
    #[allow(clippy::cast_precision_loss)]
    let values: Vec<f32> = levels
        .iter()
        .enumerate()
        .map(|(index, &level)| {
            if dead[channel_of(index)] {
                0.0
            } else {
                level as f32 * steps[channel_of(index)]
            }
        })
        .collect();

    let axis = i64::try_from(fold.op.axis).map_err(|_| "the axis is absurd")?;
    let folded = Quantizer {
        axis: Some(axis),
        ..fixed.quantizer
    };
    replace_weight(
        graph,
        fold,
        quantizer_node,
        &fixed,
        Tensor::new(weight.shape(), values),
        Tensor::vector(steps),
        folded,
    );
    let op = replace_bias(graph, fold, Tensor::vector(bias)).ok_or("the op before it cannot take a bias")?;
    let (x, y) = (graph[op].output(0), graph[fold.norm].output(0));
    if let (Some(x), Some(y)) = (x, y) {
        if graph[x].ty.is_none() {
            graph[x].ty = graph[y].ty.clone();
        }
        graph.replace(y, x);
    }
    graph.remove_node(fold.norm);
    Ok(dead.iter().filter(|&&dead| dead).count())
}

fn replace_weight(
    graph: &mut Graph,
    fold: Fold,
    quantizer: NodeId,
    fixed: &Fixed,
    weight: Tensor,
    steps: Tensor,
    folded: Quantizer,
) {
    let [weight_name, step_name, base] =
        [fixed.x, fixed.step_value, fixed.y].map(|value| format!("{}/folded", graph[value].name()));
    let weight = graph.add_constant(&weight_name, weight);
    let steps = graph.add_constant(&step_name, steps);
    let value = graph.insert(Op::lsqc("FakeQuantize"), &[weight, steps], folded.attributes(), &base);
    graph[value].ty = graph[weight].ty.clone();
    graph.set_input(fold.op.node, fold.op.weight_index, Some(value));
    graph.remove_node(quantizer);
    for old in [fixed.x, fixed.step_value] {
        graph.remove_source(old);
    }
}

/// Gives the op the bias; a MatMul takes it by an Add behind it. Gives the node whose result stands for the BatchNormalization's.
fn replace_bias(graph: &mut Graph, fold: Fold, bias: Tensor) -> Option<NodeId> {
    let node = fold.op.node;
    let old = fold.op.bias_index.and_then(|index| graph[node].input(index));
    let base = match old {
        Some(old) => format!("{}/folded", graph[old].name()),
        None => format!("{}/bias", graph[node].label(graph)),
    };
    let bias: ValueId = graph.add_constant(&base, bias);
    if graph[node].op.is("MatMul") {
        let y = graph[node].output(0)?;
        let uses = graph[y].uses().to_vec();
        let base = format!("{}/biased", graph[y].name());
        let sum = graph.insert(Op::onnx("Add"), &[y, bias], Vec::<Attribute>::new(), &base);
        for used in uses {
            graph.set_input(used.node, used.index, Some(sum));
        }
        return graph[sum].producer();
    }
    graph.set_input(node, 2, Some(bias));
    if let Some(old) = old {
        graph.remove_source(old);
    }
    Some(node)
}
