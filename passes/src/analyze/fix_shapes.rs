//! Gives the model's inputs fixed extents, so that every shape in a step graph is a number.

use std::collections::BTreeMap;

use crate::ir::{Dim, Model, TensorType};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static FIX_SHAPES: Pass = Pass {
    name: "fix-shapes",
    about: "give inputs the extents that InputShapes names",
    needs: "any graph",
    gives: "inputs of fixed shape; infer-types carries it on",
    run,
};

/// The shapes of inputs, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputShapes(pub BTreeMap<String, Vec<usize>>);

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let shapes: InputShapes = cx.get();
    let graph = &mut model.graph;
    let mut changed = false;
    let mut extents = Extents::default();
    for (name, shape) in &shapes.0 {
        let Some(input) = graph.find(name).filter(|input| graph.inputs().contains(input)) else {
            return Err(PassError::new(format!("the model has no input '{name}'")));
        };
        let Some(ty) = &graph[input].ty else {
            return Err(PassError::new(format!("input '{name}' has no type")));
        };
        let declared = ty.shape.clone().unwrap_or_else(|| vec![Dim::Unknown; shape.len()]);
        let fits = |(have, &want): (&Dim, &usize)| have.known().is_none_or(|have| have == want);
        if declared.len() != shape.len() || !declared.iter().zip(shape).skip(1).all(fits) {
            return Err(PassError::new(format!(
                "input '{name}' is {ty}, which shape {shape:?} does not fit"
            )));
        }
        extents.learn(&declared, shape);
        let fixed = TensorType::fixed(ty.dtype, shape);
        changed |= graph[input].ty.as_ref() != Some(&fixed);
        graph[input].ty = Some(fixed);
    }
    graph.retype_results(|ty| ty.shape = ty.shape.take().and_then(|shape| extents.fix(shape)));
    Ok(Changed::from(changed))
}

/// What the symbols of the inputs' shapes stand for now.
#[derive(Debug, Default)]
struct Extents {
    symbols: BTreeMap<String, usize>,
    /// Has an extent that was a number become another?
    changed: bool,
}

impl Extents {
    fn learn(&mut self, declared: &[Dim], fixed: &[usize]) {
        for (dim, &extent) in declared.iter().zip(fixed) {
            match dim {
                Dim::Symbol(symbol) => {
                    self.symbols.insert(symbol.to_string(), extent);
                }
                Dim::Known(known) => self.changed |= *known != extent,
                Dim::Unknown => {}
            }
        }
    }

    /// The shape of an inner value with numbers for symbols. What was declared for other extents says nothing.
    fn fix(&self, shape: Vec<Dim>) -> Option<Vec<Dim>> {
        let fix = |dim: Dim| match dim {
            Dim::Symbol(symbol) => self.symbols.get(&symbol).map_or(Dim::Unknown, |&extent| Dim::Known(extent)),
            dim => dim,
        };
        (!self.changed).then(|| shape.into_iter().map(fix).collect())
    }
}
