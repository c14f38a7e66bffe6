//! Element by element: Add, Sub, Mul, Div, Neg, Sqrt and their kin, with numpy's broadcasting (ONNX opset 7 and later).
//!
//! Rules give gradients in the shape of the result; the engine of differentiation sums them back over broadcast axes.

use super::gradient::GradCx;
use super::sample::Sample;
use super::{InferCx, OpEntry, Quant, broadcast};
use crate::ir::{DType, Tensor, TensorType};

const NO_RULE: &str = "its gradient is not in the table yet";

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("Add", infer_broadcast, "")
        .gradient(add, binary_samples)
        .quant(Quant::Joins)
        .shape_value(|cx| arithmetic(cx, usize::checked_add)),
    OpEntry::new("Sub", infer_broadcast, "")
        .gradient(sub, binary_samples)
        .shape_value(|cx| arithmetic(cx, usize::checked_sub)),
    OpEntry::new("Mul", infer_broadcast, "")
        .gradient(mul, binary_samples)
        .shape_value(|cx| arithmetic(cx, usize::checked_mul)),
    OpEntry::new("Div", infer_broadcast, "")
        .gradient(div, div_samples)
        .shape_value(|cx| arithmetic(cx, usize::checked_div)),
    OpEntry::new("Neg", |cx| cx.like_first(), "")
        .gradient(neg, || vec![Sample::new("plain").x(&[2, 3]), Sample::new("scalar").x(&[])]),
    OpEntry::new("Sqrt", |cx| cx.like_first(), "").gradient(sqrt, || vec![Sample::new("positive").x_in(&[2, 3], 0.5, 2.0)]),
    OpEntry::new("Exp", |cx| cx.like_first(), "").gradient(exp, || vec![Sample::new("plain").x(&[2, 3])]),
    OpEntry::new("Log", |cx| cx.like_first(), "").gradient(log, || vec![Sample::new("positive").x_in(&[2, 3], 0.5, 2.0)]),
    OpEntry::new("Abs", |cx| cx.like_first(), NO_RULE),
    OpEntry::new("Reciprocal", |cx| cx.like_first(), NO_RULE),
    OpEntry::new("Pow", infer_broadcast, NO_RULE),
    OpEntry::new("Min", infer_variadic, NO_RULE),
    OpEntry::new("Max", infer_variadic, NO_RULE),
    OpEntry::new("Sum", infer_variadic, NO_RULE),
];

pub(super) fn infer_broadcast(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    let shape = match (cx.shape(0), cx.shape(1)) {
        (Some(a), Some(b)) => Some(broadcast(a, b)?),
        _ => None,
    };
    cx.one(cx.dtype(0), shape)
}

fn infer_variadic(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    let mut shape = Some(Vec::new());
    for index in 0..cx.node.inputs().len() {
        shape = match (shape, cx.shape(index)) {
            (Some(so_far), Some(next)) => Some(broadcast(&so_far, next)?),
            _ => None,
        };
    }
    cx.one(cx.dtype(0), shape)
}

/// Shape arithmetic on dimensions that are held as integers.
fn arithmetic(cx: &InferCx, op: fn(usize, usize) -> Option<usize>) -> Option<Vec<crate::ir::Dim>> {
    use crate::ir::Dim;
    if !matches!(cx.dtype(0)?, DType::I64 | DType::I32) {
        return None;
    }
    let (a, b) = (cx.held_dims(0)?, cx.held_dims(1)?);
    let len = a.len().max(b.len());
    let at = |dims: &[Dim], i: usize| {
        if dims.len() == 1 {
            dims.first().cloned()
        } else {
            dims.get(i).cloned()
        }
    };
    (0..len)
        .map(|i| {
            let (x, y) = (at(&a, i)?, at(&b, i)?);
            Some(match (x.known(), y.known()) {
                (Some(x), Some(y)) => op(x, y).map_or(Dim::Unknown, Dim::Known),
                _ => Dim::Unknown,
            })
        })
        .collect()
}

fn add(cx: &mut GradCx) -> Result<(), String> {
    let dy = cx.dy()?;
    for index in [0, 1] {
        cx.give_with(index, |_| Ok(dy))?;
    }
    Ok(())
}

fn sub(cx: &mut GradCx) -> Result<(), String> {
    let dy = cx.dy()?;
    cx.give_with(0, |_| Ok(dy))?;
    cx.give_with(1, |b| Ok(b.unary("Neg", dy)))
}

fn mul(cx: &mut GradCx) -> Result<(), String> {
    let (dy, a, c) = (cx.dy()?, cx.x(0)?, cx.x(1)?);
    cx.give_with(0, |b| Ok(b.mul(dy, c)))?;
    cx.give_with(1, |b| Ok(b.mul(dy, a)))
}

/// ∂(a/c)/∂a = 1/c;  ∂(a/c)/∂c = −(a/c)/c.
fn div(cx: &mut GradCx) -> Result<(), String> {
    let (dy, c, y) = (cx.dy()?, cx.x(1)?, cx.y(0)?);
    let da = cx.build.div(dy, c);
    cx.give_with(0, |_| Ok(da))?;
    cx.give_with(1, |b| {
        let product = b.mul(da, y);
        Ok(b.unary("Neg", product))
    })
}

fn neg(cx: &mut GradCx) -> Result<(), String> {
    let dy = cx.dy()?;
    cx.give_with(0, |b| Ok(b.unary("Neg", dy)))
}

/// ∂√x/∂x = 1 / (2√x).
fn sqrt(cx: &mut GradCx) -> Result<(), String> {
    let (dy, y) = (cx.dy()?, cx.y(0)?);
    cx.give_with(0, |b| {
        let half = b.scale(dy, 0.5);
        Ok(b.div(half, y))
    })
}

fn exp(cx: &mut GradCx) -> Result<(), String> {
    let (dy, y) = (cx.dy()?, cx.y(0)?);
    cx.give_with(0, |b| Ok(b.mul(dy, y)))
}

fn log(cx: &mut GradCx) -> Result<(), String> {
    let (dy, x) = (cx.dy()?, cx.x(0)?);
    cx.give_with(0, |b| Ok(b.div(dy, x)))
}

fn binary_samples() -> Vec<Sample> {
    vec![
        Sample::new("same shape").x(&[2, 3]).x(&[2, 3]),
        Sample::new("vector broadcast").x(&[2, 3]).x(&[3]),
        Sample::new("both broadcast").x(&[2, 1, 3]).x(&[4, 1]),
        Sample::new("scalar").x(&[]).x(&[2, 2]),
        Sample::new("channel constant")
            .x(&[2, 3, 2, 2])
            .constant(Tensor::new(&[1, 3, 1, 1], vec![0.5f32, -1.5, 2.0])),
    ]
}

fn div_samples() -> Vec<Sample> {
    vec![
        Sample::new("same shape").x(&[2, 3]).x_in(&[2, 3], 0.5, 2.0),
        Sample::new("vector broadcast").x(&[2, 3]).x_in(&[3], 0.5, 2.0),
        Sample::new("numerator broadcast").x(&[3]).x_in(&[2, 3], -2.0, -0.5),
    ]
}
