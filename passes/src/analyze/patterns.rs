//! Functions that exporters spell in several ops: known by name, so that what stays in floats is said once and not for each of them.
//!
//! | name | spelled as, but for the order of operands |
//! |---|---|
//! | SiLU | x · Sigmoid(x) |
//! | HardSwish | x · HardSigmoid(x); x · Clip(x + 3, 0, 6) / 6 |
//! | Gelu | x · (1 + Erf(x / √2)) · ½ |
//! | LayerNormalization | d / √(mean d² + ε) · γ + β, with d = x − mean x |
//!
//! Between lie only additions, products and quotients with constants. A function whose inner values something else takes as well is still
//! one: only its names are at stake.

use crate::ir::{Graph, Node, NodeId, Tensor, ValueId};

/// A function that is spelled in several ops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Its name.
    pub name: &'static str,
    /// The op that gives its result.
    pub last: NodeId,
    /// All its ops, in graph order.
    pub nodes: Vec<NodeId>,
}

/// Every such function of the graph, in graph order.
#[must_use]
pub fn patterns(graph: &Graph) -> Vec<Pattern> {
    let found = graph.nodes().filter_map(|(id, node)| {
        let (name, mut nodes) = match node.op.name.as_ref() {
            _ if !node.op.in_default_domain() => return None,
            "Sigmoid" => ("SiLU", gated(graph, id, 0)?),
            "HardSigmoid" => ("HardSwish", gated(graph, id, 1)?),
            "Clip" if is_six(graph, node) => ("HardSwish", gated(graph, id, 1)?),
            "Erf" => ("Gelu", gated(graph, id, 1)?),
            "Sqrt" => ("LayerNormalization", layer_norm(graph, id)?),
            _ => return None,
        };
        nodes.sort_by_key(|node| graph.node_ids().position(|id| id == *node));
        nodes.dedup();
        Some(Pattern {
            name,
            last: *nodes.last()?,
            nodes,
        })
    });
    found.collect()
}

/// The ops of x · f(x) around `gate`, the op in f that names it; up to `behind` operations with constants may follow the product.
fn gated(graph: &Graph, gate: NodeId, behind: usize) -> Option<Vec<NodeId>> {
    let inside = chain(graph, graph[gate].input(0)?);
    let mut nodes = vec![gate];
    let value = forth(graph, graph[gate].output(0)?, usize::MAX, &mut nodes);
    // The product with x itself, which may have been scaled on either way.
    let product = graph[value].uses().iter().find_map(|used| {
        let node = &graph[used.node];
        let beside = node.input(1usize.checked_sub(used.index)?).filter(|_| node.op.is("Mul"))?;
        let beside = chain(graph, beside);
        let (far, near) = beside.iter().enumerate().find_map(|(far, (x, _))| {
            let near = inside.iter().position(|(value, _)| value == x)?;
            Some((far, near))
        })?;
        let made = |chain: &[(ValueId, Option<NodeId>)], length: usize| -> Vec<NodeId> {
            chain.iter().take(length).filter_map(|(_, node)| *node).collect()
        };
        Some((used.node, [made(&beside, far), made(&inside, near)].concat()))
    });
    let (product, around) = product?;
    nodes.push(product);
    nodes.extend(around);
    forth(graph, graph[product].output(0)?, behind, &mut nodes);
    Some(nodes)
}

/// The ops of a layer normalization around its square root.
fn layer_norm(graph: &Graph, root: NodeId) -> Option<Vec<NodeId>> {
    let mut nodes = vec![root];
    let made = |value: ValueId, ops: &[&str]| {
        let (id, node) = graph.producer(value)?;
        ops.iter().any(|op| node.op.is(op)).then_some((id, node))
    };
    let inside = chain(graph, graph[root].input(0)?);
    let variance = inside.last()?.0;
    nodes.extend(inside.iter().filter_map(|(_, node)| *node));
    let (mean, node) = made(variance, &["ReduceMean"])?;
    let (square, node) = made(node.input(0)?, &["Pow", "Mul"])?;
    let deviation = node.input(0)?;
    let (minus, node) = made(deviation, &["Sub"])?;
    let (center, _) = made(node.input(1)?, &["ReduceMean"])?;
    nodes.extend([mean, square, minus, center]);
    let over = graph[graph[root].output(0)?]
        .uses()
        .iter()
        .find(|used| graph[used.node].op.is("Div") && used.index == 1)?;
    nodes.push(over.node);
    // γ and β.
    forth(graph, graph[over.node].output(0)?, 2, &mut nodes);
    Some(nodes)
}

/// Is it an addition, a product or a quotient of one value and constants? Gives that value.
fn with_constant(graph: &Graph, node: &Node) -> Option<ValueId> {
    const OPS: [&str; 4] = ["Add", "Sub", "Mul", "Div"];
    if !node.op.in_default_domain() || !OPS.contains(&node.op.name.as_ref()) {
        return None;
    }
    let constant = |value: ValueId| graph[value].initial().is_some();
    match (node.input(0)?, node.input(1)?) {
        (x, c) if constant(c) && !constant(x) => Some(x),
        (c, x) if constant(c) && !constant(x) => Some(x),
        _ => None,
    }
}

/// A value, and what it was made of by operations with constants: each with the op that makes it of the next one.
fn chain(graph: &Graph, mut value: ValueId) -> Vec<(ValueId, Option<NodeId>)> {
    let mut chain = Vec::new();
    while let Some((id, node)) = graph.producer(value)
        && let Some(before) = with_constant(graph, node)
    {
        chain.push((value, Some(id)));
        value = before;
    }
    chain.push((value, None));
    chain
}

/// Walks on over at most `most` operations with constants, as long as nothing else takes what they give; gives where they end.
fn forth(graph: &Graph, mut value: ValueId, most: usize, nodes: &mut Vec<NodeId>) -> ValueId {
    for _ in 0..most {
        let Some(used) = graph.only_use(value) else { break };
        let node = &graph[used.node];
        let Some(after) = node.output(0).filter(|_| with_constant(graph, node) == Some(value)) else {
            break;
        };
        nodes.push(used.node);
        value = after;
    }
    value
}

/// Does it clip to 0 … 6?
fn is_six(graph: &Graph, node: &Node) -> bool {
    let bound = |index: usize| {
        let bound = graph[node.input(index)?].constant().and_then(Tensor::to_f32)?;
        bound.first().copied()
    };
    bound(1) == Some(0.0) && bound(2) == Some(6.0)
}
