//! Reductions over axes, and CumSum along one.
//!
//! With ∂y spread over the reduced axes, K elements to each result:  sum: ∂y;  mean: ∂y/K;  sum of squares: 2·∂y·x;  L1: ∂y·sign x;
//! L2: ∂y·x/y, and 0 where y is 0;  log of the sum: ∂y/Σx;  log of the sum of exponentials: ∂y·exp(x − y);  maximum and minimum: ∂y,
//! shared evenly by the elements that are y, as torch's amax does;  product: ∂y times the product of the others, which zeros leave right.
//!
//! The axes are an attribute before operator set 13 (ReduceSum) or 18 (the others), an operand from then on. Refused: computed axes.

use super::build::{Build, KeepDims, as_i64};
use super::gradient::GradCx;
use super::sample::Sample;
use super::shape::unknown_shape;
use super::{InferCx, OpEntry, normalize_axes, normalize_axis};
use crate::ir::{Attribute, DType, Dim, Op, Tensor, TensorType, ValueId};

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("ReduceSum", infer, "").gradient(|cx| by_rule(cx, |_, at| Ok(at.dy)), samples),
    OpEntry::new("ReduceMean", infer, "").gradient(|cx| by_rule(cx, mean), samples_mean),
    OpEntry::new("ReduceMax", infer, "").gradient(|cx| by_rule(cx, extreme), samples_by_attribute),
    OpEntry::new("ReduceMin", infer, "").gradient(|cx| by_rule(cx, extreme), samples_by_attribute),
    OpEntry::new("ReduceProd", infer, "").gradient(|cx| by_rule(cx, product), samples_product),
    OpEntry::new("ReduceL1", infer, "").gradient(|cx| by_rule(cx, l1), samples_by_attribute),
    OpEntry::new("ReduceL2", infer, "").gradient(|cx| by_rule(cx, l2), samples_by_attribute),
    OpEntry::new("ReduceLogSum", infer, "").gradient(|cx| by_rule(cx, log_sum), samples_positive),
    OpEntry::new("ReduceLogSumExp", infer, "").gradient(|cx| by_rule(cx, log_sum_exp), samples_by_attribute),
    OpEntry::new("ReduceSumSquare", infer, "").gradient(|cx| by_rule(cx, sum_square), samples_by_attribute),
    OpEntry::new("CumSum", |cx| cx.like_first(), "").gradient(cum_sum, samples_cum_sum),
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

/// What a reduction's gradient is built from.
struct At {
    x: ValueId,
    shape: Vec<usize>,
    axes: Vec<usize>,
    /// K, the elements to each result.
    count: usize,
    /// The shape of y with the reduced axes kept, which broadcasts against x.
    kept: Vec<usize>,
    y: ValueId,
    /// In that shape.
    dy: ValueId,
}

impl At {
    /// y in the shape that broadcasts against x.
    fn kept_y(&self, b: &mut Build) -> ValueId {
        b.reshape(self.y, &self.kept)
    }
}

/// ∂x by `rule`, which may leave it broadcast over the reduced axes.
fn by_rule(cx: &mut GradCx, rule: fn(&mut Build, &At) -> Result<ValueId, String>) -> Result<(), String> {
    let (dy, y, x, shape) = (cx.dy()?, cx.y(0)?, cx.x(0)?, cx.x_shape(0)?);
    let axes = match (cx.node.ints("axes"), cx.node.input(1)) {
        (Some(axes), _) => axes.to_vec(),
        (None, None) => vec![],
        (None, Some(axes)) => {
            let axes = cx.build.graph[axes].constant().and_then(Tensor::to_i64);
            axes.ok_or("the axes of the reduction are computed")?
        }
    };
    let noop = cx.node.int("noop_with_empty_axes").unwrap_or(0) != 0;
    let Some(axes) = reduced(&axes, noop, shape.len())? else {
        if matches!(
            cx.node.op.name.as_ref(),
            "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceSumSquare"
        ) {
            return Err("over no axes it is the identity to some engines, and a function of each element to others".to_owned());
        }
        return cx.give_with(0, |_| Ok(dy));
    };
    cx.give_with(0, |build| {
        let extents = || shape.iter().copied().enumerate();
        let kept: Vec<usize> = extents().map(|(axis, n)| if axes.contains(&axis) { 1 } else { n }).collect();
        let count = extents().filter(|(axis, _)| axes.contains(axis)).map(|(_, n)| n).product();
        let dy = build.reshape(dy, &kept);
        let at = At {
            x,
            shape: shape.clone(),
            axes,
            count,
            kept,
            y,
            dy,
        };
        let gradient = rule(build, &at)?;
        Ok(if build.shape(gradient)? == shape {
            gradient
        } else {
            build.expand(gradient, &shape)
        })
    })
}

fn mean(b: &mut Build, at: &At) -> Result<ValueId, String> {
    #[allow(clippy::cast_precision_loss)]
    Ok(b.scale(at.dy, 1.0 / at.count as f32))
}

fn sum_square(b: &mut Build, at: &At) -> Result<ValueId, String> {
    let double = b.scale(at.dy, 2.0);
    Ok(b.mul(double, at.x))
}

fn l1(b: &mut Build, at: &At) -> Result<ValueId, String> {
    let sign = b.unary("Sign", at.x);
    Ok(b.mul(at.dy, sign))
}

fn l2(b: &mut Build, at: &At) -> Result<ValueId, String> {
    // Far under any norm that single precision tells from 0; with y = 0 every x is 0, and so is the quotient.
    const TINY: f32 = 1e-30;
    let tiny = b.scalar(TINY);
    let y = at.kept_y(b);
    let norm = b.binary("Max", y, tiny);
    let share = b.div(at.dy, norm);
    Ok(b.mul(share, at.x))
}

fn log_sum(b: &mut Build, at: &At) -> Result<ValueId, String> {
    let y = at.kept_y(b);
    let sum = b.unary("Exp", y);
    Ok(b.div(at.dy, sum))
}

fn log_sum_exp(b: &mut Build, at: &At) -> Result<ValueId, String> {
    let y = at.kept_y(b);
    let distance = b.sub(at.x, y);
    let share = b.unary("Exp", distance);
    Ok(b.mul(at.dy, share))
}

fn extreme(b: &mut Build, at: &At) -> Result<ValueId, String> {
    let y = at.kept_y(b);
    let mask = b.binary("Equal", at.x, y);
    let mask = b.cast(mask, DType::F32);
    let axes = as_i64(&at.axes);
    if axes.is_empty() {
        return Ok(b.mul(at.dy, mask));
    }
    let ties = b.reduce_sum(mask, &axes, KeepDims::Yes);
    let share = b.div(at.dy, ties);
    Ok(b.mul(share, mask))
}

/// The product of all others, as that of those before times that of those behind, each by doubling strides.
fn product(b: &mut Build, at: &At) -> Result<ValueId, String> {
    let others = (0..at.shape.len()).filter(|axis| !at.axes.contains(axis));
    let order: Vec<usize> = others.chain(at.axes.iter().copied()).collect();
    let turned_shape: Vec<usize> = order.iter().filter_map(|&axis| at.shape.get(axis).copied()).collect();
    let outer = at.shape.iter().product::<usize>() / at.count.max(1);
    let turned = b.transpose(at.x, &as_i64(&order));
    let rows = b.reshape(turned, &[outer, at.count]);
    let (before, behind) = (running_product(b, rows, Side::Before), running_product(b, rows, Side::Behind));
    let others = b.mul(before, behind);
    let others = b.reshape(others, &turned_shape);
    let mut back = vec![0; order.len()];
    for (to, from) in order.into_iter().enumerate() {
        *back.get_mut(from).ok_or("an axis is named twice")? = to;
    }
    let others = b.transpose(others, &as_i64(&back));
    Ok(b.mul(at.dy, others))
}

/// On which side of an element others stand.
#[derive(Clone, Copy)]
enum Side {
    Before,
    Behind,
}

/// For each element of each row `[R, K]` the product of those on one side of it.
fn running_product(b: &mut Build, rows: ValueId, side: Side) -> ValueId {
    let count = b.graph[rows].shape().and_then(|shape| shape.last().copied()).unwrap_or(0);
    // Ones come in where a row is shifted.
    let shifted = |b: &mut Build, rows: ValueId, by: usize| {
        let [by, kept] = [by, count.saturating_sub(by)].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        let (pads, kept) = match side {
            Side::Before => ([0, by, 0, 0], b.slice(rows, 1, 0, kept, 1)),
            Side::Behind => ([0, 0, 0, by], b.slice(rows, 1, by, i64::MAX, 1)),
        };
        let (pads, one) = (b.ints(&pads), b.scalar(1.0));
        b.node(Op::onnx("Pad"), &[kept, pads, one], vec![])
    };
    let mut running = shifted(b, rows, 1);
    let mut stride = 1;
    while stride < count {
        let moved = shifted(b, running, stride);
        running = b.mul(running, moved);
        stride *= 2;
    }
    running
}

/// ONNX CumSum, operator set 14: the sum of dy from the other end.
fn cum_sum(cx: &mut GradCx) -> Result<(), String> {
    let (dy, axis) = (cx.dy()?, cx.x(1)?);
    let flag = |name: &str| i64::from(cx.node.int(name).unwrap_or(0) != 0);
    let (exclusive, reverse) = (flag("exclusive"), 1 - flag("reverse"));
    if let Some(axis) = cx.build.graph[axis].constant().and_then(Tensor::to_i64) {
        normalize_axis(axis.first().copied().unwrap_or(0), cx.x_shape(0)?.len())?;
    }
    cx.give_with(0, |b| {
        let attributes = vec![Attribute::new("exclusive", exclusive), Attribute::new("reverse", reverse)];
        Ok(b.node(Op::onnx("CumSum"), &[dy, axis], attributes))
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
        Sample::new("no axes, which reduce nothing")
            .x(&[2, 3])
            .constant(Tensor::vector(Vec::<i64>::new()))
            .attr("noop_with_empty_axes", 1),
    ]
}

/// In attribute form, as operator sets 13 to 17 have it.
fn samples_mean() -> Vec<Sample> {
    let mut samples = vec![
        Sample::new("all axes").x(&[2, 3]).attr("keepdims", 0),
        Sample::new("spatial axes, kept").x(&[2, 3, 2, 2]).attr("axes", vec![2, 3]),
        Sample::new("one axis, dropped")
            .x(&[2, 3, 4])
            .attr("axes", vec![-2])
            .attr("keepdims", 0),
    ];
    samples.extend(samples_by_operand(-1.0, 1.0));
    samples
}

fn samples_by_operand(lo: f32, hi: f32) -> Vec<Sample> {
    vec![
        Sample::new("axes that are an operand")
            .x_in(&[2, 3, 2], lo, hi)
            .constant(Tensor::vector(vec![-1i64, 0]))
            .opset(18),
    ]
}

fn samples_between(lo: f32, hi: f32) -> Vec<Sample> {
    let mut samples = vec![
        Sample::new("all axes").x_in(&[2, 3], lo, hi).attr("keepdims", 0),
        Sample::new("two axes, kept")
            .x_in(&[2, 3, 4], lo, hi)
            .attr("axes", vec![0, -1]),
        Sample::new("one axis, dropped")
            .x_in(&[2, 3, 1], lo, hi)
            .attr("axes", vec![-2])
            .attr("keepdims", 0),
        Sample::new("an axis of extent 1").x_in(&[2, 1], lo, hi).attr("axes", vec![1]),
    ];
    samples.extend(samples_by_operand(lo, hi));
    samples
}

fn samples_by_attribute() -> Vec<Sample> {
    samples_between(-1.0, 1.0)
}

fn samples_positive() -> Vec<Sample> {
    samples_between(0.5, 2.0)
}

fn samples_product() -> Vec<Sample> {
    let mut samples = samples_between(-1.5, 1.5);
    samples.push(
        Sample::new("one zero, two zeros")
            .values(Tensor::new(&[2, 3], vec![0.5f32, 0.0, -1.5, 0.0, 2.0, 0.0]))
            .attr("axes", vec![1]),
    );
    samples
}

fn samples_cum_sum() -> Vec<Sample> {
    let axis = |axis: i64| Tensor::scalar(axis);
    vec![
        Sample::new("from the front").x(&[2, 4]).constant(axis(1)),
        Sample::new("from the back, without itself")
            .x(&[3, 2])
            .constant(axis(-2))
            .attr("reverse", 1)
            .attr("exclusive", 1),
    ]
}
