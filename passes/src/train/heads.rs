//! What an output of a network is, as far as the graph shows it, and where a loss on it begins.
//!
//! | what stands before the output | taken as | the loss begins |
//! |---|---|---|
//! | Softmax or LogSoftmax | classes along its axis | before it |
//! | Sigmoid | probabilities, each by itself | before it |
//! | a Conv, Gemm or MatMul, its bias, a mean over positions; rank 2 or 3, but not the maps of a Conv | a guess: classes along the last axis | at the output |
//! | anything else in floats | values | at the output |
//! | integers, and floats other than float32 | nothing | |
//!
//! Reshape, Transpose, Flatten, Squeeze, Unsqueeze and Identity between are looked through, since they move values and a loss takes the mean
//! over all rows. What is a guess, data may decide: embeddings come from a Gemm as well as classes do.

use crate::ir::{DType, Graph, Node, NodeId, TensorType, ValueId};
use crate::ops::{self, Quant, normalize_axis};

/// What an output is taken as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OutputKind {
    /// Scores of classes that exclude each other: the divergence of their distributions.
    Classes,
    /// Probabilities, each by itself: the divergence of each.
    Probabilities,
    /// Numbers: squared error over the teacher's variance.
    Values,
    /// Directions: one minus the cosine of rows.
    Cosine,
    /// Nothing to train on.
    #[default]
    Ignored,
}

/// How sure the graph makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// An op says so.
    Shown,
    /// By its shape and the layer before it.
    Guessed,
}

/// An output, and where a loss on it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it is taken as.
    pub kind: OutputKind,
    /// How sure that is.
    pub certainty: Certainty,
    /// Why.
    pub why: String,
    /// Where the loss begins if it is taken so.
    pub start: ValueId,
    /// The axis of classes there.
    pub axis: usize,
}

/// What the graph shows of its output `output`. Its type must be inferred; its shape need not be fixed.
#[must_use]
pub fn head(graph: &Graph, output: ValueId) -> Head {
    let ty = graph[output].ty.as_ref();
    let rank = ty.and_then(TensorType::rank);
    let plain = |kind: OutputKind, certainty: Certainty, why: String| Head {
        kind,
        certainty,
        why,
        start: output,
        axis: class_axis(rank),
    };
    match ty.map(|ty| ty.dtype) {
        Some(DType::F32) => {}
        Some(dtype) if dtype.is_float() => {
            return plain(
                OutputKind::Ignored,
                Certainty::Shown,
                format!("its type is {dtype}, and training is in float"),
            );
        }
        Some(dtype) => {
            return plain(
                OutputKind::Ignored,
                Certainty::Shown,
                format!("its type is {dtype}: no gradient passes it"),
            );
        }
        None => return plain(OutputKind::Ignored, Certainty::Shown, "its type is not known".to_owned()),
    }
    let moved = behind_moves(graph, output);
    if let Some((id, node)) = graph.producer(moved)
        && let Some(start) = node.input(0)
    {
        if node.op.is("Softmax") || node.op.is("LogSoftmax") {
            return Head {
                kind: OutputKind::Classes,
                certainty: Certainty::Shown,
                why: format!("it ends in {}", named(graph, id)),
                start,
                axis: softmax_axis(graph, node, start),
            };
        }
        if node.op.is("Sigmoid") {
            return Head {
                start,
                ..plain(
                    OutputKind::Probabilities,
                    Certainty::Shown,
                    format!("it ends in {}", named(graph, id)),
                )
            };
        }
    }
    let extent = ty
        .and_then(|ty| ty.shape.as_deref()?.get(class_axis(rank))?.known())
        .unwrap_or(usize::MAX);
    // What a Conv gives by itself are maps, channels first.
    let is_map = |layer: NodeId| rank == Some(3) && moved == output && graph[layer].op.is("Conv");
    match (layer_before(graph, moved).filter(|&layer| !is_map(layer)), rank) {
        (Some(layer), Some(2 | 3)) if extent > 1 => plain(
            OutputKind::Classes,
            Certainty::Guessed,
            format!("its rows come from {}", named(graph, layer)),
        ),
        _ => plain(
            OutputKind::Values,
            Certainty::Shown,
            "it is floats, and no op shows more".to_owned(),
        ),
    }
}

/// The axis of classes where no op says: 1 of maps `[N, C, …]` and of rank 2, the last of sequences `[N, T, C]`.
fn class_axis(rank: Option<usize>) -> usize {
    match rank {
        Some(rank @ (1 | 3)) => rank - 1,
        _ => 1,
    }
}

fn named(graph: &Graph, id: NodeId) -> String {
    format!("{} ({})", graph[id].label(graph), graph[id].op)
}

fn softmax_axis(graph: &Graph, node: &Node, scores: ValueId) -> usize {
    let rank = graph[scores].ty.as_ref().and_then(TensorType::rank);
    // Operator set 13 and later: -1 where nothing is said.
    let asked = node.int("axis").unwrap_or(-1);
    rank.and_then(|rank| normalize_axis(asked, rank).ok())
        .unwrap_or_else(|| class_axis(rank))
}

fn behind_moves(graph: &Graph, mut value: ValueId) -> ValueId {
    const MOVES: [&str; 6] = ["Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"];
    while let Some((_, node)) = graph.producer(value) {
        let moves = node.op.in_default_domain() && MOVES.contains(&node.op.name.as_ref());
        let Some(input) = node.input(0).filter(|_| moves) else { break };
        value = input;
    }
    value
}

/// The matrix multiply that computes `value`, seen through its bias and means over positions.
fn layer_before(graph: &Graph, mut value: ValueId) -> Option<NodeId> {
    loop {
        let (id, node) = graph.producer(value)?;
        if matches!(ops::quant(node), Quant::Weighted { .. }) {
            return Some(id);
        }
        let is_constant = |value: &ValueId| graph[*value].initial().is_some();
        let mut fed = node.inputs().iter().flatten().copied().filter(|value| !is_constant(value));
        let passes = node.op.is("Add") && node.inputs().iter().flatten().any(is_constant) || node.op.is("GlobalAveragePool");
        value = behind_moves(graph, fed.next().filter(|_| passes)?);
    }
}
