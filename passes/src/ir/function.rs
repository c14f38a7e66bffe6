//! A function of the model: a body of nodes that stands for an op of the model's own (ONNX's `FunctionProto`).

use super::attributes::{Attribute, Remainder};
use super::graph::Graph;
use super::model::OpsetImport;

/// One function. A node calls it by its domain, name and overload.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// The domain of the op that it defines; the default domain is the empty string.
    pub domain: String,
    /// The op's name.
    pub name: String,
    /// Which of several functions of this domain and name.
    pub overload: String,
    /// The operator sets that give the ops of the body their meaning.
    pub opset_imports: Vec<OpsetImport>,
    /// The attributes without a default.
    pub attributes: Vec<String>,
    /// The attributes that have a default, and it.
    pub defaults: Vec<Attribute>,
    /// The body: inputs and outputs without types, no constants. In error why it cannot be read; the remainder is the whole message then.
    pub body: Result<Graph, String>,
    /// What else the message says.
    pub remainder: Remainder,
}
