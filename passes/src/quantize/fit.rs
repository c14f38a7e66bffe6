//! Will a runtime compute a quantized layer in integers, with the quantizers where they stand? Asked before any training.

use super::results::{Leaves, leaves};
use crate::ir::{Graph, NodeId};
use crate::target::{Results, Target};

/// Does `target` compute the quantized weighted op `layer` in integers? `graph` has its fake quantizers.
///
/// # Errors
/// Why it computes it in floats.
pub fn fits(graph: &Graph, layer: NodeId, target: &Target) -> Result<(), String> {
    if target.results == Results::Any {
        return Ok(());
    }
    let title = target.title;
    match leaves(graph, layer) {
        Leaves::InAnyForm => Ok(()),
        Leaves::Output => Err(format!(
            "its result is an output of the model, and {title} gives no floats from it"
        )),
        Leaves::Value(value) => match graph[value].uses() {
            [only] if graph[only.node].op.is_lsqc("FakeQuantize") => Ok(()),
            [only] => {
                let user = &graph[only.node];
                Err(format!("{} ({}) takes its result in floats", user.label(graph), user.op))
            }
            uses => Err(format!(
                "{} ops take its result in floats, and {title} computes it in integers for one quantizer alone",
                uses.len(),
            )),
        },
    }
}
