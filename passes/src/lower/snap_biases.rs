//! Moves every bias of a quantized op onto the grid that its integers have: b ← round(b / (s_x·s_w·2^−k)) · s_x·s_w·2^−k.
//!
//! A runtime adds the bias to an int32 accumulator, so a bias between grid points would round there and not in the fake-quantized graph.
//! It does so also for targets that take the bias in floats: some runtimes (ONNX Runtime among them) move it into the accumulator by
//! themselves, and round it there.
//!
//! It refuses, with an error, a bias that leaves the 32 bits: the step of the layer's input or weight is then far too small.

use super::matmul_biases::{added_vector, is_long};
use super::{Fixed, Form, input_quantizer};
use crate::analyze::{Weighted, weighted};
use crate::ir::{Graph, Model, Tensor};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The largest integer bias. Half of the range of 32 bits is left to the products that are added to it.
pub const BIAS_LIMIT: f32 = 1_073_741_824.0;

/// The pass.
pub static SNAP_BIASES: Pass = Pass {
    name: "snap-biases",
    about: "move biases of quantized ops onto the grid of their int32 accumulator",
    needs: "trained values are constants; BatchNormalization is folded",
    gives: "biases that are multiples of s_x·s_w·2^−k, those that are added to a MatMul of rank 2 among them",
    run,
};

/// A quantized op's integer bias.
pub(crate) struct IntegerBias {
    /// The integers.
    pub levels: Vec<i32>,
    /// Their scales s_x·s_w·2^−k: one, or one for each output channel.
    pub scales: Vec<f32>,
}

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let form: Form = cx.get();
    let graph = &mut model.graph;
    let mut changed = false;
    for id in graph.node_list() {
        let Ok(op) = weighted(graph, id) else { continue };
        changed |= snap_added(graph, op, form).is_some();
        let Some(bias) = integer_bias(graph, op, form).map_err(|why| PassError::at(graph, id, why))? else {
            continue;
        };
        let Some(value) = op.bias_index.and_then(|index| graph[id].input(index)) else {
            continue;
        };
        let snapped = on_grid(&bias.levels, &bias.scales);
        let base = format!("{}/snapped", graph[value].name());
        let own = graph.add_constant(&base, Tensor::vector(snapped));
        if let Some(index) = op.bias_index {
            graph.set_input(id, index, Some(own));
        }
        graph.remove_source(value);
        changed = true;
    }
    Ok(Changed::from(changed))
}

/// Snaps the vector that is added to a MatMul of rank 2: a runtime may make a Gemm of both, and its bias an integer. A vector that does not
/// fit 32 bits stays, and is added in floats.
fn snap_added(graph: &mut Graph, op: Weighted, form: Form) -> Option<()> {
    let (add, index) = added_vector(graph, op.node).filter(|_| graph[op.node].op.is("MatMul") && !is_long(graph, op.node))?;
    let grid = accumulator_grid(graph, op, form)?;
    let vector = graph[add].input(index)?;
    let values = graph[vector].constant()?.to_f32()?;
    if grid.len() != 1 && grid.len() != values.len() {
        return None;
    }
    let levels = levels(&values, &grid).ok()?;
    let snapped = on_grid(&levels, &grid);
    let base = format!("{}/snapped", graph[vector].name());
    let own = graph.add_constant(&base, Tensor::vector(snapped));
    graph.set_input(add, index, Some(own));
    graph.remove_source(vector);
    Some(())
}

/// The value of one unit of a quantized op's int32 accumulator, s_x·s_w·2^−k: one number, or one for each output channel. `None` where the
/// op stays in floats.
#[must_use]
pub fn accumulator_grid(graph: &Graph, op: Weighted, form: Form) -> Option<Vec<f32>> {
    let operand = graph[op.node].input(op.weight_index)?;
    let (_, weight) = Fixed::behind(graph, operand)?;
    let step = input_quantizer(graph, op.node)?.step()?;
    #[allow(clippy::cast_precision_loss)]
    let stored = (1u32 << form.shift(graph, &weight)) as f32;
    // The product in single precision, as the runtime computes it.
    Some(weight.steps.iter().map(|&w| step * (w / stored)).collect())
}

/// The bias of a quantized op on its grid; `None` where it has none, or the op stays in floats.
///
/// # Errors
/// If it leaves the range.
pub(crate) fn integer_bias(graph: &Graph, op: Weighted, form: Form) -> Result<Option<IntegerBias>, String> {
    let node = &graph[op.node];
    let Some(bias) = op.bias_index.and_then(|index| node.input(index)) else {
        return Ok(None);
    };
    let Some(scales) = accumulator_grid(graph, op, form) else {
        return Ok(None);
    };
    let values = graph[bias]
        .constant()
        .and_then(Tensor::to_f32)
        .ok_or("its bias is not constant")?;
    let levels = levels(&values, &scales)?;
    Ok(Some(IntegerBias { levels, scales }))
}

/// The integers nearest to a bias's values, half to even.
fn levels(values: &[f32], scales: &[f32]) -> Result<Vec<i32>, String> {
    let level = |(&b, &scale): (&f32, &f32)| {
        let level = (f64::from(b) / f64::from(scale)).round_ties_even();
        #[allow(clippy::cast_possible_truncation)]
        if level.abs() <= f64::from(BIAS_LIMIT) {
            Ok(level as i32)
        } else {
            Err(format!(
                "its bias {b} leaves the 32 bits of the accumulator, whose grid is {scale}"
            ))
        }
    };
    values.iter().zip(scales.iter().cycle()).map(level).collect()
}

/// What these integers stand for.
#[allow(clippy::cast_precision_loss)]
fn on_grid(levels: &[i32], scales: &[f32]) -> Vec<f32> {
    let values = levels.iter().zip(scales.iter().cycle());
    values.map(|(&level, &scale)| level as f32 * scale).collect()
}
