//! Rules on where quantizers stand for ONNX Runtime, which computes an op in integers only where quantizers are on all sides of it, each where
//! its optimizer looks. Each is what ONNX Runtime 1.32's optimizer does; `tests/python/check_rules.py` asks it.

use super::view::{Kind, Linear, View, same_grid};
use super::{Findings, Look, Rule};
use crate::ir::{DType, NodeId, ValueId};
use crate::ops::{self, Quant, clip_bounds};

/// Zero points of a Gemm.
pub static ZERO_POINT_WRITTEN: Rule = Rule {
    id: "zero-point-written",
    says: "the quantizers of a Gemm's operands have zero points, also where these are 0: without them ONNX Runtime runs it in floats",
    cure: "write zero points of 0, of the type of the levels",
    look: Look::Graphs(zero_point_written),
};

fn zero_point_written(view: &View, found: &mut Findings) {
    for (op, data) in view.integer_multiplies().collect::<Vec<_>>() {
        if !op.node.op.is("Gemm") {
            continue;
        }
        for linear in std::iter::once(&data).chain(op.levels()) {
            if linear.node.input(2).is_none() {
                let what = format!("no zero point, before {}", op.node.label(view.graph));
                found.at(view.graph, linear.id, what);
            }
        }
    }
}

/// Is it the result of an op that ONNX Runtime computes in integers, if quantizers are where it looks?
fn is_integer_op(view: &View, id: NodeId) -> bool {
    let node = &view.graph[id];
    let quantized = |value: &ValueId| view.quantized(*value).is_some();
    match view.multiply(id) {
        Some(op) => op.levels().is_some() && quantized(&op.data),
        None => node.op.is("Add") && node.inputs().iter().flatten().all(quantized),
    }
}

/// A float clamp that the levels could hold.
pub static CLAMP_BEFORE: Rule = Rule {
    id: "clamp-before-quantizer",
    says: "between a quantized layer and its quantizer stands no Relu or Clip but one that the range of the levels holds already: with it the \
           layer runs in floats",
    cure: "take it away and narrow the levels instead, by a Clip(uint8) behind the QuantizeLinear; or choose a zero point of 0 behind a Relu",
    look: Look::Graphs(clamp_before),
};

fn clamp_before(view: &View, found: &mut Findings) {
    for quantize in view.linears(Kind::Quantize) {
        let Some((id, node)) = view.graph.producer(quantize.x) else {
            continue;
        };
        let before = node.input(0).and_then(|value| Some((value, view.graph.producer(value)?)));
        let Some((value, (layer, _))) = before.filter(|_| ops::quant(node) == Quant::Clamp) else {
            continue;
        };
        let alone = view.graph.only_use(quantize.x).is_some() && view.graph.only_use(value).is_some();
        if alone && quantize.levels == Some(DType::U8) && is_integer_op(view, layer) && narrows(view, id, &quantize) == Some(true)
        {
            found.at(
                view.graph,
                id,
                format!("it keeps {} in floats", view.graph[layer].label(view.graph)),
            );
        }
    }
}

/// Does the clamp cut off values that the quantizer's uint8 levels reach? `None` where its bounds are not known.
fn narrows(view: &View, clamp: NodeId, quantize: &Linear) -> Option<bool> {
    let (step, zero) = (quantize.step()?, quantize.zero_level()?);
    #[allow(clippy::cast_precision_loss)]
    let value = |level: i64| step * (level - zero) as f32;
    let node = &view.graph[clamp];
    let (lo, hi) = if node.op.is("Relu") {
        (Some(0.0), None)
    } else {
        clip_bounds(view.graph, node).ok()?
    };
    Some(lo.is_some_and(|lo| lo > value(0)) || hi.is_some_and(|hi| hi < value(255)))
}

/// One quantizer behind a layer.
pub static ONE_QUANTIZER: Rule = Rule {
    id: "one-quantizer",
    says: "the result of a quantized layer goes to one quantizer: with two of different grids the layer runs in floats",
    cure: "chain them: the second quantizer takes what the first dequantizes",
    look: Look::Graphs(one_quantizer),
};

fn one_quantizer(view: &View, found: &mut Findings) {
    for (op, _) in view.integer_multiplies().collect::<Vec<_>>() {
        let Some(y) = op.node.output(0) else { continue };
        let takers = view.quantizers_of(y);
        let Some((first, others)) = takers.split_first() else {
            continue;
        };
        if others.iter().any(|other| same_grid(first, other) == Some(false)) {
            found.at(view.graph, op.id, format!("its result goes to {} quantizers", takers.len()));
        }
    }
}

/// Two pairs, one behind the other.
pub static SECOND_CLIP: Rule = Rule {
    id: "second-clip",
    says: "of two quantizers of different grids, one behind the other, the second has a Clip: without it ONNX Runtime makes one quantizer of \
           the two, which rounds otherwise",
    cure: "put a Clip(uint8, 0, 255) between the second QuantizeLinear and its DequantizeLinear",
    look: Look::Graphs(second_clip),
};

fn second_clip(view: &View, found: &mut Findings) {
    let graph = view.graph;
    for second in view.linears(Kind::Quantize) {
        let first = graph.producer(second.x).and_then(|(id, _)| view.linear(id));
        let Some(dequantize) = first.filter(|first| !first.quantizes() && graph.only_use(first.y).is_some()) else {
            continue;
        };
        let maker = graph.producer(dequantize.x).and_then(|(id, _)| view.linear(id));
        let Some(first) = maker.filter(|first| first.quantizes() && graph.only_use(first.y).is_some()) else {
            continue;
        };
        let takers = graph[second.y].uses();
        let straight = takers
            .iter()
            .any(|used| view.linear(used.node).is_some_and(|linear| !linear.quantizes()));
        let differ = same_grid(&first, &second) == Some(false) && first.levels == second.levels;
        if straight && differ && !view.is_constant(first.x) {
            found.at(
                graph,
                second.id,
                format!("it stands behind {} of another grid", dequantize.node.label(graph)),
            );
        }
    }
}

/// Quantizers behind moves.
pub static REPEAT_BEHIND_MOVES: Rule = Rule {
    id: "repeat-behind-moves",
    says: "behind Flatten, GlobalMaxPool and Concat a quantizer is repeated before a quantized layer: ONNX Runtime carries it through MaxPool, \
           Reshape, Transpose, Squeeze and Unsqueeze by itself, through others not, and the layer runs in floats",
    cure: "put QuantizeLinear and DequantizeLinear of the same scale and zero point behind that op",
    look: Look::Graphs(repeat_behind_moves),
};

fn repeat_behind_moves(view: &View, found: &mut Findings) {
    for op in view.multiplies() {
        if op.levels().is_none() {
            continue;
        }
        let graph = view.graph;
        let (mut value, mut stops) = (op.data, None);
        let reached = loop {
            if view.made_by(Kind::Dequantize, value).is_some() {
                break true;
            }
            let Some((id, node)) = view.maker(value) else { break false };
            let carried = ["MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze"]
                .iter()
                .any(|op| node.op.is(op));
            let moves = ops::quant(node) == Quant::Transparent || node.op.is("Concat");
            let Some(input) = node.input(0).filter(|_| moves) else {
                break false;
            };
            if !carried {
                stops = Some(id);
            }
            value = input;
        };
        if let Some(stop) = stops.filter(|_| reached) {
            let what = format!("no quantizer behind {} ({})", graph[stop].label(graph), graph[stop].op);
            found.at(graph, op.id, what);
        }
    }
}
