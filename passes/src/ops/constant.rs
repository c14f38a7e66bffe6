//! Ops that make values or hand them on: Constant, ConstantOfShape, EyeLike, Shape, Size, Identity, Dropout, Cast, CastLike.
//!
//! Shape and Size begin the chains of shape arithmetic that lead to a Reshape's target. Dropout is the identity unless it trains, and then
//! it is refused: lsqc trains networks as they infer. Cast passes gradients between floats only.

use super::dims::product;
use super::gradient::GradCx;
use super::random::named_dtype;
use super::sample::Sample;
use super::shape::{MOST_AXES, held_as_vector, unknown_shape};
use super::{InferCx, OpEntry};
use crate::ir::{Attr, DType, Dim, Tensor, TensorType};

type Types = Result<Vec<Option<TensorType>>, String>;

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("Constant", infer_constant, "")
        .shape_value(held_by_constant)
        .zero_gradient(),
    OpEntry::new("ConstantOfShape", infer_constant_of_shape, "")
        .shape_value(held_by_constant_of_shape)
        .zero_gradient(),
    OpEntry::new("Shape", infer_shape, "")
        .shape_value(held_by_shape)
        .zero_gradient(),
    OpEntry::new("Size", |cx| cx.one(Some(DType::I64), Some(vec![])), "")
        .shape_value(|cx| Some(vec![product(cx.shape(0)?)]))
        .zero_gradient(),
    OpEntry::new("Identity", |cx| cx.like_first(), "")
        .shape_value(held_as_vector)
        .gradient(gradient_identity, samples_plain),
    OpEntry::new("Dropout", infer_dropout, "").gradient(gradient_dropout, samples_plain),
    OpEntry::new("Cast", infer_cast, "")
        .shape_value(held_by_cast)
        .gradient(gradient_cast, samples_cast),
    OpEntry::new("CastLike", infer_cast_like, "").gradient(gradient_cast, samples_cast_like),
    OpEntry::new("EyeLike", infer_eye_like, "").zero_gradient(),
];

/// The tensor of a Constant node's attribute; `None` for sparse ones and for none.
#[must_use]
pub fn constant_value(node: &crate::ir::Node) -> Option<Tensor> {
    node.attributes
        .iter()
        .find_map(|attribute| match (attribute.name.as_str(), &attribute.value) {
            ("value", Attr::Tensor(literal)) => Some(literal.tensor.clone()),
            ("value_float", Attr::Float(value)) => Some(Tensor::scalar(*value)),
            ("value_floats", Attr::Floats(values)) => Some(Tensor::vector(values.clone())),
            ("value_int", Attr::Int(value)) => Some(Tensor::scalar(*value)),
            ("value_ints", Attr::Ints(values)) => Some(Tensor::vector(values.clone())),
            ("value_string", Attr::Str(value)) => Tensor::from_strings(&[], vec![value.clone()]).ok(),
            ("value_strings", Attr::Strings(values)) => Tensor::from_strings(&[values.len()], values.clone()).ok(),
            _ => None,
        })
}

fn infer_constant(cx: &InferCx) -> Types {
    let tensor = constant_value(cx.node);
    Ok(vec![tensor.map(|tensor| TensorType::fixed(tensor.dtype(), tensor.shape()))])
}

fn held_by_constant(cx: &InferCx) -> Option<Vec<Dim>> {
    let values = constant_value(cx.node).filter(|tensor| tensor.len() <= MOST_AXES)?;
    let dims = values
        .to_i64()?
        .into_iter()
        .map(|value| usize::try_from(value).map_or(Dim::Unknown, Dim::Known));
    Some(dims.collect())
}

/// The element that ConstantOfShape repeats: float 0 unless `value` says another.
fn repeated(cx: &InferCx) -> Option<Tensor> {
    match cx.node.attr("value") {
        None => Some(Tensor::scalar(0f32)),
        Some(Attr::Tensor(literal)) => Some(literal.tensor.clone()),
        Some(_) => None,
    }
}

/// ONNX ConstantOfShape, operator set 9.
fn infer_constant_of_shape(cx: &InferCx) -> Types {
    let shape = cx.held_dims(0).or_else(|| {
        let rank = cx.shape(0).and_then(|shape| shape.first()?.known());
        unknown_shape(rank)
    });
    cx.one(repeated(cx).map(|tensor| tensor.dtype()), shape)
}

fn held_by_constant_of_shape(cx: &InferCx) -> Option<Vec<Dim>> {
    let count = match cx.ints(0)?.as_slice() {
        [] => 1,
        [count] => usize::try_from(*count).ok().filter(|&count| count <= MOST_AXES)?,
        _ => return None,
    };
    let value = *repeated(cx)?.to_i64()?.first()?;
    Some(vec![usize::try_from(value).map_or(Dim::Unknown, Dim::Known); count])
}

/// The part of a shape that a Shape node measures: `start` and `end` as in operator set 15.
fn held_by_shape(cx: &InferCx) -> Option<Vec<Dim>> {
    let shape = cx.shape(0)?;
    let rank = i64::try_from(shape.len()).ok()?;
    let clamp = |index: i64| {
        let from_front = if index < 0 { index.saturating_add(rank) } else { index };
        usize::try_from(from_front.clamp(0, rank)).ok()
    };
    let start = clamp(cx.node.int("start").unwrap_or(0))?;
    let end = clamp(cx.node.int("end").unwrap_or(rank))?;
    Some(shape.get(start..end).unwrap_or_default().to_vec())
}

fn infer_shape(cx: &InferCx) -> Types {
    let count = held_by_shape(cx).map_or(Dim::Unknown, |dims| Dim::Known(dims.len()));
    cx.one(Some(DType::I64), Some(vec![count]))
}

fn gradient_identity(cx: &mut GradCx) -> Result<(), String> {
    let dy = cx.dy()?;
    cx.give_with(0, |_| Ok(dy))
}

fn samples_plain() -> Vec<Sample> {
    vec![Sample::new("any shape").x(&[2, 3])]
}

/// ONNX Dropout, operator set 13: the result, and the mask of what was kept (before operator set 10 of the type of x).
fn infer_dropout(cx: &InferCx) -> Types {
    const MASK_IS_BOOL: i64 = 10;
    let mask = cx.ty(0).map(|ty| TensorType {
        dtype: if cx.opset < MASK_IS_BOOL { ty.dtype } else { DType::Bool },
        shape: ty.shape.clone(),
    });
    Ok(vec![cx.ty(0).cloned(), mask])
}

fn gradient_dropout(cx: &mut GradCx) -> Result<(), String> {
    if let Some(training) = cx.node.input(2) {
        let training = cx.build.graph[training].constant().map(|tensor| tensor.to_i64());
        if training != Some(Some(vec![0])) {
            return Err("Dropout in training mode draws its mask at random".to_owned());
        }
    }
    gradient_identity(cx)
}

/// ONNX Cast, operator set 13.
fn infer_cast(cx: &InferCx) -> Types {
    let to = cx.node.int("to").and_then(|to| DType::from_code(i32::try_from(to).ok()?));
    let to = to.ok_or("to names no element type")?;
    cx.one(Some(to), cx.shape(0).map(<[Dim]>::to_vec))
}

/// Dimensions stay what they are in an integer type that holds them.
fn held_by_cast(cx: &InferCx) -> Option<Vec<Dim>> {
    let to = DType::from_code(i32::try_from(cx.node.int("to")?).ok()?)?;
    matches!(to, DType::I64 | DType::I32).then(|| held_as_vector(cx))?
}

fn gradient_cast(cx: &mut GradCx) -> Result<(), String> {
    let (dy, from, to) = (cx.dy()?, cx.x(0)?, cx.y(0)?);
    let (from, to) = (cx.build.dtype(from), cx.build.dtype(to));
    if !from.is_float() || !to.is_float() {
        return Ok(());
    }
    cx.give_with(0, |build| Ok(if from == to { dy } else { build.cast(dy, from) }))
}

fn samples_cast() -> Vec<Sample> {
    vec![
        Sample::new("to the same type")
            .x(&[2, 3])
            .attr("to", i64::from(DType::F32.code())),
    ]
}

/// ONNX CastLike, operator set 15: to the type of operand 1.
fn infer_cast_like(cx: &InferCx) -> Types {
    cx.one(cx.dtype(1), cx.shape(0).map(<[Dim]>::to_vec))
}

fn samples_cast_like() -> Vec<Sample> {
    vec![
        Sample::new("to the same type")
            .x(&[2, 3])
            .constant(Tensor::vector(vec![1f32])),
    ]
}

/// ONNX EyeLike, operator set 9: of the operand's shape, and of its type unless `dtype` names another.
fn infer_eye_like(cx: &InferCx) -> Types {
    cx.one(named_dtype(cx)?.or_else(|| cx.dtype(0)), cx.shape(0).map(<[Dim]>::to_vec))
}
