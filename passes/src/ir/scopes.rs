//! Graphs under construction, one inside the other, and what a name means in the innermost.

use super::graph::Graph;
use super::value::ValueId;

/// A stack of graphs: the outermost first, each in an attribute of a node (not yet added) of the one before it.
#[derive(Debug, Default)]
pub struct Scopes {
    graphs: Vec<Graph>,
}

impl Scopes {
    /// Begins a graph inside the innermost one.
    pub fn push(&mut self, graph: Graph) {
        self.graphs.push(graph);
    }

    /// Ends the innermost graph and gives it; an empty one if none was begun.
    pub fn pop(&mut self) -> Graph {
        self.graphs.pop().unwrap_or_default()
    }

    /// How many graphs stand one inside the other.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.graphs.len()
    }

    /// The innermost graph; begins one if there is none.
    pub fn graph(&mut self) -> &mut Graph {
        if self.graphs.is_empty() {
            self.graphs.push(Graph::default());
        }
        let last = self.graphs.len() - 1;
        &mut self.graphs[last]
    }

    /// The innermost graph's value of this name; a value of a graph around it is captured, level by level.
    pub fn resolve(&mut self, name: &str) -> Option<ValueId> {
        resolve(&mut self.graphs, name)
    }
}

fn resolve(graphs: &mut [Graph], name: &str) -> Option<ValueId> {
    let (graph, around) = graphs.split_last_mut()?;
    if let Some(id) = graph.find(name) {
        return Some(id);
    }
    let outer = resolve(around, name)?;
    let ty = around.last()?[outer].ty.clone();
    graph.add_captured(name, outer, ty).ok()
}
