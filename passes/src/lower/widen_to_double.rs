//! Lets a float graph compute in double precision: the referee between two single-precision computations that round differently.
//!
//! Every float constant, input and Cast becomes double. It refuses graphs with ops outside the default domain.

use crate::ir::{Attr, Attribute, DType, Def, Literal, Model, Tensor};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static WIDEN_TO_DOUBLE: Pass = Pass {
    name: "widen-to-double",
    about: "let every float of the graph be a double",
    needs: "ops of the default domain only",
    gives: "the same graph in double precision",
    run,
};

fn run(model: &mut Model, _: &mut PassCx) -> Result<Changed, PassError> {
    let graph = &mut model.graph;
    let values: Vec<_> = graph.values().map(|(id, _)| id).collect();
    for id in values {
        let wide = match graph[id].def() {
            Def::Constant(Literal { tensor, .. }) | Def::Input(Some(Literal { tensor, .. })) => widened(tensor),
            _ => None,
        };
        if let Some(wide) = wide {
            graph.set_literal(id, wide);
        }
        if let Some(ty) = &mut graph[id].ty
            && ty.dtype == DType::F32
        {
            ty.dtype = DType::F64;
        }
    }
    for id in graph.node_list() {
        if !graph[id].op.in_default_domain() {
            return Err(PassError::at(graph, id, "has no double-precision form"));
        }
        for Attribute { name, value, .. } in &mut graph[id].attributes {
            match value {
                Attr::Int(code) if name == "to" && *code == i64::from(DType::F32.code()) => *code = i64::from(DType::F64.code()),
                Attr::Tensor(literal) => {
                    if let Some(wide) = widened(&literal.tensor) {
                        *literal = wide.into();
                    }
                }
                _ => {}
            }
        }
    }
    Ok(Changed::Yes)
}

fn widened(tensor: &Tensor) -> Option<Tensor> {
    let values = tensor.values::<f32>()?;
    Some(Tensor::new(tensor.shape(), values.iter().map(|&v| f64::from(v)).collect()))
}
