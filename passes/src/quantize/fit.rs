//! Will a runtime compute a quantized layer in integers, with the quantizers where they stand? Asked before any training.

use crate::analyze::fold_of;
use crate::ir::{Graph, NodeId};
use crate::ops::{self, Quant};
use crate::target::{Results, Target};

/// Does `target` compute the quantized weighted op `layer` in integers? `graph` has its fake quantizers.
///
/// # Errors
/// Why it computes it in floats.
pub fn fits(graph: &Graph, layer: NodeId, target: &Target) -> Result<(), String> {
    // Of the products that ONNX Runtime has in integers, only the convolution gives no floats.
    if target.results == Results::Any || !graph[layer].op.is("Conv") {
        return Ok(());
    }
    let mut at = layer;
    loop {
        let node = &graph[at];
        let Some(result) = node.output(0) else { return Ok(()) };
        let uses = graph[result].uses();
        if graph.outputs().contains(&result) {
            return Err(format!(
                "its result is an output of the model, and {} gives no floats from it",
                target.title
            ));
        }
        let [only] = uses else {
            return Err(format!(
                "{} ops take its result in floats, and {} computes it in integers for one quantizer alone",
                uses.len(),
                target.title
            ));
        };
        let user = &graph[only.node];
        let part = ops::quant(user) == Quant::Clamp || user.op.is("BatchNormalization") && fold_of(graph, only.node).is_ok();
        if user.op.is_lsqc("FakeQuantize") {
            return Ok(());
        }
        if !part {
            return Err(format!("{} ({}) takes its result in floats", user.label(graph), user.op));
        }
        at = only.node;
    }
}
