//! Writes the integers for ONNX Runtime: `QuantizeLinear(uint8) → Clip(uint8) → DequantizeLinear` around every op.
//!
//! - Activations are uint8, with zero point 0 (unsigned) or 128 (signed); the Clip narrows them to b bits and is left out at full range.
//! - A Relu or Clip that only a quantizer takes moves into the integer Clip: round is monotonic, so clipping before and after agree.
//! - Weights are int8, the level shifted left by k = 8 − b, with scale s_w/2^k; biases int32 with scale s_x·s_w/2^k.
//! - Behind an op that only moves values the same quantizer is repeated, because the runtime fuses an op only between two of them.
//! - Behind another quantizer the Clip stays even at full range: it keeps the runtime from merging the two, which it does wrongly.
//! - Zero points are always written: the runtime does not fuse a Gemm without.
//!
//! ONNX QuantizeLinear, DequantizeLinear (10, 13, …) and Clip (12: on integers). Per-axis scales need operator set 13.

use std::collections::HashMap;

use super::snap_biases::integer_bias;
use super::{Fixed, LevelSite, LevelSites, storage_shift};
use crate::analyze::weighted;
use crate::ir::{Attribute, DType, Graph, Model, NodeId, Op, Tensor, TensorType, ValueId};
use crate::ops::{self, Quant, clip_bounds};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static LOWER_ORT: Pass = Pass {
    name: "lower-ort",
    about: "write quantizers as uint8 QuantizeLinear, Clip, DequantizeLinear, and weights and biases as integers",
    needs: "operator set 13 or later; steps and weights are constants; biases are snapped",
    gives: "standard ONNX that ONNX Runtime runs in integers",
    run,
};

/// The zero point of signed levels in uint8.
const SIGNED_ZERO: i32 = 128;

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    if model.opset() < 13 {
        return Err(PassError::new("lowering needs operator set 13").help("run the pass upgrade-opset first"));
    }
    let graph = &mut model.graph;
    for id in graph.node_list() {
        if let Ok(op) = weighted(graph, id) {
            lower_bias(graph, op).map_err(|why| PassError::at(graph, id, why))?;
        }
    }
    // Names as the fake-quantized graph has them: lowering one quantizer renames what the next one takes.
    let sources: HashMap<NodeId, String> = graph
        .nodes()
        .filter_map(|(id, node)| Some((id, graph[Fixed::of(graph, node)?.x].name().to_owned())))
        .collect();
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
            lower_weight(graph, id, &fixed).map_err(|why| PassError::at(graph, id, why))?;
        } else {
            let lowered = lower_activation(graph, id, &fixed).map_err(|why| PassError::at(graph, id, why))?;
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

/// Scale and zero point, as values of the graph, of a dequantized value.
#[derive(Clone, Copy, PartialEq)]
struct Grid {
    scale: ValueId,
    zero_point: ValueId,
}

fn lower_activation(graph: &mut Graph, id: NodeId, fixed: &Fixed) -> Result<(LevelSite, ValueId, Grid), String> {
    let step = fixed.step().ok_or("an activation has one step")?;
    let range = fixed.quantizer.range;
    let zero = if range.signed { SIGNED_ZERO } else { 0 };
    let behind_quantizer = graph
        .producer(fixed.x)
        .is_some_and(|(_, node)| node.op.is("DequantizeLinear"));
    let (x, floor, ceiling) = absorb_clamps(graph, fixed, step);
    let (lo, hi) = (byte(floor + zero)?, byte(ceiling + zero)?);
    let zero = byte(zero)?;

    let name = graph[fixed.y].name().to_owned();
    let source = graph[fixed.x].name().to_owned();
    let scale = fixed.step_value;
    let zero_point = graph.add_constant(&format!("{name}/zero_point"), Tensor::scalar(zero));
    let shape = graph[fixed.x].ty.as_ref().and_then(|ty| ty.shape.clone());
    let typed = |dtype: DType| {
        Some(TensorType {
            dtype,
            shape: shape.clone(),
        })
    };
    let mut levels = graph.insert(
        Op::onnx("QuantizeLinear"),
        &[x, scale, zero_point],
        vec![],
        &format!("{name}/quantized"),
    );
    graph[levels].ty = typed(DType::U8);
    if (lo, hi) != (0, u8::MAX) || behind_quantizer {
        let least = graph.add_constant(&format!("{name}/min"), Tensor::scalar(lo));
        let most = graph.add_constant(&format!("{name}/max"), Tensor::scalar(hi));
        levels = graph.insert(Op::onnx("Clip"), &[levels, least, most], vec![], &format!("{name}/levels"));
        graph[levels].ty = typed(DType::U8);
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
        range: (lo, hi),
    };
    Ok((site, dequantized, grid))
}

/// Names the nodes that make these values after the quantizer.
fn label(graph: &mut Graph, name: &str, values: &[ValueId]) {
    for &value in values {
        if let Some(node) = graph[value].producer() {
            graph[node].name = format!("{name}/{}", graph[node].op.name);
        }
    }
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
    let name = graph[y].name().to_owned();
    let uses = graph[y].uses().to_vec();
    let levels = graph.insert(
        Op::onnx("QuantizeLinear"),
        &[y, grid.scale, grid.zero_point],
        vec![],
        &format!("{name}/levels"),
    );
    let dequantized = dequantize(graph, levels, grid, &format!("{name}/dequantized"));
    graph[levels].ty = graph[y].ty.clone().map(|ty| TensorType { dtype: DType::U8, ..ty });
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

fn lower_weight(graph: &mut Graph, id: NodeId, fixed: &Fixed) -> Result<(), String> {
    let weight = graph[fixed.x].constant().ok_or("the weight is not constant")?;
    let shape = weight.shape().to_vec();
    let shift = storage_shift(fixed.quantizer.range.bits);
    let levels = fixed.levels(weight).ok_or("the weight is not a number")?;
    let stored: Vec<i8> = levels
        .iter()
        .map(|level| i8::try_from(level << shift))
        .collect::<Result<_, _>>()
        .map_err(|_| "a level leaves int8")?;
    #[allow(clippy::cast_precision_loss)]
    let scales: Vec<f32> = fixed.steps.iter().map(|step| step / (1u32 << shift) as f32).collect();
    let name = graph[fixed.x].name().to_owned();
    let scale_shape: Vec<usize> = if fixed.quantizer.axis.is_some() {
        vec![scales.len()]
    } else {
        vec![]
    };
    let zeros = Tensor::full(&scale_shape, 0i8);
    let levels = graph.add_constant(&format!("{name}/int8"), Tensor::new(&shape, stored));
    let scale = graph.add_constant(&format!("{name}/scale"), Tensor::new(&scale_shape, scales));
    let zero_point = graph.add_constant(&format!("{name}/zero_point"), zeros);
    let attributes = fixed
        .quantizer
        .axis
        .map(|axis| Attribute::new("axis", axis))
        .into_iter()
        .collect();
    let base = format!("{name}/dequantized");
    let dequantized = graph.insert(Op::onnx("DequantizeLinear"), &[levels, scale, zero_point], attributes, &base);
    graph[dequantized].ty = Some(TensorType::fixed(DType::F32, &shape));
    label(graph, &name, &[dequantized]);
    graph.replace(fixed.y, dequantized);
    graph.remove_node(id);
    for old in [fixed.x, fixed.step_value] {
        graph.remove_source(old);
    }
    Ok(())
}

fn lower_bias(graph: &mut Graph, op: crate::analyze::Weighted) -> Result<(), String> {
    let Some(bias) = integer_bias(graph, op)? else { return Ok(()) };
    let Some((index, value)) = op.bias_index.and_then(|index| Some((index, graph[op.node].input(index)?))) else {
        return Ok(());
    };
    let name = graph[value].name().to_owned();
    let channels = bias.levels.len();
    let scale_shape: Vec<usize> = if bias.scales.len() > 1 || op.axis == 0 && channels == 1 {
        vec![bias.scales.len()]
    } else {
        vec![]
    };
    let levels = graph.add_constant(&format!("{name}/int32"), Tensor::vector(bias.levels));
    let scale = graph.add_constant(&format!("{name}/scale"), Tensor::new(&scale_shape, bias.scales));
    let zero_point = graph.add_constant(&format!("{name}/zero_point"), Tensor::full(&scale_shape, 0i32));
    let attributes = if scale_shape.is_empty() {
        vec![]
    } else {
        vec![Attribute::new("axis", 0i64)]
    };
    let base = format!("{name}/dequantized");
    let dequantized = graph.insert(Op::onnx("DequantizeLinear"), &[levels, scale, zero_point], attributes, &base);
    graph[dequantized].ty = Some(TensorType::fixed(DType::F32, &[channels]));
    label(graph, &name, &[dequantized]);
    graph.set_input(op.node, index, Some(dequantized));
    graph.remove_source(value);
    Ok(())
}

fn byte(level: i32) -> Result<u8, String> {
    u8::try_from(level).map_err(|_| format!("level {level} leaves uint8"))
}
