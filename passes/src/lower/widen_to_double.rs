//! Lets a float graph compute in double precision: the referee between two single-precision computations that round differently.
//!
//! Every float constant, input and Cast becomes double. A Gemm becomes MatMul and Add, because the embedded engine has no Gemm in doubles.
//! An engine has fewer ops in doubles than in singles; with [`Widening::Sums`] only what adds up and moves values is widened, where single
//! precision loses most, and every other op takes and gives singles between two Casts.
//! It refuses graphs with ops outside the default domain, and nodes with subgraphs where they would stand between Casts.

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

/// How much is widened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Widening {
    /// Every op.
    #[default]
    Whole,
    /// Sums, products and moves alone.
    Sums,
}

/// What [`Widening::Sums`] computes in doubles: the arithmetic of layers, and ops that compute nothing.
const SUMS: &[&str] = &[
    "Add",
    "AveragePool",
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "Div",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "Identity",
    "MatMul",
    "Mul",
    "Relu",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
];

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let widening: Widening = cx.get();
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
        if widening == Widening::Sums && !SUMS.contains(&graph[id].op.name.as_ref()) {
            keep_single(graph, id).map_err(|why| PassError::at(graph, id, why))?;
        } else if graph[id].op.is("Gemm") {
            spell_gemm(graph, id).map_err(|why| PassError::at(graph, id, why))?;
        }
    }
    Ok(Changed::Yes)
}

/// Puts the node between Casts: it takes singles and gives singles, as it did before its values were widened.
fn keep_single(graph: &mut Graph, id: NodeId) -> Result<(), &'static str> {
    let node = graph[id].clone();
    if node.subgraphs().next().is_some() {
        return Err("has a subgraph, which cannot stay in single precision alone");
    }
    let is_wide = |graph: &Graph, value: ValueId| graph[value].ty.as_ref().is_some_and(|ty| ty.dtype == DType::F64);
    let mut inputs = Vec::with_capacity(node.inputs().len());
    for &operand in node.inputs() {
        inputs.push(operand.map(|operand| {
            if !is_wide(graph, operand) {
                return operand;
            }
            let base = format!("{}/single", graph[operand].name());
            // A constant stays one: some ops take nothing else.
            match graph[operand].initial().and_then(Tensor::to_f32) {
                Some(values) => {
                    let shape = graph[operand]
                        .initial()
                        .map(|tensor| tensor.shape().to_vec())
                        .unwrap_or_default();
                    graph.add_constant(&base, Tensor::new(&shape, values))
                }
                None => graph.insert_cast(operand, DType::F32, &base),
            }
        }));
    }
    let names: Vec<Option<String>> = node
        .outputs()
        .iter()
        .map(|output| output.map(|output| graph.fresh_name(&format!("{}/single", graph[output].name()))))
        .collect();
    let names: Vec<Option<&str>> = names.iter().map(Option::as_deref).collect();
    let attributes = node.attributes.clone();
    let made = graph
        .add_node(node.op.clone(), &inputs, &names, attributes)
        .map_err(|_| "gives two results of one name")?;
    let singles = graph[made].outputs().to_vec();
    for (wide, single) in node.outputs().iter().zip(singles) {
        let (Some(wide), Some(single)) = (*wide, single) else {
            continue;
        };
        let (ty, base) = (graph[wide].ty.clone(), graph[wide].name().to_owned());
        if !is_wide(graph, wide) {
            graph[single].ty = ty;
            graph.replace(wide, single);
            continue;
        }
        graph[single].ty = ty.clone().map(|ty| crate::ir::TensorType { dtype: DType::F32, ..ty });
        let back = graph.insert_cast(single, DType::F64, &format!("{base}/double"));
        graph.replace(wide, back);
    }
    graph.remove_node(id);
    Ok(())
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
