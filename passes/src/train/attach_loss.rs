//! Attaches the loss, and for distillation the float network as the teacher inside the same graph.
//!
//! Cross-entropy: −mean_n log p_s(n, label_n).  Distillation: mean_n Σ_c p_t·(log p_t − log p_s), temperature 1. Both are taken over the
//! class axis (1 of rank 2, the last of higher ranks) of every float output, before a Softmax that ends the network; summed where both are
//! asked for. The labels go with the first output.
//!
//! It refuses: networks without a float output of rank 2 or more; labels where the output has rank other than 2.

use std::collections::HashMap;

use super::names::{LABEL, LOSS, TEACHER};
use super::{Loss, LossPlan};
use crate::ir::{Attribute, DType, Def, Graph, Model, Op, Role, Tensor, TensorType, ValueId};
use crate::ops::build::{Build, KeepDims};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static ATTACH_LOSS: Pass = Pass {
    name: "attach-loss",
    about: "attach the loss, and the float network as the teacher",
    needs: "types are fixed; LossPlan is given",
    gives: "the output `loss`; the network's own outputs are dropped",
    run,
};

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let plan: LossPlan = cx.get();
    let graph = &mut model.graph;
    let heads: Vec<ValueId> = graph
        .outputs()
        .iter()
        .copied()
        .filter(|&output| is_scores(graph, output))
        .collect();
    let Some(&first) = heads.first() else {
        return Err(PassError::new("the model has no float output of rank 2 or more to train on"));
    };
    let mut terms = Vec::new();
    if plan.loss != Loss::Distillation {
        terms.push(cross_entropy(graph, first).map_err(PassError::new)?);
    }
    if plan.loss != Loss::CrossEntropy {
        let teacher = plan
            .teacher
            .as_ref()
            .ok_or_else(|| PassError::new("distillation needs the teacher"))?;
        let copied = inline(graph, &teacher.graph).map_err(PassError::new)?;
        for &head in &heads {
            let Some(&taught) = copied.get(graph[head].name()) else {
                continue;
            };
            terms.push(divergence(graph, head, taught).map_err(PassError::new)?);
        }
    }
    let states: Vec<ValueId> = graph
        .outputs()
        .iter()
        .copied()
        .filter(|&output| graph[output].role != Role::Plain)
        .collect();
    graph.set_outputs(states);
    let mut build = Build::new(graph, LOSS);
    let total = terms
        .into_iter()
        .reduce(|a, b| build.add(a, b))
        .ok_or_else(|| PassError::new("the loss has no term"))?;
    graph.rename(total, LOSS);
    graph[total].role = Role::Loss;
    graph.add_output(total);
    Ok(Changed::Yes)
}

fn is_scores(graph: &Graph, output: ValueId) -> bool {
    let ty = graph[output].ty.as_ref();
    ty.is_some_and(|ty| ty.dtype == DType::F32 && ty.rank().is_some_and(|rank| rank >= 2))
}

/// The scores before a Softmax over the class axis that ends the network.
fn logits(graph: &Graph, head: ValueId) -> ValueId {
    match graph.producer(head) {
        Some((_, node)) if node.op.is("Softmax") || node.op.is("LogSoftmax") => node.input(0).unwrap_or(head),
        _ => head,
    }
}

/// log p over the class axis, the shape, and that axis.
///
/// Spelled z − log Σ exp z with z = x − max x: an engine's own LogSoftmax may be the logarithm of its Softmax, which is −∞ far from the
/// maximum. The maximum comes from TopK, which every operator set spells alike; no gradient need pass it, since it cancels.
fn log_probabilities(build: &mut Build, head: ValueId) -> Result<(ValueId, Vec<usize>, i64), String> {
    let scores = logits(build.graph, head);
    let shape = build.shape(scores)?;
    let axis: usize = if shape.len() == 2 { 1 } else { shape.len().saturating_sub(1) };
    let signed = i64::try_from(axis).map_err(|_| "the rank is absurd")?;
    let one = build.ints(&[1]);
    let held = build.node(Op::lsqc("StopGradient"), &[scores], vec![]);
    let top = build.nodes(
        Op::onnx("TopK"),
        &[Some(held), Some(one)],
        vec![Attribute::new("axis", signed)],
        2,
    )[0];
    let mut kept = shape.clone();
    if let Some(extent) = kept.get_mut(axis) {
        *extent = 1;
    }
    build.graph[top].ty = Some(TensorType::fixed(build.dtype(scores), &kept));
    let z = build.sub(scores, top);
    let exp = build.unary("Exp", z);
    let sum = build.reduce_sum(exp, &[signed], KeepDims::Yes);
    let log = build.unary("Log", sum);
    Ok((build.sub(z, log), shape, signed))
}

#[allow(clippy::cast_precision_loss)]
fn cross_entropy(graph: &mut Graph, head: ValueId) -> Result<ValueId, String> {
    let batch = graph[head].shape().ok_or("the shape of the output is not fixed")?;
    let &[images, classes] = &batch[..] else {
        return Err(format!("labels go with an output [N, classes]; this one has shape {batch:?}"));
    };
    let ty = Some(TensorType::fixed(DType::I64, &[images]));
    let label = graph.add_input(LABEL, ty, None).map_err(|error| error.to_string())?;
    graph[label].role = Role::Label;
    let mut build = Build::new(graph, "loss/ce");
    let (log_p, ..) = log_probabilities(&mut build, head)?;
    let classes_in = build.constant(Tensor::scalar(
        i64::try_from(classes).map_err(|_| "the class count is absurd")?,
    ));
    let values = build.constant(Tensor::vector(vec![0.0f32, 1.0]));
    let one_hot = build.node(
        Op::onnx("OneHot"),
        &[label, classes_in, values],
        vec![Attribute::new("axis", -1i64)],
    );
    build.graph[one_hot].ty = Some(TensorType::fixed(DType::F32, &[images, classes]));
    let picked = build.mul(one_hot, log_p);
    let sum = build.sum_all(picked);
    Ok(build.scale(sum, -1.0 / images as f32))
}

#[allow(clippy::cast_precision_loss)]
fn divergence(graph: &mut Graph, head: ValueId, taught: ValueId) -> Result<ValueId, String> {
    let mut build = Build::new(graph, "loss/kd");
    let (log_s, shape, axis) = log_probabilities(&mut build, head)?;
    let (log_t, ..) = log_probabilities(&mut build, taught)?;
    let p_t = build.unary("Exp", log_t);
    let difference = build.sub(log_t, log_s);
    let weighted = build.mul(p_t, difference);
    let per_row = build.reduce_sum(weighted, &[axis], KeepDims::No);
    let rows: usize = shape.iter().rev().skip(1).product();
    let sum = build.sum_all(per_row);
    Ok(build.scale(sum, 1.0 / rows.max(1) as f32))
}

/// Copies `teacher` into the graph, fed by the inputs of the same names; gives its outputs by their own names.
fn inline(graph: &mut Graph, teacher: &Graph) -> Result<HashMap<String, ValueId>, String> {
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    for (id, value) in teacher.values() {
        let copy = match value.def() {
            Def::Constant(literal) => graph.add_constant(&format!("{TEACHER}{}", value.name()), literal.tensor.clone()),
            Def::Input(None) => graph
                .find(value.name())
                .ok_or_else(|| format!("the student has no input '{}'", value.name()))?,
            Def::Input(Some(literal)) => graph.add_constant(&format!("{TEACHER}{}", value.name()), literal.tensor.clone()),
            Def::Node(..) | Def::Captured(_) => continue,
        };
        map.insert(id, copy);
    }
    for (_, node) in teacher.nodes() {
        let mut copied = node.clone();
        copied.subgraphs_mut().for_each(|inner| inner.map_captured(&map));
        let inputs: Vec<Option<ValueId>> = node
            .inputs()
            .iter()
            .map(|input| input.and_then(|value| map.get(&value).copied()))
            .collect();
        let names: Vec<Option<String>> = node
            .outputs()
            .iter()
            .map(|output| output.map(|value| graph.fresh_name(&format!("{TEACHER}{}", teacher[value].name()))))
            .collect();
        let names: Vec<Option<&str>> = names.iter().map(Option::as_deref).collect();
        let copy = graph
            .add_node(node.op.clone(), &inputs, &names, copied.attributes)
            .map_err(|error| error.to_string())?;
        // A node without a name keeps none: engines refuse two nodes of one name.
        if !node.name.is_empty() {
            graph[copy].name = format!("{TEACHER}{}", node.name);
        }
        let results = graph[copy].outputs().to_vec();
        for (old, new) in node.outputs().iter().zip(results) {
            if let (Some(old), Some(new)) = (*old, new) {
                graph[new].ty = teacher[old].ty.clone();
                map.insert(old, new);
            }
        }
    }
    let output = |&value: &ValueId| Some((teacher[value].name().to_owned(), *map.get(&value)?));
    Ok(teacher.outputs().iter().filter_map(output).collect())
}
