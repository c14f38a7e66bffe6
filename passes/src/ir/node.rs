//! Nodes: an op's name, its operands and attributes, and where it came from.

use std::borrow::Cow;

use super::attributes::{Attr, Attribute, Remainder};
use super::graph::Graph;
use super::value::ValueId;

/// Names a node of one graph; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(super) u32);

/// An op: a domain and a name. The default domain is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Op {
    /// The domain as the model spells it.
    pub domain: Cow<'static, str>,
    /// The name.
    pub name: Cow<'static, str>,
}

/// The domain of the quantizers and of the backward ops that `legalize` spells for an engine.
pub const LSQC_DOMAIN: &str = "lsqc";

impl Op {
    /// An op of the default domain.
    #[must_use]
    pub const fn onnx(name: &'static str) -> Op {
        Op {
            domain: Cow::Borrowed(""),
            name: Cow::Borrowed(name),
        }
    }

    /// An op of lsqc's own domain.
    #[must_use]
    pub const fn lsqc(name: &'static str) -> Op {
        Op {
            domain: Cow::Borrowed(LSQC_DOMAIN),
            name: Cow::Borrowed(name),
        }
    }

    /// Is this the op `name` of the default domain (which may be spelled `ai.onnx`)?
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name == name && self.in_default_domain()
    }

    /// Is this the op `name` of lsqc's own domain?
    #[must_use]
    pub fn is_lsqc(&self, name: &str) -> bool {
        self.name == name && self.domain == LSQC_DOMAIN
    }

    /// Is the domain the default one?
    #[must_use]
    pub fn in_default_domain(&self) -> bool {
        self.domain.is_empty() || self.domain == "ai.onnx"
    }
}

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.domain.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}.{}", self.domain, self.name)
        }
    }
}

/// Where a node came from, for reports and dumps.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Origin {
    /// The name of the source model's node that this one is, or stands for.
    pub source: Option<String>,
    /// The pass that made it; `None` for a node of the source.
    pub pass: Option<&'static str>,
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The name; may be empty, need not be unique.
    pub name: String,
    /// The op.
    pub op: Op,
    /// Which of several functions of the model that have the op's name; empty almost always.
    pub overload: String,
    /// The attributes, in the source's order.
    pub attributes: Vec<Attribute>,
    /// Where it came from.
    pub origin: Origin,
    /// What else the message says.
    pub remainder: Remainder,
    pub(super) inputs: Vec<Option<ValueId>>,
    pub(super) outputs: Vec<Option<ValueId>>,
}

impl Node {
    /// The operands; `None` for an optional one that is left out.
    #[must_use]
    pub fn inputs(&self) -> &[Option<ValueId>] {
        &self.inputs
    }

    /// The results; `None` for an optional one that is not wanted.
    #[must_use]
    pub fn outputs(&self) -> &[Option<ValueId>] {
        &self.outputs
    }

    /// Operand `index`, if it is there.
    #[must_use]
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// Result `index`, if it is wanted.
    #[must_use]
    pub fn output(&self, index: usize) -> Option<ValueId> {
        self.outputs.get(index).copied().flatten()
    }

    /// The attribute of this name.
    #[must_use]
    pub fn attr(&self, name: &str) -> Option<&Attr> {
        self.attributes
            .iter()
            .find(|attribute| attribute.name == name)
            .map(|attribute| &attribute.value)
    }

    /// The integer attribute of this name.
    #[must_use]
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attr(name) {
            Some(Attr::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// The float attribute of this name.
    #[must_use]
    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attr(name) {
            Some(Attr::Float(value)) => Some(*value),
            _ => None,
        }
    }

    /// The integers of the attribute of this name.
    #[must_use]
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attr(name) {
            Some(Attr::Ints(values)) => Some(values),
            _ => None,
        }
    }

    /// The text of the attribute of this name, if it is UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.attr(name) {
            Some(Attr::Str(value)) => std::str::from_utf8(value).ok(),
            _ => None,
        }
    }

    /// Sets an attribute, replacing the one of the same name.
    pub fn set_attr(&mut self, name: &str, value: impl Into<Attr>) {
        match self.attributes.iter_mut().find(|attribute| attribute.name == name) {
            Some(attribute) => attribute.value = value.into(),
            None => self.attributes.push(Attribute::new(name, value)),
        }
    }

    /// Removes an attribute and gives its value.
    pub fn take_attr(&mut self, name: &str) -> Option<Attr> {
        let position = self.attributes.iter().position(|attribute| attribute.name == name)?;
        Some(self.attributes.remove(position).value)
    }

    /// The graphs that are attributes of this node.
    pub fn subgraphs(&self) -> impl Iterator<Item = &Graph> {
        self.attributes.iter().flat_map(|attribute| match &attribute.value {
            Attr::Graph(graph) => std::slice::from_ref(&**graph),
            Attr::Graphs(graphs) => graphs.as_slice(),
            _ => &[],
        })
    }

    /// The graphs that are attributes of this node, to change.
    pub fn subgraphs_mut(&mut self) -> impl Iterator<Item = &mut Graph> {
        self.attributes.iter_mut().flat_map(|attribute| match &mut attribute.value {
            Attr::Graph(graph) => std::slice::from_mut(&mut **graph),
            Attr::Graphs(graphs) => graphs.as_mut_slice(),
            _ => &mut [],
        })
    }

    /// How the node is called in messages: its name, or its op and first result.
    #[must_use]
    pub fn label<'a>(&'a self, graph: &'a Graph) -> Cow<'a, str> {
        if !self.name.is_empty() {
            return Cow::Borrowed(&self.name);
        }
        match self.outputs.iter().flatten().next() {
            Some(&output) => Cow::Owned(format!("{} -> {}", self.op, graph[output].name())),
            None => Cow::Owned(self.op.to_string()),
        }
    }
}
