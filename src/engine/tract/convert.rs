//! Tensors between lsqc and tract. Results are shared, not copied; feeds are copied, because tract wants its own alignment.

use std::sync::Arc;

use anyhow::{Result, bail};
use bytes::Bytes;
use lsqc_passes::ir::{DType, Tensor};
use tract_onnx::prelude::{DatumType, TValue, Tensor as TractTensor};

/// tract's name of an element type.
pub(super) fn datum(dtype: DType) -> Option<DatumType> {
    Some(match dtype {
        DType::F16 => DatumType::F16,
        DType::F32 => DatumType::F32,
        DType::F64 => DatumType::F64,
        DType::I8 => DatumType::I8,
        DType::I16 => DatumType::I16,
        DType::I32 => DatumType::I32,
        DType::I64 => DatumType::I64,
        DType::U8 => DatumType::U8,
        DType::U16 => DatumType::U16,
        DType::U32 => DatumType::U32,
        DType::U64 => DatumType::U64,
        DType::Bool => DatumType::Bool,
        _ => return None,
    })
}

fn dtype(datum: DatumType) -> Option<DType> {
    Some(match datum.unquantized() {
        DatumType::F16 => DType::F16,
        DatumType::F32 => DType::F32,
        DatumType::F64 => DType::F64,
        DatumType::I8 => DType::I8,
        DatumType::I16 => DType::I16,
        DatumType::I32 => DType::I32,
        DatumType::I64 => DType::I64,
        DatumType::U8 => DType::U8,
        DatumType::U16 => DType::U16,
        DatumType::U32 => DType::U32,
        DatumType::U64 => DType::U64,
        DatumType::Bool => DType::Bool,
        _ => return None,
    })
}

/// A feed.
pub(super) fn into_tract(tensor: &Tensor) -> Result<TValue> {
    let Some(datum) = datum(tensor.dtype()) else {
        bail!("tract has no type {}", tensor.dtype())
    };
    let normal: Vec<u8>;
    let bytes: &[u8] = if datum == DatumType::Bool {
        normal = tensor.bytes().iter().map(|&byte| u8::from(byte != 0)).collect();
        &normal
    } else {
        tensor.bytes()
    };
    // SAFETY: tract checks that the bytes are as many as the shape and type need. Every bit pattern is a value of the numeric types, and
    // booleans were made 0 or 1 above.
    let tensor = unsafe { TractTensor::from_raw_dt(datum, tensor.shape(), bytes)? };
    Ok(TValue::from(tensor))
}

/// A result. tract's own integers (dimensions) become the integers of the declared type, which is `int64` where none is declared.
pub(super) fn from_tract(value: TValue, declared: Option<DType>) -> Result<Tensor> {
    use tract_onnx::prelude::IntoArcTensor;
    let mut tensor: Arc<TractTensor> = value.into_arc_tensor();
    let wanted = match declared.and_then(datum) {
        Some(datum) => datum,
        None if tensor.datum_type() == DatumType::TDim => DatumType::I64,
        None => tensor.datum_type().unquantized(),
    };
    if tensor.datum_type().unquantized() != wanted {
        tensor = Arc::new(tensor.cast_to_dt(wanted)?.into_owned());
    }
    let Some(dtype) = dtype(tensor.datum_type()) else {
        bail!("lsqc cannot read tract's type {:?}", tensor.datum_type())
    };
    if !tensor.is_plain_ram() || !row_major(&tensor) {
        bail!("tract returned a tensor that is not row-major");
    }
    let shape = tensor.shape().to_vec();
    Ok(Tensor::from_bytes(dtype, &shape, Bytes::from_owner(Shared(tensor)))?)
}

/// Do the elements lie in the order of their indices? The stride of an axis of one element says nothing, and reductions leave odd ones.
pub(super) fn row_major(tensor: &TractTensor) -> bool {
    let natural = TractTensor::natural_strides(tensor.shape());
    tensor.len() == 0
        || (0..tensor.rank()).all(|axis| tensor.shape().get(axis) == Some(&1) || tensor.strides().get(axis) == natural.get(axis))
}

/// A tract tensor seen as bytes, so that [`Bytes`] can own it without a copy.
struct Shared(Arc<TractTensor>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
