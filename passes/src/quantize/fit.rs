//! Will a runtime compute a quantized layer in integers, with the quantizers where they stand? Asked before any training.

use super::results::{Leaves, leaves};
use crate::ir::{Graph, NodeId};
use crate::target::{Results, Strides, Target};

/// Does `target` compute the quantized weighted op `layer` in integers? `graph` has its fake quantizers.
///
/// # Errors
/// Why it computes it in floats.
pub fn fits(graph: &Graph, layer: NodeId, target: &Target) -> Result<(), String> {
    if target.strides == Strides::Move && loses_strides(graph, layer) {
        return Err(format!(
            "{} moves the strides of a convolution whose kernel is a point before its input is dequantized",
            target.title
        ));
    }
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

/// Is it a convolution with a point for a kernel and with strides, and has all that takes its input the same?
fn loses_strides(graph: &Graph, layer: NodeId) -> bool {
    let strides = point_strides(graph, layer);
    let input = graph[layer].input(0);
    strides.is_some()
        && input.is_some_and(|input| {
            graph[input]
                .uses()
                .iter()
                .all(|used| point_strides(graph, used.node) == strides)
        })
}

/// The strides of a convolution of one group whose kernel is a point, where there are some.
fn point_strides(graph: &Graph, node: NodeId) -> Option<Vec<i64>> {
    let node = &graph[node];
    let weight = node.input(1).filter(|_| node.op.is("Conv"))?;
    let quantizer = graph.producer(weight).filter(|(_, before)| before.op.is_lsqc("FakeQuantize"));
    let weight = quantizer.and_then(|(_, before)| before.input(0)).unwrap_or(weight);
    let shape = graph[weight].initial()?.shape();
    let strides = node.ints("strides")?;
    let point = shape.iter().skip(2).all(|&extent| extent == 1) && node.int("group").unwrap_or(1) == 1;
    (point && strides.iter().any(|&stride| stride != 1)).then(|| strides.to_vec())
}
