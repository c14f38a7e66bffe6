//! Puts the branch that is taken in the place of an If whose condition is a constant.
//!
//! Exporters write an If where a shape decides (Squeeze of an axis that may be 1), or an input that never changes in use (a sampling rate).
//! Once the condition is known the branch's nodes stand in the graph around it, constants are folded again, and Ifs whose condition is
//! known by then follow. Values of the branch take fresh names; outputs of the graph keep theirs.
//!
//! Left alone: an If whose condition is computed at run time.

use std::collections::HashMap;

use super::{FOLD_CONSTANTS, FOLD_SHAPES, LIFT_CONSTANTS};
use crate::ir::{Attr, Def, Graph, Model, NodeId, ValueId};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static INLINE_BRANCHES: Pass = Pass {
    name: "inline-branches",
    about: "put the branch that is taken in the place of an If whose condition is a constant",
    needs: "constants are folded",
    gives: "no If of the main graph has a constant condition",
    run,
};

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let mut changed = false;
    loop {
        let graph = &mut model.graph;
        let mut inlined = false;
        for id in graph.node_list() {
            if let Some(branch) = taken(graph, id) {
                inline(graph, id, &branch).map_err(|why| PassError::at(graph, id, why))?;
                inlined = true;
            }
        }
        if !inlined {
            return Ok(Changed::from(changed));
        }
        changed = true;
        graph.sort();
        for pass in [&LIFT_CONSTANTS, &FOLD_SHAPES, &FOLD_CONSTANTS] {
            (pass.run)(model, cx)?;
            model.graph.sort();
        }
    }
}

/// The branch that is surely taken.
fn taken(graph: &Graph, id: NodeId) -> Option<Graph> {
    let node = &graph[id];
    if !node.op.is("If") {
        return None;
    }
    let condition = graph.constant_input(id, 0)?.bytes().first()?;
    let name = if *condition == 0 { "else_branch" } else { "then_branch" };
    match node.attr(name)? {
        Attr::Graph(branch) => Some(branch.as_ref().clone()),
        _ => None,
    }
}

fn inline(graph: &mut Graph, id: NodeId, branch: &Graph) -> Result<(), String> {
    let mut outside: HashMap<ValueId, ValueId> = HashMap::new();
    for (inner, value) in branch.values() {
        match value.def() {
            Def::Captured(outer) => {
                outside.insert(inner, *outer);
            }
            Def::Constant(literal) => {
                let constant = graph.add_constant(value.name(), literal.tensor.clone());
                outside.insert(inner, constant);
            }
            Def::Input(_) => return Err(format!("its branch has the input '{}'", value.name())),
            Def::Node(..) => {}
        }
    }
    for (_, node) in branch.nodes() {
        let inputs: Vec<Option<ValueId>> = node
            .inputs()
            .iter()
            .map(|input| input.and_then(|input| outside.get(&input).copied()))
            .collect();
        let mut copied = node.clone();
        copied.subgraphs_mut().for_each(|inner| inner.map_captured(&outside));
        let mut names = Vec::with_capacity(node.outputs().len());
        for output in node.outputs() {
            names.push(output.map(|output| graph.fresh_name(branch[output].name())));
        }
        let names: Vec<Option<&str>> = names.iter().map(Option::as_deref).collect();
        let made = graph
            .add_node(node.op.clone(), &inputs, &names, copied.attributes)
            .map_err(|why| why.to_string())?;
        graph[made].name.clone_from(&node.name);
        graph[made].origin = node.origin.clone();
        for (inner, outer) in node.outputs().iter().zip(graph[made].outputs().to_vec()) {
            if let (Some(inner), Some(outer)) = (*inner, outer) {
                graph[outer].ty = branch[inner].ty.clone();
                outside.insert(inner, outer);
            }
        }
    }
    let results = graph[id].outputs().to_vec();
    for (result, inner) in results.into_iter().zip(branch.outputs()) {
        let Some(result) = result else { continue };
        let new = outside
            .get(inner)
            .copied()
            .ok_or("its branch gives a value that is not in it")?;
        graph.replace(result, new);
    }
    graph.remove_node(id);
    Ok(())
}
