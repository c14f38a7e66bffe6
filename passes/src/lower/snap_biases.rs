//! Moves every bias of a quantized op onto the grid that its integers have: b ← round(b / (s_x·s_w·2^−k)) · s_x·s_w·2^−k.
//!
//! A runtime adds the bias to an int32 accumulator, so a bias between grid points would round there and not in the fake-quantized graph.
//! It refuses, with an error, a bias that leaves the 32 bits: the step of the layer's input or weight is then far too small.

use super::{Fixed, storage_shift};
use crate::analyze::{Weighted, weighted};
use crate::ir::{Graph, Model, NodeId, Tensor};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The largest integer bias. Half of the range of 32 bits is left to the products that are added to it.
pub const BIAS_LIMIT: f32 = 1_073_741_824.0;

/// The pass.
pub static SNAP_BIASES: Pass = Pass {
    name: "snap-biases",
    about: "move biases of quantized ops onto the grid of their int32 accumulator",
    needs: "trained values are constants; BatchNormalization is folded",
    gives: "biases that are multiples of s_x·s_w·2^−k",
    run,
};

/// A quantized op's integer bias.
pub(crate) struct IntegerBias {
    /// The integers.
    pub levels: Vec<i32>,
    /// Their scales s_x·s_w·2^−k: one, or one for each output channel.
    pub scales: Vec<f32>,
}

fn run(model: &mut Model, _: &mut PassCx) -> Result<Changed, PassError> {
    let graph = &mut model.graph;
    let mut changed = false;
    for id in graph.node_list() {
        let Ok(op) = weighted(graph, id) else { continue };
        let Some(bias) = integer_bias(graph, op).map_err(|why| PassError::at(graph, id, why))? else {
            continue;
        };
        let Some(value) = op.bias_index.and_then(|index| graph[id].input(index)) else {
            continue;
        };
        #[allow(clippy::cast_precision_loss)]
        let snapped: Vec<f32> = bias
            .levels
            .iter()
            .zip(bias.scales.iter().cycle())
            .map(|(&level, &scale)| level as f32 * scale)
            .collect();
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

/// The step of what `node` takes as its data, if that is fake-quantized with one step.
pub(crate) fn input_step(graph: &Graph, node: NodeId) -> Option<f32> {
    // Ops that only move values stand between a quantizer and its user.
    let mut value = graph[node].input(0)?;
    loop {
        if let Some((_, fixed)) = Fixed::behind(graph, value) {
            return fixed.step();
        }
        let (_, producer) = graph.producer(value)?;
        let passes = crate::ops::quant(producer) == crate::ops::Quant::Transparent || producer.op.is("Concat");
        value = producer.input(0).filter(|_| passes)?;
    }
}

/// The value of one unit of a quantized op's int32 accumulator, s_x·s_w·2^−k: one number, or one for each output channel. `None` where the
/// op stays in floats.
#[must_use]
pub fn accumulator_grid(graph: &Graph, op: Weighted) -> Option<Vec<f32>> {
    let operand = graph[op.node].input(op.weight_index)?;
    let (_, weight) = Fixed::behind(graph, operand)?;
    let step = input_step(graph, op.node)?;
    #[allow(clippy::cast_precision_loss)]
    let stored = (1u32 << storage_shift(weight.quantizer.range.bits)) as f32;
    // The product in single precision, as the runtime computes it.
    Some(weight.steps.iter().map(|&w| step * (w / stored)).collect())
}

/// The bias of a quantized op on its grid; `None` where it has none, or the op stays in floats.
///
/// # Errors
/// If it leaves the range.
pub(crate) fn integer_bias(graph: &Graph, op: Weighted) -> Result<Option<IntegerBias>, String> {
    let node = &graph[op.node];
    let Some(bias) = op.bias_index.and_then(|index| node.input(index)) else {
        return Ok(None);
    };
    let Some(scales) = accumulator_grid(graph, op) else {
        return Ok(None);
    };
    let values = graph[bias]
        .constant()
        .and_then(Tensor::to_f32)
        .ok_or("its bias is not constant")?;
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
    let levels = values
        .iter()
        .zip(scales.iter().cycle())
        .map(level)
        .collect::<Result<_, _>>()?;
    Ok(Some(IntegerBias { levels, scales }))
}
