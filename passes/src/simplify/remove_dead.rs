//! Removes nodes whose results nothing uses, and constants that nothing uses. Inputs stay: they are what callers feed.

use crate::ir::{Def, Model, NodeId, ValueId};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static REMOVE_DEAD: Pass = Pass {
    name: "remove-dead",
    about: "remove nodes and constants that no output depends on",
    needs: "any graph",
    gives: "every node and constant is used",
    run,
};

fn run(model: &mut Model, _: &mut PassCx) -> Result<Changed, PassError> {
    let graph = &mut model.graph;
    // Users before what they use, so that one pass over the nodes finds whole chains.
    let backwards: Vec<NodeId> = graph.node_ids().rev().collect();
    let nodes = graph.remove_nodes(&backwards);
    let constants: Vec<ValueId> = graph
        .values()
        .filter(|(_, value)| matches!(value.def(), Def::Constant(_)))
        .map(|(id, _)| id)
        .collect();
    let constants = graph.remove_sources(&constants);
    Ok(Changed::from(nodes + constants > 0))
}
