//! The fake quantizer and its gradient.
//!
//! With u = v/s:  v̄ = round(clip(u, −Q_N, Q_P)),  v̂ = s·v̄.  With the mask m = [−Q_N < u < Q_P], strict on both sides:
//! ∂v = ∂v̂·m  and  ∂s = g·Σ ∂v̂·(v̄ − m·u), which is round(u) − u inside and the bound itself outside (arXiv 1902.08153, equations 3 and 5).
//!
//! Where steps are of blocks they are spread over the elements that share them, and the sum for each goes over its block, which zeros fill up
//! where the last one is shorter.
//!
//! The mask is spelled Relu(sign((u + Q_N)·(Q_P − u))): the product is above 0 strictly inside and exactly 0 on a bound, and engines run float
//! ops several times faster than Where or comparisons and casts.

use super::{Codes, Shared, operand};
use crate::ir::{Node, Role, ValueId};
use crate::ops::Quantizer;
use crate::ops::build::{Build, KeepDims};

pub(super) fn forward(build: &mut Build, node: &Node, shared: &mut Shared, codes: Codes) -> Result<Vec<ValueId>, String> {
    let (v, s) = (operand(node, 0)?, operand(node, 1)?);
    let quantizer = Quantizer::of(node)?;
    let step = broadcast_step(build, v, s, quantizer)?;
    let (_, code) = codes_of(build, v, s, step, quantizer, shared);
    if codes == Codes::Outputs
        && let Some(y) = node.output(0)
    {
        let name = format!("code/{}", build.graph[y].name());
        build.graph.rename(code, &name);
        build.graph[code].role = Role::Code(s);
        build.graph.add_output(code);
    }
    Ok(vec![build.mul(code, step)])
}

pub(super) fn backward(build: &mut Build, node: &Node, shared: &mut Shared) -> Result<Vec<ValueId>, String> {
    let (v, s, dy) = (operand(node, 0)?, operand(node, 1)?, operand(node, 2)?);
    let quantizer = Quantizer::of(node)?;
    let step = broadcast_step(build, v, s, quantizer)?;
    let (ratio, code) = codes_of(build, v, s, step, quantizer, shared);
    let (lo, hi) = quantizer.range.bounds();
    let above = if lo == 0.0 {
        ratio
    } else {
        let lo = build.scalar(lo);
        build.sub(ratio, lo)
    };
    let hi = build.scalar(hi);
    let below = build.sub(hi, ratio);
    let product = build.mul(above, below);
    let sign = build.unary("Sign", product);
    let mask = build.unary("Relu", sign);
    let dv = build.mul(dy, mask);
    let passed = build.mul(mask, ratio);
    let slope = build.sub(code, passed);
    let product = build.mul(dy, slope);
    let sum = match (quantizer.axis, quantizer.block) {
        (None, _) => build.sum_all(product),
        (Some(axis), Some(block)) => sum_blocks(build, product, axis, block)?,
        (Some(axis), None) => {
            let rank = i64::try_from(build.shape(v)?.len()).map_err(|_| "the rank is absurd")?;
            let others: Vec<i64> = (0..rank).filter(|&other| other != axis).collect();
            build.reduce_sum(product, &others, KeepDims::No)
        }
    };
    let shape = build.shape(s)?;
    let sum = build.reshape(sum, &shape);
    Ok(vec![dv, build.scale(sum, quantizer.gain)])
}

/// u = v/s and v̄.
fn codes_of(
    build: &mut Build,
    v: ValueId,
    s: ValueId,
    step: ValueId,
    quantizer: Quantizer,
    shared: &mut Shared,
) -> (ValueId, ValueId) {
    let key = (v, s, (quantizer.range.bits, quantizer.range.signed));
    *shared.quantized.entry(key).or_insert_with(|| {
        let (lo, hi) = quantizer.range.bounds();
        let ratio = build.div(v, step);
        let clipped = build.clip(ratio, lo, hi);
        (ratio, build.unary("Round", clipped))
    })
}

/// The step, shaped so that it varies along the axis of `v`, or spread over the elements of each block.
fn broadcast_step(build: &mut Build, v: ValueId, s: ValueId, quantizer: Quantizer) -> Result<ValueId, String> {
    let Some(axis) = quantizer.axis else { return Ok(s) };
    if let Some(block) = quantizer.block {
        return spread(build, v, s, axis, block);
    }
    let rank = build.graph[v]
        .ty
        .as_ref()
        .and_then(crate::ir::TensorType::rank)
        .ok_or("the rank is not known")?;
    let axis = crate::ops::normalize_axis(axis, rank)?;
    let count = build.shape(s)?.iter().product();
    let mut shape = vec![1; rank];
    if let Some(extent) = shape.get_mut(axis) {
        *extent = count;
    }
    Ok(build.reshape(s, &shape))
}

/// The extents before the blocked axis, the axis itself, and those after it.
struct Blocked {
    shape: Vec<usize>,
    axis: usize,
    extent: usize,
    block: usize,
}

impl Blocked {
    fn of(build: &Build, v: ValueId, axis: i64, block: usize) -> Result<Blocked, String> {
        let shape = build.shape(v)?;
        let axis = crate::ops::normalize_axis(axis, shape.len())?;
        let extent = shape.get(axis).copied().unwrap_or(0);
        let block = block.min(extent).max(1);
        Ok(Blocked {
            shape,
            axis,
            extent,
            block,
        })
    }

    fn count(&self) -> usize {
        self.extent.div_ceil(self.block)
    }

    /// The shape with `middle` in place of the axis.
    fn with(&self, middle: &[usize]) -> Vec<usize> {
        let (before, after) = self.shape.split_at(self.axis);
        [before, middle, after.get(1..).unwrap_or(&[])].concat()
    }

    /// Elements that the last block lacks.
    fn lacking(&self) -> usize {
        self.count() * self.block - self.extent
    }
}

/// `[…, ⌈K/B⌉, …] → […, K, …]`; where one block holds all of the axis, broadcasting does.
fn spread(build: &mut Build, v: ValueId, s: ValueId, axis: i64, block: usize) -> Result<ValueId, String> {
    let of = Blocked::of(build, v, axis, block)?;
    if of.count() <= 1 {
        return Ok(s);
    }
    let apart = build.reshape(s, &of.with(&[of.count(), 1]));
    let repeated = build.expand(apart, &of.with(&[of.count(), of.block]));
    let joined = build.reshape(repeated, &of.with(&[of.count() * of.block]));
    if of.lacking() == 0 {
        return Ok(joined);
    }
    let [axis, end] = [of.axis, of.extent].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    Ok(build.slice(joined, axis, 0, end, 1))
}

/// `[…, K, …] → […, ⌈K/B⌉, …]`, the sum of each block.
fn sum_blocks(build: &mut Build, x: ValueId, axis: i64, block: usize) -> Result<ValueId, String> {
    let of = Blocked::of(build, x, axis, block)?;
    let rank = of.shape.len();
    let [lacking, inner] = [of.lacking(), of.axis + 1].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    let mut pads = vec![0; 2 * rank];
    if let Some(end) = pads.get_mut(rank + of.axis) {
        *end = lacking;
    }
    let full = build.pad(x, &pads);
    let apart = build.reshape(full, &of.with(&[of.count(), of.block]));
    Ok(build.reduce_sum(apart, &[inner], KeepDims::No))
}
