//! Ops that draw at random: types only. Their results do not depend on floats in a way that has a slope, so that gradients are zero; a
//! parameter of a distribution is not trained through what was drawn from it.

use super::{InferCx, OpEntry};
use crate::ir::{DType, Dim, TensorType};

type Types = Result<Vec<Option<TensorType>>, String>;

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("RandomNormal", infer_shaped, "").zero_gradient(),
    OpEntry::new("RandomUniform", infer_shaped, "").zero_gradient(),
    OpEntry::new("RandomNormalLike", infer_like, "").zero_gradient(),
    OpEntry::new("RandomUniformLike", infer_like, "").zero_gradient(),
    OpEntry::new("Bernoulli", infer_like, "").zero_gradient(),
    OpEntry::new("Multinomial", infer_multinomial, "").zero_gradient(),
];

/// The element type that the attribute `dtype` names.
///
/// # Errors
/// If it names none.
pub(super) fn named_dtype(cx: &InferCx) -> Result<Option<DType>, String> {
    let Some(code) = cx.node.int("dtype") else { return Ok(None) };
    let dtype = i32::try_from(code).ok().and_then(DType::from_code);
    dtype.map(Some).ok_or_else(|| format!("dtype {code} names no element type"))
}

/// ONNX RandomNormal and RandomUniform, operator set 22.
fn infer_shaped(cx: &InferCx) -> Types {
    let shape = cx.node.ints("shape").ok_or("shape is missing")?;
    let dims = shape.iter().map(|&extent| usize::try_from(extent).map(Dim::Known));
    let dims = dims.collect::<Result<_, _>>().map_err(|_| "shape is not negative")?;
    cx.one(Some(named_dtype(cx)?.unwrap_or(DType::F32)), Some(dims))
}

/// ONNX RandomNormalLike, RandomUniformLike and Bernoulli, operator set 22: of the operand's shape, and of its type unless `dtype` names
/// another.
fn infer_like(cx: &InferCx) -> Types {
    cx.one(named_dtype(cx)?.or_else(|| cx.dtype(0)), cx.shape(0).map(<[Dim]>::to_vec))
}

/// ONNX Multinomial, operator set 22: `[batch, sample_size]`, int32 by default.
fn infer_multinomial(cx: &InferCx) -> Types {
    let size = cx.node.int("sample_size").unwrap_or(1);
    let size = usize::try_from(size).map_err(|_| "sample_size is not negative")?;
    let batch = cx.shape(0).and_then(|shape| shape.first().cloned()).unwrap_or(Dim::Unknown);
    cx.one(
        Some(named_dtype(cx)?.unwrap_or(DType::I32)),
        Some(vec![batch, Dim::Known(size)]),
    )
}
