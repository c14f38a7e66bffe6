//! Products of two activations, as in attention: both operands are quantized, to the bits of activations.
//!
//! With steps s_a and s_b the product of levels is exact in integers, ŷ = s_a·s_b·(ā·b̄), whatever the placement of additions. Rules for
//! layers hold for them by their names, with the bits of the activation. What a rule leaves in floats, and products of a form that runtimes
//! do not compute in integers, stay, with a note.

use std::collections::HashSet;

use super::{EDGE_BITS, LayerRule, Product, QuantizePlan, Sign};
use crate::analyze::{patterns, product};
use crate::ir::{Graph, NodeId};
use crate::pass::PassCx;

/// A product of two activations that is quantized.
pub(super) struct ChosenProduct {
    pub node: NodeId,
    /// Bits of both operands.
    pub bits: u32,
    /// The sign that a rule for it asks for.
    pub sign: Option<Sign>,
}

/// The products that are quantized; those at the edges of the network (`edges`) have 8 bits, as layers there, unless a rule says otherwise.
pub(super) fn choose_products(
    graph: &Graph,
    plan: &QuantizePlan,
    edges: &HashSet<NodeId>,
    cx: &mut PassCx,
) -> Vec<ChosenProduct> {
    let mut chosen = Vec::new();
    for id in graph.node_ids() {
        match product(graph, id) {
            Ok(()) => {}
            Err(None) => continue,
            Err(Some(why)) => {
                cx.note(graph, id, format!("stays in floats: {why}"));
                continue;
            }
        }
        let (bits, sign) = match (plan.rule)(&graph[id].label(graph)) {
            Some(LayerRule::Float) => {
                cx.note(graph, id, "stays in floats: the configuration says so");
                continue;
            }
            Some(LayerRule::Quantize(bits)) => (bits.activation, bits.sign),
            // The sign that is asked for all layers is that of their inputs: it is not asked of what attention computes.
            None if edges.contains(&id) => (EDGE_BITS, None),
            None => (plan.bits.activation, None),
        };
        chosen.push(ChosenProduct { node: id, bits, sign });
    }
    chosen
}

/// Notes each function that is spelled in several ops, once, where it ends: runtimes have none of them in integers.
pub(super) fn name_patterns(graph: &Graph, cx: &mut PassCx) {
    for pattern in patterns(graph) {
        let why = format!("it ends a {} of {} ops", pattern.name, pattern.nodes.len());
        cx.note(graph, pattern.last, format!("stays in floats: {why}"));
    }
}

/// What the report says of the products, once their operands are quantized; `named` gives the quantized value behind an operand.
pub(super) fn described(graph: &Graph, products: &[ChosenProduct], named: impl Fn(crate::ir::ValueId) -> String) -> Vec<Product> {
    let describe = |chosen: &ChosenProduct| {
        let node = &graph[chosen.node];
        Some(Product {
            name: node.label(graph).into_owned(),
            op: node.op.to_string(),
            bits: chosen.bits,
            inputs: [named(node.input(0)?), named(node.input(1)?)],
        })
    };
    products.iter().filter_map(describe).collect()
}
