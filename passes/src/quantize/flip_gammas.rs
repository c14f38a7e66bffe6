//! Makes every γ of a BatchNormalization that folds positive.
//!
//! Folding scales each filter's levels by γ/√(σ² + ε); with γ < 0 the level −2^(b−1) has no counterpart. So before training every filter
//! whose γ is negative changes sign, together with the op's own bias, γ and the running mean; β does not. With w' = −w, b' = −b, μ' = −μ and
//! γ' = −γ the result γ'(w'x + b' − μ')/√(σ² + ε) + β is the same, to the bit.

use crate::analyze::{Fold, fold_of, scale_slices};
use crate::ir::{Graph, Model, NodeId, Tensor, ValueId};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static FLIP_GAMMAS: Pass = Pass {
    name: "flip-gammas",
    about: "make every γ of a BatchNormalization that folds positive, by flipping its filter",
    needs: "BatchNormalization parameters and weights are constants",
    gives: "γ ≥ 0 wherever a BatchNormalization folds exactly",
    run,
};

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let graph = &mut model.graph;
    let mut changed = false;
    for id in graph.node_list() {
        if !graph[id].op.is("BatchNormalization") {
            continue;
        }
        match fold_of(graph, id) {
            Err(why) => cx.note(graph, id, format!("stays in floats: {why}")),
            Ok(fold) => changed |= flip(graph, fold).map_err(|why| PassError::at(graph, id, why))?,
        }
    }
    Ok(Changed::from(changed))
}

fn flip(graph: &mut Graph, fold: Fold) -> Result<bool, &'static str> {
    let gamma = operand(graph, fold, 1)?;
    let values = graph[gamma]
        .initial()
        .and_then(Tensor::to_f32)
        .ok_or("its γ is not constant")?;
    if values.iter().all(|&gamma| gamma >= 0.0) {
        return Ok(false);
    }
    let signs: Vec<f32> = values.iter().map(|&gamma| if gamma < 0.0 { -1.0 } else { 1.0 }).collect();
    let operands = [
        (fold.op.bias_index.map(|index| (fold.op.node, index)), 0),
        (Some((fold.norm, 1)), 0),
        (Some((fold.norm, 3)), 0),
    ];
    for (operand, axis) in operands {
        let Some((node, index)) = operand else { continue };
        let own = own_copy(graph, node, index).ok_or("a parameter is missing")?;
        flip_slices(graph, own, axis, &signs)?;
    }
    flip_slices(graph, fold.op.weight, fold.op.axis, &signs)?;
    Ok(true)
}

fn operand(graph: &Graph, fold: Fold, index: usize) -> Result<ValueId, &'static str> {
    graph[fold.norm].input(index).ok_or("a parameter is missing")
}

fn flip_slices(graph: &mut Graph, value: ValueId, axis: usize, signs: &[f32]) -> Result<(), &'static str> {
    let tensor = graph[value].initial().ok_or("its parameters are not constant")?;
    let flipped = scale_slices(tensor, axis, signs)?;
    graph.set_literal(value, flipped);
    Ok(())
}

/// The constant that operand `index` of `node` takes, or, where it is used elsewhere too, a copy of it for this operand alone.
fn own_copy(graph: &mut Graph, node: NodeId, index: usize) -> Option<ValueId> {
    let value = graph[node].input(index)?;
    if graph[value].uses().len() == 1 {
        return Some(value);
    }
    let base = format!("{}/flipped", graph[value].name());
    let copy = graph.add_constant(&base, graph[value].initial()?.clone());
    graph.set_input(node, index, Some(copy));
    Some(copy)
}
