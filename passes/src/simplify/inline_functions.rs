//! Puts the body of a function of the model in the place of each node that calls it.
//!
//! Exporters write a function for each module (torch.onnx), layer or composed op, and what stands in a function is neither typed nor
//! quantized. Operands, results and attributes of the call take the place of the function's (ONNX, `FunctionProto`): a reference to an
//! attribute gives what the call says, else the default, else the attribute is left out; an input that the call leaves out is an operand
//! that is left out. Functions that call functions, and calls in subgraphs, are treated alike. Values take names that are new in the
//! whole model. A body of an older operator set is upgraded. Functions that nothing calls any longer are dropped.
//!
//! Left alone, with a note: a call of a function that calls itself, that cannot be read or that stands in the model twice; one that has more
//! operands or results than the function; one of a newer operator set, of another version of another domain, or of an older set that
//! cannot be upgraded; graphs nested too deep; a graph as an attribute, referred to in a subgraph; a subgraph that captures an input which the call leaves out.

mod call;
mod library;

use std::collections::HashSet;

use crate::ir::{Graph, Model, NodeId};
use crate::pass::{Changed, Pass, PassCx, PassError};
use call::Call;
use library::Library;

/// The pass.
pub static INLINE_FUNCTIONS: Pass = Pass {
    name: "inline-functions",
    about: "put the bodies of the model's functions in the place of the nodes that call them",
    needs: "any graph",
    gives: "no node calls a function that can be inlined, and every function is called",
    run,
};

/// Graphs in graphs that calls may turn into; a file that has more of them cannot be read.
const DEPTH: usize = 32;

/// Nodes that calls may turn into: a few functions that call each other twice make any number of them.
const MOST: usize = 1 << 18;

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    if model.functions.is_empty() {
        return Ok(Changed::No);
    }
    let functions = std::mem::take(&mut model.functions);
    let mut work = Work {
        library: Library::new(&functions, model),
        names: Names::default(),
        left: MOST,
        depth: 0,
        imports: Vec::new(),
    };
    work.names.collect(&model.graph);
    let inlined = work.graph(&mut model.graph, cx);
    let imports = std::mem::take(&mut work.imports);
    let kept = work.library.called(&model.graph);
    let dropped = kept.iter().any(|kept| !kept);
    for (domain, version) in imports {
        model.set_opset(&domain, version);
    }
    let mut kept = kept.into_iter();
    model.functions = functions;
    let before: HashSet<String> = model.functions.iter().map(|function| function.domain.clone()).collect();
    model.functions.retain(|_| kept.next().unwrap_or(true));
    super::forget_domains(model, &before);
    Ok(Changed::from(inlined? || dropped))
}

/// The names that values of the model have, in all its graphs.
#[derive(Default)]
struct Names(HashSet<String>);

impl Names {
    fn collect(&mut self, graph: &Graph) {
        self.0.extend(graph.values().map(|(_, value)| value.name().to_owned()));
        for (_, node) in graph.nodes() {
            node.subgraphs().for_each(|inner| self.collect(inner));
        }
    }

    /// `base`, or `base` and a number: a name that no value has, and which is taken then.
    fn fresh(&mut self, base: &str) -> String {
        let numbered = (1u64..).map(|n| format!("{base}_{n}"));
        let mut names = std::iter::once(base.to_owned()).chain(numbered);
        let name = names.find(|name| !self.0.contains(name)).unwrap_or_default();
        self.0.insert(name.clone());
        name
    }
}

struct Work<'a> {
    library: Library<'a>,
    names: Names,
    /// Nodes that may still be added.
    left: usize,
    /// How many graphs are around the one that is being worked on.
    depth: usize,
    /// Operator sets that bodies need and the model does not import.
    imports: Vec<(String, i64)>,
}

impl Work<'_> {
    /// Inlines the calls of a graph and of the graphs in it; tells whether there were any.
    fn graph(&mut self, graph: &mut Graph, cx: &mut PassCx) -> Result<bool, PassError> {
        let mut pending: Vec<NodeId> = graph.node_list();
        pending.reverse();
        let mut replaced = Vec::new();
        let mut changed = false;
        while let Some(id) = pending.pop() {
            self.depth += 1;
            for inner in graph[id].subgraphs_mut() {
                changed |= self.graph(inner, cx)?;
            }
            self.depth -= 1;
            let Some(function) = self.library.find(&graph[id]) else {
                continue;
            };
            let call = function.and_then(|function| Call::prepare(function, graph, id, &self.library, cx));
            let call = call.and_then(|call| match self.depth + call.depth() {
                DEPTH.. => Err(format!("graphs would be nested {DEPTH} deep")),
                _ => Ok(call),
            });
            let call = match call {
                Ok(call) => call,
                Err(why) => {
                    cx.note(graph, id, format!("it calls a function that stays: {why}"));
                    continue;
                }
            };
            let Some(left) = self.left.checked_sub(call.nodes()) else {
                let error = format!("the model's functions come to more than {MOST} nodes");
                return Err(PassError::at(graph, id, error).help("export the model without functions"));
            };
            self.left = left;
            for (domain, version) in call.imports(&self.library) {
                self.library.import(&domain, version);
                self.imports.push((domain, version));
            }
            let made = call.put_in_place(graph, id, &mut self.names);
            pending.extend(made.into_iter().rev());
            replaced.push(id);
        }
        changed |= graph.remove_nodes(&replaced) > 0;
        graph.sort();
        Ok(changed)
    }
}
