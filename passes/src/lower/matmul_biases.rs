//! Gives the bias of a MatMul, a vector [N] that is added to its result, the shape [1, 1, N].
//!
//! ONNX Runtime makes a Gemm of a MatMul and the addition of a vector, and a Gemm that gives floats runs in floats. Of a result of rank 3 or
//! more the sum is the same. Left alone are results of rank 2, whose sum would gain an axis.

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

/// `None` where there is no such bias.
fn lengthen(graph: &mut Graph, id: NodeId) -> Option<()> {
    let y = graph[id].output(0)?;
    graph[y].ty.as_ref().and_then(TensorType::rank).filter(|&rank| rank > 2)?;
    let used = graph.only_use(y)?;
    let index = 1usize.checked_sub(used.index)?;
    let bias = graph[used.node].input(index).filter(|_| graph[used.node].op.is("Add"))?;
    let tensor = graph[bias].constant()?;
    let &[channels] = tensor.shape() else { return None };
    let long = Tensor::from_bytes(tensor.dtype(), &[1, 1, channels], tensor.bytes().to_vec().into()).ok()?;
    let name = format!("{}/row", graph[bias].name());
    let row = graph.add_constant(&name, long);
    graph.set_input(used.node, index, Some(row));
    graph.remove_source(bias);
    Some(())
}
