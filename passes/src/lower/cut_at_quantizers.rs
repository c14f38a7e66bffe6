//! Takes the fake-quantized graph apart at its activation quantizers, for the proof layer by layer.
//!
//! Whatever takes a quantized value takes an input `levels/<value>` instead, to be fed with what the lowered graph has there; the float value
//! that each quantizer would round becomes an output. So every layer is computed from the same integers on both sides, and one rounding
//! cannot start a cascade.

use super::Fixed;
use crate::ir::{Def, Model};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static CUT_AT_QUANTIZERS: Pass = Pass {
    name: "cut-at-quantizers",
    about: "take the fake-quantized graph apart into layers for the proof",
    needs: "steps are constants",
    gives: "an input for every activation quantizer's result, an output for what it would round",
    run,
};

/// Prefix of the inputs that stand for quantized values.
pub const LEVELS_IN: &str = "levels/";

fn run(model: &mut Model, _: &mut PassCx) -> Result<Changed, PassError> {
    let graph = &mut model.graph;
    let mut sources = Vec::new();
    for id in graph.node_list() {
        let Some(fixed) = Fixed::of(graph, &graph[id]) else { continue };
        if graph[fixed.x].initial().is_some() {
            continue;
        }
        let name = format!("{LEVELS_IN}{}", graph[fixed.y].name());
        graph.cut(fixed.y, &name).map_err(|error| PassError::new(error.to_string()))?;
        let source = graph[id].input(0).unwrap_or(fixed.x);
        if !sources.contains(&source) {
            sources.push(source);
        }
        graph.remove_node(id);
    }
    let mut outputs = graph.outputs().to_vec();
    for source in sources {
        // What is an input now is known to the caller.
        if matches!(graph[source].def(), Def::Node(..)) && !outputs.contains(&source) {
            outputs.push(source);
        }
    }
    graph.set_outputs(outputs);
    Ok(Changed::Yes)
}
