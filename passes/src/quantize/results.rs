//! Where the result of a quantized layer leaves what a runtime computes as one op.

use crate::analyze::fold_of;
use crate::ir::{Graph, NodeId, ValueId};
use crate::ops::{self, Quant};

/// How a layer's result leaves it.
pub(super) enum Leaves {
    /// It may be floats: of the products that ONNX Runtime has in integers, only the convolution gives none.
    InAnyForm,
    /// As an output of the model.
    Output,
    /// As this value, behind the clamps and the BatchNormalization that become part of the layer.
    Value(ValueId),
}

/// How the result of the quantized weighted op `layer` leaves it, for runtimes whose convolutions in integers give levels.
pub(super) fn leaves(graph: &Graph, layer: NodeId) -> Leaves {
    if !graph[layer].op.is("Conv") {
        return Leaves::InAnyForm;
    }
    let mut at = layer;
    loop {
        let Some(result) = graph[at].output(0) else {
            return Leaves::InAnyForm;
        };
        if graph.outputs().contains(&result) {
            return Leaves::Output;
        }
        let part = |id: NodeId| {
            let node = &graph[id];
            ops::quant(node) == Quant::Clamp || node.op.is("BatchNormalization") && fold_of(graph, id).is_ok()
        };
        match graph[result].uses() {
            [only] if !only.is_capture() && part(only.node) => at = only.node,
            _ => return Leaves::Value(result),
        }
    }
}
