//! Lets a float graph compute in double precision: the referee between two single-precision computations that round differently.
//!
//! Every float constant, input and Cast becomes double. A Gemm becomes MatMul and Add, because the embedded engine has no Gemm in doubles.
//! It refuses graphs with ops outside the default domain.

use crate::ir::{Attr, Attribute, DType, Def, Graph, Literal, Model, NodeId, Op, Tensor, ValueId};
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
    for id in graph.node_list() {
        if graph[id].op.is("Gemm") {
            spell_gemm(graph, id).map_err(|why| PassError::at(graph, id, why))?;
        }
    }
    Ok(Changed::Yes)
}

/// Y = α·A'·B' + β·C in MatMul, Mul and Add.
fn spell_gemm(graph: &mut Graph, id: NodeId) -> Result<(), &'static str> {
    let node = graph[id].clone();
    let (Some(a), Some(b), Some(y)) = (node.input(0), node.input(1), node.output(0)) else {
        return Err("an operand is missing");
    };
    let base = graph[y].name().to_owned();
    let turned = |graph: &mut Graph, value: ValueId, name: &str| {
        if node.int(name).unwrap_or(0) == 0 {
            return value;
        }
        graph.insert(
            Op::onnx("Transpose"),
            &[value],
            vec![Attribute::new("perm", vec![1, 0])],
            &format!("{base}/{name}"),
        )
    };
    let scaled = |graph: &mut Graph, value: ValueId, name: &str| match node.float(name) {
        #[allow(clippy::float_cmp)]
        Some(factor) if factor != 1.0 => {
            let factor = graph.add_constant(&format!("{base}/{name}"), Tensor::scalar(f64::from(factor)));
            graph.insert(Op::onnx("Mul"), &[value, factor], vec![], &format!("{base}/scaled"))
        }
        _ => value,
    };
    let (a, b) = (turned(graph, a, "transA"), turned(graph, b, "transB"));
    let product = graph.insert(Op::onnx("MatMul"), &[a, b], vec![], &format!("{base}/product"));
    let mut result = scaled(graph, product, "alpha");
    if let Some(c) = node.input(2) {
        let c = scaled(graph, c, "beta");
        result = graph.insert(Op::onnx("Add"), &[result, c], vec![], &format!("{base}/sum"));
    }
    graph[result].ty = graph[y].ty.clone();
    graph.replace(y, result);
    graph.remove_node(id);
    Ok(())
}

fn widened(tensor: &Tensor) -> Option<Tensor> {
    let values = tensor.values::<f32>()?;
    Some(Tensor::new(tensor.shape(), values.iter().map(|&v| f64::from(v)).collect()))
}
