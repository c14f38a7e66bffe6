//! Opens a batch that the exporter fixed: the first axis of every input becomes the axis `batch`.
//!
//! What was declared of inner values held for the old batch and is dropped. Exporters write the batch as a number into the shapes of
//! Reshape; where such a shape begins with it and so does the operand's, a 0 stands there instead, which hands the operand's extent on.
//!
//! It refuses graphs whose inputs do not all begin with one extent, nodes with subgraphs, and graphs of which an output then has no batch.
//! That samples do not see each other it cannot know: the caller compares.

use crate::analyze;
use crate::ir::{Dim, Model, Tensor, ValueId};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static FREE_BATCH: Pass = Pass {
    name: "free-batch",
    about: "make the fixed first axis of all inputs a symbolic batch",
    needs: "types are inferred; every input's first axis has one and the same extent",
    gives: "inputs and outputs with a symbolic first axis",
    run,
};

/// The name of the axis.
const BATCH: &str = "batch";

fn run(model: &mut Model, _: &mut PassCx) -> Result<Changed, PassError> {
    let graph = &mut model.graph;
    let first = |graph: &crate::ir::Graph, value: ValueId| graph[value].ty.as_ref()?.shape.as_ref()?.first().cloned();
    let mut extents = graph
        .inputs()
        .iter()
        .map(|&input| first(graph, input).and_then(|dim| dim.known()));
    let Some(extent) = extents.next().flatten() else {
        return Err(PassError::new("the batch is not fixed"));
    };
    if extents.any(|other| other != Some(extent)) {
        return Err(PassError::new("the inputs do not begin with one extent"));
    }
    let known: Vec<&Dim> = graph
        .inputs()
        .iter()
        .filter_map(|&input| graph[input].ty.as_ref()?.shape.as_ref())
        .flatten()
        .collect();
    let symbol = (0..).map(|turn| {
        if turn == 0 {
            BATCH.to_owned()
        } else {
            format!("{BATCH}{turn}")
        }
    });
    let taken = |name: &String| known.contains(&&Dim::Symbol(name.clone()));
    let symbol = symbol
        .into_iter()
        .find(|name| !taken(name))
        .unwrap_or_else(|| BATCH.to_owned());
    for id in graph.node_list() {
        if graph[id].subgraphs().next().is_some() {
            return Err(PassError::at(graph, id, "has subgraphs, whose shapes are not followed"));
        }
        let node = &graph[id];
        let (Some(operand), Some(shape)) = (node.input(0), node.input(1)) else {
            continue;
        };
        if !node.op.is("Reshape") || node.int("allowzero").unwrap_or(0) != 0 || first(graph, operand) != Some(Dim::Known(extent))
        {
            continue;
        }
        let Some(mut target) = graph[shape].constant().and_then(Tensor::to_i64) else {
            continue;
        };
        match target.first_mut() {
            Some(leading) if usize::try_from(*leading) == Ok(extent) => *leading = 0,
            _ => continue,
        }
        let base = format!("{}/open", graph[shape].name());
        let open = graph.add_constant(&base, Tensor::vector(target));
        graph.set_input(id, 1, Some(open));
    }
    let inputs = graph.inputs().to_vec();
    graph.retype_results(|ty| ty.shape = None);
    for input in inputs {
        if let Some(dim) = graph[input]
            .ty
            .as_mut()
            .and_then(|ty| ty.shape.as_mut())
            .and_then(|shape| shape.first_mut())
        {
            *dim = Dim::Symbol(symbol.clone());
        }
    }
    analyze::infer(model)?;
    let graph = &model.graph;
    for &output in graph.outputs() {
        let shape = graph[output].ty.as_ref().and_then(|ty| ty.shape.as_ref());
        if let Some(Some(Dim::Known(_)) | None) = shape.map(|shape| shape.first()) {
            let message = format!("the output '{}' has no batch then", graph[output].name());
            return Err(PassError::new(message));
        }
    }
    Ok(Changed::Yes)
}
