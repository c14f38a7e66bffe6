//! Gradients of a convolution.
//!
//! ∂X: a 1x1 window of stride 1 is a Conv with the weight's channels swapped; any other is ConvTranspose, whose `output_padding` is what the
//! strides leave over at the end. Its pads are alike at both ends of an axis, and what differs is sliced off: ONNX Runtime's CUDA provider
//! has no kernel for others.
//!
//! ∂W, tap by tap: with X_t the slice of the padded input that meets tap t, ∂W_t = Σ_n ∂Y_n · X_{t,n}ᵀ over the maps' positions. Without
//! groups the images stand behind one another, channels first, so that the sum is inside one Gemm; with groups it is a product for each
//! image and group. A depthwise window needs no matrix product: ∂W_t = Σ ∂Y ∘ X_t.

use super::operand;
use super::taps::Taps;
use crate::ir::{Attribute, Node, Op, ValueId};
use crate::ops::build::{Build, KeepDims, as_i64};
use crate::ops::window::Window;

/// `ConvGradInput(∂Y, W) → ∂X`.
pub(super) fn input(build: &mut Build, node: &Node) -> Result<Vec<ValueId>, String> {
    let (dy, w) = (operand(node, 0)?, operand(node, 1)?);
    let shape = extents(node, "input_shape")?;
    let (dy_shape, w_shape) = (build.shape(dy)?, build.shape(w)?);
    let group = group_of(node)?;
    let (spatial, kernel, output) = (tail(&shape)?, tail(&w_shape)?, tail(&dy_shape)?);
    let taps = Taps::of(node, spatial, kernel, output)?;
    let window = &taps.window;
    let is_pointwise = window.kernel.iter().all(|&k| k == 1)
        && window.strides.iter().all(|&s| s == 1)
        && window.pads_begin.iter().chain(&window.pads_end).all(|&p| p == 0);
    if is_pointwise {
        let swapped = swap_channels(build, w, group)?;
        return Ok(vec![build.conv(
            dy,
            swapped,
            vec![Attribute::new("group", as_i64(&[group])[0])],
        )]);
    }
    let rest: Vec<i64> = (0..spatial.len())
        .map(|axis| {
            let covered =
                window.strides[axis] * output[axis].saturating_sub(1) + window.dilations[axis] * (window.kernel[axis] - 1) + 1;
            let padded = spatial[axis] + window.pads_begin[axis] + window.pads_end[axis];
            i64::try_from(padded).unwrap_or(i64::MAX) - i64::try_from(covered).unwrap_or(0)
        })
        .collect();
    if rest.iter().any(|&rest| rest < 0) {
        return Err("its result is larger than its window allows".to_owned());
    }
    let common: Vec<usize> = (window.pads_begin.iter().zip(&window.pads_end))
        .map(|(&begin, &end)| begin.min(end))
        .collect();
    let even = Window {
        pads_begin: common.clone(),
        pads_end: common.clone(),
        ..window.clone()
    };
    let mut attributes = even.attributes();
    attributes.push(Attribute::new("group", as_i64(&[group])[0]));
    attributes.push(Attribute::new("output_padding", rest));
    let mut dx = build.node(Op::onnx("ConvTranspose"), &[dy, w], attributes);
    let mut extents = shape.clone();
    for (axis, &common) in common.iter().enumerate() {
        extents[axis + 2] += window.pads_begin[axis] + window.pads_end[axis] - 2 * common;
    }
    build.graph[dx].ty = Some(crate::ir::TensorType::fixed(build.dtype(dy), &extents));
    for (axis, &common) in common.iter().enumerate() {
        if window.pads_begin[axis] != window.pads_end[axis] {
            let begin = window.pads_begin[axis] - common;
            let [at, begin, end] = [axis + 2, begin, begin + spatial[axis]].map(|extent| as_i64(&[extent])[0]);
            dx = build.slice(dx, at, begin, end, 1);
        }
    }
    Ok(vec![dx])
}

/// `W [G·O, C, k…] → [G·C, O, k…]`, group by group.
fn swap_channels(build: &mut Build, w: ValueId, group: usize) -> Result<ValueId, String> {
    let shape = build.shape(w)?;
    let [filters, channels, kernel @ ..] = &shape[..] else {
        return Err("the weight has no kernel".to_owned());
    };
    let per_group = filters / group;
    let split = [&[group, per_group, *channels], kernel].concat();
    let swapped = [&[group * channels, per_group], kernel].concat();
    let mut perm: Vec<i64> = (0..).take(split.len()).collect();
    perm.swap(1, 2);
    let grouped = build.reshape(w, &split);
    let turned = build.transpose(grouped, &perm);
    Ok(build.reshape(turned, &swapped))
}

/// `ConvGradWeight(X, ∂Y) → ∂W`.
pub(super) fn weight(build: &mut Build, node: &Node) -> Result<Vec<ValueId>, String> {
    let (x, dy) = (operand(node, 0)?, operand(node, 1)?);
    let w_shape = extents(node, "weight_shape")?;
    let (x_shape, dy_shape) = (build.shape(x)?, build.shape(dy)?);
    let group = group_of(node)?;
    let taps = Taps::of(node, tail(&x_shape)?, tail(&w_shape)?, tail(&dy_shape)?)?;
    let (&[batch, channels, ..], &[filters, per_group, ..]) = (&x_shape[..], &w_shape[..]) else {
        return Err("the weight has no kernel".to_owned());
    };
    let positions: usize = taps.output.iter().product();
    let padded = taps.pad(build, x, 0.0);
    let mut parts = Vec::new();
    if per_group == 1 {
        let multiplier = filters / channels.max(1);
        let dy = build.reshape(dy, &[batch, channels, multiplier, positions]);
        for tap in taps.each() {
            let met = taps.slice(build, padded, &tap);
            let met = build.reshape(met, &[batch, channels, 1, positions]);
            let product = build.mul(dy, met);
            let sum = build.reduce_sum(product, &[0, 3], KeepDims::No);
            parts.push(build.reshape(sum, &[filters, 1, 1]));
        }
    } else if group == 1 {
        let rows = batch * positions;
        let dy = channels_first(build, dy)?;
        let dy = build.reshape(dy, &[filters, rows]);
        let padded = channels_first(build, padded)?;
        for tap in taps.each() {
            let met = taps.slice(build, padded, &tap);
            let met = build.reshape(met, &[channels, rows]);
            let product = build.node(Op::onnx("Gemm"), &[dy, met], vec![Attribute::new("transB", 1i64)]);
            parts.push(build.reshape(product, &[filters, channels, 1]));
        }
    } else {
        let dy = build.reshape(dy, &[batch, group, filters / group, positions]);
        for tap in taps.each() {
            let met = taps.slice(build, padded, &tap);
            let met = build.reshape(met, &[batch, group, per_group, positions]);
            let met = build.swap_last(met)?;
            let product = build.matmul(dy, met);
            let sum = build.reduce_sum(product, &[0], KeepDims::No);
            parts.push(build.reshape(sum, &[filters, per_group, 1]));
        }
    }
    let stacked = build.concat(&parts, 2);
    Ok(vec![build.reshape(stacked, &w_shape)])
}

/// `[N, C, …] → [C, N, …]`.
fn channels_first(build: &mut Build, x: ValueId) -> Result<ValueId, String> {
    let mut perm: Vec<i64> = (0..).take(build.shape(x)?.len()).collect();
    perm.swap(0, 1);
    Ok(build.transpose(x, &perm))
}

pub(super) fn extents(node: &Node, name: &str) -> Result<Vec<usize>, String> {
    let shape = node.ints(name).ok_or_else(|| format!("{name} is missing"))?;
    shape
        .iter()
        .map(|&extent| usize::try_from(extent).map_err(|_| format!("{name} has a negative extent")))
        .collect()
}

pub(super) fn tail(shape: &[usize]) -> Result<&[usize], String> {
    shape.get(2..).ok_or_else(|| "the rank is under 3".to_owned())
}

pub(super) fn group_of(node: &Node) -> Result<usize, String> {
    usize::try_from(node.int("group").unwrap_or(1))
        .ok()
        .filter(|&group| group > 0)
        .ok_or_else(|| "group is 1 or more".to_owned())
}
