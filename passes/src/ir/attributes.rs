//! Attributes of a node. What lsqc has no word for is carried as an encoded remainder ([`Remainder`]).

use bytes::Bytes;

use super::graph::Graph;
use super::tensor::Tensor;

/// Fields of the source message that the IR has no word for, encoded; empty almost always. Only `onnx` reads and writes it.
pub type Remainder = Bytes;

/// How a tensor's elements were spelled in the source, so that writing gives the same message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Form {
    /// `raw_data`.
    #[default]
    Raw,
    /// The typed field (`float_data`, `int32_data`, …).
    Typed,
    /// A sparse tensor; the remainder is the whole of its message.
    Sparse,
}

/// A tensor as written in a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Literal {
    /// The elements.
    pub tensor: Tensor,
    /// How they are spelled.
    pub form: Form,
    /// What else the message says.
    pub remainder: Remainder,
}

impl From<Tensor> for Literal {
    fn from(tensor: Tensor) -> Literal {
        Literal {
            tensor,
            form: Form::Raw,
            remainder: Remainder::new(),
        }
    }
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    /// One integer.
    Int(i64),
    /// One float.
    Float(f32),
    /// One byte string.
    Str(Bytes),
    /// One tensor.
    Tensor(Literal),
    /// One graph; it may capture values of the graphs around it.
    Graph(Box<Graph>),
    /// Integers.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<f32>),
    /// Byte strings.
    Strings(Vec<Bytes>),
    /// Graphs.
    Graphs(Vec<Graph>),
    /// In the body of a function: what the call says for the function's attribute `name`.
    Reference {
        /// The function's attribute.
        name: String,
        /// The number of the value's type in ONNX's `AttributeType`; 0 where the source does not say it.
        kind: i32,
    },
    /// Anything else (sparse tensors, types): the encoded `AttributeProto`.
    Opaque(Bytes),
}

/// A named attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// The name.
    pub name: String,
    /// The value.
    pub value: Attr,
    /// What else the message says.
    pub remainder: Remainder,
}

impl Attribute {
    /// An attribute of a node that lsqc makes.
    #[must_use]
    pub fn new(name: &str, value: impl Into<Attr>) -> Attribute {
        Attribute {
            name: name.to_owned(),
            value: value.into(),
            remainder: Remainder::new(),
        }
    }
}

impl From<i64> for Attr {
    fn from(value: i64) -> Attr {
        Attr::Int(value)
    }
}

impl From<f32> for Attr {
    fn from(value: f32) -> Attr {
        Attr::Float(value)
    }
}

impl From<&str> for Attr {
    fn from(value: &str) -> Attr {
        Attr::Str(Bytes::copy_from_slice(value.as_bytes()))
    }
}

impl From<Vec<i64>> for Attr {
    fn from(values: Vec<i64>) -> Attr {
        Attr::Ints(values)
    }
}

impl From<Tensor> for Attr {
    fn from(tensor: Tensor) -> Attr {
        Attr::Tensor(tensor.into())
    }
}
