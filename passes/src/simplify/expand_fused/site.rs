//! A fused node: its operands and attributes, checked, and the graph to add to.

use super::Rule;
use crate::ir::{Attr, Attribute, DType, Graph, Node, NodeId, Op, TensorType, ValueId};
use crate::ops::build::{Build, KeepDims};

/// One node, and what is made in its place.
pub(super) struct Site<'a> {
    /// Adds to the graph.
    pub b: Build<'a>,
    /// The node.
    pub node: Node,
    /// The version of the default operator set.
    pub opset: i64,
}

impl<'a> Site<'a> {
    pub(super) fn new(graph: &'a mut Graph, id: NodeId, opset: i64) -> Site<'a> {
        let node = graph[id].clone();
        let result = node.outputs().iter().flatten().next();
        let prefix = result.map_or_else(|| node.op.name.to_string(), |&result| graph[result].name().to_owned());
        Site {
            b: Build::new(graph, &prefix),
            node,
            opset,
        }
    }

    /// Lets what `rule` makes take the node's place; the node is unused then. Leaves nothing behind where the rule declines.
    pub(super) fn expand(mut self, rule: Rule) -> Result<(), String> {
        let (nodes, constants) = (self.b.graph.node_list().len(), self.b.graph.initializers().len());
        let results = rule(&mut self).and_then(|results| {
            for (index, result) in self.node.outputs().iter().enumerate() {
                if result.is_some() && results.get(index).copied().flatten().is_none() {
                    self.unused(index, "")?;
                }
            }
            Ok(results)
        });
        let graph = self.b.graph;
        let made: Vec<NodeId> = graph.node_ids().skip(nodes).collect();
        match results {
            Ok(results) => {
                for node in made {
                    graph[node].origin.source.clone_from(&self.node.origin.source);
                }
                for (old, new) in self.node.outputs().iter().zip(results) {
                    let (Some(old), Some(new)) = (*old, new) else { continue };
                    if graph[new].ty.as_ref().is_none_or(|ty| ty.shape.is_none()) {
                        graph[new].ty = graph[old].ty.clone().or_else(|| graph[new].ty.clone());
                    }
                    graph.replace(old, new);
                }
                Ok(())
            }
            Err(why) => {
                let made: Vec<NodeId> = made.into_iter().rev().collect();
                graph.remove_nodes(&made);
                let made: Vec<ValueId> = graph.initializers().iter().copied().skip(constants).collect();
                graph.remove_sources(&made);
                Err(why)
            }
        }
    }

    // --- Operands and results --------------------------------------------------------------------------------------------------

    /// Operand `index`, which the op must have.
    pub(super) fn operand(&self, index: usize, name: &str) -> Result<ValueId, String> {
        self.node.input(index).ok_or_else(|| format!("its operand {name} is missing"))
    }

    /// The same, of type float.
    pub(super) fn float(&self, index: usize, name: &str) -> Result<ValueId, String> {
        let value = self.operand(index, name)?;
        match self.ty(value).map(|ty| ty.dtype) {
            Some(DType::F32) => Ok(value),
            Some(other) => Err(format!("its operand {name} is {other}, not float")),
            None => Err(format!("the element type of its operand {name} is not known")),
        }
    }

    /// Operand `index`, of type float if it is there.
    pub(super) fn optional_float(&self, index: usize, name: &str) -> Result<Option<ValueId>, String> {
        self.node.input(index).map(|_| self.float(index, name)).transpose()
    }

    /// Declines if operand `index` is there.
    pub(super) fn without(&self, index: usize, name: &str) -> Result<(), String> {
        match self.node.input(index) {
            Some(_) => Err(format!("it has the operand {name}")),
            None => Ok(()),
        }
    }

    /// Declines if there are operands from `index` on.
    pub(super) fn at_most(&self, index: usize) -> Result<(), String> {
        let more = self.node.inputs().iter().skip(index).any(Option::is_some);
        if more {
            Err(format!("it has more than {index} operands"))
        } else {
            Ok(())
        }
    }

    /// Declines if something takes result `index`.
    pub(super) fn unused(&self, index: usize, name: &str) -> Result<(), String> {
        let graph = &self.b.graph;
        match self.node.output(index) {
            Some(result) if !graph[result].uses().is_empty() || graph.outputs().contains(&result) => {
                let name = if name.is_empty() { graph[result].name() } else { name };
                Err(format!("its result {name} is used"))
            }
            _ => Ok(()),
        }
    }

    /// What is known of a value.
    pub(super) fn ty(&self, value: ValueId) -> Option<&TensorType> {
        self.b.graph[value].ty.as_ref()
    }

    /// The number of axes of operand `index`.
    pub(super) fn rank(&self, value: ValueId, name: &str) -> Result<usize, String> {
        let rank = self.ty(value).and_then(TensorType::rank);
        rank.ok_or_else(|| format!("the rank of its operand {name} is not known"))
    }

    /// The last extent of a value.
    pub(super) fn last(&self, value: ValueId, name: &str) -> Result<i64, String> {
        let dims = self.ty(value).and_then(|ty| ty.shape.as_ref());
        let extent = dims.and_then(|dims| dims.last()?.known());
        let extent = extent.and_then(|extent| i64::try_from(extent).ok());
        extent.ok_or_else(|| format!("the last extent of its operand {name} is not known"))
    }

    // --- Attributes ------------------------------------------------------------------------------------------------------------

    /// Declines attributes other than these.
    pub(super) fn attributes(&self, known: &[&str]) -> Result<(), String> {
        match self
            .node
            .attributes
            .iter()
            .find(|given| !known.contains(&given.name.as_str()))
        {
            Some(other) => Err(format!("lsqc does not know its attribute {}", other.name)),
            None => Ok(()),
        }
    }

    /// An integer.
    pub(super) fn int(&self, name: &str) -> Result<Option<i64>, String> {
        match self.node.attr(name) {
            None => Ok(None),
            Some(Attr::Int(value)) => Ok(Some(*value)),
            Some(_) => Err(format!("its attribute {name} is no integer")),
        }
    }

    /// An integer that says yes or no.
    pub(super) fn flag(&self, name: &str) -> Result<bool, String> {
        Ok(self.int(name)?.unwrap_or(0) != 0)
    }

    /// Declines if the flag is set.
    pub(super) fn not_set(&self, name: &str) -> Result<(), String> {
        if self.flag(name)? {
            Err(format!("its attribute {name} is set"))
        } else {
            Ok(())
        }
    }

    /// An integer of at least 1.
    pub(super) fn count(&self, name: &str) -> Result<Option<i64>, String> {
        match self.int(name)? {
            Some(value) if value < 1 => Err(format!("its attribute {name} is {value}")),
            value => Ok(value),
        }
    }

    /// A float.
    pub(super) fn number(&self, name: &str) -> Result<Option<f32>, String> {
        match self.node.attr(name) {
            None => Ok(None),
            Some(Attr::Float(value)) => Ok(Some(*value)),
            Some(_) => Err(format!("its attribute {name} is no float")),
        }
    }

    // --- What is made ----------------------------------------------------------------------------------------------------------

    /// Adds an op of the default domain.
    pub(super) fn op(&mut self, name: &'static str, inputs: &[ValueId], attributes: Vec<Attribute>) -> ValueId {
        self.b.node(Op::onnx(name), inputs, attributes)
    }

    /// Names the node that makes `value` after the fused one: `part` of it, or, where that is empty, as the whole.
    pub(super) fn name(&mut self, value: ValueId, part: &str) {
        let Some(made) = self.b.graph[value].producer() else { return };
        let whole = match self.node.outputs().iter().flatten().next() {
            Some(&result) if self.node.name.is_empty() => self.b.graph[result].name().to_owned(),
            _ => self.node.name.clone(),
        };
        self.b.graph[made].name = if part.is_empty() { whole } else { format!("{whole}/{part}") };
    }

    /// ReduceMean over the last axis, which stays; its axes became an operand in operator set 18.
    pub(super) fn mean_of_last(&mut self, x: ValueId) -> ValueId {
        let keep = Attribute::new("keepdims", KeepDims::Yes as i64);
        if self.opset >= 18 {
            let axes = self.b.ints(&[-1]);
            return self.op("ReduceMean", &[x, axes], vec![keep]);
        }
        self.op("ReduceMean", &[x], vec![Attribute::new("axes", vec![-1]), keep])
    }

    /// Reshape; 0 stands for the extent at hand, −1 for what is left.
    pub(super) fn reshape(&mut self, x: ValueId, shape: &[i64]) -> ValueId {
        let shape = self.b.ints(shape);
        self.op("Reshape", &[x, shape], vec![])
    }

    /// Unsqueeze.
    pub(super) fn unsqueeze(&mut self, x: ValueId, axes: &[i64]) -> ValueId {
        let axes = self.b.ints(axes);
        self.op("Unsqueeze", &[x, axes], vec![])
    }
}
