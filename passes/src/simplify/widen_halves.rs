//! Lets a network in half precision (float16, bfloat16) compute in single precision, in which it is calibrated, trained and measured.
//!
//! Every value, constant and attribute of such a type becomes float, in subgraphs too; a Cast to it becomes one to float. Constants keep
//! their numbers, which single precision has exactly. What the border had is left in [`Halves`], for the file that is written at the end.
//! An op that lsqc does not know keeps its types, between Casts.

use crate::analyze::{Halves, half_of, is_half};
use crate::ir::{Attr, Attribute, DType, Graph, Model, NodeId, Tensor, ValueId};
use crate::ops;
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static WIDEN_HALVES: Pass = Pass {
    name: "widen-halves",
    about: "let what is in half precision be in single precision",
    needs: "types are inferred",
    gives: "no float16 and no bfloat16 but around ops that lsqc does not know",
    run,
};

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let Some(halves) = Halves::of(&model.graph) else {
        return Ok(Changed::No);
    };
    widen(&mut model.graph);
    model.graph.sort();
    cx.set(halves);
    Ok(Changed::Yes)
}

/// An operand or result of half precision that an unknown op takes or gives.
struct Border {
    node: NodeId,
    index: usize,
    value: ValueId,
    dtype: DType,
    is_result: bool,
}

fn widen(graph: &mut Graph) {
    let borders = borders(graph);
    let values: Vec<ValueId> = graph.values().map(|(id, _)| id).collect();
    for id in values {
        if let Some(wide) = graph[id].initial().and_then(widened) {
            graph.set_literal(id, wide);
        }
        if let Some(ty) = &mut graph[id].ty
            && is_half(ty.dtype)
        {
            ty.dtype = DType::F32;
        }
    }
    for id in graph.node_list() {
        let known = is_known(graph, id);
        for Attribute { name, value, .. } in &mut graph[id].attributes {
            match value {
                Attr::Int(code) if known && (name == "to" || name == "dtype") && is_code_of_half(*code) => {
                    *code = i64::from(DType::F32.code());
                }
                Attr::Tensor(literal) if known => {
                    if let Some(wide) = widened(&literal.tensor) {
                        *literal = wide.into();
                    }
                }
                Attr::Graph(inner) => widen(inner),
                Attr::Graphs(inner) => inner.iter_mut().for_each(widen),
                _ => {}
            }
        }
    }
    for border in borders {
        keep(graph, &border);
    }
}

fn is_known(graph: &Graph, id: NodeId) -> bool {
    ops::lookup(&graph[id].op).is_some() || graph[id].op.in_default_domain()
}

fn borders(graph: &Graph) -> Vec<Border> {
    let mut borders = Vec::new();
    for (id, node) in graph.nodes().filter(|&(id, _)| !is_known(graph, id)) {
        let sides = [(node.inputs(), false), (node.outputs(), true)];
        for (values, is_result) in sides {
            for (index, value) in values.iter().enumerate() {
                if let Some((value, dtype)) = value.and_then(|value| Some((value, half_of(graph, value)?))) {
                    let (node, index) = (id, index);
                    borders.push(Border {
                        node,
                        index,
                        value,
                        dtype,
                        is_result,
                    });
                }
            }
        }
    }
    borders
}

/// Puts a Cast where a value that is single now meets an op that takes or gives halves.
fn keep(graph: &mut Graph, border: &Border) {
    let &Border {
        node,
        index,
        value,
        dtype,
        is_result,
    } = border;
    let (to, word) = if is_result { (DType::F32, "single") } else { (dtype, "half") };
    let base = format!("{}/{word}", graph[value].name());
    let cast = graph.insert_cast(value, to, &base);
    if !is_result {
        graph.set_input(node, index, Some(cast));
        return;
    }
    if let Some(ty) = &mut graph[value].ty {
        ty.dtype = dtype;
    }
    graph.replace(value, cast);
    if let Some(maker) = graph[cast].producer() {
        graph.set_input(maker, 0, Some(value));
    }
}

fn is_code_of_half(code: i64) -> bool {
    [DType::F16, DType::BF16].iter().any(|dtype| i64::from(dtype.code()) == code)
}

fn widened(tensor: &Tensor) -> Option<Tensor> {
    let values = is_half(tensor.dtype()).then(|| tensor.to_f32()).flatten()?;
    Some(Tensor::new(tensor.shape(), values))
}
