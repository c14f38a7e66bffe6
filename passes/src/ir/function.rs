//! A function of the model: a body of nodes that stands for an op of the model's own (ONNX's `FunctionProto`).

use super::attributes::{Attribute, Remainder};
use super::graph::Graph;
use super::model::OpsetImport;
use super::node::Node;

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

impl Function {
    /// Does `node` call it, if there is no other of the same names?
    #[must_use]
    pub fn is_called_by(&self, node: &Node) -> bool {
        self.name == node.op.name && self.overload == node.overload && plain(&self.domain) == plain(&node.op.domain)
    }
}

fn plain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}
