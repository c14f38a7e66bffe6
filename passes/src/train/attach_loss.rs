//! Attaches the loss, and for distillation the float network as the teacher inside the same graph.
//!
//! Cross-entropy with labels: −mean_n log p_s(n, label_n), on the first output `[N, classes]`.  Distillation: Σ_o w_o·L_o / Σ_o w_o over the
//! outputs, each by the loss of its kind ([`super::output_losses`]), before a Softmax or Sigmoid that ends it ([`super::heads`]). Where both
//! are asked for they are summed 1 : 1.
//!
//! It refuses: networks without an output to train on; labels without an output `[N, classes]`.

use std::collections::HashMap;

use super::heads::{Head, OutputKind, head};
use super::names::{LABEL, LOSS, TEACHER};
use super::output_losses::{Ends, log_probabilities, term};
use super::{Loss, LossPlan, OutputLoss};
use crate::ir::{Attribute, DType, Def, Graph, Model, Op, Role, Tensor, TensorType, ValueId};
use crate::ops::build::Build;
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
    let outputs = trained(graph, &plan);
    if outputs.is_empty() {
        return Err(PassError::new("the model has no output of type float to train on"));
    }
    let mut terms = Vec::new();
    if plan.loss != Loss::Distillation {
        let scores = outputs
            .iter()
            .find(|output| output.is_scores(graph))
            .ok_or_else(|| PassError::new("labels go with an output [N, classes] of float scores, and the model has none"))?;
        terms.push(cross_entropy(graph, scores).map_err(PassError::new)?);
    }
    if plan.loss != Loss::CrossEntropy {
        let teacher = plan
            .teacher
            .as_ref()
            .ok_or_else(|| PassError::new("distillation needs the teacher"))?;
        let copied = inline(graph, &teacher.graph).map_err(PassError::new)?;
        terms.extend(distillation(graph, &outputs, &copied).map_err(PassError::new)?);
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

/// An output that is trained on.
struct Trained {
    output: ValueId,
    head: Head,
    loss: OutputLoss,
}

impl Trained {
    fn is_scores(&self, graph: &Graph) -> bool {
        let rank = graph[self.output].ty.as_ref().and_then(TensorType::rank);
        rank == Some(2) && graph[self.head.start].ty.as_ref().and_then(TensorType::rank) == Some(2)
    }

    /// Where its loss begins: before the op that the kind undoes, else at the output itself.
    fn start(&self) -> (ValueId, usize) {
        if self.loss.kind == self.head.kind {
            (self.head.start, self.head.axis)
        } else {
            (self.output, self.head.axis)
        }
    }
}

fn trained(graph: &Graph, plan: &LossPlan) -> Vec<Trained> {
    let of = |&output: &ValueId| {
        let head = head(graph, output);
        let asked = plan.outputs.get(graph[output].name()).cloned();
        let loss = asked.unwrap_or_else(|| OutputLoss::of(head.kind));
        Trained { output, head, loss }
    };
    let plain = graph.outputs().iter().filter(|&&output| graph[output].role == Role::Plain);
    plain
        .map(of)
        .filter(|output| output.loss.kind != OutputKind::Ignored)
        .collect()
}

/// Σ w·L / Σ w over the outputs that the teacher has; none where it has none of them.
fn distillation(graph: &mut Graph, outputs: &[Trained], copied: &HashMap<String, Copied>) -> Result<Option<ValueId>, String> {
    let whole: f32 = outputs.iter().map(|output| output.loss.weight).sum();
    let mut total: Option<ValueId> = None;
    for output in outputs {
        let Some(taught) = copied.get(graph[output.output].name()) else {
            continue;
        };
        let (student, axis) = output.start();
        let teacher = if student == output.output {
            taught.output
        } else {
            taught.start
        };
        let mut build = Build::new(graph, "loss/kd");
        let ends = Ends { student, teacher, axis };
        let mut loss = term(&mut build, ends, &output.loss)?;
        if outputs.len() > 1 {
            loss = build.scale(loss, output.loss.weight / whole);
        }
        total = Some(total.map_or(loss, |before| build.add(before, loss)));
    }
    Ok(total)
}

#[allow(clippy::cast_precision_loss)]
fn cross_entropy(graph: &mut Graph, scored: &Trained) -> Result<ValueId, String> {
    // Before a Softmax whatever the output is taken as: labels are of classes.
    let scores = if scored.head.kind == OutputKind::Classes {
        scored.head.start
    } else {
        scored.output
    };
    let batch = graph[scores].shape().ok_or("the shape of the output is not fixed")?;
    let &[images, classes] = &batch[..] else {
        return Err(format!("labels go with an output [N, classes]; this one has shape {batch:?}"));
    };
    let ty = Some(TensorType::fixed(DType::I64, &[images]));
    let label = graph.add_input(LABEL, ty, None).map_err(|error| error.to_string())?;
    graph[label].role = Role::Label;
    let mut build = Build::new(graph, "loss/ce");
    let log_p = log_probabilities(&mut build, scores, 1)?;
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

/// An output of the teacher inside the student's graph, and where its loss begins.
struct Copied {
    output: ValueId,
    start: ValueId,
}

/// Copies `teacher` into the graph, fed by the inputs of the same names; gives its outputs by their own names.
fn inline(graph: &mut Graph, teacher: &Graph) -> Result<HashMap<String, Copied>, String> {
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
    let output = |&value: &ValueId| {
        let copied = Copied {
            output: *map.get(&value)?,
            start: *map.get(&head(teacher, value).start)?,
        };
        Some((teacher[value].name().to_owned(), copied))
    };
    Ok(teacher.outputs().iter().filter_map(output).collect())
}
