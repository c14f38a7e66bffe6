//! BatchNormalization (ONNX 7, 9, 14, 15) and its training forms.
//!
//! Inference: y = γ·(x − μ)/√(σ² + ε) + β with constant μ, σ².
//!
//! `lsqc.BatchNormalizationTrain(x, γ, β; epsilon) → (y, μ, σ²)` takes the mean and the biased variance of the batch, over all axes but the
//! channel's. `lsqc.BatchNormalizationGrad(∂y, x, γ, μ, σ²; epsilon) → (∂x, ∂γ, ∂β)` is its gradient; with M values to a channel and
//! x̂ = (x − μ)/√(σ² + ε):  ∂β = Σ∂y,  ∂γ = Σ∂y·x̂,  ∂x = γ/√(σ² + ε) · (∂y − ∂β/M − x̂·∂γ/M)
//! (Ioffe & Szegedy, arXiv 1502.03167, section 3).

use super::build::{Build, KeepDims};
use super::gradient::GradCx;
use super::sample::Sample;
use super::{InferCx, OpEntry};
use crate::ir::{Attribute, Node, Op, TensorType, ValueId};

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("BatchNormalization", infer, "").gradient(gradient, samples),
    OpEntry::new("BatchNormalizationTrain", infer_train, "")
        .lsqc()
        .gradient(train_gradient, train_samples),
    OpEntry::new("BatchNormalizationGrad", infer_grad, "gradients of gradients are not taken").lsqc(),
];

/// ε of a BatchNormalization or of its training forms; ONNX's default is 1e-5.
#[must_use]
pub(crate) fn epsilon(node: &Node) -> f32 {
    node.float("epsilon").unwrap_or(1e-5)
}

fn infer(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    let mut types = vec![cx.ty(0).cloned()];
    types.resize(cx.node.outputs().len().max(1), cx.ty(1).cloned());
    Ok(types)
}

fn infer_train(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    Ok(vec![cx.ty(0).cloned(), cx.ty(1).cloned(), cx.ty(1).cloned()])
}

fn infer_grad(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    Ok(vec![cx.ty(1).cloned(), cx.ty(2).cloned(), cx.ty(2).cloned()])
}

/// Every axis but the channel's.
pub(crate) fn other_axes(rank: usize) -> Vec<i64> {
    (0..).take(rank).filter(|&axis| axis != 1).collect()
}

/// A vector over channels, shaped so that it broadcasts over `[N, C, …]`.
pub(crate) fn per_channel(build: &mut Build, vector: ValueId, rank: usize) -> Result<ValueId, String> {
    let channels = build.shape(vector)?.iter().product();
    let mut shape = vec![1; rank.saturating_sub(1)];
    if let Some(first) = shape.first_mut() {
        *first = channels;
    }
    Ok(build.reshape(vector, &shape))
}

/// 1/√(σ² + ε), a vector over channels.
pub(crate) fn inverse_deviation(build: &mut Build, variance: ValueId, epsilon: f32) -> ValueId {
    let epsilon = build.scalar(epsilon);
    let shifted = build.add(variance, epsilon);
    let deviation = build.unary("Sqrt", shifted);
    let one = build.scalar(1.0);
    build.div(one, deviation)
}

/// With constant statistics: ∂x = ∂y·γ/√(σ² + ε), ∂γ = Σ∂y·x̂, ∂β = Σ∂y.
fn gradient(cx: &mut GradCx) -> Result<(), String> {
    if cx.node.int("training_mode").unwrap_or(0) != 0 {
        return Err("a BatchNormalization in training mode is not differentiated".to_owned());
    }
    let (dy, x, gamma, mean, variance) = (cx.dy()?, cx.x(0)?, cx.x(1)?, cx.x(3)?, cx.x(4)?);
    let (rank, epsilon) = (cx.x_shape(0)?.len(), epsilon(&cx.node));
    let axes = other_axes(rank);
    let inverse = inverse_deviation(&mut cx.build, variance, epsilon);
    cx.give_with(0, |b| {
        let slope = b.mul(gamma, inverse);
        let slope = per_channel(b, slope, rank)?;
        Ok(b.mul(dy, slope))
    })?;
    cx.give_with(1, |b| {
        let mean = per_channel(b, mean, rank)?;
        let centred = b.sub(x, mean);
        let product = b.mul(dy, centred);
        let sum = b.reduce_sum(product, &axes, KeepDims::No);
        Ok(b.mul(sum, inverse))
    })?;
    cx.give_with(2, |b| Ok(b.reduce_sum(dy, &axes, KeepDims::No)))
}

fn train_gradient(cx: &mut GradCx) -> Result<(), String> {
    let inputs = [cx.dy()?, cx.x(0)?, cx.x(1)?, cx.y(1)?, cx.y(2)?].map(Some);
    let attributes = vec![Attribute::new("epsilon", epsilon(&cx.node))];
    let given = cx.build.nodes(Op::lsqc("BatchNormalizationGrad"), &inputs, attributes, 3);
    for (index, &gradient) in given.iter().enumerate() {
        cx.give_with(index, |_| Ok(gradient))?;
    }
    Ok(())
}

fn samples() -> Vec<Sample> {
    vec![
        Sample::new("images")
            .x(&[2, 3, 2, 2])
            .x(&[3])
            .x(&[3])
            .constant(crate::ir::Tensor::vector(vec![0.1f32, -0.2, 0.3]))
            .constant(crate::ir::Tensor::vector(vec![0.5f32, 1.0, 2.0])),
        Sample::new("rows")
            .x(&[4, 2])
            .x(&[2])
            .x(&[2])
            .constant(crate::ir::Tensor::vector(vec![0.1f32, -0.2]))
            .constant(crate::ir::Tensor::vector(vec![0.5f32, 1.0]))
            .attr("epsilon", 0.01f32),
    ]
}

/// Only y is differentiated: μ and σ² feed the running statistics.
fn train_samples() -> Vec<Sample> {
    vec![
        Sample::new("images").x(&[2, 3, 2, 2]).x(&[3]).x(&[3]).results(3),
        Sample::new("rows")
            .x(&[4, 2])
            .x(&[2])
            .x(&[2])
            .attr("epsilon", 0.01f32)
            .results(3),
    ]
}
