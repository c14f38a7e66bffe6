//! Gives the bias of a MatMul, a vector [N] that is added to its result, the shape [1, 1, N].
//!
//! ONNX Runtime makes a Gemm of a MatMul and the addition of a vector, and a Gemm that gives floats runs in floats. Of a result of rank 3 or
//! more the sum is the same. Left alone are results of rank 2, whose sum would gain an axis: their bias is on the accumulator's grid instead
//! ([`snap_biases`](super::snap_biases)).

use crate::analyze::{product, weighted};
use crate::ir::{Graph, NodeId, Tensor, TensorType};

/// Does it for every quantized MatMul of the graph.
pub(super) fn lengthen_matmul_biases(graph: &mut Graph) {
    for id in graph.node_list() {
        let is_quantized = weighted(graph, id).is_ok() || product(graph, id).is_ok();
        if graph[id].op.is("MatMul") && is_quantized {
            lengthen(graph, id);
        }
    }
}

/// The Add behind a MatMul whose other operand is a constant vector [N], and that operand's place; `None` where there is none.
pub(super) fn added_vector(graph: &Graph, id: NodeId) -> Option<(NodeId, usize)> {
    let used = graph.only_use(graph[id].output(0)?)?;
    let index = 1usize.checked_sub(used.index)?;
    let bias = graph[used.node].input(index).filter(|_| graph[used.node].op.is("Add"))?;
    (graph[bias].constant()?.shape().len() == 1).then_some((used.node, index))
}

/// Has the result rank 3 or more?
pub(super) fn is_long(graph: &Graph, id: NodeId) -> bool {
    let rank = graph[id]
        .output(0)
        .and_then(|y| graph[y].ty.as_ref().and_then(TensorType::rank));
    rank.is_some_and(|rank| rank > 2)
}

/// `None` where there is no such bias.
fn lengthen(graph: &mut Graph, id: NodeId) -> Option<()> {
    let (add, index) = added_vector(graph, id).filter(|_| is_long(graph, id))?;
    let bias = graph[add].input(index)?;
    let tensor = graph[bias].constant()?;
    let long = Tensor::from_bytes(tensor.dtype(), &[1, 1, tensor.len()], tensor.bytes().to_vec().into()).ok()?;
    let name = format!("{}/row", graph[bias].name());
    let row = graph.add_constant(&name, long);
    graph.set_input(add, index, Some(row));
    graph.remove_source(bias);
    Some(())
}
