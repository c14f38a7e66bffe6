//! Names what multiplies and adds but is never quantized, with the reason: recurrent layers, transposed convolutions, layers in the branches
//! of an If or the body of a Loop, and what another tool has quantized.

use crate::ir::Graph;
use crate::ops;
use crate::pass::PassCx;

/// Notes each such node of the graph and of its subgraphs.
pub(super) fn name_others(graph: &Graph, cx: &mut PassCx) {
    for (id, node) in graph.nodes() {
        if let Some(why) = reason(&node.op.name) {
            cx.note(graph, id, format!("stays in floats: {why}"));
        }
        let label = node.label(graph);
        for inner in node.subgraphs() {
            name_inner(inner, &label, cx);
        }
    }
}

fn name_inner(graph: &Graph, around: &str, cx: &mut PassCx) {
    for (id, node) in graph.nodes() {
        if ops::is_weighted(node) || reason(&node.op.name).is_some() {
            cx.note(
                graph,
                id,
                format!("stays in floats: it stands in a branch or a loop of '{around}'"),
            );
        }
        for inner in node.subgraphs() {
            name_inner(inner, around, cx);
        }
    }
}

fn reason(op: &str) -> Option<&'static str> {
    Some(match op {
        "GRU" | "LSTM" | "RNN" => "recurrent layers are not quantized",
        "ConvTranspose" => "transposed convolutions are not quantized",
        "Einsum" => "Einsum is not quantized",
        "ConvInteger" | "MatMulInteger" | "QGemm" | "QLinearConv" | "QLinearMatMul" => "it is quantized already",
        _ => return None,
    })
}
