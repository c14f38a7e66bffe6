//! Rules on quantizers, whatever runs them: scales, pairs, axes. And on grids that only some runtimes have: zero points, scales along an axis,
//! what may stand between a `QuantizeLinear` and its `DequantizeLinear`.

use super::view::{Kind, Linear, View, same_grid};
use super::{Findings, Look, Rule};
use crate::ir::NodeId;

/// Scales are positive numbers.
pub static SCALE: Rule = Rule {
    id: "scale",
    says: "scales are positive, finite numbers: with any other a quantizer computes nothing",
    cure: "calibrate again; a channel whose values are all 0 takes any positive scale",
    look: Look::Graphs(scale),
};

fn scale(view: &View, found: &mut Findings) {
    for linear in view.grids().collect::<Vec<_>>() {
        let Some(values) = linear.scale.as_ref().and_then(crate::ir::Tensor::to_f64) else {
            continue;
        };
        let wrong = |value: &&f64| !value.is_finite() || **value <= 0.0;
        if let Some(value) = values.iter().find(wrong) {
            found.at(view.graph, linear.id, format!("a scale is {value}"));
        }
    }
}

/// Both halves of a pair have one grid.
pub static PAIR: Rule = Rule {
    id: "pair",
    says: "a DequantizeLinear takes the scale and zero point of the QuantizeLinear before it: with others the pair scales its values, and a \
           runtime that fuses it computes something else",
    cure: "give both the same scale, zero point and axis; write an intended factor as a Mul",
    look: Look::Graphs(pair),
};

fn pair(view: &View, found: &mut Findings) {
    for dequantize in view.linears(Kind::Dequantize) {
        let Some(quantize) = view.source(&dequantize).quantize else {
            continue;
        };
        if same_grid(&quantize, &dequantize) == Some(false) {
            let what = format!("{} and levels of {}", described(&dequantize), described(&quantize));
            found.at(view.graph, dequantize.id, what);
        }
    }
}

fn described(linear: &Linear) -> String {
    let scale = linear
        .step()
        .map_or("scales along an axis".to_owned(), |step| format!("scale {step}"));
    match linear.zero_level() {
        Some(zero) => format!("{scale}, zero point {zero}"),
        None => scale,
    }
}

/// A scale for each slice.
pub static AXIS: Rule = Rule {
    id: "axis",
    says: "scales along an axis are as many as the axis has extents",
    cure: "set the attribute axis to the one that the scales belong to",
    look: Look::Graphs(axis),
};

fn axis(view: &View, found: &mut Findings) {
    for linear in view.grids().collect::<Vec<_>>() {
        let (Some(axis), Some(rank), Some(scale)) = (linear.axis(), view.rank(linear.x), &linear.scale) else {
            continue;
        };
        let place = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok();
        let Some(place) = place.filter(|&place| i64::try_from(place).is_ok_and(|place| place < rank)) else {
            found.at(view.graph, linear.id, format!("axis {axis} of a value that has {rank}"));
            continue;
        };
        let extent = view.extent(linear.x, place);
        if extent.is_some_and(|extent| extent != scale.len()) {
            let what = format!("{} scales along axis {axis}, which has {}", scale.len(), extent.unwrap_or(0));
            found.at(view.graph, linear.id, what);
        }
    }
}

/// Symmetric quantization.
pub static ZERO_POINT: Rule = Rule {
    id: "zero-point",
    says: "zero points are 0 or left out: quantization is symmetric",
    cure: "quantize symmetrically: in ONNX Runtime's tools ActivationSymmetric and WeightSymmetric",
    look: Look::Graphs(zero_point),
};

fn zero_point(view: &View, found: &mut Findings) {
    for linear in view.grids().collect::<Vec<_>>() {
        if linear.is_symmetric() == Some(false) {
            let what = linear
                .zero_level()
                .map_or("a zero point is not 0".to_owned(), |zero| format!("its zero point is {zero}"));
            found.at(view.graph, linear.id, what);
        }
    }
}

/// One scale for an activation.
pub static ACTIVATION_PER_TENSOR: Rule = Rule {
    id: "activation-per-tensor",
    says: "an activation has one scale: sums over channels with scales of their own are not sums of levels",
    cure: "quantize activations with one scale each; weights may have one for each output channel",
    look: Look::Graphs(activation_per_tensor),
};

fn activation_per_tensor(view: &View, found: &mut Findings) {
    for linear in view.grids().collect::<Vec<_>>() {
        let scales = linear.scale.as_ref().map_or(1, crate::ir::Tensor::len);
        if scales > 1 && !view.is_constant(linear.x) {
            found.at(view.graph, linear.id, format!("{scales} scales for an activation"));
        }
    }
}

/// Nothing stands between the two halves.
pub static NOTHING_BETWEEN: Rule = Rule {
    id: "nothing-between",
    says: "levels go from QuantizeLinear straight to DequantizeLinear, and weights from the file: no other op computes with levels",
    cure: "put a Clip in floats before the QuantizeLinear instead, and store weights in the type that DequantizeLinear takes",
    look: Look::Graphs(nothing_between),
};

fn nothing_between(view: &View, found: &mut Findings) {
    let graph = view.graph;
    let mut seen: Vec<NodeId> = Vec::new();
    for (id, node) in graph.nodes() {
        let Some(linear) = view.linear(id) else { continue };
        let others: Vec<NodeId> = if linear.quantizes() {
            let takers = graph[linear.y].uses().iter().filter(|used| !used.is_capture());
            takers
                .map(|used| used.node)
                .filter(|&taker| view.linear(taker).is_none())
                .collect()
        } else {
            let maker = view
                .maker(linear.x)
                .filter(|(maker, node)| view.linear(*maker).is_none() && !node.op.is("Constant"));
            maker.map(|(maker, _)| maker).into_iter().collect()
        };
        for other in others {
            if !graph[other].op.is("Identity") && !seen.contains(&other) {
                seen.push(other);
                found.at(graph, other, format!("it stands beside {}, among levels", node.op.name));
            }
        }
    }
}
