//! Weights that are stored as integer levels: what other tools, and lsqc itself, leave behind.
//!
//! Forms that are known: a constant of levels behind DequantizeLinear; levels of 8 bits or less behind a Cast to floats, with or without a
//! Mul by the scale and a Sub of the zero point; and each of these behind ops that only move values.

use crate::ir::{DType, Graph, Node, Tensor, ValueId};

/// Is the operand a weight that is computed from stored levels?
#[must_use]
pub fn quantized_weight(graph: &Graph, mut operand: ValueId) -> bool {
    // A chain of nodes is no longer than the graph.
    while let Some((_, node)) = graph.producer(operand) {
        let op = node.op.name.as_ref();
        if op == "DequantizeLinear" || is_cast_of_levels(graph, node) {
            let levels = node.input(0);
            return levels.is_some_and(|levels| graph[levels].initial().is_some() || quantized_weight(graph, levels));
        }
        // The scale may be either operand of a Mul.
        let from = match op {
            "Mul" | "Sub" | "Add" => node
                .inputs()
                .iter()
                .flatten()
                .find(|&&value| graph[value].initial().is_none())
                .copied(),
            "Cast" | "Clip" | "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" | "Identity" | "QuantizeLinear" => node.input(0),
            _ => None,
        };
        let Some(from) = from else { return false };
        operand = from;
    }
    false
}

/// Is the node a Cast to floats of a constant of levels, which is left as it is so that the weight stays small?
#[must_use]
pub fn is_cast_of_levels(graph: &Graph, node: &Node) -> bool {
    let to_float = node.int("to").is_some_and(|to| {
        [DType::F32, DType::F16, DType::BF16]
            .iter()
            .any(|float| i64::from(float.code()) == to)
    });
    let levels = node.input(0).and_then(|value| graph[value].initial());
    node.op.is("Cast") && to_float && levels.is_some_and(is_levels)
}

/// Ops that only quantized models have.
#[must_use]
pub fn is_quantizing_op(name: &str) -> bool {
    const OPS: [&str; 7] = [
        "MatMulNBits",
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "ConvInteger",
        "MatMulInteger",
        "QGemm",
    ];
    OPS.contains(&name) || name.starts_with("QLinear")
}

/// A matrix, or more, of integers of 8 bits or less. What shapes are computed from is wider, and a vector.
fn is_levels(tensor: &Tensor) -> bool {
    use DType::{I2, I4, I8, U2, U4, U8};
    tensor.shape().len() >= 2 && [I2, I4, I8, U2, U4, U8].contains(&tensor.dtype())
}
