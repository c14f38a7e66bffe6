//! Rules for finished quantized files: what a runtime refuses, computes otherwise, or silently runs in floats, each violation by name.
//!
//! The file may come from `lsqc` or from any other tool. A [`Rule`] is data: an id, what it says, what helps, and a function that looks.
//! Which rules hold for a target is a list ([`rules_of`]). Rules look at the graph as it is, and at the values that it knows: scales that are
//! no constants, operands that a subgraph captures and shapes that nobody knows are passed over, since a finding must be true.
//!
//! Types are inferred on a copy first; where inference fails, the types that the file declares have to do.

mod biases;
mod file;
mod fusion;
mod levels;
mod quantizers;
mod structure;
mod targets;
mod view;
mod weights;

pub use targets::rules_of;
pub use view::View;

use crate::analyze::infer;
use crate::ir::{Graph, Model, NodeId};
use crate::target::{Target, Version};

/// One thing that must hold of a file.
#[derive(Debug)]
pub struct Rule {
    /// Its name, unique among the rules.
    pub id: &'static str,
    /// What must hold, and why.
    pub says: &'static str,
    /// What to do about a violation.
    pub cure: &'static str,
    /// Looks for violations.
    pub look: Look,
}

/// Where a rule looks.
#[derive(Debug)]
pub enum Look {
    /// At the main graph and at every graph inside it, one by one.
    Graphs(fn(&View, &mut Findings)),
    /// At the whole file, once; the view is of the main graph.
    File(fn(&View, &mut Findings)),
}

/// One violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule's id.
    pub rule: &'static str,
    /// The node, as messages call it; `None` where it is about the whole file.
    pub node: Option<String>,
    /// The node's op.
    pub op: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What must hold.
    pub says: &'static str,
    /// What to do about it.
    pub cure: &'static str,
}

/// What rules have found so far.
pub struct Findings {
    rule: &'static Rule,
    list: Vec<Finding>,
}

impl Findings {
    /// Something is wrong at a node.
    pub fn at(&mut self, graph: &Graph, node: NodeId, what: impl Into<String>) {
        let label = graph[node].label(graph).into_owned();
        let op = graph[node].op.to_string();
        self.add(Some(label), Some(op), what.into());
    }

    /// Something is wrong with the whole file.
    pub fn whole(&mut self, what: impl Into<String>) {
        self.add(None, None, what.into());
    }

    fn add(&mut self, node: Option<String>, op: Option<String>, what: String) {
        self.list.push(Finding {
            rule: self.rule.id,
            node,
            op,
            what,
            says: self.rule.says,
            cure: self.rule.cure,
        });
    }
}

/// Holds a model to the rules of `target`; `runtime` is the version that must load it, where one is known. The findings come rule by rule, and
/// within a rule in the order of the graph; there are none where every rule holds.
#[must_use]
pub fn check(model: &Model, target: &'static Target, runtime: Option<Version>) -> Vec<Finding> {
    let mut typed = model.clone();
    // What is declared has to do where operands contradict each other.
    let _ = infer(&mut typed);
    let main = View::new(&typed, target, runtime);
    let mut list = Vec::new();
    for &rule in rules_of(target) {
        let mut findings = Findings { rule, list };
        match rule.look {
            Look::File(look) => look(&main, &mut findings),
            Look::Graphs(look) => each_graph(&main, &mut |view| look(view, &mut findings)),
        }
        list = findings.list;
    }
    list
}

/// Calls `visit` with the view and with those of all graphs inside.
fn each_graph(view: &View, visit: &mut dyn FnMut(&View)) {
    visit(view);
    for (_, node) in view.graph.nodes() {
        for inner in node.subgraphs() {
            each_graph(&view.inside(inner), visit);
        }
    }
}
