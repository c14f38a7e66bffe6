//! Types every value, forward through the op table.
//!
//! A result takes the more exact of its declared and its inferred type, dimension by dimension; where the two contradict each other the
//! inferred one stands, because exporters leave stale shapes behind. Integer vectors that hold dimensions (`Shape → Gather → Concat`) are
//! followed element by element, so that a symbolic batch does not hide the rest of a shape. Ops without an entry keep what is declared.

use std::collections::HashMap;

use crate::ir::{Dim, Model, TensorType, ValueId};
use crate::ops::{self, InferCx};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static INFER_TYPES: Pass = Pass {
    name: "infer-types",
    about: "type every value, forward through the op table",
    needs: "any graph",
    gives: "a type for every value that the table's rules reach",
    run,
};

fn run(model: &mut Model, _: &mut PassCx) -> Result<Changed, PassError> {
    let before: Vec<Option<TensorType>> = model.graph.values().map(|(_, value)| value.ty.clone()).collect();
    infer(model)?;
    let same = model.graph.values().map(|(_, value)| &value.ty).eq(before.iter());
    Ok(Changed::from(!same))
}

/// What inference learned beyond types.
#[derive(Clone, Debug, Default)]
pub struct Inferred {
    /// Integer values whose elements are dimensions.
    pub dims: HashMap<ValueId, Vec<Dim>>,
}

/// Types every value of the main graph, in place.
///
/// # Errors
/// If the operands of a node contradict each other.
pub fn infer(model: &mut Model) -> Result<Inferred, PassError> {
    let opset = model.opset();
    let graph = &mut model.graph;
    let mut inferred = Inferred::default();
    for id in graph.node_list() {
        let Some(entry) = ops::lookup(&graph[id].op) else { continue };
        let cx = InferCx::new(graph, id, &inferred.dims, opset);
        let types = (entry.infer)(&cx).map_err(|error| PassError::at(graph, id, error))?;
        let held = entry.shape_value.and_then(|rule| rule(&cx));
        let outputs = graph[id].outputs().to_vec();
        for (output, ty) in outputs.iter().zip(types) {
            if let (Some(output), Some(ty)) = (*output, ty) {
                let merged = merge(graph[output].ty.as_ref(), ty);
                graph[output].ty = Some(merged);
            }
        }
        if let (Some(output), Some(held)) = (graph[id].output(0), held) {
            inferred.dims.insert(output, held);
        }
    }
    Ok(inferred)
}

fn merge(declared: Option<&TensorType>, inferred: TensorType) -> TensorType {
    let Some(declared) = declared.filter(|declared| declared.dtype == inferred.dtype) else {
        return inferred;
    };
    let shape = match (&declared.shape, inferred.shape) {
        (Some(old), None) => Some(old.clone()),
        (Some(old), Some(new)) if old.len() == new.len() => {
            Some(old.iter().zip(new).map(|(old, new)| sharper(old, new)).collect())
        }
        (_, new) => new,
    };
    TensorType {
        dtype: inferred.dtype,
        shape,
    }
}

/// The inferred dimension, unless only the declaration knows one.
fn sharper(declared: &Dim, inferred: Dim) -> Dim {
    match (declared, inferred) {
        (declared, Dim::Unknown) => declared.clone(),
        (Dim::Known(extent), Dim::Symbol(_)) => Dim::Known(*extent),
        (_, inferred) => inferred,
    }
}
