//! Spreads weights in blocks to floats, for an engine that has no blocks: level times step, which is what a runtime computes when it loads the file or
//! runs it. The inverse of `lower-blocks`, by the bytes alone.
//!
//! `com.microsoft.MatMulNBits` without zero points becomes a MatMul, and `DequantizeLinear` of a constant int4 with `block_size` a constant.
//! Other forms stay as they are.

use super::blocks::DOMAIN;
use crate::ir::{DType, Graph, Model, Node, NodeId, Op, Tensor};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static UNPACK_BLOCKS: Pass = Pass {
    name: "unpack-blocks",
    about: "spread weights in blocks to floats",
    needs: "nothing",
    gives: "no MatMulNBits without zero points, no DequantizeLinear of a constant int4 in blocks",
    run,
};

fn run(model: &mut Model, _: &mut PassCx) -> Result<Changed, PassError> {
    let graph = &mut model.graph;
    let mut changed = false;
    for id in graph.node_list() {
        if let Some(weight) = product_weight(graph, &graph[id]) {
            let base = format!("{}/floats", operand_name(graph, id, 1));
            let weight = graph.add_constant(&base, weight);
            let (x, y, name) = (graph[id].input(0), graph[id].output(0), graph[id].name.clone());
            let (Some(x), Some(y)) = (x, y) else { continue };
            let result = graph[y].name().to_owned();
            let product = graph.insert(Op::onnx("MatMul"), &[x, weight], vec![], &result);
            graph[product].ty = graph[y].ty.clone();
            if let Some(node) = graph[product].producer() {
                graph[node].name = name;
            }
            let sources = graph[id].inputs().to_vec();
            graph.replace(y, product);
            graph.remove_node(id);
            if graph.find(&result).is_none() {
                graph.rename(product, &result);
            }
            graph.remove_sources(&sources.into_iter().flatten().collect::<Vec<_>>());
            changed = true;
        } else if let Some(weight) = dequantized(graph, &graph[id]) {
            let base = format!("{}/floats", operand_name(graph, id, 0));
            let Some(y) = graph[id].output(0) else { continue };
            let sources = graph[id].inputs().to_vec();
            let weight = graph.add_constant(&base, weight);
            graph.replace(y, weight);
            graph.remove_node(id);
            graph.remove_sources(&sources.into_iter().flatten().collect::<Vec<_>>());
            changed = true;
        }
    }
    Ok(Changed::from(changed))
}

fn operand_name(graph: &Graph, node: NodeId, index: usize) -> String {
    let operand = graph[node].input(index);
    operand.map_or_else(String::new, |value| graph[value].name().to_owned())
}

fn size(node: &Node, name: &str) -> Option<usize> {
    node.int(name)
        .and_then(|value| usize::try_from(value).ok())
        .filter(|&value| value > 0)
}

/// The weight `[K, N]` of a `MatMulNBits` whose levels and scales are constants and that has neither zero points nor an order of its own.
fn product_weight(graph: &Graph, node: &Node) -> Option<Tensor> {
    if node.op.domain != DOMAIN || node.op.name != "MatMulNBits" || (3..6).any(|index| node.input(index).is_some()) {
        return None;
    }
    let constant = |index: usize| graph[node.input(index)?].constant();
    let (levels, scales) = (constant(1)?.values::<u8>()?, constant(2)?.values::<f32>()?);
    let (inputs, outputs) = (size(node, "K")?, size(node, "N")?);
    let (block, bits) = (size(node, "block_size")?, size(node, "bits").unwrap_or(4));
    if ![2, 4, 8].contains(&bits) {
        return None;
    }
    let blocks = inputs.div_ceil(block);
    let mask = u8::MAX >> (8 - bits);
    let zero = 1i16 << (bits - 1);
    let mut weight = Vec::with_capacity(inputs.checked_mul(outputs)?);
    for k in 0..inputs {
        for n in 0..outputs {
            let bit = (n * blocks * block + k) * bits;
            let code = levels.get(bit / 8)? >> (bit % 8) & mask;
            let scale = scales.get(n * blocks + k / block)?;
            weight.push(f32::from(i16::from(code) - zero) * scale);
        }
    }
    Some(Tensor::new(&[inputs, outputs], weight))
}

/// What a `DequantizeLinear` of a constant int4 matrix in blocks gives, where its zero points are left out.
fn dequantized(graph: &Graph, node: &Node) -> Option<Tensor> {
    let block = size(node, "block_size").filter(|_| node.op.is("DequantizeLinear") && node.input(2).is_none())?;
    let constant = |index: usize| graph[node.input(index)?].constant();
    let (levels, scales) = (constant(0)?, constant(1)?);
    let (&[rows, columns], DType::I4) = (levels.shape(), levels.dtype()) else {
        return None;
    };
    let axis = crate::ops::normalize_axis(node.int("axis").unwrap_or(1), 2).ok()?;
    let scales = scales.values::<f32>()?;
    let blocks = columns.div_ceil(block);
    let bytes = levels.bytes();
    let element = |index: usize| {
        let (row, column) = (index / columns, index % columns);
        // Up against the sign bit, and back down with the sign.
        let level = (bytes.get(index / 2)? << (4 - 4 * (index % 2))).cast_signed() >> 4;
        let at = if axis == 0 {
            row / block * columns + column
        } else {
            row * blocks + column / block
        };
        Some(f32::from(level) * scales.get(at)?)
    };
    let weight: Option<Vec<f32>> = (0..rows * columns).map(element).collect();
    Some(Tensor::new(levels.shape(), weight?))
}
