//! Rules on joins: which sides of additions, concatenations, products and average pools are quantized.

use super::view::{Kind, View};
use super::{Findings, Look, Rule};
use crate::ir::{NodeId, ValueId};
use crate::ops::{self, Quant, clip_bounds};

/// The operands that are activations, and which of them are quantized.
fn sides(view: &View, id: NodeId) -> Vec<(ValueId, bool)> {
    let operands = view.graph[id].inputs().iter().flatten().copied();
    operands
        .filter(|&value| !view.is_constant(value) && !view.is_captured(value))
        .map(|value| (value, view.quantized(value).is_some()))
        .collect()
}

/// Additions in ONNX Runtime.
pub static ADD_SIDES: Rule = Rule {
    id: "add-sides",
    says: "of a residual addition both inputs and the result are quantized, or no input is: with some alone it runs in floats, and so does the \
           layer before an input that is not quantized",
    cure: "quantize both inputs and the result, or leave the addition to floats",
    look: Look::Graphs(add_sides),
};

fn add_sides(view: &View, found: &mut Findings) {
    for (id, node) in view.graph.nodes() {
        let sides = if node.op.is("Add") { sides(view, id) } else { Vec::new() };
        let [(a, first), (b, second)] = sides[..] else { continue };
        // A mask or a bias that is broadcast is no residual.
        if !view.same_shape(a, b) {
            continue;
        }
        if first != second {
            found.at(view.graph, id, "one of its inputs is quantized, the other is not");
        } else if first && node.output(0).is_some_and(|y| !view.reaches_quantizer(y)) {
            found.at(view.graph, id, "its inputs are quantized, its result is not");
        }
    }
}

/// Additions that end a layer.
pub static SHORTCUT_ADD: Rule = Rule {
    id: "shortcut-add",
    says: "a layer whose result goes to an addition alone has no quantizer in between, and the shortcut has: the runtime adds at the end of the \
           layer, and a quantizer there is dropped or keeps the two apart",
    cure: "take the quantizer away that stands between the layer and the addition; train with the placement \"shortcut\"",
    look: Look::Graphs(shortcut_add),
};

fn shortcut_add(view: &View, found: &mut Findings) {
    for (id, node) in view.graph.nodes() {
        let sides = if node.op.is("Add") { sides(view, id) } else { Vec::new() };
        let [(a, true), (b, true)] = sides[..] else { continue };
        if let Some(layer) = [a, b].into_iter().find_map(|value| quantized_layer(view, value)) {
            let label = view.graph[layer].label(view.graph);
            found.at(
                view.graph,
                id,
                format!("both its inputs are quantized, and one is the result of {label} alone"),
            );
        }
    }
}

/// The quantized layer whose result, quantized with its sign, is `value`, where nothing else takes it on the way.
fn quantized_layer(view: &View, value: ValueId) -> Option<NodeId> {
    let graph = view.graph;
    let dequantize = view.made_by(Kind::Dequantize, value)?;
    let source = view.source(&dequantize);
    let quantize = source.quantize?;
    // Levels that end at the zero point are those of a Relu, and the addition takes the Relu's result.
    let rectified = |id: &NodeId| {
        let clip = &graph[*id];
        let least = clip.input(1).and_then(|value| view.tensor(value)?.to_i64()?.first().copied());
        least.is_some() && least == quantize.zero_level()
    };
    let unsigned = quantize.zero_level() == Some(0) && quantize.levels == Some(crate::ir::DType::U8);
    if unsigned || source.between.iter().any(rectified) {
        return None;
    }
    let mut alone = vec![value, quantize.y, quantize.x];
    alone.extend(source.between.iter().filter_map(|&id| graph[id].output(0)));
    let mut result = quantize.x;
    if let Some((_, clamp)) = graph.producer(result).filter(|(_, node)| ops::quant(node) == Quant::Clamp) {
        let (lo, _) = if clamp.op.is("Relu") {
            (Some(0.0), None)
        } else {
            clip_bounds(graph, clamp).ok()?
        };
        if lo.is_some_and(|lo| lo >= 0.0) {
            return None;
        }
        result = clamp.input(0)?;
        alone.push(result);
    }
    let (layer, _) = graph.producer(result)?;
    let op = view.multiply(layer)?;
    let whole = op.levels().is_some() && alone.iter().all(|&value| graph.only_use(value).is_some());
    whole.then_some(layer)
}

/// Ops that TensorRT computes between quantizers.
pub static BOTH_SIDES: Rule = Rule {
    id: "both-sides",
    says: "average pools, concatenations and products with quantized inputs have all inputs and the result quantized: TensorRT runs them in \
           floats otherwise",
    cure: "quantize what is missing, or take the quantizers off its inputs",
    look: Look::Graphs(both_sides),
};

fn both_sides(view: &View, found: &mut Findings) {
    for (id, node) in view.graph.nodes() {
        let joins = ["AveragePool", "GlobalAveragePool", "Concat", "Mul"]
            .iter()
            .any(|op| node.op.is(op));
        let sides = if joins { sides(view, id) } else { Vec::new() };
        if !sides.iter().any(|(_, quantized)| *quantized) || node.op.is("Mul") && sides.len() < 2 {
            continue;
        }
        if sides.iter().any(|(_, quantized)| !quantized) {
            found.at(view.graph, id, "some of its inputs are quantized, others are not");
        } else if node.output(0).is_some_and(|y| !view.reaches_quantizer(y)) {
            found.at(view.graph, id, "its inputs are quantized, its result is not");
        }
    }
}
