//! Which batches a network takes.
//!
//! Where every input that is fed has an open first axis, that axis is the batch. Where all first axes have one fixed extent, the batch was
//! fixed by the exporter: `free-batch` opens it, and the engine shows on the data that samples in a batch give what they give by
//! themselves. Everything else goes one sample at a time: inputs without an axis for the batch (a sampling rate, the state `[2, 1, 128]` of
//! a recurrent network) are whole in every sample, and other inputs take a batch of 1.
//!
//! Refused: a fixed batch of more than 1 that cannot be opened.

use std::sync::Arc;

use anyhow::{Context, Result};
use lsqc_passes::ir::{DType, Dim, Graph, Model, Tensor, ValueId};
use lsqc_passes::onnx::OwnOps;
use lsqc_passes::pipelines;

use super::inputs::{Change, fed};
use crate::compiler::{Compiler, load_as_is};
use crate::config::BatchNorm;
use crate::data::{BatchAxis, Data, Dataset, ModelInput, Origin};
use crate::engine::{Engine, LoadOptions};
use crate::failure::Failure;
use crate::terminal::Terminal;

/// How far results of a sample may lie apart, in a batch and by itself, relative to the largest: kernels for other sizes add up in another
/// order, and single precision then differs in the sixth digit; samples that see each other differ in the first.
const SAME: f64 = 1e-3;

/// Gives the symbolic first axes the extent 1 where another input has no axis for the batch; tells which input that is.
pub fn settle(model: &mut Model) -> Option<String> {
    let graph = &mut model.graph;
    let inputs = fed(graph);
    let open = |graph: &Graph, input: ValueId| first(graph, input).is_some_and(|dim| dim.known().is_none());
    let odd = inputs
        .iter()
        .copied()
        .find(|&input| has_shape(graph, input) && !open(graph, input))?;
    if !inputs.iter().any(|&input| open(graph, input)) {
        return None;
    }
    let mut change = Change::default();
    for &input in &inputs {
        match first(graph, input) {
            Some(Dim::Symbol(symbol)) => {
                change.symbols.insert(symbol, Dim::Known(1));
            }
            Some(Dim::Unknown) => {
                let shape = graph[input].ty.as_mut().and_then(|ty| ty.shape.as_mut());
                if let Some(dim) = shape.and_then(|shape| shape.first_mut()) {
                    *dim = Dim::Known(1);
                }
            }
            _ => {}
        }
    }
    let ty = graph[odd].ty.as_ref().map(ToString::to_string).unwrap_or_default();
    change.apply(graph);
    Some(format!(
        "input '{}' is {ty}, without an axis for the batch: samples go through one by one, and BatchNormalization is not trained (--fix-input \
         makes an input a constant)",
        graph[odd].name()
    ))
}

/// The inputs that a caller feeds, as data must fill them.
#[must_use]
pub fn model_inputs(model: &Model) -> Vec<ModelInput> {
    let graph = &model.graph;
    let inputs = fed(graph);
    let firsts: Vec<Option<usize>> = inputs
        .iter()
        .map(|&input| first(graph, input).and_then(|dim| dim.known()))
        .collect();
    let alike = firsts.windows(2).all(|pair| pair[0] == pair[1]);
    let ranked = inputs
        .iter()
        .all(|&input| !has_shape(graph, input) || first(graph, input).is_some());
    let axis = |first: Option<usize>| match first {
        Some(1) => BatchAxis::One,
        _ if alike && ranked => BatchAxis::Any,
        _ => BatchAxis::Missing,
    };
    let describe = |(&input, first): (&ValueId, Option<usize>)| {
        let ty = graph[input].ty.as_ref();
        let shape = ty.and_then(|ty| ty.shape.clone()).unwrap_or_default();
        let batch = axis(first);
        ModelInput {
            name: graph[input].name().to_owned(),
            dtype: ty.map_or(DType::F32, |ty| ty.dtype),
            sample_shape: shape
                .iter()
                .skip(usize::from(batch != BatchAxis::Missing))
                .map(Dim::known)
                .collect(),
            batch,
        }
    };
    inputs.iter().zip(firsts).map(describe).collect()
}

/// A network of a fixed batch with that batch open.
pub struct Freed {
    /// The network.
    pub model: Model,
    /// The extent that the batch had.
    pub extent: usize,
}

/// Opens the batch, if all inputs have the same fixed one.
///
/// # Errors
/// Why it cannot be opened; `None` where it is not fixed.
pub fn freed(float: &Model, compiler: &mut Compiler) -> Result<Freed, Option<String>> {
    let graph = &float.graph;
    let firsts: Option<Vec<usize>> = fed(graph).iter().map(|&input| first(graph, input)?.known()).collect();
    let extent = match firsts.as_deref() {
        Some([extent, others @ ..]) if others.iter().all(|other| other == extent) => *extent,
        _ => return Err(None),
    };
    let mut model = float.clone();
    // What this declines is said as a whole, and its passes are not those of the run.
    let (notes, file) = (compiler.notes.len(), compiler.file.take());
    let done = compiler.run(pipelines::FREE, &mut model, |_| (), |_| ());
    compiler.notes.truncate(notes);
    compiler.file = file;
    done.map(|()| Freed { model, extent }).map_err(|why| Some(format!("{why:#}")))
}

/// Shows that the freed network gives for samples in a batch what the network gives for them by themselves.
///
/// # Errors
/// Why it does not, in words for the user.
pub fn check(float: &Model, freed: &Freed, data: &Arc<dyn Dataset>, engine: &dyn Engine, options: &LoadOptions) -> Result<()> {
    let extent = freed.extent;
    let samples: Vec<usize> = (0..2 * extent).map(|sample| sample % data.len().max(1)).collect();
    let mut session = load_as_is(engine, &freed.model, OwnOps::Refuse, options)?;
    let together = session.run(&data.batch(&samples, None)?.inputs)?;
    let mut session = load_as_is(engine, float, OwnOps::Refuse, options)?;
    let (one, two) = samples.split_at(extent);
    let apart = [
        session.run(&data.batch(one, None)?.inputs)?,
        session.run(&data.batch(two, None)?.inputs)?,
    ];
    for (name, whole) in &together {
        let parts: Vec<f64> = apart
            .iter()
            .map(|results| {
                results
                    .get(name)
                    .and_then(Tensor::to_f64)
                    .with_context(|| format!("'{name}' was not computed"))
            })
            .collect::<Result<Vec<_>>>()?
            .concat();
        let whole = whole.to_f64().with_context(|| format!("'{name}' is not numeric"))?;
        let largest = parts.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        let same = |(a, b): (&f64, &f64)| (a - b).abs() <= SAME * largest || a == b || (a.is_nan() && b.is_nan());
        anyhow::ensure!(
            whole.len() == parts.len() && whole.iter().zip(&parts).all(same),
            "in a batch '{name}' is another than by itself"
        );
    }
    Ok(())
}

/// Gives a network the fixed batch back that it was freed of.
pub fn restore(model: &mut Model, extent: usize) {
    let graph = &mut model.graph;
    let symbols = fed(graph).into_iter().filter_map(|input| match first(graph, input)? {
        Dim::Symbol(symbol) => Some((symbol, Dim::Known(extent))),
        _ => None,
    });
    let change = Change {
        symbols: symbols.collect(),
        ..Change::default()
    };
    change.apply(graph);
}

/// What the user should know where a fixed batch was opened.
#[must_use]
pub fn opened(float: &Model) -> Option<String> {
    let (name, extent) = super::fixed_batch(float)?;
    Some(format!(
        "input '{name}' has a fixed batch of {extent}: it is calibrated, trained and measured on batches of other sizes, in which every sample \
         gives the same; the file keeps its batch"
    ))
}

/// What the user should know where a fixed batch stays.
///
/// # Errors
/// Bad input, if it is of more than 1.
pub fn kept(float: &Model, why: &str) -> Result<Option<String>> {
    let Some((name, extent)) = super::fixed_batch(float) else {
        return Ok(None);
    };
    if extent == 1 {
        return Ok(Some(format!(
            "input '{name}' has a fixed batch of 1, which cannot be opened ({why}): samples go through one by one, and BatchNormalization is \
             not trained"
        )));
    }
    Err(Failure::bad_input(format!(
        "input '{name}' has a fixed batch of {extent}, which cannot be opened: {why}"
    ))
    .help("export the model with a dynamic batch axis")
    .into())
}

fn has_shape(graph: &Graph, input: ValueId) -> bool {
    graph[input].ty.as_ref().is_some_and(|ty| ty.shape.is_some())
}

fn first(graph: &Graph, input: ValueId) -> Option<Dim> {
    graph[input].ty.as_ref()?.shape.as_ref()?.first().cloned()
}

/// Samples below which BatchNormalization keeps the model's statistics: the variance of fewer has a standard error of over 9 % (√(2/n)), more than
/// what quantization moves it by.
const FEW_SAMPLES: usize = 256;

/// How BatchNormalization is trained, where the user has not said it: by the batch, if there is real data, enough of it, in batches.
pub(super) fn batch_norm(
    asked: Option<BatchNorm>,
    data: &Data,
    largest_batch: usize,
    model: &Model,
    terminal: &Terminal,
) -> BatchNorm {
    if data.origin == Origin::Synthetic || largest_batch == 1 {
        return BatchNorm::Frozen;
    }
    let samples = data.train.len();
    let by_samples = if samples < FEW_SAMPLES {
        BatchNorm::Frozen
    } else {
        BatchNorm::Batch
    };
    if asked.is_none() && by_samples == BatchNorm::Frozen && model.graph.nodes().any(|(_, node)| node.op.is("BatchNormalization"))
    {
        terminal.note(format!(
            "BatchNorm keeps the model's statistics: {samples} training samples are too few to take them from ({FEW_SAMPLES} are enough, `--bn batch` \
             takes them all the same)"
        ));
    }
    asked.unwrap_or(by_samples)
}
