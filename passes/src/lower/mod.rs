//! From a trained network to the file that a runtime runs in integers, and the graphs that prove it right.
//!
//! `fold-batch-norms`, `raise-steps` and `snap-biases` still work on fake quantizers: what they leave is what the lowered file must compute. `lower-qdq`
//! writes integers. `cut-at-quantizers` takes the fake-quantized graph apart into layers for the proof.

mod bake_weights;
mod blocks;
mod cut_at_quantizers;
mod fold_batch_norms;
mod form;
mod lower_qdq;
mod matmul_biases;
mod raise_steps;
mod restore_halves;
mod separate_weights;
mod snap_biases;
mod stored;
mod unpack_blocks;
mod unpack_weights;
mod widen_to_double;

pub use bake_weights::BAKE_WEIGHTS;
pub use blocks::{BlockSite, BlockSites, LOWER_BLOCKS, Order};
pub use cut_at_quantizers::{CUT_AT_QUANTIZERS, LEVELS_IN};
pub use fold_batch_norms::FOLD_BATCH_NORMS;
pub use form::{Form, most_weight_bits};
pub use lower_qdq::LOWER_QDQ;
pub use raise_steps::RAISE_STEPS;
pub use restore_halves::RESTORE_HALVES;
pub use separate_weights::SEPARATE_WEIGHTS;
pub use snap_biases::{SNAP_BIASES, accumulator_grid};
pub use unpack_blocks::UNPACK_BLOCKS;
pub use unpack_weights::UNPACK_WEIGHTS;
pub use widen_to_double::{WIDEN_TO_DOUBLE, Widening};

use crate::ir::{Graph, Node, NodeId, Tensor, ValueId};
use crate::ops::{Quant, Quantizer};

/// One activation quantizer of the fake-quantized graph and what it became.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelSite {
    /// The fake-quantized value.
    pub value: String,
    /// The float value before it.
    pub source: String,
    /// The tensor of the lowered graph that holds its levels, uint8 or int8.
    pub levels: String,
    /// The step s.
    pub step: f32,
    /// The zero point: 128 for signed levels in uint8, else 0.
    pub zero_point: i32,
    /// The range of the levels, zero point included.
    pub range: (i32, i32),
}

/// Where the lowered graph's levels are; `lower-qdq` leaves this in its context.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LevelSites(pub Vec<LevelSite>);

/// A fake quantizer with a constant step.
pub struct Fixed {
    /// What it quantizes.
    pub x: ValueId,
    /// Its result.
    pub y: ValueId,
    /// The value of the step.
    pub step_value: ValueId,
    /// The steps; one unless it varies along an axis or by block, and then row by row.
    pub steps: Vec<f32>,
    /// Range and axis.
    pub quantizer: Quantizer,
}

impl Fixed {
    /// Reads a node as a fake quantizer whose step is constant.
    pub fn of(graph: &Graph, node: &Node) -> Option<Fixed> {
        if !node.op.is_lsqc("FakeQuantize") {
            return None;
        }
        let (x, step_value, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
        let steps = graph[step_value].constant().and_then(Tensor::to_f32)?;
        Some(Fixed {
            x,
            y,
            step_value,
            steps,
            quantizer: Quantizer::of(node).ok()?,
        })
    }

    /// The fake quantizer that makes `value`.
    pub fn behind(graph: &Graph, value: ValueId) -> Option<(NodeId, Fixed)> {
        let (id, node) = graph.producer(value)?;
        Some((id, Fixed::of(graph, node)?))
    }

    /// The only step.
    pub fn step(&self) -> Option<f32> {
        match self.steps[..] {
            [step] => Some(step),
            _ => None,
        }
    }

    /// The step of element `index` of a tensor of `shape`.
    pub fn step_at(&self, shape: &[usize], index: usize) -> f32 {
        let at = match self.steps[..] {
            [step] => return step,
            _ => self.quantizer.step_of(shape, index),
        };
        self.steps.get(at).copied().unwrap_or(f32::NAN)
    }

    /// The levels v̄ of a constant, computed as the fake quantizer does: divide, clip, round half to even.
    pub fn levels(&self, tensor: &Tensor) -> Option<Vec<i32>> {
        let (lo, hi) = self.quantizer.range.bounds();
        let values = tensor.to_f32()?;
        let level = |(index, v): (usize, &f32)| {
            let level = (v / self.step_at(tensor.shape(), index)).clamp(lo, hi).round_ties_even();
            // NaN only where the weight is NaN, which training has refused.
            #[allow(clippy::cast_possible_truncation)]
            (!level.is_nan()).then_some(level as i32)
        };
        values.iter().enumerate().map(level).collect()
    }
}

/// The fake quantizer of what `node` takes as its data, seen through ops that only move values.
pub(crate) fn input_quantizer(graph: &Graph, node: NodeId) -> Option<Fixed> {
    operand_quantizer(graph, graph[node].input(0)?)
}

/// The unit s_a·s_b of the int32 accumulator of `node`, a product of two activations with constant steps.
#[must_use]
pub fn product_unit(graph: &Graph, node: NodeId) -> Option<f32> {
    let [a, b] = [0, 1].map(|index| operand_quantizer(graph, graph[node].input(index)?)?.step());
    Some(a? * b?)
}

/// The fake quantizer behind an operand, seen through ops that only move values.
fn operand_quantizer(graph: &Graph, mut value: ValueId) -> Option<Fixed> {
    loop {
        if let Some((_, fixed)) = Fixed::behind(graph, value) {
            return Some(fixed);
        }
        let (_, producer) = graph.producer(value)?;
        let passes = crate::ops::quant(producer) == Quant::Transparent || producer.op.is("Concat");
        value = producer.input(0).filter(|_| passes)?;
    }
}

/// Names the nodes that make these values after the quantizer. A weight that is quantized twice gives its name to both; the number that its second
/// value has then keeps the nodes apart, too.
fn label(graph: &mut Graph, name: &str, values: &[ValueId]) {
    for &value in values {
        let Some(node) = graph[value].producer() else { continue };
        let number = (graph[value].name().strip_prefix(name))
            .and_then(|rest| rest.rsplit_once('_'))
            .filter(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()))
            .map(|(_, number)| format!("_{number}"));
        graph[node].name = format!("{name}/{}{}", graph[node].op.name, number.unwrap_or_default());
    }
}
