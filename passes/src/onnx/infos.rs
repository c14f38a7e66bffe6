//! What a graph's lists of inputs, outputs and `value_info` say of a value.
//!
//! One value may stand in all three lists, with different words. The words are kept as the value's remainder: a `GraphProto` that has
//! just its entries in those lists. Its type is that of the first entry that has a tensor type. Writing gives the entries as they were
//! for as long as the type is; when a pass has changed it, the entries get the new one and keep the rest of what they say.

use prost::Message;

use super::proto::tensor_shape_proto::{Dimension, dimension};
use super::proto::{GraphProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto};
use crate::ir::{DType, Def, Dim, TensorType, Value};

/// The entries of one value, as the source had them.
pub(super) struct Entries {
    lists: GraphProto,
    keep: bool,
}

impl Entries {
    /// The entries of `value`.
    pub(super) fn of(value: &Value) -> Entries {
        let lists = if value.remainder.is_empty() {
            GraphProto::default()
        } else {
            GraphProto::decode(value.remainder.clone()).unwrap_or_default()
        };
        let keep = match value.def() {
            Def::Captured(_) => true,
            Def::Constant(literal) => {
                let actual = TensorType::fixed(literal.tensor.dtype(), literal.tensor.shape());
                entries(&lists).all(|entry| fits(entry, &actual))
            }
            Def::Input(_) | Def::Node(..) => value.ty == declared(&lists),
        };
        Entries { lists, keep }
    }

    /// The entry for the list of inputs.
    pub(super) fn input(&self, value: &Value, name: &str) -> ValueInfoProto {
        self.entry(self.lists.input.first(), value, name)
    }

    /// The entry for the list of outputs where the value stands in it for the `time`th time.
    pub(super) fn output(&self, time: usize, value: &Value, name: &str) -> ValueInfoProto {
        self.entry(self.lists.output.get(time), value, name)
    }

    /// The entry for `value_info`.
    pub(super) fn listed(&self, value: &Value, name: &str) -> ValueInfoProto {
        self.entry(self.lists.value_info.first(), value, name)
    }

    fn entry(&self, source: Option<&ValueInfoProto>, value: &Value, name: &str) -> ValueInfoProto {
        let mut entry = source.cloned().unwrap_or_default();
        if !self.keep || source.is_none() {
            entry.r#type = value.ty.as_ref().map(write_type);
        }
        entry.name = Some(name.to_owned());
        entry
    }
}

fn entries(lists: &GraphProto) -> impl Iterator<Item = &ValueInfoProto> {
    lists.input.iter().chain(&lists.output).chain(&lists.value_info)
}

/// The type that the entries give a value.
pub(super) fn declared(lists: &GraphProto) -> Option<TensorType> {
    entries(lists).find_map(|entry| read_type(entry).ok().flatten())
}

fn fits(entry: &ValueInfoProto, actual: &TensorType) -> bool {
    let Ok(Some(said)) = read_type(entry) else { return true };
    let fits = |(said, actual): (&Dim, &Dim)| !matches!(said, Dim::Known(_)) || said == actual;
    said.dtype == actual.dtype
        && match (&said.shape, &actual.shape) {
            (Some(said), Some(actual)) => said.len() == actual.len() && said.iter().zip(actual).all(fits),
            _ => true,
        }
}

/// The tensor type that an entry gives, if it gives one.
///
/// # Errors
/// The number of an element type that the schema does not know.
pub(super) fn read_type(entry: &ValueInfoProto) -> Result<Option<TensorType>, i32> {
    let Some(TypeProto {
        value: Some(type_proto::Value::TensorType(tensor)),
        ..
    }) = &entry.r#type
    else {
        return Ok(None);
    };
    let code = tensor.elem_type.unwrap_or(0);
    if code == 0 {
        return Ok(None);
    }
    let dtype = DType::from_code(code).ok_or(code)?;
    let shape = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(read_dim).collect());
    Ok(Some(TensorType { dtype, shape }))
}

fn read_dim(dim: &Dimension) -> Dim {
    match &dim.value {
        Some(dimension::Value::DimValue(extent)) => usize::try_from(*extent).map_or(Dim::Unknown, Dim::Known),
        Some(dimension::Value::DimParam(name)) if !name.is_empty() => Dim::Symbol(name.clone()),
        _ => Dim::Unknown,
    }
}

fn write_type(ty: &TensorType) -> TypeProto {
    let dim = |dim: &Dim| Dimension {
        value: match dim {
            Dim::Known(extent) => Some(dimension::Value::DimValue(i64::try_from(*extent).unwrap_or(i64::MAX))),
            Dim::Symbol(name) => Some(dimension::Value::DimParam(name.clone())),
            Dim::Unknown => None,
        },
        denotation: None,
    };
    TypeProto {
        denotation: None,
        value: Some(type_proto::Value::TensorType(type_proto::Tensor {
            elem_type: Some(ty.dtype.code()),
            shape: ty.shape.as_ref().map(|dims| TensorShapeProto {
                dim: dims.iter().map(dim).collect(),
            }),
        })),
    }
}
