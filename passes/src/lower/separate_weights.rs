//! Gives every user of a quantized weight levels and a zero point of its own, for ONNX Runtime's precise kernels.
//!
//! On x86 without VNNI the runtime is asked for kernels that do not saturate (`session.x64quantprecision`), and then rewrites int8 weights one
//! layer at a time. It fails to load a file in which two layers share a weight or a zero point. The graph computes the same.

use crate::ir::{Attribute, DType, Graph, Model, NodeId, Op, ValueId};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static SEPARATE_WEIGHTS: Pass = Pass {
    name: "separate-weights",
    about: "give every user of a quantized weight levels of its own",
    needs: "nothing",
    gives: "no int8 constant that two ops take",
    run,
};

fn run(model: &mut Model, _: &mut PassCx) -> Result<Changed, PassError> {
    let graph = &mut model.graph;
    let mut changed = false;
    for id in graph.node_list() {
        if !graph[id].op.is("DequantizeLinear") || !is_bytes(graph, id, 0) {
            continue;
        }
        let Some(y) = graph[id].output(0) else { continue };
        for used in graph[y].uses().to_vec().into_iter().skip(1) {
            if used.is_capture() {
                continue;
            }
            let inputs = graph[id].inputs().to_vec();
            let base = graph[y].name().to_owned();
            let inputs: Vec<ValueId> = inputs.into_iter().flatten().collect();
            let attributes: Vec<Attribute> = graph[id].attributes.clone();
            let own = graph.insert(Op::onnx("DequantizeLinear"), &inputs, attributes, &base);
            graph[own].ty = graph[y].ty.clone();
            graph.set_input(used.node, used.index, Some(own));
            changed = true;
        }
    }
    for id in graph.node_list() {
        for index in 0..graph[id].inputs().len() {
            changed |= is_bytes(graph, id, index) && separate(graph, id, index);
        }
    }
    Ok(Changed::from(changed))
}

/// Is the operand a constant of int8?
fn is_bytes(graph: &Graph, node: NodeId, index: usize) -> bool {
    graph
        .constant_input(node, index)
        .is_some_and(|tensor| tensor.dtype() == DType::I8)
}

/// Gives the operand a copy of its constant, if others take that too.
fn separate(graph: &mut Graph, node: NodeId, index: usize) -> bool {
    let Some(value) = graph[node].input(index).filter(|&value| graph[value].uses().len() > 1) else {
        return false;
    };
    let Some(tensor) = graph[value].constant().cloned() else {
        return false;
    };
    let base = graph[value].name().to_owned();
    let own = graph.add_constant(&base, tensor);
    graph.set_input(node, index, Some(own));
    true
}
