//! Makes every Constant node a constant of the graph, under the same name.
//!
//! Left alone: sparse values, and a Constant that is itself an output of the graph.

use crate::ir::{Model, NodeId};
use crate::ops::constant_value;
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static LIFT_CONSTANTS: Pass = Pass {
    name: "lift-constants",
    about: "make Constant nodes constants of the graph",
    needs: "any graph",
    gives: "no Constant node but sparse ones and outputs",
    run,
};

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let graph = &mut model.graph;
    let mut lifted = Vec::new();
    for (id, node) in graph.nodes() {
        if !node.op.is("Constant") {
            continue;
        }
        match (node.output(0), constant_value(node)) {
            (Some(output), _) if graph.outputs().contains(&output) => cx.note(graph, id, "an output must be made by a node"),
            (Some(output), Some(tensor)) => lifted.push((id, output, tensor)),
            _ => cx.note(graph, id, "its value is sparse or missing"),
        }
    }
    for (_, output, tensor) in &lifted {
        super::take_the_place(graph, *output, tensor.clone());
    }
    let nodes: Vec<NodeId> = lifted.iter().map(|(id, ..)| *id).collect();
    Ok(Changed::from(graph.remove_nodes(&nodes) > 0))
}
