//! Which values the graph alone proves to be at least 0.

use crate::ir::{Graph, Tensor, ValueId};

/// Does the graph prove that no element of `value` is below 0? NaN aside.
#[must_use]
pub fn surely_non_negative(graph: &Graph, value: ValueId) -> bool {
    let mut pending = vec![value];
    let mut seen = Vec::new();
    while let Some(value) = pending.pop() {
        if seen.contains(&value) {
            continue;
        }
        seen.push(value);
        if let Some(tensor) = graph[value].constant() {
            if tensor.to_f64().is_some_and(|values| values.iter().all(|&v| v >= 0.0)) {
                continue;
            }
            return false;
        }
        let Some((_, node)) = graph.producer(value) else {
            return false;
        };
        if node.op.is_lsqc("FakeQuantize") {
            if node.int("signed") == Some(0) {
                continue;
            }
            return false;
        }
        if !node.op.in_default_domain() {
            return false;
        }
        match node.op.name.as_ref() {
            "Relu" | "Sigmoid" | "HardSigmoid" | "Softmax" | "Exp" | "Sqrt" | "Abs" | "Softplus" | "ReduceL1" | "ReduceL2"
            | "ReduceSumSquare" => {}
            "Clip" if clip_floor(graph, node).is_some_and(|floor| floor >= 0.0) => {}
            "Clip" | "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" | "Flatten" | "Reshape" | "Transpose"
            | "Squeeze" | "Unsqueeze" | "Identity" | "Dropout" | "Slice" | "Expand" | "Gather" | "Tile" | "Split"
            | "DepthToSpace" | "SpaceToDepth" | "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" => {
                pending.extend(node.input(0))
            }
            "Where" => pending.extend(node.inputs().iter().skip(1).flatten()),
            "Add" | "Mul" | "Concat" | "Max" | "Min" | "Sum" => pending.extend(node.inputs().iter().flatten()),
            _ => return false,
        }
    }
    true
}

fn clip_floor(graph: &Graph, node: &crate::ir::Node) -> Option<f32> {
    if let Some(floor) = node.float("min") {
        return Some(floor);
    }
    graph[node.input(1)?].constant().and_then(Tensor::to_f32)?.first().copied()
}
