//! The graph: arenas of nodes and values, and the few methods that change edges.
//!
//! Ids are never reused, so a removed node or value stays a hole. Nodes stand in a list whose order [`Graph::sort`] makes topological
//! with the fewest moves. Everything here keeps the lists of uses true; [`super::verify`] checks it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::{Index, IndexMut};

use super::attributes::{Attribute, Literal, Remainder};
use super::dtype::DType;
use super::node::{Node, NodeId, Op, Origin};
use super::tensor::Tensor;
use super::types::TensorType;
use super::value::{Def, Role, Use, Value, ValueId};

/// A computation with named inputs and outputs.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The graph's name.
    pub name: String,
    /// What else the message says.
    pub remainder: Remainder,
    /// Which pass makes the nodes that are being added.
    pub author: Option<&'static str>,
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) values: Vec<Option<Value>>,
    pub(super) order: Vec<NodeId>,
    pub(super) inputs: Vec<ValueId>,
    pub(super) outputs: Vec<ValueId>,
    pub(super) initializers: Vec<ValueId>,
    pub(super) names: HashMap<String, ValueId>,
}

impl PartialEq for Graph {
    fn eq(&self, other: &Graph) -> bool {
        self.name == other.name
            && self.remainder == other.remainder
            && self.nodes == other.nodes
            && self.values == other.values
            && self.order == other.order
            && self.inputs == other.inputs
            && self.outputs == other.outputs
            && self.initializers == other.initializers
    }
}

/// Why a value could not be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name '{0}' is given to two values")]
pub struct DuplicateName(pub String);

impl Graph {
    /// An empty graph.
    #[must_use]
    pub fn new(name: &str) -> Graph {
        Graph {
            name: name.to_owned(),
            ..Graph::default()
        }
    }

    // --- Reading ---------------------------------------------------------------------------------------------------------------

    /// The nodes, in order.
    pub fn node_ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + '_ {
        self.order.iter().copied()
    }

    /// The nodes, in order, copied so that the graph can change meanwhile. Check [`Graph::contains`] where it removes nodes.
    #[must_use]
    pub fn node_list(&self) -> Vec<NodeId> {
        self.order.clone()
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Node)> + '_ {
        self.order
            .iter()
            .filter_map(|&id| Some((id, self.nodes.get(id.0 as usize)?.as_ref()?)))
    }

    /// The values, oldest first.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> + '_ {
        (0..)
            .zip(&self.values)
            .filter_map(|(id, value)| Some((ValueId(id), value.as_ref()?)))
    }

    /// Is the node still there?
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.nodes.get(node.0 as usize).is_some_and(Option::is_some)
    }

    /// Is the value still there?
    #[must_use]
    pub fn contains_value(&self, value: ValueId) -> bool {
        self.values.get(value.0 as usize).is_some_and(Option::is_some)
    }

    /// The inputs, in order.
    #[must_use]
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// The outputs, in order.
    #[must_use]
    pub fn outputs(&self) -> &[ValueId] {
        &self.outputs
    }

    /// The values with elements in the file: constants and inputs with defaults, in the order of the file.
    #[must_use]
    pub fn initializers(&self) -> &[ValueId] {
        &self.initializers
    }

    /// The value of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }

    /// The node that makes `value`, if one does.
    #[must_use]
    pub fn producer(&self, value: ValueId) -> Option<(NodeId, &Node)> {
        let node = self[value].producer()?;
        Some((node, &self[node]))
    }

    /// The only node that uses `value`, taking it once, if there is just one and the value is no output.
    #[must_use]
    pub fn only_use(&self, value: ValueId) -> Option<Use> {
        match self[value].uses() {
            [only] if !only.is_capture() && !self.outputs.contains(&value) => Some(*only),
            _ => None,
        }
    }

    /// The elements of operand `index` of `node`, if it is a constant.
    #[must_use]
    pub fn constant_input(&self, node: NodeId, index: usize) -> Option<&Tensor> {
        self[self[node].input(index)?].constant()
    }

    /// A name that no value has: `base`, or `base` and a number.
    #[must_use]
    pub fn fresh_name(&self, base: &str) -> String {
        if !base.is_empty() && !self.names.contains_key(base) {
            return base.to_owned();
        }
        (1u32..)
            .map(|n| format!("{base}_{n}"))
            .find(|name| !self.names.contains_key(name))
            .unwrap_or_default()
    }

    // --- Adding ----------------------------------------------------------------------------------------------------------------

    fn add_value(&mut self, name: String, def: Def, ty: Option<TensorType>) -> Result<ValueId, DuplicateName> {
        if self.names.contains_key(&name) {
            return Err(DuplicateName(name));
        }
        #[allow(clippy::cast_possible_truncation)]
        let id = ValueId(self.values.len() as u32);
        self.names.insert(name.clone(), id);
        self.values.push(Some(Value {
            ty,
            role: Role::Plain,
            listed: None,
            remainder: Remainder::new(),
            name,
            def,
            uses: Vec::new(),
        }));
        Ok(id)
    }

    /// Adds an input.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn add_input(&mut self, name: &str, ty: Option<TensorType>, default: Option<Literal>) -> Result<ValueId, DuplicateName> {
        let has_default = default.is_some();
        let id = self.add_value(name.to_owned(), Def::Input(default), ty)?;
        self.inputs.push(id);
        if has_default {
            self.initializers.push(id);
        }
        Ok(id)
    }

    /// Adds a constant under this very name.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn add_initializer(&mut self, name: &str, literal: Literal) -> Result<ValueId, DuplicateName> {
        let ty = TensorType::fixed(literal.tensor.dtype(), literal.tensor.shape());
        let id = self.add_value(name.to_owned(), Def::Constant(literal), Some(ty))?;
        self.initializers.push(id);
        Ok(id)
    }

    /// Adds a constant under a name like `base`.
    pub fn add_constant(&mut self, base: &str, tensor: Tensor) -> ValueId {
        let name = self.fresh_name(base);
        match self.add_initializer(&name, tensor.into()) {
            Ok(id) => id,
            Err(DuplicateName(name)) => unreachable!("fresh name {name}"),
        }
    }

    /// Adds a value of an enclosing graph that this one captures.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn add_captured(&mut self, name: &str, outer: ValueId, ty: Option<TensorType>) -> Result<ValueId, DuplicateName> {
        self.add_value(name.to_owned(), Def::Captured(outer), ty)
    }

    /// Adds a node at the end of the order, with results of these very names (`None`: not wanted).
    ///
    /// # Errors
    /// If a name is taken.
    pub fn add_node(
        &mut self,
        op: Op,
        inputs: &[Option<ValueId>],
        outputs: &[Option<&str>],
        attributes: Vec<Attribute>,
    ) -> Result<NodeId, DuplicateName> {
        #[allow(clippy::cast_possible_truncation)]
        let id = NodeId(self.nodes.len() as u32);
        let mut results = Vec::with_capacity(outputs.len());
        for (index, name) in outputs.iter().enumerate() {
            results.push(match name {
                Some(name) => Some(self.add_value((*name).to_owned(), Def::Node(id, index), None)?),
                None => None,
            });
        }
        self.nodes.push(Some(Node {
            name: String::new(),
            op,
            overload: String::new(),
            attributes,
            origin: Origin {
                source: None,
                pass: self.author,
            },
            remainder: Remainder::new(),
            inputs: inputs.to_vec(),
            outputs: results,
        }));
        self.order.push(id);
        for (index, input) in inputs.iter().enumerate() {
            if let Some(value) = input {
                self[*value].uses.push(Use { node: id, index });
            }
        }
        let captured: Vec<ValueId> = self[id].subgraphs().flat_map(Graph::captured).collect();
        for value in captured {
            self[value].uses.push(Use {
                node: id,
                index: usize::MAX,
            });
        }
        Ok(id)
    }

    /// Adds a node with one result, under a name like `base`, and gives the result.
    pub fn insert(&mut self, op: Op, inputs: &[ValueId], attributes: Vec<Attribute>, base: &str) -> ValueId {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        self.insert_many(op, &inputs, attributes, &[base])[0]
    }

    /// Adds a Cast of `value`, under a name like `base`, and gives the result, whose type is that of `value` but for its elements.
    pub fn insert_cast(&mut self, value: ValueId, to: DType, base: &str) -> ValueId {
        let cast = self.insert(
            Op::onnx("Cast"),
            &[value],
            vec![Attribute::new("to", i64::from(to.code()))],
            base,
        );
        self[cast].ty = self[value].ty.clone().map(|ty| TensorType { dtype: to, ..ty });
        cast
    }

    /// Adds a node with a result for each of `bases`, under names like them, and gives the results.
    pub fn insert_many(
        &mut self,
        op: Op,
        inputs: &[Option<ValueId>],
        attributes: Vec<Attribute>,
        bases: &[&str],
    ) -> Vec<ValueId> {
        let mut names: Vec<Cow<'_, str>> = Vec::with_capacity(bases.len());
        for base in bases {
            let mut name = self.fresh_name(base);
            while names.iter().any(|taken| *taken == name) {
                name = self.fresh_name(&format!("{name}_"));
            }
            names.push(name.into());
        }
        let names: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_ref())).collect();
        match self.add_node(op, inputs, &names, attributes) {
            Ok(node) => self[node].outputs.iter().flatten().copied().collect(),
            Err(DuplicateName(name)) => unreachable!("fresh name {name}"),
        }
    }

    /// The values of the enclosing graph that this graph, or one inside it, captures.
    pub fn captured(&self) -> Vec<ValueId> {
        self.values()
            .filter_map(|(_, value)| {
                if let Def::Captured(outer) = value.def {
                    Some(outer)
                } else {
                    None
                }
            })
            .collect()
    }

    // --- Changing --------------------------------------------------------------------------------------------------------------

    /// Makes `value` an output, if it is not one.
    pub fn add_output(&mut self, value: ValueId) {
        if !self.outputs.contains(&value) {
            self.outputs.push(value);
        }
    }

    /// Changes the types of all that nodes of this graph compute, as far as they have one.
    pub fn retype_results(&mut self, change: impl Fn(&mut TensorType)) {
        for value in self.values.iter_mut().flatten() {
            if value.producer().is_some()
                && let Some(ty) = &mut value.ty
            {
                change(ty);
            }
        }
    }

    /// Replaces the whole list of outputs, which may name a value twice.
    pub fn set_outputs(&mut self, outputs: Vec<ValueId>) {
        self.outputs = outputs;
    }

    /// Replaces operand `index` of `node`.
    pub fn set_input(&mut self, node: NodeId, index: usize, value: Option<ValueId>) {
        while self[node].inputs.len() <= index {
            self[node].inputs.push(None);
        }
        let old = std::mem::replace(&mut self[node].inputs[index], value);
        if let Some(old) = old {
            let used = Use { node, index };
            self[old].uses.retain(|u| *u != used);
        }
        if let Some(value) = value {
            self[value].uses.push(Use { node, index });
        }
        while self[node].inputs.last() == Some(&None) {
            self[node].inputs.pop();
        }
    }

    /// Lets every node that uses `old` use `new` instead; outputs stay as they are.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        for used in std::mem::take(&mut self[old].uses) {
            if used.is_capture() {
                for graph in self[used.node].subgraphs_mut() {
                    graph.recapture(old, new);
                }
            } else {
                self[used.node].inputs[used.index] = Some(new);
            }
            self[new].uses.push(used);
        }
    }

    /// Lets `new` take the place of `old` everywhere. Where `old` is an output, the output keeps its name: the two swap names, or an
    /// Identity carries the name where `new` cannot (it is an input, a constant or an output itself).
    pub fn replace(&mut self, old: ValueId, new: ValueId) {
        self.replace_uses(old, new);
        if !self.outputs.contains(&old) {
            return;
        }
        let new = if self[new].producer().is_some() && !self.outputs.contains(&new) {
            new
        } else {
            let base = format!("{}/out", self[old].name());
            self.insert(Op::onnx("Identity"), &[new], vec![], &base)
        };
        self.swap_names(old, new);
        if self[new].ty.is_none() {
            self[new].ty = self[old].ty.clone();
        }
        self[new].remainder = std::mem::take(&mut self[old].remainder);
        for output in &mut self.outputs {
            if *output == old {
                *output = new;
            }
        }
    }

    /// Lets this graph capture what `to` has in the place of what it captures: for a graph that moves into another one.
    pub fn map_captured(&mut self, to: &HashMap<ValueId, ValueId>) {
        for value in self.values.iter_mut().flatten() {
            if let Def::Captured(outer) = &mut value.def
                && let Some(new) = to.get(outer)
            {
                *outer = *new;
            }
        }
    }

    fn recapture(&mut self, old: ValueId, new: ValueId) {
        for value in self.values.iter_mut().flatten() {
            if let Def::Captured(outer) = &mut value.def
                && *outer == old
            {
                *outer = new;
            }
        }
    }

    fn swap_names(&mut self, a: ValueId, b: ValueId) {
        let name = std::mem::take(&mut self[a].name);
        let other = std::mem::replace(&mut self[b].name, name);
        self[a].name = other;
        for id in [a, b] {
            let name = self[id].name.clone();
            self.names.insert(name, id);
        }
    }

    /// Gives a value a name like `base`.
    pub fn rename(&mut self, value: ValueId, base: &str) {
        if self[value].name == base {
            return;
        }
        let fresh = self.fresh_name(base);
        let old = std::mem::replace(&mut self[value].name, fresh.clone());
        self.names.remove(&old);
        self.names.insert(fresh, value);
    }

    /// Removes a node and its results, if nothing uses them; otherwise does nothing. Tells whether it did.
    pub fn remove_node(&mut self, node: NodeId) -> bool {
        self.remove_nodes(&[node]) == 1
    }

    /// Removes `nodes` one after another, each if nothing uses its results (any longer). Tells how many.
    pub fn remove_nodes(&mut self, nodes: &[NodeId]) -> usize {
        let removed = nodes.iter().filter(|&&node| self.take_node(node)).count();
        if removed > 0 {
            let nodes = &self.nodes;
            self.order.retain(|id| nodes.get(id.0 as usize).is_some_and(Option::is_some));
        }
        removed
    }

    /// Removes a node from the arena, but not from the order.
    fn take_node(&mut self, node: NodeId) -> bool {
        let used = |value: &ValueId| !self[*value].uses.is_empty() || self.outputs.contains(value);
        if !self.contains(node) || self[node].outputs.iter().flatten().any(used) {
            return false;
        }
        let Some(removed) = self.nodes[node.0 as usize].take() else {
            return false;
        };
        let captured = removed.subgraphs().flat_map(Graph::captured).collect::<Vec<_>>();
        for value in removed.inputs.iter().flatten().copied().chain(captured) {
            self[value].uses.retain(|u| u.node != node);
        }
        for value in removed.outputs.into_iter().flatten() {
            self.forget(value);
        }
        true
    }

    /// Removes a constant or an input that nothing uses; otherwise does nothing. Tells whether it did.
    pub fn remove_source(&mut self, value: ValueId) -> bool {
        self.remove_sources(&[value]) == 1
    }

    /// Removes those of `values` that are constants or inputs and that nothing uses. Tells how many.
    pub fn remove_sources(&mut self, values: &[ValueId]) -> usize {
        let unused = |value: &&ValueId| {
            let known = self.contains_value(**value) && self[**value].producer().is_none();
            known && self[**value].uses.is_empty() && !self.outputs.contains(value)
        };
        let gone: HashSet<ValueId> = values.iter().filter(unused).copied().collect();
        if !gone.is_empty() {
            self.inputs.retain(|id| !gone.contains(id));
            self.initializers.retain(|id| !gone.contains(id));
        }
        for &value in &gone {
            self.forget(value);
        }
        gone.len()
    }

    fn forget(&mut self, value: ValueId) {
        if let Some(gone) = self.values[value.0 as usize].take() {
            self.names.remove(&gone.name);
        }
    }

    /// Replaces the elements of a constant, or of an input's default, and with them the value's type.
    pub fn set_literal(&mut self, value: ValueId, tensor: Tensor) {
        self[value].ty = Some(TensorType::fixed(tensor.dtype(), tensor.shape()));
        match &mut self[value].def {
            Def::Constant(literal) | Def::Input(Some(literal)) => *literal = tensor.into(),
            Def::Input(default) => *default = Some(tensor.into()),
            Def::Node(..) | Def::Captured(_) => {}
        }
    }

    /// Turns a constant into an input with that constant as its default: something that training changes.
    pub fn promote(&mut self, constant: ValueId, role: Role) {
        if let Def::Constant(literal) = &self[constant].def {
            self[constant].def = Def::Input(Some(literal.clone()));
            self.inputs.push(constant);
        }
        self[constant].role = role;
    }

    /// Turns an input with a default back into a constant.
    pub fn demote(&mut self, input: ValueId) {
        if let Def::Input(Some(literal)) = &self[input].def {
            self[input].def = Def::Constant(literal.clone());
            self[input].role = Role::Plain;
            self.inputs.retain(|&id| id != input);
        }
    }

    /// Takes the default of an input away, so that the caller must give it.
    pub fn take_default(&mut self, input: ValueId) -> Option<Literal> {
        let Def::Input(default) = &mut self[input].def else {
            return None;
        };
        let taken = default.take();
        self.initializers.retain(|&id| id != input);
        taken
    }

    /// Adds an input in place of what makes `value` now: every use of `value` takes the input.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn cut(&mut self, value: ValueId, name: &str) -> Result<ValueId, DuplicateName> {
        let ty = self[value].ty.clone();
        let input = self.add_input(name, ty, None)?;
        self.replace_uses(value, input);
        Ok(input)
    }

    /// Moves nodes so that each stands after those whose results it uses, and otherwise stays where it was. Nodes of a cycle keep their
    /// places, for the verifier to find.
    pub fn sort(&mut self) {
        let mut done = vec![false; self.nodes.len()];
        let mut entered = vec![false; self.nodes.len()];
        let mut sorted = Vec::with_capacity(self.order.len());
        let mut stack = Vec::new();
        for &root in &self.order {
            stack.push(root);
            while let Some(&node) = stack.last() {
                let index = node.0 as usize;
                if done[index] {
                    stack.pop();
                    continue;
                }
                if std::mem::replace(&mut entered[index], true) {
                    done[index] = true;
                    sorted.push(node);
                    stack.pop();
                    continue;
                }
                let node = &self[node];
                let captured = node.subgraphs().flat_map(Graph::captured).collect::<Vec<_>>();
                for value in captured.iter().rev().chain(node.inputs.iter().rev().flatten()) {
                    if let Def::Node(producer, _) = self[*value].def
                        && !entered[producer.0 as usize]
                    {
                        stack.push(producer);
                    }
                }
            }
        }
        self.order = sorted;
    }
}

impl Index<NodeId> for Graph {
    type Output = Node;

    fn index(&self, id: NodeId) -> &Node {
        match self.nodes.get(id.0 as usize) {
            Some(Some(node)) => node,
            _ => unreachable!("node {} was removed", id.0),
        }
    }
}

impl IndexMut<NodeId> for Graph {
    fn index_mut(&mut self, id: NodeId) -> &mut Node {
        match self.nodes.get_mut(id.0 as usize) {
            Some(Some(node)) => node,
            _ => unreachable!("node {} was removed", id.0),
        }
    }
}

impl Index<ValueId> for Graph {
    type Output = Value;

    fn index(&self, id: ValueId) -> &Value {
        match self.values.get(id.0 as usize) {
            Some(Some(value)) => value,
            _ => unreachable!("value {} was removed", id.0),
        }
    }
}

impl IndexMut<ValueId> for Graph {
    fn index_mut(&mut self, id: ValueId) -> &mut Value {
        match self.values.get_mut(id.0 as usize) {
            Some(Some(value)) => value,
            _ => unreachable!("value {} was removed", id.0),
        }
    }
}
