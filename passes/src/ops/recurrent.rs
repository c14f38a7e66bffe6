//! Recurrent layers and control flow: types only. Gradients stop there: lsqc does not unroll them, and differentiates no subgraph.
//!
//! LSTM, GRU and RNN (ONNX 7, 14, 22) give every step's state `[T, directions, N, H]`, the last `[directions, N, H]`, and an LSTM its last
//! cell too; with `layout` 1 the batch stands first.

use super::{InferCx, OpEntry};
use crate::ir::{Dim, TensorType};

type Types = Result<Vec<Option<TensorType>>, String>;

const THROUGH_TIME: &str = "gradients through the steps of a recurrent layer are not written";
const SUBGRAPH: &str = "a subgraph is not differentiated";

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("LSTM", infer_recurrent, THROUGH_TIME),
    OpEntry::new("GRU", infer_recurrent, THROUGH_TIME),
    OpEntry::new("RNN", infer_recurrent, THROUGH_TIME),
    OpEntry::new("If", infer_if, SUBGRAPH),
    // How often a body runs, and so what it stacks up, is seldom known: what is declared stands.
    OpEntry::new("Loop", declared, SUBGRAPH),
    OpEntry::new("Scan", declared, SUBGRAPH),
];

fn declared(_: &InferCx) -> Types {
    Ok(vec![])
}

fn infer_recurrent(cx: &InferCx) -> Types {
    let directions = Dim::Known(match cx.node.text("direction") {
        Some("bidirectional") => 2,
        None | Some("forward" | "reverse") => 1,
        Some(other) => return Err(format!("the direction {other} is not known")),
    });
    // The recurrent weight is [directions, gates · H, H].
    let hidden = match (cx.node.int("hidden_size"), cx.shape(2)) {
        (Some(hidden), _) => Dim::Known(usize::try_from(hidden).map_err(|_| "hidden_size is not negative")?),
        (None, Some([_, _, hidden])) => hidden.clone(),
        _ => Dim::Unknown,
    };
    let batch_first = cx.node.int("layout").unwrap_or(0) != 0;
    let (steps, batch) = match (cx.shape(0), batch_first) {
        (Some([steps, batch, _]), false) | (Some([batch, steps, _]), true) => (steps.clone(), batch.clone()),
        (Some(other), _) => return Err(format!("its input has rank 3, not {}", other.len())),
        (None, _) => (Dim::Unknown, Dim::Unknown),
    };
    let (all, last) = if batch_first {
        (
            vec![batch.clone(), steps, directions.clone(), hidden.clone()],
            vec![batch, directions, hidden],
        )
    } else {
        (
            vec![steps, directions.clone(), batch.clone(), hidden.clone()],
            vec![directions, batch, hidden],
        )
    };
    let ty = |shape: Vec<Dim>| cx.dtype(0).map(|dtype| TensorType::new(dtype, shape));
    Ok(vec![ty(all), ty(last.clone()), ty(last)])
}

/// ONNX If, operator set 25: what both branches agree on.
fn infer_if(cx: &InferCx) -> Types {
    let mut branches = cx.node.subgraphs();
    let (Some(one), Some(other)) = (branches.next(), branches.next()) else {
        return Ok(vec![]);
    };
    let types = one.outputs().iter().zip(other.outputs()).map(|(&a, &b)| {
        let (a, b) = (one[a].ty.as_ref()?, other[b].ty.as_ref()?);
        if a.dtype != b.dtype {
            return None;
        }
        let shape = match (&a.shape, &b.shape) {
            (Some(a), Some(b)) if a.len() == b.len() => {
                let agreed = a.iter().zip(b).map(|(a, b)| if a == b { a.clone() } else { Dim::Unknown });
                Some(agreed.collect())
            }
            _ => None,
        };
        Some(TensorType { dtype: a.dtype, shape })
    });
    Ok(types.collect())
}
