//! Reductions over axes. ReduceSum and ReduceMean have gradients: dy, spread over the reduced axes, for the mean divided by their extent.
//!
//! The axes are an attribute before operator set 13 (ReduceSum) or 18 (the others), an operand from then on.

use super::gradient::GradCx;
use super::sample::Sample;
use super::shape::unknown_shape;
use super::{InferCx, OpEntry, normalize_axes};
use crate::ir::{Dim, Tensor, TensorType};

const WHY: &str = "the gradient of this reduction is not written";

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("ReduceSum", infer, "").gradient(gradient_sum, samples),
    OpEntry::new("ReduceMean", infer, "").gradient(gradient_mean, samples_mean),
    OpEntry::new("ReduceMax", infer, WHY),
    OpEntry::new("ReduceMin", infer, WHY),
    OpEntry::new("ReduceProd", infer, WHY),
    OpEntry::new("ReduceL1", infer, WHY),
    OpEntry::new("ReduceL2", infer, WHY),
    OpEntry::new("ReduceLogSum", infer, WHY),
    OpEntry::new("ReduceLogSumExp", infer, WHY),
    OpEntry::new("ReduceSumSquare", infer, WHY),
];

/// ONNX ReduceSum, operator set 13, and its kin.
fn infer(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    let keep = cx.node.int("keepdims").unwrap_or(1) != 0;
    let Some(shape) = cx.shape(0) else {
        return cx.one(cx.dtype(0), None);
    };
    let given = cx.node.input(1).is_some() || cx.node.ints("axes").is_some();
    let axes = match cx.ints_of("axes", 1) {
        Some(axes) => axes,
        None if given => return cx.one(cx.dtype(0), unknown_shape(keep.then_some(shape.len()))),
        None => vec![],
    };
    let noop = cx.node.int("noop_with_empty_axes").unwrap_or(0) != 0;
    let Some(axes) = reduced(&axes, noop, shape.len())? else {
        return cx.like_first();
    };
    let shape = shape.iter().enumerate();
    let shape = shape.filter_map(|(axis, dim)| match (axes.contains(&axis), keep) {
        (false, _) => Some(dim.clone()),
        (true, true) => Some(Dim::Known(1)),
        (true, false) => None,
    });
    cx.one(cx.dtype(0), Some(shape.collect()))
}

/// The axes that are reduced; `None` where the op does nothing. No axes mean all of them.
fn reduced(axes: &[i64], noop_with_empty_axes: bool, rank: usize) -> Result<Option<Vec<usize>>, String> {
    match axes {
        [] if noop_with_empty_axes => Ok(None),
        [] => Ok(Some((0..rank).collect())),
        axes => normalize_axes(axes, rank).map(Some),
    }
}

fn gradient_sum(cx: &mut GradCx) -> Result<(), String> {
    spread(cx, |_| 1.0)
}

fn gradient_mean(cx: &mut GradCx) -> Result<(), String> {
    #[allow(clippy::cast_precision_loss)]
    spread(cx, |count| 1.0 / count as f32)
}

/// dy times what `factor` makes of the number of elements behind each of it, spread over the shape of x.
fn spread(cx: &mut GradCx, factor: impl Fn(usize) -> f32) -> Result<(), String> {
    let (dy, shape) = (cx.dy()?, cx.x_shape(0)?);
    let axes = match (cx.node.ints("axes"), cx.node.input(1)) {
        (Some(axes), _) => axes.to_vec(),
        (None, None) => vec![],
        (None, Some(axes)) => {
            let axes = cx.build.graph[axes].constant().and_then(Tensor::to_i64);
            axes.ok_or("the axes of the reduction are computed")?
        }
    };
    let noop = cx.node.int("noop_with_empty_axes").unwrap_or(0) != 0;
    let axes = reduced(&axes, noop, shape.len())?.unwrap_or_default();
    let is_reduced = |axis: &usize| axes.contains(axis);
    let kept = shape
        .iter()
        .enumerate()
        .map(|(axis, &extent)| if is_reduced(&axis) { 1 } else { extent });
    let kept: Vec<usize> = kept.collect();
    let count = shape
        .iter()
        .enumerate()
        .filter(|(axis, _)| is_reduced(axis))
        .map(|(_, &extent)| extent)
        .product();
    let factor = factor(count);
    cx.give_with(0, |build| {
        #[allow(clippy::float_cmp)]
        let dy = if factor == 1.0 { dy } else { build.scale(dy, factor) };
        let dy = build.reshape(dy, &kept);
        Ok(if kept == shape { dy } else { build.expand(dy, &shape) })
    })
}

fn samples() -> Vec<Sample> {
    vec![
        Sample::new("all axes").x(&[2, 3]).attr("keepdims", 0),
        Sample::new("two axes, kept")
            .x(&[2, 3, 4])
            .constant(Tensor::vector(vec![0i64, -1])),
        Sample::new("one axis, dropped")
            .x(&[2, 3, 4])
            .constant(Tensor::vector(vec![1i64]))
            .attr("keepdims", 0),
    ]
}

/// In attribute form, as operator sets 13 to 17 have it.
fn samples_mean() -> Vec<Sample> {
    vec![
        Sample::new("all axes").x(&[2, 3]).attr("keepdims", 0),
        Sample::new("spatial axes, kept").x(&[2, 3, 2, 2]).attr("axes", vec![2, 3]),
        Sample::new("one axis, dropped")
            .x(&[2, 3, 4])
            .attr("axes", vec![-2])
            .attr("keepdims", 0),
    ]
}
