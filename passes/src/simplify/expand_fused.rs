//! Spells fused ops in standard ops that have gradients and take quantizers.
//!
//! What one op computes is a black box to the stages behind: its matrix products are not quantized, and gradients stop there. Fused are
//! the contrib ops of ONNX Runtime (domain `com.microsoft`, and the normalizations that it puts into ONNX's own domain), which its
//! optimizers write, and ONNX's Attention and RotaryEmbedding:
//!
//! | file | ops |
//! |---|---|
//! | `activations` | Gelu, FastGelu, BiasGelu, QuickGelu |
//! | `products` | FusedMatMul, FusedGemm, FusedConv |
//! | `normalizations` | SkipLayerNormalization, SkipSimplifiedLayerNormalization, SimplifiedLayerNormalization, EmbedLayerNormalization, and LayerNormalization before operator set 17 |
//! | `contrib_attention` | Attention, MultiHeadAttention |
//! | `standard_attention` | ONNX's Attention |
//! | `rotary` | ONNX's RotaryEmbedding |
//!
//! Every spelling holds for a batch and a sequence of any length, and for the model's operator set. What products are made of keeps the name
//! of the fused node. Left alone, with a note: a form that a file does not list, an attribute of a newer version, a result that is for
//! training or for the next call, and element types other than float. Nodes in subgraphs are not looked at.

mod activations;
mod attention;
mod contrib_attention;
mod normalizations;
mod products;
mod rotary;
mod site;
mod standard_attention;

use std::collections::HashSet;

use crate::analyze;
use crate::ir::{Graph, Model, Node, NodeId, ValueId};
use crate::ops::build::type_results;
use crate::pass::{Changed, Pass, PassCx, PassError};
use site::Site;

/// The pass.
pub static EXPAND_FUSED: Pass = Pass {
    name: "expand-fused",
    about: "spell fused ops (ONNX Runtime's, Attention) in standard ops",
    needs: "operator set 13 or later",
    gives: "no fused op of a form that has a spelling",
    run,
};

/// ONNX Runtime's own domain.
const CONTRIB: &str = "com.microsoft";

/// Adds what a node computes, and gives its results as far as they are wanted; or says why it has no spelling.
type Rule = fn(&mut Site) -> Result<Vec<Option<ValueId>>, String>;

fn rule(node: &Node, opset: i64) -> Option<Rule> {
    let name = node.op.name.as_ref();
    if node.op.domain == CONTRIB {
        return Some(match name {
            "Gelu" => activations::gelu,
            "FastGelu" => activations::fast_gelu,
            "BiasGelu" => activations::bias_gelu,
            "QuickGelu" => activations::quick_gelu,
            "FusedMatMul" => products::fused_matmul,
            "FusedGemm" => products::fused_gemm,
            "FusedConv" => products::fused_conv,
            "SkipLayerNormalization" => normalizations::skip_layer,
            "SkipSimplifiedLayerNormalization" => normalizations::skip_simplified,
            "EmbedLayerNormalization" => normalizations::embed,
            "Attention" => contrib_attention::attention,
            "MultiHeadAttention" => contrib_attention::multi_head,
            _ => return None,
        });
    }
    if !node.op.in_default_domain() {
        return None;
    }
    Some(match name {
        "SimplifiedLayerNormalization" => normalizations::simplified,
        "LayerNormalization" if opset < 17 => normalizations::early_layer,
        "Attention" => standard_attention::attention,
        "RotaryEmbedding" => rotary::rotary,
        _ => return None,
    })
}

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let opset = model.opset();
    if opset < 13 {
        let graph = &model.graph;
        let early = graph.nodes().filter(|(_, node)| rule(node, opset).is_some());
        for (id, _) in early {
            cx.note(graph, id, format!("it stays as it is: operator set {opset} is before 13"));
        }
        return Ok(Changed::No);
    }
    let fused = |graph: &Graph| graph.nodes().any(|(_, node)| rule(node, opset).is_some());
    let mut changed = false;
    // Types behind a fused op are known once it is expanded.
    while fused(&model.graph) {
        analyze::infer(model)?;
        let (expanded, declined) = expand(&mut model.graph, opset);
        changed |= expanded;
        if !expanded {
            for (id, why) in declined {
                cx.note(&model.graph, id, format!("it stays as it is: {why}"));
            }
            break;
        }
    }
    if changed {
        super::forget_domains(model, &HashSet::from([CONTRIB.to_owned()]));
    }
    Ok(Changed::from(changed))
}

/// Expands what can be; tells whether anything was, and why the rest was not.
fn expand(graph: &mut Graph, opset: i64) -> (bool, Vec<(NodeId, String)>) {
    let (mut expanded, mut declined) = (Vec::new(), Vec::new());
    for id in graph.node_list() {
        if let Some(rule) = rule(&graph[id], opset) {
            match Site::new(graph, id, opset).expand(rule) {
                Ok(()) => expanded.push(id),
                Err(why) => declined.push((id, why)),
            }
        } else if !expanded.is_empty() && graph[id].output(0).is_some_and(|output| graph[output].ty.is_none()) {
            type_results(graph, id);
        }
    }
    graph.remove_nodes(&expanded);
    graph.sort();
    (!expanded.is_empty(), declined)
}
