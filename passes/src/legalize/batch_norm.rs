//! BatchNormalization by the batch, and its gradient, in primitives: ONNX's own training mode does not exist on every engine.
//!
//! With M values to a channel, x̃ = x − μ and r = 1/√(σ² + ε):  y = x̃·(γ·r) + β;
//! ∂β = Σ∂y,  ∂γ = r·Σ∂y·x̃,  ∂x = a·∂y − (x̃·(a·r·∂γ/M) + a·∂β/M) with a = γ·r.

use super::{Shared, operand};
use crate::ir::{Node, ValueId};
use crate::ops::build::{Build, KeepDims};
use crate::ops::normalize::{epsilon, inverse_deviation, other_axes, per_channel};

/// By constant statistics: y = (x − μ)·(γ·r) + β.
pub(super) fn frozen(build: &mut Build, node: &Node) -> Result<Vec<ValueId>, String> {
    let (x, gamma, beta) = (operand(node, 0)?, operand(node, 1)?, operand(node, 2)?);
    let (mean, variance) = (operand(node, 3)?, operand(node, 4)?);
    let rank = build.shape(x)?.len();
    let inverse = inverse_deviation(build, variance, epsilon(node));
    let slope = build.mul(gamma, inverse);
    let slope = per_channel(build, slope, rank)?;
    let (mean, beta) = (per_channel(build, mean, rank)?, per_channel(build, beta, rank)?);
    let centred = build.sub(x, mean);
    let scaled = build.mul(centred, slope);
    Ok(vec![build.add(scaled, beta)])
}

#[allow(clippy::cast_precision_loss)]
pub(super) fn forward(build: &mut Build, node: &Node, shared: &mut Shared) -> Result<Vec<ValueId>, String> {
    let (x, gamma, beta) = (operand(node, 0)?, operand(node, 1)?, operand(node, 2)?);
    let shape = build.shape(x)?;
    let axes = other_axes(shape.len());
    let per_value = 1.0 / count(&shape) as f32;
    let sum = build.reduce_sum(x, &axes, KeepDims::No);
    let mean = build.scale(sum, per_value);
    let wide_mean = per_channel(build, mean, shape.len())?;
    let centred = build.sub(x, wide_mean);
    let square = build.mul(centred, centred);
    let sum = build.reduce_sum(square, &axes, KeepDims::No);
    let variance = build.scale(sum, per_value);
    let inverse = inverse_deviation(build, variance, epsilon(node));
    let slope = build.mul(gamma, inverse);
    let slope = per_channel(build, slope, shape.len())?;
    let beta = per_channel(build, beta, shape.len())?;
    let scaled = build.mul(centred, slope);
    let y = build.add(scaled, beta);
    // The backward op names μ and σ² by the results that stand for them now.
    shared.centred.insert((x, mean), centred);
    shared.inverse.insert(variance, inverse);
    Ok(vec![y, mean, variance])
}

#[allow(clippy::cast_precision_loss)]
pub(super) fn backward(build: &mut Build, node: &Node, shared: &mut Shared) -> Result<Vec<ValueId>, String> {
    let (dy, x, gamma) = (operand(node, 0)?, operand(node, 1)?, operand(node, 2)?);
    let (mean, variance) = (operand(node, 3)?, operand(node, 4)?);
    let shape = build.shape(x)?;
    let (rank, axes, per_value) = (shape.len(), other_axes(shape.len()), 1.0 / count(&shape) as f32);
    let centred = match shared.centred.get(&(x, mean)) {
        Some(&centred) => centred,
        None => {
            let mean = per_channel(build, mean, rank)?;
            build.sub(x, mean)
        }
    };
    let inverse = match shared.inverse.get(&variance) {
        Some(&inverse) => inverse,
        None => inverse_deviation(build, variance, epsilon(node)),
    };
    let d_beta = build.reduce_sum(dy, &axes, KeepDims::No);
    let product = build.mul(dy, centred);
    let sum = build.reduce_sum(product, &axes, KeepDims::No);
    let d_gamma = build.mul(sum, inverse);

    let slope = build.mul(gamma, inverse);
    let mean_slope = build.scale(slope, per_value);
    let offset = build.mul(mean_slope, d_beta);
    let tilt = build.mul(mean_slope, inverse);
    let tilt = build.mul(tilt, d_gamma);
    let [slope, offset, tilt] = [slope, offset, tilt].map(|vector| per_channel(build, vector, rank));
    let direct = build.mul(dy, slope?);
    let tilted = build.mul(centred, tilt?);
    let correction = build.add(tilted, offset?);
    Ok(vec![build.sub(direct, correction), d_gamma, d_beta])
}

/// M: the values to a channel.
fn count(shape: &[usize]) -> usize {
    shape
        .iter()
        .enumerate()
        .filter(|&(axis, _)| axis != 1)
        .map(|(_, &extent)| extent)
        .product()
}
