//! Computes what does not depend on any input, through the evaluator.
//!
//! All nodes over constants go to the evaluator in one model, whose outputs are the values that the rest of the graph uses; if that fails
//! they go one by one, and those that fail stay. Left alone: random ops, nodes with subgraphs, ops outside the default domain (what they
//! compute is not known), QuantizeLinear, DequantizeLinear and Casts of integer levels (they say how a weight is stored), outputs of the graph, and results that
//! would make the model much larger.

use std::collections::HashSet;

use crate::analyze;
use crate::ir::{Graph, Model, Node, NodeId, Remainder, Tensor, TensorType, ValueId};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static FOLD_CONSTANTS: Pass = Pass {
    name: "fold-constants",
    about: "compute what depends on constants only",
    needs: "any graph",
    gives: "constants in place of what the evaluator could compute",
    run,
};

/// Bytes by which a result may be larger than the constants it comes from. A file grows by no more than this for each node folded; shapes,
/// masks and position tables are far smaller.
const MOST_GROWTH: usize = 64 << 20;

const KEPT: &[&str] = &[
    "Bernoulli",
    "DequantizeLinear",
    "Multinomial",
    "QuantizeLinear",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    analyze::infer(model)?;
    let nodes = foldable(&model.graph);
    if nodes.is_empty() {
        return Ok(Changed::No);
    }
    let wanted = frontier(&model.graph, &nodes);
    let whole = part(model, &nodes, &wanted);
    let mut folded = false;
    if let Ok(tensors) = cx.evaluator.evaluate(&whole)
        && tensors.len() == wanted.len()
    {
        for (&value, tensor) in wanted.iter().zip(tensors) {
            folded |= accept(&mut model.graph, value, tensor);
        }
    } else {
        folded = one_by_one(model, cx, &nodes);
    }
    let backwards: Vec<NodeId> = nodes.into_iter().rev().collect();
    model.graph.remove_nodes(&backwards);
    Ok(Changed::from(folded))
}

fn one_by_one(model: &mut Model, cx: &mut PassCx, nodes: &[NodeId]) -> bool {
    let mut folded = false;
    for &id in nodes {
        let ready = |value: &ValueId| model.graph[*value].constant().is_some();
        if !model.graph[id].inputs().iter().flatten().all(ready) {
            continue;
        }
        let wanted: Vec<ValueId> = model.graph[id].outputs().iter().flatten().copied().collect();
        match cx.evaluator.evaluate(&part(model, &[id], &wanted)) {
            Ok(tensors) => {
                for (value, tensor) in wanted.into_iter().zip(tensors) {
                    folded |= accept(&mut model.graph, value, tensor);
                }
            }
            Err(why) => cx.note(&model.graph, id, format!("left to run time: {why}")),
        }
    }
    folded
}

/// The nodes that can be computed from constants, in order.
fn foldable(graph: &Graph) -> Vec<NodeId> {
    let outputs: HashSet<ValueId> = graph.outputs().iter().copied().collect();
    let mut computed: HashSet<ValueId> = HashSet::new();
    let mut nodes = Vec::new();
    for (id, node) in graph.nodes() {
        let known = |value: &ValueId| graph[*value].constant().is_some() || computed.contains(value);
        let an_output = node.outputs().iter().flatten().any(|value| outputs.contains(value));
        if an_output || !deterministic(graph, node) || !node.inputs().iter().flatten().all(known) || grows(graph, node) {
            continue;
        }
        computed.extend(node.outputs().iter().flatten());
        nodes.push(id);
    }
    nodes
}

fn deterministic(graph: &Graph, node: &Node) -> bool {
    let trains = node.op.is("Dropout")
        && node
            .input(2)
            .is_some_and(|mode| graph[mode].constant().and_then(Tensor::to_i64) != Some(vec![0]));
    let kept = KEPT.contains(&node.op.name.as_ref()) || analyze::is_cast_of_levels(graph, node);
    node.op.in_default_domain() && node.subgraphs().next().is_none() && !kept && !trains
}

/// Are the results, as far as their types tell, much larger than the operands?
fn grows(graph: &Graph, node: &Node) -> bool {
    let size = |values: &[Option<ValueId>]| {
        let types = values.iter().flatten().filter_map(|&value| graph[value].ty.as_ref());
        types.map(byte_len).fold(0, usize::saturating_add)
    };
    size(node.outputs()) > size(node.inputs()).saturating_add(MOST_GROWTH)
}

fn byte_len(ty: &TensorType) -> usize {
    let Some(shape) = ty.known_shape() else { return 0 };
    let count = shape.iter().try_fold(1usize, |count, &extent| count.checked_mul(extent));
    count.and_then(|count| ty.dtype.byte_len(count)).unwrap_or(usize::MAX)
}

/// The results of `nodes` that others use.
fn frontier(graph: &Graph, nodes: &[NodeId]) -> Vec<ValueId> {
    let inside: HashSet<NodeId> = nodes.iter().copied().collect();
    let results = nodes.iter().flat_map(|&id| graph[id].outputs().iter().flatten().copied());
    results
        .filter(|&value| {
            graph[value]
                .uses()
                .iter()
                .any(|used| used.is_capture() || !inside.contains(&used.node))
        })
        .collect()
}

/// A model that computes `wanted` by `nodes` alone, under the same names.
fn part(model: &Model, nodes: &[NodeId], wanted: &[ValueId]) -> Model {
    let from = &model.graph;
    let mut graph = Graph::new("constants");
    for &id in nodes {
        let node = &from[id];
        let mut inputs = Vec::with_capacity(node.inputs().len());
        for value in node.inputs() {
            inputs.push(value.and_then(|value| {
                let name = from[value].name();
                let known = graph.find(name);
                known.or_else(|| graph.add_initializer(name, from[value].constant()?.clone().into()).ok())
            }));
        }
        let outputs: Vec<Option<&str>> = node
            .outputs()
            .iter()
            .map(|output| output.map(|output| from[output].name()))
            .collect();
        // Names are unique in `from`, so that none is taken here.
        let Ok(made) = graph.add_node(node.op.clone(), &inputs, &outputs, node.attributes.clone()) else {
            continue;
        };
        for (old, new) in node.outputs().iter().zip(graph[made].outputs().to_vec()) {
            if let (Some(old), Some(new)) = (*old, new) {
                graph[new].ty = from[old].ty.clone();
            }
        }
    }
    let outputs = wanted.iter().filter_map(|&value| graph.find(from[value].name()));
    graph.set_outputs(outputs.collect());
    Model {
        ir_version: model.ir_version,
        opset_imports: model.opset_imports.clone(),
        metadata: vec![],
        graph,
        functions: vec![],
        remainder: Remainder::new(),
    }
}

/// Puts a computed constant in the place of `value`, unless it is of another type or too large.
fn accept(graph: &mut Graph, value: ValueId, tensor: Tensor) -> bool {
    let expected = graph[value].ty.as_ref();
    let other_type = expected.is_some_and(|ty| ty.dtype != tensor.dtype());
    let too_large = expected.is_none_or(|ty| ty.known_shape().is_none()) && tensor.bytes().len() > MOST_GROWTH;
    if other_type || too_large {
        return false;
    }
    super::take_the_place(graph, value, tensor);
    true
}
