//! Quantized ops that a model may already hold: types only. They stay as they are and pass no gradient.

use super::window::infer_conv;
use super::{InferCx, OpEntry};
use crate::ir::{DType, Dim, TensorType};

type Types = Result<Vec<Option<TensorType>>, String>;

const WHY: &str = "a network that is quantized already is not trained";

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("QuantizeLinear", infer_quantize, WHY),
    OpEntry::new("DequantizeLinear", infer_dequantize, WHY),
    OpEntry::new("DynamicQuantizeLinear", infer_dynamic, WHY),
    OpEntry::new("QLinearConv", infer_qlinear_conv, WHY),
    OpEntry::new("QLinearMatMul", infer_qlinear_matmul, WHY),
    OpEntry::new("ConvInteger", infer_conv_integer, WHY),
    OpEntry::new("MatMulInteger", |cx| cx.one(Some(DType::I32), matmul(cx, 0, 1)), WHY),
];

fn shape(cx: &InferCx, index: usize) -> Option<Vec<Dim>> {
    cx.shape(index).map(<[Dim]>::to_vec)
}

fn declared(cx: &InferCx, attribute: &str) -> Option<DType> {
    let code = cx.node.int(attribute).filter(|&code| code != 0)?;
    DType::from_code(i32::try_from(code).ok()?)
}

/// ONNX QuantizeLinear, operator set 21: of the zero point's type, else of `output_dtype`, else uint8.
fn infer_quantize(cx: &InferCx) -> Types {
    let dtype = match (cx.node.input(2), declared(cx, "output_dtype")) {
        (Some(_), _) => cx.dtype(2),
        (None, Some(dtype)) => Some(dtype),
        (None, None) => Some(DType::U8),
    };
    cx.one(dtype, shape(cx, 0))
}

/// ONNX DequantizeLinear, operator set 23: of the scale's type unless `output_dtype` says another.
fn infer_dequantize(cx: &InferCx) -> Types {
    let dtype = declared(cx, "output_dtype").or_else(|| cx.dtype(1));
    cx.one(dtype, shape(cx, 0))
}

/// ONNX DynamicQuantizeLinear, operator set 11: the codes, their scale and their zero point.
fn infer_dynamic(cx: &InferCx) -> Types {
    let codes = cx.ty(0).map(|ty| TensorType {
        dtype: DType::U8,
        ..ty.clone()
    });
    let scalar = |dtype| Some(TensorType::fixed(dtype, &[]));
    Ok(vec![codes, scalar(DType::F32), scalar(DType::U8)])
}

/// ONNX QLinearConv, operator set 10: x and w are operands 0 and 3, the result's zero point is operand 7.
fn infer_qlinear_conv(cx: &InferCx) -> Types {
    let shape = match (cx.shape(0), cx.shape(3)) {
        (Some(x), Some(w)) => Some(infer_conv(cx.node, x, w)?),
        _ => None,
    };
    cx.one(cx.dtype(7), shape)
}

/// ONNX ConvInteger, operator set 10.
fn infer_conv_integer(cx: &InferCx) -> Types {
    let shape = match (cx.shape(0), cx.shape(1)) {
        (Some(x), Some(w)) => Some(infer_conv(cx.node, x, w)?),
        _ => None,
    };
    cx.one(Some(DType::I32), shape)
}

/// ONNX QLinearMatMul, operator set 21: a and b are operands 0 and 3, the result's zero point is operand 7.
fn infer_qlinear_matmul(cx: &InferCx) -> Types {
    cx.one(cx.dtype(7), matmul(cx, 0, 3))
}

/// The shape of a matrix product of operands of rank 2 or more.
fn matmul(cx: &InferCx, a: usize, b: usize) -> Option<Vec<Dim>> {
    let ([a_batch @ .., rows, _], [b_batch @ .., _, columns]) = (cx.shape(a)?, cx.shape(b)?) else {
        return None;
    };
    let batch = super::broadcast(a_batch, b_batch).ok()?;
    Some(batch.into_iter().chain([rows.clone(), columns.clone()]).collect())
}
