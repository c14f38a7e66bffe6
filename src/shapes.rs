//! The types of what the compiler's table does not know: the engine is asked.
//!
//! An op without an entry stays in floats, but what follows it needs shapes. Every result that inference could not type is computed on
//! two batches of different size: an extent that stays is a number, one that goes with the batch is the batch, any other stays open.

use std::sync::Arc;

use anyhow::{Context, Result};
use lsqc_passes::ir::{Dim, Model, Tensor, TensorType, ValueId};
use lsqc_passes::onnx::OwnOps;

use crate::compiler::load_as_is;
use crate::data::Dataset;
use crate::engine::{Engine, LoadOptions};

/// The sizes of the two batches.
const SIZES: [usize; 2] = [2, 3];

/// Types the results that inference left open. The model's own ops must be standard ones.
///
/// # Errors
/// If the engine refuses the model.
pub fn complete(model: &mut Model, data: &Arc<dyn Dataset>, engine: &dyn Engine, options: &LoadOptions) -> Result<()> {
    let graph = &model.graph;
    let open: Vec<ValueId> = graph
        .nodes()
        .flat_map(|(_, node)| node.outputs().iter().copied().flatten())
        .filter(|&value| is_open(graph[value].ty.as_ref()))
        .collect();
    if open.is_empty() || data.is_empty() {
        return Ok(());
    }
    let batch_dim = graph.inputs().iter().find_map(|&input| {
        let shape = graph[input].ty.as_ref()?.shape.as_ref()?;
        shape.first().filter(|dim| dim.known().is_none()).cloned()
    });
    let mut asked = model.clone();
    asked.graph.set_outputs(open.clone());
    let mut session = load_as_is(engine, &asked, OwnOps::Refuse, options)?;
    let mut show = |size: usize| -> Result<Vec<Tensor>> {
        let samples: Vec<usize> = (0..size).map(|sample| sample % data.len()).collect();
        let mut shown = session.run(&data.batch(&samples, None)?.inputs)?;
        open.iter()
            .map(|&value| {
                let name = asked.graph[value].name();
                shown.remove(name).with_context(|| format!("'{name}' was not computed"))
            })
            .collect()
    };
    let [first, second] = match data.largest_batch() {
        // One sample shows all that there is.
        Some(1) => [show(1)?, show(1)?],
        _ => [show(SIZES[0])?, show(SIZES[1])?],
    };
    for ((&value, a), b) in open.iter().zip(&first).zip(&second) {
        let dims = |(&a, &b): (&usize, &usize)| match (a, b) {
            (a, b) if a == b => Dim::Known(a),
            (a, b) if [a, b] == SIZES => batch_dim.clone().unwrap_or(Dim::Unknown),
            _ => Dim::Unknown,
        };
        let same_rank = a.shape().len() == b.shape().len();
        model.graph[value].ty = Some(TensorType {
            dtype: a.dtype(),
            shape: same_rank.then(|| a.shape().iter().zip(b.shape()).map(dims).collect()),
        });
    }
    Ok(())
}

/// Is the type, or more of the shape than the batch, unknown?
fn is_open(ty: Option<&TensorType>) -> bool {
    ty.and_then(|ty| ty.shape.as_ref())
        .is_none_or(|shape| shape.iter().skip(1).any(|dim| dim.known().is_none()))
}
