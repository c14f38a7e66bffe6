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
mod opset_rules;
mod remove_dead;
mod remove_identities;
mod upgrade_opset;

pub use expand_fused::EXPAND_FUSED;
pub use fold_constants::FOLD_CONSTANTS;
pub use fold_shapes::FOLD_SHAPES;
pub use free_batch::FREE_BATCH;
pub use freeze_defaults::FREEZE_DEFAULTS;
pub use inline_branches::INLINE_BRANCHES;
pub use inline_functions::INLINE_FUNCTIONS;
pub use lift_constants::LIFT_CONSTANTS;
pub use remove_dead::REMOVE_DEAD;
pub use remove_identities::REMOVE_IDENTITIES;
pub use upgrade_opset::{TargetOpset, UPGRADE_OPSET};

use crate::ir::{Graph, Tensor, ValueId};

/// Lets a new constant stand for `value`, which is no output of the graph, under its name; `value` is unused and has another name then.
fn take_the_place(graph: &mut Graph, value: ValueId, tensor: Tensor) {
    let name = graph[value].name().to_owned();
    graph.rename(value, &format!("{name}/computed"));
    let constant = graph.add_constant(&name, tensor);
    graph.replace_uses(value, constant);
}
