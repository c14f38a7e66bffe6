//! Replaces shape arithmetic by constants, as far as the dimensions are known.
//!
//! An integer value whose elements are all known dimensions becomes a constant. The target of a Reshape with one dimension that is not known
//! becomes a constant with −1 there: the element counts leave no other choice. A dimension that a Reshape takes over from the same axis of its
//! input is written 0, one of an Expand that its input has already is written 1; so a symbolic batch stays symbolic. Left alone: targets with
//! more unknown dimensions, and Reshape with `allowzero`.

use crate::analyze::{self, Inferred};
use crate::ir::{DType, Dim, Graph, Model, Node, Tensor, ValueId};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static FOLD_SHAPES: Pass = Pass {
    name: "fold-shapes",
    about: "replace shape arithmetic by constants",
    needs: "any graph",
    gives: "constants in place of known dimensions",
    run,
};

fn run(model: &mut Model, _: &mut PassCx) -> Result<Changed, PassError> {
    let inferred = analyze::infer(model)?;
    let graph = &mut model.graph;
    let mut changed = false;
    let values: Vec<ValueId> = graph.values().map(|(id, _)| id).collect();
    for value in values {
        if let Some(tensor) = known(graph, &inferred, value) {
            super::take_the_place(graph, value, tensor);
            changed = true;
        }
    }
    for id in graph.node_list() {
        let node = &graph[id];
        let target = if node.op.is("Reshape") {
            reshape_target(graph, &inferred, node)
        } else if node.op.is("Expand") {
            expand_target(graph, &inferred, node)
        } else {
            None
        };
        if let Some(target) = target {
            let base = node.output(0).map(|output| format!("{}/shape", graph[output].name()));
            let target = graph.add_constant(&base.unwrap_or_default(), Tensor::vector(target));
            graph.set_input(id, 1, Some(target));
            changed = true;
        }
    }
    Ok(Changed::from(changed))
}

/// The value as a constant, if a node computes it and every element is a known dimension.
fn known(graph: &Graph, inferred: &Inferred, value: ValueId) -> Option<Tensor> {
    if graph[value].producer().is_none() || graph.outputs().contains(&value) || graph[value].uses().is_empty() {
        return None;
    }
    let dims: Option<Vec<usize>> = inferred.dims.get(&value)?.iter().map(Dim::known).collect();
    let (dims, shape) = (dims?, graph[value].shape()?);
    if shape.iter().product::<usize>() != dims.len() {
        return None;
    }
    match graph[value].ty.as_ref()?.dtype {
        DType::I64 => {
            let dims: Result<Vec<i64>, _> = dims.into_iter().map(i64::try_from).collect();
            Some(Tensor::new(&shape, dims.ok()?))
        }
        DType::I32 => {
            let dims: Result<Vec<i32>, _> = dims.into_iter().map(i32::try_from).collect();
            Some(Tensor::new(&shape, dims.ok()?))
        }
        _ => None,
    }
}

/// What operand 1 of `node` holds, if a node computes it.
fn computed_target<'a>(graph: &Graph, inferred: &'a Inferred, node: &Node) -> Option<&'a [Dim]> {
    let target = node.input(1)?;
    graph[target].producer()?;
    inferred.dims.get(&target).map(Vec::as_slice)
}

fn written(dim: &Dim) -> Option<i64> {
    i64::try_from(dim.known()?).ok()
}

fn reshape_target(graph: &Graph, inferred: &Inferred, node: &Node) -> Option<Vec<i64>> {
    if node.int("allowzero").unwrap_or(0) != 0 {
        return None;
    }
    let dims = computed_target(graph, inferred, node)?;
    let from = graph[node.input(0)?]
        .ty
        .as_ref()
        .and_then(|ty| ty.shape.as_deref())
        .unwrap_or_default();
    let unknown = dims.iter().filter(|dim| dim.known().is_none()).count();
    let mut target = Vec::with_capacity(dims.len());
    for (axis, dim) in dims.iter().enumerate() {
        let copied = unknown > 1 && from.get(axis).is_some_and(|from| from.same_as(dim));
        target.push(match written(dim) {
            Some(extent) => extent,
            None if copied => 0,
            None => -1,
        });
    }
    (target.iter().filter(|&&extent| extent == -1).count() <= 1).then_some(target)
}

fn expand_target(graph: &Graph, inferred: &Inferred, node: &Node) -> Option<Vec<i64>> {
    let dims = computed_target(graph, inferred, node)?;
    let from = graph[node.input(0)?].ty.as_ref()?.shape.as_deref()?;
    let lead = dims.len().checked_sub(from.len())?;
    let extents = dims.iter().enumerate().map(|(axis, dim)| match written(dim) {
        Some(extent) => Some(extent),
        None => {
            let has_it = from.get(axis.checked_sub(lead)?)?.same_as(dim);
            has_it.then_some(1)
        }
    });
    extents.collect()
}
