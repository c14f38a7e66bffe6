//! Brings a float network into the plain form that the other stages expect: one operator set, constants as constants, no shape arithmetic,
//! no ops that do nothing. Every pass keeps what the graph computes, and the names of its inputs and outputs. BatchNorm is not folded here:
//! training needs it.

mod expand_fused;
mod fold_constants;
mod fold_shapes;
mod free_batch;
mod freeze_defaults;
mod inline_branches;
mod inline_functions;
mod lift_constants;
mod name_pools;
mod opset_rules;
mod remove_dead;
mod remove_identities;
mod upgrade_opset;
mod widen_halves;

pub use expand_fused::EXPAND_FUSED;
pub use fold_constants::FOLD_CONSTANTS;
pub use fold_shapes::FOLD_SHAPES;
pub use free_batch::FREE_BATCH;
pub use freeze_defaults::FREEZE_DEFAULTS;
pub use inline_branches::INLINE_BRANCHES;
pub use inline_functions::INLINE_FUNCTIONS;
pub use lift_constants::LIFT_CONSTANTS;
pub use name_pools::NAME_POOLS;
pub use remove_dead::REMOVE_DEAD;
pub use remove_identities::REMOVE_IDENTITIES;
pub use upgrade_opset::{TargetOpset, UPGRADE_OPSET};
pub use widen_halves::WIDEN_HALVES;

use std::collections::HashSet;

use crate::ir::{Graph, Model, Node, Tensor, ValueId};

/// Lets a new constant stand for `value`, which is no output of the graph, under its name; `value` is unused and has another name then.
fn take_the_place(graph: &mut Graph, value: ValueId, tensor: Tensor) {
    let name = graph[value].name().to_owned();
    graph.rename(value, &format!("{name}/computed"));
    let constant = graph.add_constant(&name, tensor);
    graph.replace_uses(value, constant);
}

/// Calls `visit` for each node of a graph and of the graphs in it.
fn every_node<'g>(graph: &'g Graph, visit: &mut dyn FnMut(&'g Node)) {
    for (_, node) in graph.nodes() {
        visit(node);
        node.subgraphs().for_each(|inner| every_node(inner, visit));
    }
}

/// Removes the imports of those `domains` that neither a node nor a function is of any longer.
fn forget_domains(model: &mut Model, domains: &HashSet<String>) {
    let mut used: HashSet<String> = model.functions.iter().map(|function| function.domain.clone()).collect();
    let bodies = model.functions.iter().filter_map(|function| function.body.as_ref().ok());
    for graph in bodies.chain([&model.graph]) {
        every_node(graph, &mut |node| {
            used.insert(node.op.domain.clone().into_owned());
        });
    }
    model.opset_imports.retain(|import| {
        let default = import.domain.is_empty() || import.domain == "ai.onnx";
        default || used.contains(&import.domain) || !domains.contains(&import.domain)
    });
}
