//! What each kind of output is trained by, s the student's and t the teacher's, every one a mean that is 0 where they are equal:
//!
//! - classes: mean over rows of Σ_c p_t·(log p_t − log p_s) along the axis of classes, p = softmax;
//! - probabilities: mean over elements of p_t·log(p_t/p_s) + (1 − p_t)·log((1 − p_t)/(1 − p_s)), p = σ(z), spelled in the z's:
//!   softplus(z_s) − softplus(z_t) − p_t·(z_s − z_t), with softplus(z) = (z + |z|)/2 + log(1 + e^−|z|), which no z overflows;
//! - values: mean over elements of (s − t)²/var, the teacher's variance, one number or one for each channel of an axis;
//! - cosine: mean over rows of 1 − s·t/√(|s|²·|t|²) along the last axis.

use super::heads::OutputKind;
use super::{OutputLoss, Variance};
use crate::ir::{Attribute, Op, Tensor, TensorType, ValueId};
use crate::ops::build::{Build, KeepDims};

/// Added to the product of squared lengths: a row of zeros has no direction, and a gradient of 0 rather than none.
const SMALLEST_LENGTH: f32 = 1e-12;

/// Where the losses on an output begin, on both sides.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    /// The student's value.
    pub student: ValueId,
    /// The teacher's.
    pub teacher: ValueId,
    /// The axis of classes.
    pub axis: usize,
}

/// The loss of one output.
pub(super) fn term(build: &mut Build, ends: Ends, output: &OutputLoss) -> Result<ValueId, String> {
    match output.kind {
        OutputKind::Classes => divergence(build, ends),
        OutputKind::Probabilities => each_divergence(build, ends),
        OutputKind::Values => squared_error(build, ends, &output.variance),
        OutputKind::Cosine => cosine(build, ends),
        OutputKind::Ignored => Err("the output is ignored".to_owned()),
    }
}

/// log p along `axis` of scores.
///
/// Spelled z − log Σ exp z with z = x − max x: an engine's own LogSoftmax may be the logarithm of its Softmax, which is −∞ far from the
/// maximum. The maximum comes from TopK, which every operator set spells alike; no gradient need pass it, since it cancels.
pub(super) fn log_probabilities(build: &mut Build, scores: ValueId, axis: usize) -> Result<ValueId, String> {
    let mut kept = build.shape(scores)?;
    let signed = i64::try_from(axis).map_err(|_| "the rank is absurd")?;
    let one = build.ints(&[1]);
    let held = build.node(Op::lsqc("StopGradient"), &[scores], vec![]);
    let top = build.nodes(
        Op::onnx("TopK"),
        &[Some(held), Some(one)],
        vec![Attribute::new("axis", signed)],
        2,
    )[0];
    if let Some(extent) = kept.get_mut(axis) {
        *extent = 1;
    }
    build.graph[top].ty = Some(TensorType::fixed(build.dtype(scores), &kept));
    let z = build.sub(scores, top);
    let exp = build.unary("Exp", z);
    let sum = build.reduce_sum(exp, &[signed], KeepDims::Yes);
    let log = build.unary("Log", sum);
    Ok(build.sub(z, log))
}

#[allow(clippy::cast_precision_loss)]
fn divergence(build: &mut Build, ends: Ends) -> Result<ValueId, String> {
    let log_s = log_probabilities(build, ends.student, ends.axis)?;
    let log_t = log_probabilities(build, ends.teacher, ends.axis)?;
    let p_t = build.unary("Exp", log_t);
    let difference = build.sub(log_t, log_s);
    let weighted = build.mul(p_t, difference);
    let axis = i64::try_from(ends.axis).map_err(|_| "the rank is absurd")?;
    let per_row = build.reduce_sum(weighted, &[axis], KeepDims::No);
    mean(build, per_row)
}

fn each_divergence(build: &mut Build, ends: Ends) -> Result<ValueId, String> {
    let softplus = |build: &mut Build, z: ValueId| {
        let size = build.unary("Abs", z);
        let twice = build.add(z, size);
        let positive = build.scale(twice, 0.5);
        let negative = build.scale(size, -1.0);
        let exp = build.unary("Exp", negative);
        let one = build.scalar(1.0);
        let sum = build.add(exp, one);
        let log = build.unary("Log", sum);
        build.add(positive, log)
    };
    let (of_s, of_t) = (softplus(build, ends.student), softplus(build, ends.teacher));
    let p_t = build.unary("Sigmoid", ends.teacher);
    let difference = build.sub(ends.student, ends.teacher);
    let expected = build.mul(p_t, difference);
    let apart = build.sub(of_s, of_t);
    let each = build.sub(apart, expected);
    mean(build, each)
}

#[allow(clippy::cast_precision_loss)]
fn squared_error(build: &mut Build, ends: Ends, variance: &Variance) -> Result<ValueId, String> {
    let shape = build.shape(ends.student)?;
    let difference = build.sub(ends.student, ends.teacher);
    let square = build.mul(difference, difference);
    let weighed = match (variance.axis, &variance.values[..]) {
        (None, &[one]) => build.scale(square, 1.0 / one),
        (Some(axis), values) if shape.get(axis) == Some(&values.len()) => {
            let mut along = vec![1; shape.len()];
            if let Some(extent) = along.get_mut(axis) {
                *extent = values.len();
            }
            let weights = build.constant(Tensor::new(&along, values.iter().map(|v| 1.0 / v).collect::<Vec<f32>>()));
            build.mul(square, weights)
        }
        (axis, values) => {
            return Err(format!(
                "{} variances along axis {axis:?} do not fit an output of shape {shape:?}",
                values.len()
            ));
        }
    };
    mean(build, weighed)
}

fn cosine(build: &mut Build, ends: Ends) -> Result<ValueId, String> {
    let last = build.shape(ends.student)?.len().saturating_sub(1);
    let axis = i64::try_from(last).map_err(|_| "the rank is absurd")?;
    let dot = |build: &mut Build, a: ValueId, b: ValueId| {
        let product = build.mul(a, b);
        build.reduce_sum(product, &[axis], KeepDims::No)
    };
    let both = dot(build, ends.student, ends.teacher);
    let (of_s, of_t) = (dot(build, ends.student, ends.student), dot(build, ends.teacher, ends.teacher));
    let squares = build.mul(of_s, of_t);
    let least = build.scalar(SMALLEST_LENGTH);
    let squares = build.add(squares, least);
    let lengths = build.unary("Sqrt", squares);
    let cosine = build.div(both, lengths);
    let one = build.scalar(1.0);
    let apart = build.sub(one, cosine);
    mean(build, apart)
}

#[allow(clippy::cast_precision_loss)]
fn mean(build: &mut Build, value: ValueId) -> Result<ValueId, String> {
    let count: usize = build.shape(value)?.iter().product();
    let sum = build.sum_all(value);
    Ok(build.scale(sum, 1.0 / count.max(1) as f32))
}
