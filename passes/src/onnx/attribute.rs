//! `AttributeProto` and [`Attribute`].
//!
//! An attribute that has a type and a value of that type is taken apart. Some writers leave a value out that is zero or empty: the type
//! then stays in the remainder, as the sign that the value is to be left out again while it is still zero or empty. Any other attribute
//! (without a type, a type without a place in the IR) is opaque.

use bytes::Bytes;
use prost::Message;

use super::error::{ReadError, WriteError};
use super::proto::attribute_proto::AttributeType;
use super::proto::{AttributeProto, GraphProto, TensorProto};
use crate::ir::{Attr, Attribute, Graph, Literal, Remainder};

/// What the reader does with the parts.
pub(super) trait ReadParts {
    /// Reads a tensor.
    fn tensor(&mut self, proto: TensorProto, attribute: &str) -> Result<Literal, ReadError>;
    /// Reads a graph.
    fn graph(&mut self, proto: GraphProto) -> Result<Graph, ReadError>;
}

/// Turns a message into an attribute.
pub(super) fn read(mut proto: AttributeProto, parts: &mut dyn ReadParts) -> Result<Attribute, ReadError> {
    let name = proto.name().to_owned();
    let kind = proto.r#type.and_then(|code| AttributeType::try_from(code).ok());
    if !proto.ref_attr_name().is_empty() {
        return Ok(reference(name, proto));
    }
    let mut absent = false;
    let mut or_absent = |there: bool| absent = !there;
    let value = match kind {
        Some(AttributeType::Float) => {
            or_absent(proto.f.is_some());
            Attr::Float(proto.f.take().unwrap_or_default())
        }
        Some(AttributeType::Int) => {
            or_absent(proto.i.is_some());
            Attr::Int(proto.i.take().unwrap_or_default())
        }
        Some(AttributeType::String) => {
            or_absent(proto.s.is_some());
            Attr::Str(proto.s.take().unwrap_or_default())
        }
        Some(AttributeType::Floats) => Attr::Floats(std::mem::take(&mut proto.floats)),
        Some(AttributeType::Ints) => Attr::Ints(std::mem::take(&mut proto.ints)),
        Some(AttributeType::Strings) => Attr::Strings(std::mem::take(&mut proto.strings)),
        Some(AttributeType::Tensor) => match proto.t.take() {
            Some(tensor) => Attr::Tensor(parts.tensor(tensor, &name)?),
            None => return Ok(opaque(name, &proto)),
        },
        Some(AttributeType::Graph) => match proto.g.take() {
            Some(graph) => Attr::Graph(Box::new(parts.graph(graph)?)),
            None => return Ok(opaque(name, &proto)),
        },
        Some(AttributeType::Graphs) => {
            let graphs = std::mem::take(&mut proto.graphs);
            Attr::Graphs(graphs.into_iter().map(|graph| parts.graph(graph)).collect::<Result<_, _>>()?)
        }
        _ => return Ok(opaque(name, &proto)),
    };
    if !name.is_empty() {
        proto.name = None;
    }
    if !absent {
        proto.r#type = None;
    }
    Ok(Attribute {
        name,
        value,
        remainder: Remainder::from(proto.encode_to_vec()),
    })
}

fn reference(name: String, mut proto: AttributeProto) -> Attribute {
    let value = Attr::Reference {
        name: proto.ref_attr_name.take().unwrap_or_default(),
        kind: proto.r#type.take_if(|kind| *kind != 0).unwrap_or_default(),
    };
    if !name.is_empty() {
        proto.name = None;
    }
    Attribute {
        name,
        value,
        remainder: Remainder::from(proto.encode_to_vec()),
    }
}

fn opaque(name: String, proto: &AttributeProto) -> Attribute {
    Attribute {
        name,
        value: Attr::Opaque(Bytes::from(proto.encode_to_vec())),
        remainder: Remainder::new(),
    }
}

/// Turns an attribute into a message; `graph` writes graphs.
pub(super) fn write(
    attribute: &Attribute,
    graph: &mut dyn FnMut(&Graph) -> Result<GraphProto, WriteError>,
) -> Result<AttributeProto, WriteError> {
    let source = match &attribute.value {
        Attr::Opaque(bytes) => bytes,
        _ => &attribute.remainder,
    };
    let mut proto = if source.is_empty() {
        AttributeProto::default()
    } else {
        AttributeProto::decode(source.clone()).unwrap_or_default()
    };
    if !attribute.name.is_empty() {
        proto.name = Some(attribute.name.clone());
    }
    let absent = proto.r#type.is_some();
    let kind = match &attribute.value {
        Attr::Float(value) => {
            proto.f = (!absent || value.to_bits() != 0).then_some(*value);
            AttributeType::Float
        }
        Attr::Int(value) => {
            proto.i = (!absent || *value != 0).then_some(*value);
            AttributeType::Int
        }
        Attr::Str(value) => {
            proto.s = (!absent || !value.is_empty()).then(|| value.clone());
            AttributeType::String
        }
        Attr::Tensor(literal) => {
            proto.t = Some(super::tensor::write(literal));
            AttributeType::Tensor
        }
        Attr::Graph(value) => {
            proto.g = Some(graph(value)?);
            AttributeType::Graph
        }
        Attr::Floats(values) => {
            proto.floats.clone_from(values);
            AttributeType::Floats
        }
        Attr::Ints(values) => {
            proto.ints.clone_from(values);
            AttributeType::Ints
        }
        Attr::Strings(values) => {
            proto.strings.clone_from(values);
            AttributeType::Strings
        }
        Attr::Graphs(values) => {
            proto.graphs = values.iter().map(graph).collect::<Result<_, _>>()?;
            AttributeType::Graphs
        }
        Attr::Reference { name, kind } => {
            proto.ref_attr_name = Some(name.clone());
            proto.r#type = if *kind == 0 { proto.r#type } else { Some(*kind) };
            return Ok(proto);
        }
        Attr::Opaque(_) => return Ok(proto),
    };
    proto.r#type = Some(kind as i32);
    Ok(proto)
}
