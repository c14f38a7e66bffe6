//! Products of two activations: MatMul whose operands are both computed, as in attention.

use crate::ir::{DType, Graph, NodeId, TensorType};

/// Is `node` a matrix product of two activations that can be quantized?
///
/// It is a MatMul (ONNX 1, 9, 13) whose operands are both computed or fed, of type float and of rank 2 or more.
///
/// # Errors
/// Why it stays in floats; `None` where it is no product of two activations.
pub fn product(graph: &Graph, id: NodeId) -> Result<(), Option<&'static str>> {
    let node = &graph[id];
    if !node.op.is("MatMul") && !node.op.is("Gemm") {
        return Err(None);
    }
    let (Some(a), Some(b)) = (node.input(0), node.input(1)) else {
        return Err(None);
    };
    if graph[b].initial().is_some() || super::stored(graph, b) != b && graph[super::stored(graph, b)].initial().is_some() {
        return Err(None);
    }
    if super::quantized_weight(graph, b) {
        return Err(None);
    }
    if graph[a].initial().is_some() {
        return Err(Some("its first operand is a constant"));
    }
    if node.op.is("Gemm") {
        return Err(Some("it is a Gemm of two activations"));
    }
    for value in [a, b] {
        let ty = graph[value].ty.as_ref();
        if ty.is_none_or(|ty| ty.dtype != DType::F32) {
            return Err(Some("its operands are not of type float"));
        }
        // Vectors take part as rows or columns, which runtimes do not have in integers.
        if ty.and_then(TensorType::rank).is_none_or(|rank| rank < 2) {
            return Err(Some("an operand is no matrix"));
        }
    }
    Ok(())
}
