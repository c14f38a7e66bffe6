//! The fake quantizer, v̂ = s · round(clip(v / s, −Q_N, Q_P)), and its backward op.
//!
//! `lsqc.FakeQuantize(v, s; bits, signed, axis, block_size) → v̂`. Esser et al., *Learned Step Size Quantization* (arXiv 1902.08153), equations 1 and 2;
//! `s` is a scalar, or a vector along `axis`. With `block_size` = B it has the shape of v, but ⌈K/B⌉ in place of the extent K of `axis`: B elements
//! along it share a step, the last block may be shorter (as ONNX QuantizeLinear 21). Rounding is half to even, as ONNX QuantizeLinear's.
//!
//! `lsqc.FakeQuantizeGrad(v, s, ∂v̂; bits, signed, axis, gain) → (∂v, ∂s)`, equations 3 and 5, with g = `gain`.
//!
//! `lsqc.StopGradient(x) → x`, beside them, lets no gradient back.

use super::gradient::GradCx;
use super::sample::Sample;
use super::{InferCx, OpEntry};
use crate::ir::{Attribute, Node, Op, TensorType};

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("FakeQuantize", |cx| cx.like_first(), "")
        .lsqc()
        .gradient(gradient, samples),
    OpEntry::new("StopGradient", |cx| cx.like_first(), "").lsqc().zero_gradient(),
    OpEntry::new("FakeQuantizeGrad", infer_grad, "gradients of gradients are not taken").lsqc(),
];

/// The integers that v̄ ranges over: −Q_N … Q_P.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantRange {
    /// Bits b, 2 to 8.
    pub bits: u32,
    /// Signed: Q_N = 2^(b−1), Q_P = 2^(b−1) − 1. Unsigned: Q_N = 0, Q_P = 2^b − 1.
    pub signed: bool,
}

impl QuantRange {
    /// Q_N.
    #[must_use]
    pub fn q_n(self) -> i32 {
        if self.signed { 1 << (self.bits - 1) } else { 0 }
    }

    /// Q_P.
    #[must_use]
    pub fn q_p(self) -> i32 {
        if self.signed {
            (1 << (self.bits - 1)) - 1
        } else {
            (1 << self.bits) - 1
        }
    }

    /// −Q_N and Q_P as floats.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn bounds(self) -> (f32, f32) {
        (-self.q_n() as f32, self.q_p() as f32)
    }
}

/// A `FakeQuantize` or `FakeQuantizeGrad` node's attributes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantizer {
    /// The integer range.
    pub range: QuantRange,
    /// The axis along which the step varies, if it is a vector, or along which blocks lie.
    pub axis: Option<i64>,
    /// The elements along the axis that share a step, where steps are of blocks.
    pub block: Option<usize>,
    /// The gradient scale g of the step; 1 where it is not set.
    pub gain: f32,
}

impl Quantizer {
    /// Reads a node's attributes.
    ///
    /// # Errors
    /// If bits are missing or outside 2 to 8, or blocks have no axis or no element.
    pub fn of(node: &Node) -> Result<Quantizer, String> {
        let bits = node
            .int("bits")
            .and_then(|bits| u32::try_from(bits).ok())
            .filter(|bits| (2..=8).contains(bits));
        let bits = bits.ok_or("a quantizer has 2 to 8 bits")?;
        let signed = node.int("signed").unwrap_or(0) != 0;
        let axis = node.int("axis");
        let block = match node.int("block_size") {
            None => None,
            Some(_) if axis.is_none() => return Err("its blocks have no axis".to_owned()),
            Some(block) => Some(usize::try_from(block).ok().filter(|&block| block > 0)),
        };
        Ok(Quantizer {
            range: QuantRange { bits, signed },
            axis,
            block: block
                .map(|block| block.ok_or("a block has at least one element"))
                .transpose()?,
            gain: node.float("gain").unwrap_or(1.0),
        })
    }

    /// The attributes of such a node.
    #[must_use]
    pub fn attributes(self) -> Vec<Attribute> {
        let mut attributes = vec![
            Attribute::new("bits", i64::from(self.range.bits)),
            Attribute::new("signed", i64::from(self.range.signed)),
        ];
        attributes.extend(self.axis.map(|axis| Attribute::new("axis", axis)));
        let block = self.block.and_then(|block| i64::try_from(block).ok());
        attributes.extend(block.map(|block| Attribute::new("block_size", block)));
        #[allow(clippy::float_cmp)]
        if self.gain != 1.0 {
            attributes.push(Attribute::new("gain", self.gain));
        }
        attributes
    }

    /// The shape of the steps of a tensor of `shape`.
    ///
    /// # Errors
    /// If the tensor does not have the axis.
    pub fn steps_shape(self, shape: &[usize]) -> Result<Vec<usize>, String> {
        let Some(axis) = self.axis else { return Ok(Vec::new()) };
        let axis = super::normalize_axis(axis, shape.len())?;
        let extent = shape.get(axis).copied().unwrap_or(0);
        let Some(block) = self.block else { return Ok(vec![extent]) };
        let mut steps = shape.to_vec();
        if let Some(blocks) = steps.get_mut(axis) {
            *blocks = extent.div_ceil(block);
        }
        Ok(steps)
    }

    /// The place of the step of element `index` of a tensor of `shape`, both counted row by row.
    #[must_use]
    pub fn step_of(self, shape: &[usize], index: usize) -> usize {
        let axis = self.axis.and_then(|axis| super::normalize_axis(axis, shape.len()).ok());
        let Some((axis, &extent)) = axis.and_then(|axis| Some((axis, shape.get(axis)?))) else {
            return 0;
        };
        let inner: usize = shape.iter().skip(axis + 1).product::<usize>().max(1);
        let along = (index / inner) % extent.max(1);
        let Some(block) = self.block else { return along };
        let outer = index / (inner * extent.max(1));
        (outer * extent.div_ceil(block) + along / block) * inner + index % inner
    }
}

fn infer_grad(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    Ok(vec![cx.ty(0).cloned(), cx.ty(1).cloned()])
}

fn gradient(cx: &mut GradCx) -> Result<(), String> {
    let inputs = [cx.x(0)?, cx.x(1)?, cx.dy()?].map(Some);
    let attributes = Quantizer::of(&cx.node)?.attributes();
    let given = cx.build.nodes(Op::lsqc("FakeQuantizeGrad"), &inputs, attributes, 2);
    for (index, &gradient) in given.iter().enumerate() {
        if cx.wants(index) {
            cx.give(index, gradient);
        }
    }
    Ok(())
}

/// The straight-through estimator is no derivative, so finite differences cannot check it; `tests/python/check_gradients.py` holds it to torch.
fn samples() -> Vec<Sample> {
    Vec::new()
}
