//! Sparse initializers: the IR sees them dense, and the source's message is their remainder.
//!
//! A message is written back as it was where it still gives the value's elements; else the value is written dense. Refused are indices
//! outside the shape, elements smaller than a byte, and tensors that would take more than [`LIMIT`] bytes.

use bytes::Bytes;
use prost::Message;

use super::error::ReadError;
use super::proto::SparseTensorProto;
use super::{ExternalData, NoExternalData, tensor};
use crate::ir::{DType, Form, Literal, Remainder, Tensor};

/// What a dense tensor inside a protobuf message could take.
const LIMIT: usize = i32::MAX as usize;

/// Turns a message into dense elements; `what` names the tensor in errors.
pub(super) fn read(
    mut proto: SparseTensorProto,
    what: &dyn Fn() -> String,
    external: &dyn ExternalData,
) -> Result<Literal, ReadError> {
    let values = tensor::read(proto.values.clone().unwrap_or_default(), what, external)?;
    let indices = tensor::read(
        proto.indices.clone().unwrap_or_default(),
        &|| format!("the indices of {}", what()),
        external,
    )?;
    let dense =
        spread(&values.tensor, &indices.tensor, &proto.dims).map_err(|problem| ReadError::Tensor { tensor: what(), problem })?;
    for (part, literal) in [(&mut proto.values, &values), (&mut proto.indices, &indices)] {
        if let Some(part) = part
            && !part.external_data.is_empty()
        {
            *part = tensor::write(literal);
        }
    }
    Ok(Literal {
        tensor: dense,
        form: Form::Sparse,
        remainder: Remainder::from(proto.encode_to_vec()),
    })
}

/// The source's message under the value's present name, if it still gives the value's elements.
pub(super) fn write(literal: &Literal, name: &str) -> Option<SparseTensorProto> {
    if literal.form != Form::Sparse {
        return None;
    }
    let source = SparseTensorProto::decode(literal.remainder.clone()).ok()?;
    let read = read(source.clone(), &String::new, &NoExternalData).ok()?;
    if read.tensor != literal.tensor {
        return None;
    }
    let mut proto = source;
    proto.values.get_or_insert_default().name = Some(name.to_owned());
    Some(proto)
}

fn spread(values: &Tensor, indices: &Tensor, dims: &[i64]) -> Result<Tensor, String> {
    let shape = tensor::shape(dims)?;
    let places = places(indices, &shape, values.len())?;
    let count = shape.iter().try_fold(1usize, |count, &extent| count.checked_mul(extent));
    let dtype = values.dtype();
    let width = dtype.bits().unwrap_or(size_of::<Bytes>() * 8);
    if !width.is_multiple_of(8) {
        return Err(format!("sparse tensors of {dtype} are not supported"));
    }
    let width = width / 8;
    let size = count.and_then(|count| count.checked_mul(width)).filter(|&size| size <= LIMIT);
    let (Some(count), Some(size)) = (count, size) else {
        return Err(format!(
            "its shape {dims:?} of {dtype} takes more than {LIMIT} bytes when dense"
        ));
    };
    let outside = |place: usize| format!("index {place} lies outside its shape {dims:?}");
    if dtype == DType::String {
        let mut dense = vec![Bytes::new(); count];
        for (&place, value) in places.iter().zip(values.strings()) {
            *dense.get_mut(place).ok_or_else(|| outside(place))? = value.clone();
        }
        return Tensor::from_strings(&shape, dense).map_err(|error| error.to_string());
    }
    let mut dense = vec![0u8; size];
    for (&place, value) in places.iter().zip(values.bytes().chunks_exact(width)) {
        let target = place
            .checked_mul(width)
            .and_then(|start| dense.get_mut(start..)?.get_mut(..width));
        target.ok_or_else(|| outside(place))?.copy_from_slice(value);
    }
    Tensor::from_bytes(dtype, &shape, dense.into()).map_err(|error| error.to_string())
}

/// Where each value stands in the dense tensor: the indices are such places, or rows of coordinates.
fn places(indices: &Tensor, shape: &[usize], values: usize) -> Result<Vec<usize>, String> {
    let found = indices
        .values::<i64>()
        .ok_or_else(|| format!("its indices are {}, not int64", indices.dtype()))?;
    let place = |index: i64, extent: usize| {
        usize::try_from(index)
            .ok()
            .filter(|&index| index < extent)
            .ok_or_else(|| format!("index {index} lies outside its shape {shape:?}"))
    };
    match indices.shape() {
        [rows] if *rows == values => found.iter().map(|&index| place(index, usize::MAX)).collect(),
        [rows, rank] if *rows == values && *rank == shape.len() => {
            let row = |row: &[i64]| {
                row.iter().zip(shape).try_fold(0usize, |sum, (&index, &extent)| {
                    let index = place(index, extent)?;
                    sum.checked_mul(extent)
                        .and_then(|sum| sum.checked_add(index))
                        .ok_or_else(|| format!("its shape {shape:?} is too large"))
                })
            };
            if *rank == 0 {
                return Ok(vec![0; *rows]);
            }
            found.chunks_exact(*rank).map(row).collect()
        }
        other => Err(format!(
            "its indices have shape {other:?}; {values} values need [{values}] or [{values}, {}]",
            shape.len()
        )),
    }
}
