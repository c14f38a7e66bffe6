//! Clamps, Relu and Clip, which a quantizer absorbs; and Softmax, LogSoftmax and Hardmax, which act along an axis.

use super::gradient::GradCx;
use super::sample::Sample;
use super::{OpEntry, Quant, normalize_axis};
use crate::ir::Tensor;
use crate::ops::build::{Build, KeepDims};

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("Relu", |cx| cx.like_first(), "")
        .gradient(relu, relu_samples)
        .quant(Quant::Clamp),
    OpEntry::new("Clip", |cx| cx.like_first(), "")
        .gradient(clip, clip_samples)
        .quant(Quant::Clamp),
    OpEntry::new("Softmax", |cx| cx.like_first(), "").gradient(softmax, softmax_samples),
    OpEntry::new("LogSoftmax", |cx| cx.like_first(), "").gradient(log_softmax, softmax_samples),
    OpEntry::new("Hardmax", |cx| cx.like_first(), "").zero_gradient(),
];

/// The gradient is zero at 0, as torch has it.
fn relu(cx: &mut GradCx) -> Result<(), String> {
    let (dy, y) = (cx.dy()?, cx.y(0)?);
    cx.give_with(0, |b| {
        let zero = b.scalar(0.0);
        let mask = b.greater(y, zero);
        Ok(b.mul(dy, mask))
    })
}

/// The bounds of a Clip: attributes before opset 11, operands from then on.
///
/// # Errors
/// If a bound is no constant.
pub(crate) fn clip_bounds(graph: &crate::ir::Graph, node: &crate::ir::Node) -> Result<(Option<f32>, Option<f32>), String> {
    let bound = |name: &str, index: usize| match (node.float(name), node.input(index)) {
        (Some(bound), _) => Ok(Some(bound)),
        (None, None) => Ok(None),
        (None, Some(value)) => {
            let constant = graph[value].constant().and_then(Tensor::to_f32);
            constant
                .and_then(|values| values.first().copied())
                .map(Some)
                .ok_or("its bounds are not constant".to_owned())
        }
    };
    Ok((bound("min", 1)?, bound("max", 2)?))
}

/// 1 strictly inside the bounds, 0 at and beyond them: a value on a bound is clipped, as LSQ's mask has it.
fn clip(cx: &mut GradCx) -> Result<(), String> {
    let (dy, x) = (cx.dy()?, cx.x(0)?);
    let (lo, hi) = clip_bounds(cx.build.graph, &cx.node)?;
    cx.give_with(0, |b| {
        let mut gradient = dy;
        if let Some(lo) = lo {
            let lo = b.scalar(lo);
            let mask = b.greater(x, lo);
            gradient = b.mul(gradient, mask);
        }
        if let Some(hi) = hi {
            let hi = b.scalar(hi);
            let mask = b.less(x, hi);
            gradient = b.mul(gradient, mask);
        }
        Ok(gradient)
    })
}

fn axis_of(cx: &GradCx) -> Result<i64, String> {
    let rank = cx.y_shape()?.len();
    let axis = normalize_axis(cx.node.int("axis").unwrap_or(-1), rank)?;
    i64::try_from(axis).map_err(|_| "the axis is absurd".to_owned())
}

fn sum_over(b: &mut Build, x: crate::ir::ValueId, axis: i64) -> crate::ir::ValueId {
    b.reduce_sum(x, &[axis], KeepDims::Yes)
}

/// ∂x = y · (∂y − Σ ∂y·y)   (ONNX 13: along one axis).
fn softmax(cx: &mut GradCx) -> Result<(), String> {
    let (dy, y, axis) = (cx.dy()?, cx.y(0)?, axis_of(cx)?);
    cx.give_with(0, |b| {
        let weighted = b.mul(dy, y);
        let total = sum_over(b, weighted, axis);
        let centred = b.sub(dy, total);
        Ok(b.mul(y, centred))
    })
}

/// ∂x = ∂y − exp(y) · Σ ∂y   (ONNX 13: along one axis).
fn log_softmax(cx: &mut GradCx) -> Result<(), String> {
    let (dy, y, axis) = (cx.dy()?, cx.y(0)?, axis_of(cx)?);
    cx.give_with(0, |b| {
        let total = sum_over(b, dy, axis);
        let probability = b.unary("Exp", y);
        let spread = b.mul(probability, total);
        Ok(b.sub(dy, spread))
    })
}

fn relu_samples() -> Vec<Sample> {
    vec![
        Sample::new("both signs").x(&[3, 4]),
        Sample::new("an exact zero elsewhere").x(&[1]),
        Sample::new("empty").x(&[0, 3]),
    ]
}

fn clip_samples() -> Vec<Sample> {
    let bound = Tensor::scalar::<f32>;
    vec![
        Sample::new("both bounds")
            .x_in(&[3, 4], -1.0, 7.0)
            .constant(bound(0.0))
            .constant(bound(6.0)),
        Sample::new("lower only").x(&[3, 4]).constant(bound(-0.25)),
        Sample::new("upper only").x(&[3, 4]).none().constant(bound(0.25)),
    ]
}

fn softmax_samples() -> Vec<Sample> {
    vec![
        Sample::new("last axis").x(&[2, 5]).attr("axis", -1),
        Sample::new("channels").x(&[2, 3, 2]).attr("axis", 1),
        Sample::new("one class").x(&[2, 1]).attr("axis", 1),
    ]
}
