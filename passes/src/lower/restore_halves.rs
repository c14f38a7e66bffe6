//! Gives the file of a network in half precision what `widen-halves` took from it: the types of its inputs and outputs, behind Casts, and
//! constants in two bytes, where these hold the very numbers.
//!
//! What is computed stays in single precision: that is what was trained and proven. A constant of [`SMALLEST`] elements or more that no
//! quantizer takes is stored as it was and cast, which runtimes do when they load the file.

use crate::analyze::Halves;
use crate::ir::{DType, Graph, Model, Tensor, ValueId};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static RESTORE_HALVES: Pass = Pass {
    name: "restore-halves",
    about: "give inputs and outputs the half precision that they had, and store constants in it",
    needs: "the lowered network; the types of its border",
    gives: "the border's own types; the same numbers in between",
    run,
};

/// Constants of fewer elements stay: a node to cast them takes as much.
const SMALLEST: usize = 64;

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let halves: Halves = cx.get();
    if halves == Halves::default() {
        return Ok(Changed::No);
    }
    let graph = &mut model.graph;
    for (name, dtype) in &halves.inputs {
        if let Some(input) = graph.find(name) {
            cast_from(graph, input, *dtype);
        }
    }
    for (name, dtype) in &halves.outputs {
        if let Some(output) = graph.find(name) {
            cast_output(graph, output, *dtype);
        }
    }
    for id in graph.initializers().to_vec() {
        let by_quantizer = graph[id].uses().iter().any(|used| {
            matches!(
                graph[used.node].op.name.as_ref(),
                "QuantizeLinear" | "DequantizeLinear" | "MatMulNBits"
            )
        });
        if by_quantizer || graph[id].uses().is_empty() || graph.outputs().contains(&id) {
            continue;
        }
        let narrow = graph[id]
            .constant()
            .zip(halves.stored)
            .and_then(|(tensor, dtype)| narrowed(tensor, dtype));
        if let (Some(narrow), Some(dtype)) = (narrow, halves.stored) {
            graph.set_literal(id, narrow);
            cast_from(graph, id, dtype);
        }
    }
    graph.sort();
    Ok(Changed::Yes)
}

fn cast(graph: &mut Graph, value: ValueId, to: DType) -> ValueId {
    let base = format!("{}/cast", graph[value].name());
    graph.insert_cast(value, to, &base)
}

/// Lets an input or constant be of type `dtype`, and all that take it take a Cast of it.
fn cast_from(graph: &mut Graph, value: ValueId, dtype: DType) {
    let single = cast(graph, value, DType::F32);
    let maker = graph[single].producer();
    graph.replace_uses(value, single);
    if let Some(maker) = maker {
        graph.set_input(maker, 0, Some(value));
    }
    if let Some(ty) = &mut graph[value].ty {
        ty.dtype = dtype;
    }
}

/// Lets an output be a Cast, to `dtype`, of what it is; it keeps its name.
fn cast_output(graph: &mut Graph, output: ValueId, dtype: DType) {
    let name = graph[output].name().to_owned();
    let half = cast(graph, output, dtype);
    graph.rename(output, &format!("{name}/single"));
    graph.rename(half, &name);
    let outputs = graph.outputs().iter();
    let outputs = outputs.map(|&old| if old == output { half } else { old }).collect();
    graph.set_outputs(outputs);
}

/// The tensor in two bytes, if that loses nothing.
fn narrowed(tensor: &Tensor, dtype: DType) -> Option<Tensor> {
    let values = tensor.values::<f32>().filter(|values| values.len() >= SMALLEST)?;
    let narrow = Tensor::of_floats(dtype, tensor.shape(), values.to_vec())?;
    let back = narrow.to_f32()?;
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
    back.iter().zip(values.iter()).all(same).then_some(narrow)
}
