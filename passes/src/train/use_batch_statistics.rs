//! Lets BatchNormalization normalise by the batch and keep running estimates.
//!
//! μ_run ← m·μ_run + (1 − m)·μ,  σ²_run ← m·σ²_run + (1 − m)·σ²·M/(M − 1): the running variance is the unbiased one, as torch has it (ONNX's
//! own training mode keeps the biased one). m is the node's `momentum`, 0.9 by default. A BatchNormalization whose statistics are not
//! constants stays as it is.

use super::names::{BATCH_STATISTIC, NEXT};
use crate::ir::{Attribute, Graph, Model, NodeId, Op, Role, ValueId};
use crate::ops::build::Build;
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static USE_BATCH_STATISTICS: Pass = Pass {
    name: "use-batch-statistics",
    about: "normalise by the batch in training, and keep running estimates",
    needs: "types are fixed",
    gives: "lsqc.BatchNormalizationTrain, and running statistics as state",
    run,
};

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let graph = &mut model.graph;
    let mut changed = false;
    for id in graph.node_list() {
        if !graph[id].op.is("BatchNormalization") {
            continue;
        }
        match convert(graph, id) {
            Ok(()) => changed = true,
            Err(why) => cx.note(graph, id, format!("its statistics stay frozen in training: {why}")),
        }
    }
    Ok(Changed::from(changed))
}

#[allow(clippy::cast_precision_loss)]
fn convert(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    let node = &graph[id];
    let operand = |index: usize| node.input(index).ok_or("an operand is missing");
    let (x, gamma, beta, mean, variance) = (operand(0)?, operand(1)?, operand(2)?, operand(3)?, operand(4)?);
    let y = node.output(0).ok_or("its result is missing")?;
    if [mean, variance]
        .iter()
        .any(|&value| graph[value].constant().is_none() || graph[value].uses().len() != 1)
    {
        return Err("they are not its own constants".to_owned());
    }
    let shape = graph[x].shape().ok_or("the shape of its input is not fixed")?;
    let values: usize = shape
        .iter()
        .enumerate()
        .filter(|&(axis, _)| axis != 1)
        .map(|(_, &extent)| extent)
        .product();
    if values < 2 {
        return Err("a channel has a single value in a batch".to_owned());
    }
    let momentum = node.float("momentum").unwrap_or(0.9);
    let epsilon = node.float("epsilon").unwrap_or(1e-5);
    let (mean_name, variance_name) = (graph[mean].name().to_owned(), graph[variance].name().to_owned());
    let train = graph.insert_many(
        Op::lsqc("BatchNormalizationTrain"),
        &[Some(x), Some(gamma), Some(beta)],
        vec![Attribute::new("epsilon", epsilon)],
        &[
            &format!("{}/train", graph[y].name()),
            &format!("{BATCH_STATISTIC}{mean_name}"),
            &format!("{BATCH_STATISTIC}{variance_name}"),
        ],
    );
    let [normalized, batch_mean, batch_variance] = train[..] else {
        return Err("results are missing".to_owned());
    };
    for (new, like) in [(normalized, y), (batch_mean, mean), (batch_variance, variance)] {
        graph[new].ty = graph[like].ty.clone();
    }
    graph.replace(y, normalized);
    graph.remove_node(id);
    let unbias = values as f32 / (values - 1) as f32;
    update(graph, mean, Role::RunningMean, batch_mean, momentum, 1.0);
    update(graph, variance, Role::RunningVariance, batch_variance, momentum, unbias);
    Ok(())
}

fn update(graph: &mut Graph, running: ValueId, role: Role, batch: ValueId, momentum: f32, factor: f32) {
    graph.promote(running, role);
    let name = graph[running].name().to_owned();
    let mut build = Build::new(graph, &format!("{NEXT}{name}"));
    let kept = build.scale(running, momentum);
    let added = build.scale(batch, (1.0 - momentum) * factor);
    let next = build.add(kept, added);
    graph.rename(next, &format!("{NEXT}{name}"));
    graph[next].role = Role::Next(running);
    graph.add_output(next);
}
