//! The order of a graph's nodes, before they become nodes of the IR.
//!
//! ONNX wants each node after those whose results it takes, itself or in its subgraphs. Where a file has them otherwise, an order is
//! found that keeps to the file's as far as it can; where there is none, the cycle is named.

use std::collections::{HashMap, HashSet};

use super::error::ReadError;
use super::proto::{GraphProto, NodeProto};

/// How a node is called in messages: its name, or its op and first result.
pub(super) fn label(node: &NodeProto) -> String {
    if !node.name().is_empty() {
        return node.name().to_owned();
    }
    let op = if node.domain().is_empty() {
        node.op_type().to_owned()
    } else {
        format!("{}.{}", node.domain(), node.op_type())
    };
    match node.output.iter().find(|name| !name.is_empty()) {
        Some(output) => format!("{op} -> {output}"),
        None => op,
    }
}

/// The places of the nodes in a valid order, and the first node that stood too early, if one did.
pub(super) struct Order {
    /// The places.
    pub places: Vec<usize>,
    /// The node.
    pub early: Option<String>,
}

/// Finds the order.
///
/// # Errors
/// If a node's result has the name of another's or of a source, or nodes form a cycle.
pub(super) fn order(graph: &GraphProto) -> Result<Order, ReadError> {
    let makers = makers(graph)?;
    let needs: Vec<Vec<usize>> = graph.node.iter().map(|node| needs(node, &makers)).collect();
    let early = (0..)
        .zip(&needs)
        .find(|(place, needs)| needs.iter().any(|need| need >= place));
    let Some((early, _)) = early else {
        return Ok(Order {
            places: (0..graph.node.len()).collect(),
            early: None,
        });
    };
    let places = sort(&needs).map_err(|cycle| ReadError::Cycle {
        nodes: cycle.iter().filter_map(|&place| graph.node.get(place)).map(label).collect(),
    })?;
    Ok(Order {
        places,
        early: graph.node.get(early).map(label),
    })
}

fn makers(graph: &GraphProto) -> Result<HashMap<&str, usize>, ReadError> {
    let mut makers = HashMap::new();
    let inputs = graph.input.iter().map(|input| (input.name(), "an input"));
    let constants = graph
        .initializer
        .iter()
        .map(|initializer| (initializer.name(), "an initializer"));
    let sparse = graph.sparse_initializer.iter().flat_map(|sparse| &sparse.values);
    let sparse = sparse.map(|values| (values.name(), "a sparse initializer"));
    let sources: HashMap<&str, &str> = sparse.chain(constants).chain(inputs).collect();
    let maker = |place: usize| {
        graph
            .node
            .get(place)
            .map_or_else(String::new, |node| format!("node '{}'", label(node)))
    };
    for (place, node) in graph.node.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            let source = sources.get(name.as_str()).map(|&source| source.to_owned());
            let other = makers.insert(name.as_str(), place).map(maker);
            if let Some(first) = source.or(other) {
                return Err(ReadError::Duplicate {
                    name: name.clone(),
                    first,
                    second: maker(place),
                });
            }
        }
    }
    Ok(makers)
}

/// The nodes whose results `node` takes.
fn needs(node: &NodeProto, makers: &HashMap<&str, usize>) -> Vec<usize> {
    let mut names: HashSet<&str> = node.input.iter().map(String::as_str).collect();
    subgraphs(node).for_each(|graph| free_names(graph, &mut names));
    let mut needs: Vec<usize> = names.into_iter().filter_map(|name| makers.get(name).copied()).collect();
    needs.sort_unstable();
    needs
}

fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute
        .iter()
        .filter(|attribute| attribute.ref_attr_name().is_empty())
        .flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
}

/// The names that a graph takes from the graphs around it.
fn free_names<'a>(graph: &'a GraphProto, free: &mut HashSet<&'a str>) {
    let mut used: HashSet<&str> = graph.output.iter().map(|output| output.name()).collect();
    for node in &graph.node {
        used.extend(node.input.iter().map(String::as_str));
        subgraphs(node).for_each(|graph| free_names(graph, &mut used));
    }
    for node in &graph.node {
        node.output.iter().for_each(|name| {
            used.remove(name.as_str());
        });
    }
    for input in &graph.input {
        used.remove(input.name());
    }
    for initializer in &graph.initializer {
        used.remove(initializer.name());
    }
    for values in graph.sparse_initializer.iter().flat_map(|sparse| &sparse.values) {
        used.remove(values.name());
    }
    free.extend(used);
}

/// A depth-first order; in error the nodes of a cycle, each needed by the next.
fn sort(needs: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; needs.len()];
    let mut sorted = Vec::with_capacity(needs.len());
    for root in 0..needs.len() {
        let mut stack = vec![(root, 0)];
        while let Some((place, next)) = stack.last_mut() {
            let place = *place;
            let (Some(mark), Some(list)) = (marks.get_mut(place), needs.get(place)) else {
                break;
            };
            if *mark == Mark::Done {
                stack.pop();
                continue;
            }
            *mark = Mark::Open;
            let Some(&need) = list.get(*next) else {
                *mark = Mark::Done;
                sorted.push(place);
                stack.pop();
                continue;
            };
            *next += 1;
            match marks.get(need) {
                Some(Mark::New) => stack.push((need, 0)),
                Some(Mark::Open) => {
                    let cycle = stack.iter().map(|&(place, _)| place).skip_while(|&place| place != need);
                    return Err(cycle.collect::<Vec<_>>().into_iter().rev().collect());
                }
                _ => {}
            }
        }
    }
    Ok(sorted)
}
