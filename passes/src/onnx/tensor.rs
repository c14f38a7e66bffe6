//! `TensorProto` and [`Literal`].
//!
//! The elements of a tensor lie in `raw_data`, in a typed field, or outside the file. The typed fields hold small types one to an entry
//! of 32 bits (types of 4 and 2 bits: one byte of packed elements to an entry). An entry may say more than the element holds (-1 and
//! 255 are one uint8); such a field is kept in the remainder, and written again as long as it gives the same elements.

use bytes::Bytes;
use prost::Message;

use super::ExternalData;
use super::error::ReadError;
use super::proto::TensorProto;
use super::proto::tensor_proto::DataLocation;
use crate::ir::{DType, Form, Literal, Remainder, Tensor, TensorError};

/// Turns a message into elements; `what` names the tensor in errors.
pub(super) fn read(mut proto: TensorProto, what: &dyn Fn() -> String, external: &dyn ExternalData) -> Result<Literal, ReadError> {
    let code = proto.data_type.unwrap_or(0);
    let dtype = DType::from_code(code).ok_or_else(|| ReadError::ElementType { what: what(), code })?;
    let fault = |problem: String| ReadError::Tensor { tensor: what(), problem };
    let shape = shape(&proto.dims).map_err(fault)?;
    let misfit = |error: TensorError| fault(error.to_string());
    let outside = proto.data_location == Some(DataLocation::External as i32);
    let (tensor, form) = if outside {
        let bytes = read_external(&mut proto, dtype, &shape, what, external)?;
        (Tensor::from_bytes(dtype, &shape, bytes).map_err(misfit)?, Form::Raw)
    } else if dtype == DType::String {
        let strings = std::mem::take(&mut proto.string_data);
        (Tensor::from_strings(&shape, strings).map_err(misfit)?, Form::Typed)
    } else if let Some(raw) = proto.raw_data.take() {
        (Tensor::from_bytes(dtype, &shape, raw).map_err(misfit)?, Form::Raw)
    } else {
        let bytes = pack(&proto, dtype, element_count(&shape));
        let tensor = Tensor::from_bytes(dtype, &shape, bytes).map_err(misfit)?;
        let mut plain = TensorProto::default();
        unpack(&mut plain, &tensor);
        if same_entries(&proto, &plain, dtype) {
            clear_entries(&mut proto, dtype);
        }
        (tensor, Form::Typed)
    };
    proto.dims.clear();
    proto.data_type = None;
    let remainder = Remainder::from(proto.encode_to_vec());
    Ok(Literal { tensor, form, remainder })
}

/// Turns elements into a message, which says nothing of a name unless the remainder does.
pub(super) fn write(literal: &Literal) -> TensorProto {
    let mut proto = match literal.form {
        Form::Sparse => TensorProto::default(),
        Form::Raw | Form::Typed => TensorProto::decode(literal.remainder.clone()).unwrap_or_default(),
    };
    let tensor = &literal.tensor;
    let dtype = tensor.dtype();
    proto.dims = dims(tensor.shape());
    proto.data_type = Some(dtype.code());
    if dtype == DType::String {
        proto.string_data = tensor.strings().to_vec();
    } else if literal.form == Form::Typed {
        let kept = pack(&proto, dtype, Some(tensor.len()));
        if kept != *tensor.bytes() || tensor.is_empty() {
            clear_entries(&mut proto, dtype);
            unpack(&mut proto, tensor);
        }
    } else {
        proto.raw_data = Some(tensor.bytes().clone());
    }
    proto
}

/// Dimensions as extents.
pub(super) fn shape(dims: &[i64]) -> Result<Vec<usize>, String> {
    dims.iter()
        .map(|&dim| usize::try_from(dim).map_err(|_| format!("dimension {dim} in its shape {dims:?} is negative")))
        .collect()
}

/// Extents as dimensions.
pub(super) fn dims(shape: &[usize]) -> Vec<i64> {
    shape
        .iter()
        .map(|&extent| i64::try_from(extent).unwrap_or(i64::MAX))
        .collect()
}

fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |count, &extent| count.checked_mul(extent))
}

fn read_external(
    proto: &mut TensorProto,
    dtype: DType,
    shape: &[usize],
    what: &dyn Fn() -> String,
    external: &dyn ExternalData,
) -> Result<Bytes, ReadError> {
    let entries = std::mem::take(&mut proto.external_data);
    proto.data_location = None;
    proto.raw_data = None;
    let entry = |key: &str| entries.iter().find(|entry| entry.key() == key).map(|entry| entry.value());
    let location = entry("location").unwrap_or_default().to_owned();
    let fail = |reason: String| ReadError::External {
        tensor: what(),
        location: location.clone(),
        reason,
    };
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => text
            .trim()
            .parse::<u64>()
            .map(Some)
            .map_err(|_| fail(format!("its {key} '{text}' is not a number of bytes"))),
    };
    if location.is_empty() {
        return Err(fail("the model names no file".to_owned()));
    }
    let needed = element_count(shape).and_then(|count| dtype.byte_len(count));
    let Some(needed) = needed.and_then(|needed| u64::try_from(needed).ok()) else {
        return Err(ReadError::Tensor {
            tensor: what(),
            problem: format!("{dtype} of shape {shape:?} cannot lie in a data file"),
        });
    };
    let length = number("length")?.unwrap_or(needed);
    let offset = number("offset")?.unwrap_or(0);
    if length != needed {
        return Err(fail(format!(
            "its length is given as {length} bytes, but its shape {shape:?} of {dtype} needs {needed}"
        )));
    }
    external.bytes(&location, offset, Some(length)).map_err(fail)
}

/// The typed field's entries as bytes.
fn pack(proto: &TensorProto, dtype: DType, count: Option<usize>) -> Bytes {
    use DType as D;
    fn each<T: Copy, const N: usize>(entries: &[T], bytes: impl Fn(T) -> [u8; N]) -> Bytes {
        entries.iter().flat_map(|&entry| bytes(entry)).collect::<Vec<u8>>().into()
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    match dtype {
        D::F32 | D::C64 => each(&proto.float_data, f32::to_le_bytes),
        D::F64 | D::C128 => each(&proto.double_data, f64::to_le_bytes),
        D::I64 => each(&proto.int64_data, i64::to_le_bytes),
        D::U64 => each(&proto.uint64_data, u64::to_le_bytes),
        D::U32 => each(&proto.uint64_data, |entry| (entry as u32).to_le_bytes()),
        D::I32 => each(&proto.int32_data, i32::to_le_bytes),
        D::I16 | D::U16 | D::F16 | D::BF16 => each(&proto.int32_data, |entry| (entry as u16).to_le_bytes()),
        D::F6E2M3 | D::F6E3M2 if count == Some(proto.int32_data.len()) => pack_sixes(&proto.int32_data),
        D::F6E2M3 | D::F6E3M2 | D::String => Bytes::new(),
        D::U8 | D::I8 | D::Bool | D::F8E4M3FN | D::F8E4M3FNUZ | D::F8E5M2 | D::F8E5M2FNUZ | D::F8E8M0 => {
            each(&proto.int32_data, |entry| [entry as u8])
        }
        D::U4 | D::I4 | D::F4E2M1 | D::U2 | D::I2 => each(&proto.int32_data, |entry| [entry as u8]),
    }
}

/// Fills the typed field, as the schema says to.
fn unpack(proto: &mut TensorProto, tensor: &Tensor) {
    use DType as D;
    let bytes = tensor.bytes();
    match tensor.dtype() {
        D::F32 | D::C64 => proto.float_data = entries(bytes, f32::from_le_bytes),
        D::F64 | D::C128 => proto.double_data = entries(bytes, f64::from_le_bytes),
        D::I64 => proto.int64_data = entries(bytes, i64::from_le_bytes),
        D::U64 => proto.uint64_data = entries(bytes, u64::from_le_bytes),
        D::U32 => proto.uint64_data = entries(bytes, |entry| u32::from_le_bytes(entry).into()),
        D::I32 => proto.int32_data = entries(bytes, i32::from_le_bytes),
        D::I16 => proto.int32_data = entries(bytes, |entry| i16::from_le_bytes(entry).into()),
        D::U16 | D::F16 | D::BF16 => proto.int32_data = entries(bytes, |entry| u16::from_le_bytes(entry).into()),
        D::I8 => proto.int32_data = entries(bytes, |entry| i8::from_le_bytes(entry).into()),
        D::F6E2M3 | D::F6E3M2 => proto.int32_data = unpack_sixes(bytes, tensor.len()),
        D::String => {}
        _ => proto.int32_data = bytes.iter().map(|&byte| byte.into()).collect(),
    }
}

fn entries<T, const N: usize>(bytes: &[u8], entry: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| entry(chunk)).collect()
}

/// Four 6-bit elements to three bytes, low bits first.
fn pack_sixes(entries: &[i32]) -> Bytes {
    #[allow(clippy::cast_sign_loss)]
    let group = |four: &[i32]| {
        let bits = four.iter().rev().fold(0u32, |bits, &entry| bits << 6 | (entry as u32 & 0x3f));
        let [first, second, third, _] = bits.to_le_bytes();
        [first, second, third].into_iter().take((four.len() * 6).div_ceil(8))
    };
    entries.chunks(4).flat_map(group).collect::<Vec<u8>>().into()
}

fn unpack_sixes(bytes: &[u8], count: usize) -> Vec<i32> {
    let group = |three: &[u8]| {
        let bits = three.iter().rev().fold(0i32, |bits, &byte| bits << 8 | i32::from(byte));
        [0, 6, 12, 18].map(|shift| bits >> shift & 0x3f)
    };
    bytes.chunks(3).flat_map(group).take(count).collect()
}

/// Do the two messages have the same entries in the field of this type, to the bit?
fn same_entries(a: &TensorProto, b: &TensorProto, dtype: DType) -> bool {
    use DType as D;
    match dtype {
        // The elements are the entries.
        D::F32 | D::C64 | D::F64 | D::C128 | D::String => true,
        D::I64 => a.int64_data == b.int64_data,
        D::U32 | D::U64 => a.uint64_data == b.uint64_data,
        _ => a.int32_data == b.int32_data,
    }
}

fn clear_entries(proto: &mut TensorProto, dtype: DType) {
    use DType as D;
    match dtype {
        D::F32 | D::C64 => proto.float_data.clear(),
        D::F64 | D::C128 => proto.double_data.clear(),
        D::I64 => proto.int64_data.clear(),
        D::U32 | D::U64 => proto.uint64_data.clear(),
        D::String => proto.string_data.clear(),
        _ => proto.int32_data.clear(),
    }
}
