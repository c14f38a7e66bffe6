//! Re-estimates BatchNormalization's statistics after training: the mean over batches of each batch's mean and unbiased variance.
//!
//! While weights and steps move, running estimates lag behind; on depthwise networks at few bits that alone costs points (arXiv
//! 2203.11086, section 4).

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use lsqc_passes::ir::{Graph, Model, Role, Tensor, ValueId};
use lsqc_passes::legalize::Dialect;
use lsqc_passes::onnx::OwnOps;
use lsqc_passes::pipelines;
use lsqc_passes::train::names;

use super::Loop;
use crate::compiler::{Compiler, load_as_is};
use crate::data::{TrainBatches, TrainOptions};
use crate::engine::Tensors;
use crate::interrupt;

/// Batches that statistics are taken over after training, at most.
pub const STATISTICS_BATCHES: u64 = 100;
/// Times through the data, at most: more of the same samples say nothing new.
const ROUNDS: u64 = 2;

/// New statistics.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// By the name of the constant; empty where there is no BatchNormalization.
    pub values: Tensors,
    /// Batches that they were taken over.
    pub batches: u64,
}

/// New statistics for every BatchNormalization of `quantized`, over so many batches at most.
///
/// # Errors
/// If a pass or the engine fails.
pub fn reestimate(
    compiler: &mut Compiler,
    quantized: &Model,
    (shapes, dialect): (&BTreeMap<String, Vec<usize>>, Dialect),
    (batches, most): (TrainOptions, u64),
    with: Loop,
) -> Result<Statistics> {
    let mut model = quantized.clone();
    let shapes = lsqc_passes::analyze::InputShapes(shapes.clone());
    compiler.run(pipelines::FIX, &mut model, |cx| cx.set(shapes), |_| ())?;
    let unbias = unbias_factors(&model.graph);
    compiler.run(pipelines::STATISTICS, &mut model, |cx| cx.set(dialect), |_| ())?;
    let graph = &mut model.graph;
    let mut wanted: Vec<(ValueId, ValueId)> = Vec::new();
    for &output in graph.outputs() {
        if let Role::Next(running) = graph[output].role
            && let Some(batch) = graph.find(&format!("{}{}", names::BATCH_STATISTIC, graph[running].name()))
        {
            wanted.push((running, batch));
        }
    }
    if wanted.is_empty() {
        return Ok(Statistics::default());
    }
    let names: Vec<(String, String)> = wanted
        .iter()
        .map(|&(running, batch)| (model.graph[running].name().to_owned(), model.graph[batch].name().to_owned()))
        .collect();
    model.graph.set_outputs(wanted.iter().map(|&(_, batch)| batch).collect());
    for input in model.graph.inputs().to_vec() {
        model.graph.demote(input);
    }
    compiler.run(pipelines::CLEAN, &mut model, |_| (), |_| ())?;

    let mut session = load_as_is(with.engine, &model, OwnOps::Keep, with.options)?;
    let mut loader = TrainBatches::start(Arc::clone(with.data), batches)?;
    let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let round = TrainBatches::per_epoch(with.data.len(), batches.batch) as u64;
    let count = most.min(ROUNDS * round).max(1);
    let progress = with.terminal.progress("re-estimate BatchNorm", count);
    for _ in 0..count {
        interrupt::check()?;
        let shown = session.run(&loader.next_batch()?.inputs)?;
        for (running, batch) in &names {
            let values = shown
                .get(batch)
                .and_then(Tensor::to_f64)
                .with_context(|| format!("'{batch}' was not computed"))?;
            let sum = sums.entry(running.clone()).or_insert_with(|| vec![0.0; values.len()]);
            for (sum, value) in sum.iter_mut().zip(values) {
                *sum += value;
            }
        }
        progress.advance(1, "");
    }
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    let mean = |(name, sum): (String, Vec<f64>)| {
        let factor = unbias.get(&name).copied().unwrap_or(1.0) / count as f64;
        (
            name,
            Tensor::vector(sum.into_iter().map(|sum| (sum * factor) as f32).collect::<Vec<f32>>()),
        )
    };
    Ok(Statistics {
        values: sums.into_iter().map(mean).collect(),
        batches: count,
    })
}

/// M/(M − 1) for every running variance, with M the values to a channel: of a graph whose BatchNormalizations are not spelled out yet.
#[allow(clippy::cast_precision_loss)]
fn unbias_factors(graph: &Graph) -> BTreeMap<String, f64> {
    let normalizations = graph
        .nodes()
        .map(|(_, node)| node)
        .filter(|node| node.op.is("BatchNormalization"));
    normalizations
        .filter_map(|node| {
            let (x, variance) = (node.input(0)?, node.input(4)?);
            let shape = graph[x].shape()?;
            let others = shape.iter().enumerate().filter(|&(axis, _)| axis != 1);
            let count: usize = others.map(|(_, &extent)| extent).product();
            let factor = count as f64 / count.saturating_sub(1).max(1) as f64;
            Some((graph[variance].name().to_owned(), factor))
        })
        .collect()
}
