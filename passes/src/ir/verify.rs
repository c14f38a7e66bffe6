//! What must always hold of a graph. The pass runner checks it after every pass.
//!
//! 1. Every operand, result, input, output and initializer is a value that is there.
//! 2. A value's name is not empty, no other value of the graph has it, and it finds the value.
//! 3. A value says who makes it, and that node lists it at that place; its uses are just the places where nodes take it.
//! 4. Every node stands after those whose results it uses: there is no cycle.
//! 5. Every constant and every input with a default is an initializer, and nothing else is.
//! 6. What a subgraph captures is there in the graph around it, and the same holds of every subgraph.
//! 7. There is an output (of the outermost graph).

use std::collections::{HashMap, HashSet};

use super::graph::Graph;
use super::node::NodeId;
use super::value::{Def, Use, ValueId};

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct VerifyError {
    /// The node at fault, if one is.
    pub node: Option<NodeId>,
    /// Which invariant, with names.
    pub message: String,
}

/// Checks every invariant of a model's main graph.
///
/// # Errors
/// The first that does not hold.
pub fn verify(graph: &Graph) -> Result<(), VerifyError> {
    if graph.outputs().is_empty() {
        return fail(None, "the graph has no output");
    }
    verify_graph(graph)
}

fn fail<T>(node: Option<NodeId>, message: impl Into<String>) -> Result<T, VerifyError> {
    Err(VerifyError {
        node,
        message: message.into(),
    })
}

fn verify_graph(graph: &Graph) -> Result<(), VerifyError> {
    verify_names(graph)?;
    verify_sources(graph)?;
    let uses = verify_nodes(graph)?;
    for (id, value) in graph.values() {
        let mut said = value.uses.clone();
        said.sort_unstable();
        let mut found = uses.get(&id).cloned().unwrap_or_default();
        found.sort_unstable();
        if said != found {
            return fail(
                value.producer(),
                format!("the uses of value '{}' are not those listed", value.name),
            );
        }
    }
    Ok(())
}

fn verify_names(graph: &Graph) -> Result<(), VerifyError> {
    for (id, value) in graph.values() {
        if value.name.is_empty() {
            return fail(value.producer(), "a value has no name");
        }
        if graph.find(&value.name) != Some(id) {
            return fail(value.producer(), format!("the name '{}' is given to two values", value.name));
        }
        if let Def::Node(node, index) = value.def {
            let listed = graph.contains(node) && graph[node].output(index) == Some(id);
            if !listed {
                return fail(None, format!("value '{}' names a maker that does not list it", value.name));
            }
        }
    }
    Ok(())
}

fn verify_sources(graph: &Graph) -> Result<(), VerifyError> {
    let initializers: HashSet<ValueId> = graph.initializers().iter().copied().collect();
    let inputs: HashSet<ValueId> = graph.inputs().iter().copied().collect();
    for &id in graph.inputs().iter().chain(graph.outputs()).chain(graph.initializers()) {
        if !graph.contains_value(id) {
            return fail(None, "an input, output or initializer was removed");
        }
    }
    if initializers.len() != graph.initializers().len() || inputs.len() != graph.inputs().len() {
        return fail(None, "an input or initializer is listed twice");
    }
    for (id, value) in graph.values() {
        let (input, initializer) = match value.def {
            Def::Input(None) => (true, false),
            Def::Input(Some(_)) => (true, true),
            Def::Constant(_) => (false, true),
            Def::Node(..) | Def::Captured(_) => (false, false),
        };
        if inputs.contains(&id) != input || initializers.contains(&id) != initializer {
            return fail(None, format!("value '{}' is not listed as what it is", value.name));
        }
    }
    Ok(())
}

fn verify_nodes(graph: &Graph) -> Result<HashMap<ValueId, Vec<Use>>, VerifyError> {
    let mut uses: HashMap<ValueId, Vec<Use>> = HashMap::new();
    let mut made: HashSet<NodeId> = HashSet::new();
    for id in graph.node_ids() {
        if !graph.contains(id) {
            return fail(None, "the order names a node that was removed");
        }
        let node = &graph[id];
        for subgraph in node.subgraphs() {
            verify_graph(subgraph).map_err(|error| VerifyError { node: Some(id), ..error })?;
        }
        let taken = node
            .inputs
            .iter()
            .enumerate()
            .filter_map(|(index, value)| Some((index, (*value)?)));
        let captured: Vec<ValueId> = node.subgraphs().flat_map(Graph::captured).collect();
        for (index, value) in taken.chain(captured.into_iter().map(|value| (usize::MAX, value))) {
            if !graph.contains_value(value) {
                return fail(
                    Some(id),
                    format!("node '{}' uses a value that was removed", node.label(graph)),
                );
            }
            if let Def::Node(producer, _) = graph[value].def
                && !made.contains(&producer)
            {
                let (label, name) = (node.label(graph), graph[value].name());
                return fail(
                    Some(id),
                    format!("node '{label}' uses '{name}' before it is made: the graph has a cycle"),
                );
            }
            uses.entry(value).or_default().push(Use { node: id, index });
        }
        for (index, value) in node.outputs.iter().enumerate() {
            let Some(value) = value else { continue };
            if !graph.contains_value(*value) || graph[*value].def != Def::Node(id, index) {
                return fail(
                    Some(id),
                    format!("node '{}' lists a result that is not its own", node.label(graph)),
                );
            }
        }
        if !made.insert(id) {
            return fail(Some(id), format!("node '{}' stands twice in the order", node.label(graph)));
        }
    }
    if made.len() != graph.nodes.iter().flatten().count() {
        return fail(None, "a node is not in the order");
    }
    Ok(uses)
}
