//! Writes the integers: `QuantizeLinear → DequantizeLinear` around every op, as the target's [`Form`] says.
//!
//! - In unsigned bytes, activations are uint8 with zero point 0 (unsigned) or 128 (signed) and a Clip behind QuantizeLinear narrows them to b
//!   bits; in signed bytes they are int8 with zero point 0 and the Clip stands before it, in floats. It is left out at full range.
//! - A Relu or Clip that only a quantizer takes moves into that Clip: round is monotonic, so clipping before and after agree.
//! - Behind an op that only moves values the same quantizer is repeated, because a runtime fuses an op only between two of them.
//! - Behind another quantizer the integer Clip stays even at full range: it keeps ONNX Runtime from merging the two, which it does wrongly.
//! - Zero points are always written, but for those of biases: ONNX Runtime does not fuse a Gemm without.
//! - Weights and biases: [`stored`](super::stored), and for what is added to a MatMul [`matmul_biases`](super::matmul_biases).
//!
//! ONNX QuantizeLinear, DequantizeLinear (10, 13, …) and Clip (12: on integers). Per-axis scales need operator set 13.

use std::collections::HashMap;

use super::matmul_biases::lengthen_matmul_biases;
use super::stored::{lower_bias, lower_weight, shared};
use super::{Fixed, Form, LevelSite, LevelSites, label};
use crate::analyze::{product, weighted};
use crate::ir::{DType, Graph, Model, NodeId, Op, Tensor, TensorType, ValueId};
use crate::ops::{self, Quant, clip_bounds};
use crate::pass::{Changed, Pass, PassCx, PassError};
use crate::target::ActivationForm;

/// The pass.
pub static LOWER_QDQ: Pass = Pass {
    name: "lower-qdq",
    about: "write quantizers as QuantizeLinear, Clip, DequantizeLinear, and weights and biases as integers",
    needs: "operator set 13 or later; steps and weights are constants; biases are snapped",
    gives: "standard ONNX that the target runs in integers",
    run,
};

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    if model.opset() < 13 {
        return Err(PassError::new("lowering needs operator set 13").help("run the pass upgrade-opset first"));
    }
    let form: Form = cx.get();
    let graph = &mut model.graph;
    lengthen_matmul_biases(graph);
    for id in graph.node_list() {
        if let Ok(op) = weighted(graph, id) {
            lower_bias(graph, op, form).map_err(|why| PassError::at(graph, id, why))?;
        }
    }
    // Names as the fake-quantized graph has them: lowering one quantizer renames what the next one takes.
    let sources: HashMap<NodeId, String> = graph
        .nodes()
        .filter_map(|(id, node)| Some((id, graph[Fixed::of(graph, node)?.x].name().to_owned())))
        .collect();
    // Before the quantizers of the layers' inputs, on which they may depend, are gone.
    let shifts: HashMap<NodeId, u32> = graph
        .nodes()
        .filter_map(|(id, node)| Some((id, form.shift(graph, &Fixed::of(graph, node)?))))
        .collect();
    let operands = operands_of_products(graph);
    let mut sites = Vec::new();
    let mut grids = HashMap::new();
    for id in graph.node_list() {
        if !graph.contains(id) {
            continue;
        }
        let Some(fixed) = Fixed::of(graph, &graph[id]) else {
            repeat_behind_move(graph, id, &mut grids);
            continue;
        };
        if graph[fixed.x].constant().is_some() {
            let shift = shifts.get(&id).copied().unwrap_or(0);
            lower_weight(graph, id, &fixed, form, shift).map_err(|why| PassError::at(graph, id, why))?;
        } else {
            let form = operands
                .get(&id)
                .map_or(form, |&operand| form.of_operand(operand, fixed.quantizer.range));
            let lowered = lower_activation(graph, id, &fixed, form).map_err(|why| PassError::at(graph, id, why))?;
            let (mut site, dequantized, grid) = lowered;
            if let Some(source) = sources.get(&id) {
                site.source.clone_from(source);
            }
            sites.push(site);
            grids.insert(dequantized, grid);
        }
    }
    cx.set(LevelSites(sites));
    Ok(Changed::Yes)
}

/// The quantizers whose values products of two activations take, moved or not, and the operand; the second where it is both.
fn operands_of_products(graph: &Graph) -> HashMap<NodeId, usize> {
    let mut found = HashMap::new();
    for (id, node) in graph.nodes() {
        if product(graph, id).is_err() {
            continue;
        }
        for operand in 0..2 {
            let mut value = node.input(operand);
            while let Some((before, maker)) = value.and_then(|value| graph.producer(value)) {
                if Fixed::of(graph, maker).is_some() {
                    let known = found.entry(before).or_insert(operand);
                    *known = operand.max(*known);
                    break;
                }
                value = maker.input(0).filter(|_| ops::quant(maker) == Quant::Transparent);
            }
        }
    }
    found
}

/// Scale and zero point, as values of the graph, of a dequantized value.
#[derive(Clone, Copy, PartialEq)]
struct Grid {
    scale: ValueId,
    zero_point: ValueId,
}

fn lower_activation(graph: &mut Graph, id: NodeId, fixed: &Fixed, form: Form) -> Result<(LevelSite, ValueId, Grid), String> {
    let step = fixed.step().ok_or("an activation has one step")?;
    let zero = form.zero_point(fixed.quantizer.range);
    let behind_quantizer = graph
        .producer(fixed.x)
        .is_some_and(|(_, node)| node.op.is("DequantizeLinear"));
    let (x, floor, ceiling) = absorb_clamps(graph, fixed, step);

    let name = graph[fixed.y].name().to_owned();
    let source = graph[fixed.x].name().to_owned();
    let scale = fixed.step_value;
    if ceiling > form.most() - zero {
        let bits = fixed.quantizer.range.bits;
        return Err(format!("{} levels without a sign do not fit {}", 1u32 << bits, form.dtype()));
    }
    let byte = |level: i32| form.byte(level + zero);
    let zero_point = shared_level(graph, byte(0)?);
    let shape = graph[fixed.x].ty.as_ref().and_then(|ty| ty.shape.clone());
    let typed = |dtype: DType| {
        Some(TensorType {
            dtype,
            shape: shape.clone(),
        })
    };
    let mut before = x;
    let in_full = form.is_full(floor + zero, ceiling + zero);
    if form.activations == ActivationForm::SignedBytes && !in_full {
        #[allow(clippy::cast_precision_loss)]
        let bound = |level: i32| Tensor::scalar(level as f32 * step);
        let least = graph.add_constant(&format!("{name}/min"), bound(floor));
        let most = graph.add_constant(&format!("{name}/max"), bound(ceiling));
        before = clip(graph, x, (least, most), &format!("{name}/clipped"));
        graph[before].ty = typed(DType::F32);
        label(graph, &name, &[before]);
    }
    let base = format!("{name}/quantized");
    let mut levels = graph.insert(Op::onnx("QuantizeLinear"), &[before, scale, zero_point], vec![], &base);
    graph[levels].ty = typed(form.dtype());
    if form.activations == ActivationForm::UnsignedBytes && (!in_full || behind_quantizer) {
        let bounds = (shared_level(graph, byte(floor)?), shared_level(graph, byte(ceiling)?));
        levels = clip(graph, levels, bounds, &format!("{name}/levels"));
        graph[levels].ty = typed(form.dtype());
    }
    let grid = Grid { scale, zero_point };
    let dequantized = dequantize(graph, levels, grid, &format!("{name}/dequantized"));
    graph[dequantized].ty = typed(DType::F32);
    label(graph, &name, &[levels, dequantized]);
    graph.replace(fixed.y, dequantized);
    graph.remove_node(id);
    let site = LevelSite {
        value: name,
        source,
        levels: graph[levels].name().to_owned(),
        step,
        zero_point: zero,
        range: (floor + zero, ceiling + zero),
    };
    Ok((site, dequantized, grid))
}

/// A level, as a constant that all quantizers share: each is a few bytes, its names many more.
fn shared_level(graph: &mut Graph, level: Tensor) -> ValueId {
    let number = level.to_f32().and_then(|values| values.first().copied()).unwrap_or_default();
    shared(graph, &format!("{}/{number}", level.dtype()), level)
}

fn clip(graph: &mut Graph, x: ValueId, (least, most): (ValueId, ValueId), base: &str) -> ValueId {
    graph.insert(Op::onnx("Clip"), &[x, least, most], vec![], base)
}

fn dequantize(graph: &mut Graph, levels: ValueId, grid: Grid, base: &str) -> ValueId {
    graph.insert(
        Op::onnx("DequantizeLinear"),
        &[levels, grid.scale, grid.zero_point],
        vec![],
        base,
    )
}

/// Walks back over Relus and Clips that nothing else uses; gives what they take, and the levels that are left.
fn absorb_clamps(graph: &Graph, fixed: &Fixed, step: f32) -> (ValueId, i32, i32) {
    let (mut x, mut floor, mut ceiling) = (fixed.x, -fixed.quantizer.range.q_n(), fixed.quantizer.range.q_p());
    while let Some((_, node)) = graph.producer(x) {
        let only_quantizers = graph[x].uses().len() == 1 && !graph.outputs().contains(&x);
        if ops::quant(node) != Quant::Clamp || !only_quantizers {
            break;
        }
        let Ok((lo, hi)) = bounds_of(graph, node) else { break };
        let Some(input) = node.input(0) else { break };
        // What an inner clamp leaves goes through the outer ones, which are met first. An empty range gives its upper bound, as ONNX's.
        #[allow(clippy::cast_possible_truncation)]
        let level = |bound: f32| ((bound / step).round_ties_even() as i32).max(floor).min(ceiling);
        let most = hi.map_or(ceiling, level);
        floor = lo.map_or(floor, level).min(most);
        ceiling = most;
        x = input;
    }
    (x, floor, ceiling)
}

fn bounds_of(graph: &Graph, node: &crate::ir::Node) -> Result<(Option<f32>, Option<f32>), String> {
    if node.op.is("Relu") {
        Ok((Some(0.0), None))
    } else {
        clip_bounds(graph, node)
    }
}

/// Repeats the quantizer of what an op moved behind it.
fn repeat_behind_move(graph: &mut Graph, id: NodeId, grids: &mut HashMap<ValueId, Grid>) {
    let node = &graph[id];
    let is_move = ops::quant(node) == Quant::Transparent || node.op.is("Concat");
    let inputs: Vec<Option<Grid>> = match ops::quant(node) {
        Quant::Transparent => vec![node.input(0).and_then(|value| grids.get(&value).copied())],
        _ => node
            .inputs()
            .iter()
            .map(|input| input.and_then(|value| grids.get(&value).copied()))
            .collect(),
    };
    let (Some(Some(grid)), Some(y)) = (inputs.first().copied(), node.output(0)) else {
        return;
    };
    let same = |other: &Option<Grid>| other.is_some_and(|other| same_numbers(graph, grid, other));
    if !is_move || !inputs.iter().all(same) || graph.outputs().contains(&y) {
        return;
    }
    let dtype = graph[grid.zero_point].constant().map_or(DType::U8, Tensor::dtype);
    let name = graph[y].name().to_owned();
    let uses = graph[y].uses().to_vec();
    let levels = graph.insert(
        Op::onnx("QuantizeLinear"),
        &[y, grid.scale, grid.zero_point],
        vec![],
        &format!("{name}/levels"),
    );
    let dequantized = dequantize(graph, levels, grid, &format!("{name}/dequantized"));
    graph[levels].ty = graph[y].ty.clone().map(|ty| TensorType { dtype, ..ty });
    graph[dequantized].ty = graph[y].ty.clone();
    label(graph, &name, &[levels, dequantized]);
    for used in uses {
        if !used.is_capture() {
            graph.set_input(used.node, used.index, Some(dequantized));
        }
    }
    grids.insert(dequantized, grid);
}

fn same_numbers(graph: &Graph, a: Grid, b: Grid) -> bool {
    let equal = |x: ValueId, y: ValueId| x == y || graph[x].constant() == graph[y].constant();
    equal(a.scale, b.scale) && equal(a.zero_point, b.zero_point)
}
