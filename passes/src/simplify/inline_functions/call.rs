//! One call: the body as this call has it, and how it is put in the call's place.

use std::collections::{HashMap, HashSet};

use super::Names;
use super::library::Library;
use crate::ir::{Attr, Attribute, Def, Dim, Function, Graph, Model, NodeId, Origin, Remainder, TensorType, ValueId};
use crate::pass::PassCx;
use crate::simplify::upgrade_opset::{TargetOpset, UPGRADE_OPSET};

/// A call that can be inlined.
pub(super) struct Call<'a> {
    function: &'a Function,
    /// The body, with the call's attributes, in the model's operator set. Only graphs are still referred to.
    body: Graph,
    attributes: Vec<Attribute>,
}

impl<'a> Call<'a> {
    /// Looks at the call `id` of `function`.
    ///
    /// # Errors
    /// Why it is left alone.
    pub(super) fn prepare(
        function: &'a Function,
        graph: &Graph,
        id: NodeId,
        library: &Library,
        cx: &PassCx,
    ) -> Result<Call<'a>, String> {
        let call = &graph[id];
        let mut body = function.body.clone()?;
        if call.inputs().len() > body.inputs().len() {
            let (given, taken) = (call.inputs().len(), body.inputs().len());
            return Err(format!("it takes {taken} operands, and the call has {given}"));
        }
        if call.outputs().len() > body.outputs().len() {
            let (wanted, given) = (call.outputs().len(), body.outputs().len());
            return Err(format!("it gives {given} results, and the call has {wanted}"));
        }
        let missing: HashSet<ValueId> = (0..)
            .zip(body.inputs())
            .filter(|(index, _)| call.input(*index).is_none())
            .map(|(_, &input)| input)
            .collect();
        for &input in &missing {
            if body[input].uses().iter().any(|used| used.is_capture()) {
                let name = body[input].name();
                return Err(format!("the call leaves out '{name}', which a subgraph captures"));
            }
        }
        let wanted = call.outputs().iter().zip(body.outputs());
        for (_, output) in wanted.filter(|(result, _)| result.is_some()) {
            if missing.contains(output) {
                return Err(format!("a result is '{}', which the call leaves out", body[*output].name()));
            }
        }
        let defaults = function.defaults.iter();
        let defaults = defaults.filter(|default| call.attr(&default.name).is_none());
        let attributes: Vec<Attribute> = call.attributes.iter().chain(defaults).cloned().collect();
        resolve(&mut body, &attributes, Place::Body)?;
        for (&input, given) in body.inputs().to_vec().iter().zip(call.inputs()) {
            body[input].ty = given.and_then(|given| graph[given].ty.clone());
        }
        let body = upgraded(function, body, library, cx)?;
        Ok(Call {
            function,
            body,
            attributes,
        })
    }

    /// How many nodes it adds.
    pub(super) fn nodes(&self) -> usize {
        count(&self.body)
    }

    /// How deep graphs are nested in it.
    pub(super) fn depth(&self) -> usize {
        depth(&self.body)
    }

    /// The operator sets of the function that the model does not import.
    pub(super) fn imports(&self, library: &Library) -> Vec<(String, i64)> {
        let used = domains(&self.body, library);
        let imports = self.function.opset_imports.iter();
        let imports = imports.filter(|import| used.contains(&import.domain) && library.version(&import.domain).is_none());
        imports.map(|import| (import.domain.clone(), import.version)).collect()
    }

    /// Adds the nodes of the body and lets what they give take the place of the call's results. Gives the nodes; the call is unused then.
    pub(super) fn put_in_place(mut self, graph: &mut Graph, id: NodeId, names: &mut Names) -> Vec<NodeId> {
        let call = &graph[id];
        let result = call.outputs().iter().flatten().next();
        let prefix = match result {
            Some(&result) if call.name.is_empty() => graph[result].name().to_owned(),
            _ => call.name.clone(),
        };
        let source = call.origin.source.clone();
        let (operands, results) = (call.inputs().to_vec(), call.outputs().to_vec());
        let mut outside: HashMap<ValueId, ValueId> = HashMap::new();
        for (index, &input) in self.body.inputs().iter().enumerate() {
            if let Some(operand) = operands.get(index).copied().flatten() {
                outside.insert(input, operand);
            }
        }
        for (inner, value) in self.body.values() {
            if let Def::Constant(literal) = value.def() {
                let name = names.fresh(&format!("{prefix}/{}", value.name()));
                outside.insert(inner, graph.add_constant(&name, literal.tensor.clone()));
            }
        }
        let mut made = Vec::new();
        for inner in self.body.node_list() {
            made.push(self.add(graph, inner, &prefix, &mut outside, names));
            if let (Some(&node), Some(source)) = (made.last(), &source) {
                graph[node].origin.source = Some(source.clone());
            }
        }
        for (result, inner) in results.into_iter().zip(self.body.outputs()) {
            if let (Some(result), Some(&new)) = (result, outside.get(inner)) {
                if graph[new].ty.is_none() {
                    graph[new].ty = graph[result].ty.clone();
                }
                graph.replace(result, new);
            }
        }
        made
    }

    /// Adds one node.
    fn add(
        &mut self,
        graph: &mut Graph,
        inner: NodeId,
        prefix: &str,
        outside: &mut HashMap<ValueId, ValueId>,
        names: &mut Names,
    ) -> NodeId {
        let mut node = self.body[inner].clone();
        for subgraph in node.subgraphs_mut() {
            subgraph.map_captured(outside);
            rename(subgraph, prefix, names);
        }
        for attribute in &mut node.attributes {
            give_graph(attribute, &self.attributes);
        }
        let inputs = node.inputs().iter();
        let mut inputs: Vec<Option<ValueId>> = inputs.map(|input| outside.get(&(*input)?).copied()).collect();
        while inputs.len() > 1 && inputs.last() == Some(&None) {
            inputs.pop();
        }
        let outputs = node.outputs().iter();
        let outputs: Vec<Option<String>> = outputs
            .map(|output| Some(names.fresh(&format!("{prefix}/{}", self.body[(*output)?].name()))))
            .collect();
        let outputs: Vec<Option<&str>> = outputs.iter().map(Option::as_deref).collect();
        // The names are new in the whole model.
        let Ok(made) = graph.add_node(node.op.clone(), &inputs, &outputs, node.attributes.clone()) else {
            unreachable!("fresh names of {prefix}")
        };
        if !node.name.is_empty() {
            graph[made].name = format!("{prefix}/{}", node.name);
        }
        graph[made].overload.clone_from(&node.overload);
        graph[made].remainder = node.remainder.clone();
        graph[made].origin = Origin {
            source: node.origin.source.clone(),
            ..graph[made].origin.clone()
        };
        for (&old, new) in node.outputs().iter().zip(graph[made].outputs().to_vec()) {
            if let (Some(old), Some(new)) = (old, new) {
                graph[new].ty = self.body[old].ty.clone().map(without_symbols);
                outside.insert(old, new);
            }
        }
        made
    }
}

fn count(graph: &Graph) -> usize {
    let inner = graph.nodes().flat_map(|(_, node)| node.subgraphs());
    graph.node_ids().count() + inner.map(count).sum::<usize>()
}

fn depth(graph: &Graph) -> usize {
    let inner = graph.nodes().flat_map(|(_, node)| node.subgraphs());
    inner.map(|inner| 1 + depth(inner)).max().unwrap_or(0)
}

/// A symbol of a function need not mean what it means in the model.
fn without_symbols(ty: TensorType) -> TensorType {
    let known = |dim| if let Dim::Symbol(_) = dim { Dim::Unknown } else { dim };
    TensorType {
        shape: ty.shape.map(|dims| dims.into_iter().map(known).collect()),
        ..ty
    }
}

/// Gives the values of a subgraph, and of those in it, names that are new in the whole model.
fn rename(subgraph: &mut Graph, prefix: &str, names: &mut Names) {
    let own = subgraph
        .values()
        .filter(|(_, value)| !matches!(value.def(), Def::Captured(_)));
    for value in own.map(|(id, _)| id).collect::<Vec<_>>() {
        let name = names.fresh(&format!("{prefix}/{}", subgraph[value].name()));
        subgraph.rename(value, &name);
    }
    for id in subgraph.node_list() {
        for inner in subgraph[id].subgraphs_mut() {
            rename(inner, prefix, names);
        }
    }
}

/// Where a reference stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Body,
    Subgraph,
}

/// Puts the values of `attributes` in the place of the references to them; graphs, whose captured values are the caller's, stay referred to.
fn resolve(graph: &mut Graph, attributes: &[Attribute], place: Place) -> Result<(), String> {
    for id in graph.node_list() {
        let mut resolved = Vec::with_capacity(graph[id].attributes.len());
        for attribute in std::mem::take(&mut graph[id].attributes) {
            let Attr::Reference { name, .. } = &attribute.value else {
                resolved.push(attribute);
                continue;
            };
            let given = attributes.iter().find(|given| given.name == *name);
            match given.map(|given| &given.value) {
                None => {}
                Some(Attr::Graph(_) | Attr::Graphs(_)) if place == Place::Body => resolved.push(attribute),
                Some(Attr::Graph(_) | Attr::Graphs(_)) => {
                    return Err(format!("a subgraph refers to the graph '{name}' of the call"));
                }
                Some(Attr::Opaque(_)) => return Err(format!("lsqc cannot take the attribute '{name}' apart")),
                Some(value) => resolved.push(Attribute {
                    name: attribute.name,
                    value: value.clone(),
                    remainder: Remainder::new(),
                }),
            }
        }
        graph[id].attributes = resolved;
        for inner in graph[id].subgraphs_mut() {
            resolve(inner, attributes, Place::Subgraph)?;
        }
    }
    Ok(())
}

/// Puts the call's graph in the place of a reference to it.
fn give_graph(attribute: &mut Attribute, given: &[Attribute]) {
    if let Attr::Reference { name, .. } = &attribute.value
        && let Some(given) = given.iter().find(|given| given.name == *name)
    {
        attribute.value = given.value.clone();
        attribute.remainder = Remainder::new();
    }
}

/// The domains of the ops in a graph, but for those of functions of the model.
fn domains(graph: &Graph, library: &Library) -> HashSet<String> {
    let mut found = HashSet::new();
    for (_, node) in graph.nodes() {
        if library.find(node).is_none() {
            let default = node.op.in_default_domain();
            found.insert(if default {
                String::new()
            } else {
                node.op.domain.clone().into_owned()
            });
        }
        found.extend(node.subgraphs().flat_map(|inner| domains(inner, library)));
    }
    found
}

/// The body in the operator sets of the model.
fn upgraded(function: &Function, mut body: Graph, library: &Library, cx: &PassCx) -> Result<Graph, String> {
    let used = domains(&body, library);
    let mut older = false;
    for import in &function.opset_imports {
        let default = import.domain.is_empty() || import.domain == "ai.onnx";
        let domain = if default { "" } else { import.domain.as_str() };
        let (own, Some(model)) = (import.version, library.version(domain)) else {
            continue;
        };
        if own == model || !used.contains(domain) {
            continue;
        }
        if !default {
            return Err(format!("it is of version {own} of {domain}, the model of {model}"));
        }
        if own > model {
            return Err(format!("it is of operator set {own}, the model of {model}"));
        }
        older = true;
    }
    let target = library.version("").filter(|_| older);
    let Some(target) = target else { return Ok(body) };
    body.sort();
    let mut alone = Model {
        ir_version: 0,
        opset_imports: function.opset_imports.clone(),
        metadata: vec![],
        graph: body,
        functions: vec![],
        remainder: Remainder::new(),
    };
    let mut own = PassCx::new(cx.evaluator);
    own.set(TargetOpset(target));
    (UPGRADE_OPSET.run)(&mut alone, &mut own).map_err(|why| why.to_string())?;
    alone.graph.sort();
    Ok(alone.graph)
}
