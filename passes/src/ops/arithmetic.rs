//! Element by element, of one operand or more: Add, Sub, Mul, Div, Neg, Pow, Mod, Min, Max, Sum, Mean, with numpy's broadcasting (ONNX
//! opset 7 and later).
//!
//! Rules give gradients in the shape of the result; the engine of differentiation sums them back over broadcast axes.

use super::gradient::GradCx;
use super::sample::Sample;
use super::{InferCx, OpEntry, Quant, broadcast};
use crate::ir::{DType, Op, Tensor, TensorType};

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
    OpEntry::new("Pow", infer_broadcast, "").gradient(pow, pow_samples),
    OpEntry::new("Mod", infer_broadcast, "").gradient(modulo, modulo_samples),
    OpEntry::new("Min", infer_variadic, "").gradient(extreme, extreme_samples),
    OpEntry::new("Max", infer_variadic, "").gradient(extreme, extreme_samples),
    OpEntry::new("Sum", infer_variadic, "").gradient(|cx| shares(cx, |_| 1.0), variadic_samples),
    OpEntry::new("Mean", infer_variadic, "").gradient(mean, variadic_samples),
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

/// ONNX Pow, operator set 15: ∂a = ∂y·c·a^(c−1);  ∂c = ∂y·y·ln a, and 0 where a is not positive, where no slope along c is defined.
/// Where c is 0, so is ∂a, even at a = 0.
fn pow(cx: &mut GradCx) -> Result<(), String> {
    let (dy, a, c, y) = (cx.dy()?, cx.x(0)?, cx.x(1)?, cx.y(0)?);
    let known = cx.build.graph[c].constant().and_then(Tensor::to_f32);
    let may_be_zero = known.as_ref().is_none_or(|values| values.contains(&0.0));
    let is_square = known.is_some_and(|values| values.iter().all(|&value| value.to_bits() == 2f32.to_bits()));
    cx.give_with(0, |b| {
        if is_square {
            let double = b.scale(a, 2.0);
            return Ok(b.mul(dy, double));
        }
        let c = if b.dtype(c).is_float() { c } else { b.cast(c, DType::F32) };
        let one = b.scalar(1.0);
        let less = b.sub(c, one);
        let power = b.binary("Pow", a, less);
        let slope = b.mul(c, power);
        let gradient = b.mul(dy, slope);
        if !may_be_zero {
            return Ok(gradient);
        }
        let zero = b.scalar(0.0);
        let flat = b.binary("Equal", c, zero);
        Ok(b.node(Op::onnx("Where"), &[flat, zero, gradient], vec![]))
    })?;
    cx.give_with(1, |b| {
        let (zero, one) = (b.scalar(0.0), b.scalar(1.0));
        let positive = b.binary("Greater", a, zero);
        let base = b.node(Op::onnx("Where"), &[positive, a, one], vec![]);
        let log = b.unary("Log", base);
        let slope = b.mul(y, log);
        Ok(b.mul(dy, slope))
    })
}

/// ONNX Mod, operator set 13, y = a − q·c with the whole quotient q: ∂a = ∂y,  ∂c = −∂y·q.
fn modulo(cx: &mut GradCx) -> Result<(), String> {
    let (dy, a, c, y) = (cx.dy()?, cx.x(0)?, cx.x(1)?, cx.y(0)?);
    if !cx.build.dtype(y).is_float() {
        return Ok(());
    }
    cx.give_with(0, |_| Ok(dy))?;
    cx.give_with(1, |b| {
        let taken = b.sub(y, a);
        let negative = b.div(taken, c);
        Ok(b.mul(dy, negative))
    })
}

/// ONNX Min and Max, operator set 13: dy to the operand that the result is; those that tie share it evenly, as in torch's maximum.
fn extreme(cx: &mut GradCx) -> Result<(), String> {
    let (dy, y) = (cx.dy()?, cx.y(0)?);
    let count = cx.node.inputs().len();
    let mut masks = Vec::new();
    for index in 0..count {
        let x = cx.x(index)?;
        let mask = cx.build.binary("Equal", x, y);
        masks.push(cx.build.cast(mask, DType::F32));
    }
    let ties = masks.iter().copied().reduce(|sum, mask| cx.build.add(sum, mask));
    let ties = ties.ok_or("it has no operand")?;
    let share = if count == 1 { dy } else { cx.build.div(dy, ties) };
    for (index, mask) in masks.into_iter().enumerate() {
        cx.give_with(index, |b| Ok(b.mul(share, mask)))?;
    }
    Ok(())
}

/// dy times what `factor` makes of the number of operands, to each of them.
fn shares(cx: &mut GradCx, factor: fn(usize) -> f32) -> Result<(), String> {
    let (dy, count) = (cx.dy()?, cx.node.inputs().len());
    let factor = factor(count);
    #[allow(clippy::float_cmp)]
    let share = if factor == 1.0 { dy } else { cx.build.scale(dy, factor) };
    for index in 0..count {
        cx.give_with(index, |_| Ok(share))?;
    }
    Ok(())
}

fn mean(cx: &mut GradCx) -> Result<(), String> {
    #[allow(clippy::cast_precision_loss)]
    shares(cx, |count| 1.0 / count as f32)
}

fn neg(cx: &mut GradCx) -> Result<(), String> {
    let dy = cx.dy()?;
    cx.give_with(0, |b| Ok(b.unary("Neg", dy)))
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

fn pow_samples() -> Vec<Sample> {
    vec![
        Sample::new("both vary").x_in(&[2, 3], 0.5, 2.0).x_in(&[2, 3], -1.5, 2.5),
        Sample::new("a square").x(&[2, 3]).constant(Tensor::scalar(2f32)),
        Sample::new("a cube of an integer type, broadcast")
            .x(&[2, 3])
            .constant(Tensor::vector(vec![3i64])),
        Sample::new("0 and 1 among the exponents")
            .x(&[2, 3])
            .constant(Tensor::vector(vec![0f32, 1.0, 2.0])),
        Sample::new("a root")
            .x_in(&[2, 1], 0.5, 2.0)
            .constant(Tensor::vector(vec![0.5f32, -0.5])),
        Sample::new("one base, several exponents").x_in(&[], 0.5, 2.0).x(&[3]),
    ]
}

fn modulo_samples() -> Vec<Sample> {
    // Quotients stay away from whole numbers, where it jumps.
    vec![
        Sample::new("of floats")
            .values(Tensor::new(&[2, 2], vec![2.3f32, -1.4, 0.6, 4.1]))
            .values(Tensor::vector(vec![0.9f32, 1.1]))
            .attr("fmod", 1),
    ]
}

fn extreme_samples() -> Vec<Sample> {
    vec![
        Sample::new("two, broadcast").x(&[2, 3]).x(&[3]),
        Sample::new("three").x(&[2, 3]).x(&[2, 1]).x(&[2, 3]),
        Sample::new("with a constant").x(&[2, 4]).constant(Tensor::scalar(0.1f32)),
        Sample::new("one").x(&[4]),
    ]
}

fn variadic_samples() -> Vec<Sample> {
    vec![
        Sample::new("three, broadcast").x(&[2, 3]).x(&[3]).x(&[2, 1]),
        Sample::new("one").x(&[2, 3]),
        Sample::new("with a scalar").x(&[]).x(&[2, 2]),
    ]
}
