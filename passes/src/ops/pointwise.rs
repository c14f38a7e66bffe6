//! Activations that act on each element by itself and are no clamp: y = f(x), so that ∂x = ∂y · f'(x).
//!
//! Each rule is the slope f', built from x and y; where the op has a corner, the slope there is torch's. Gradients use only ops that every
//! operator set from 13 on has, whatever the op itself came with.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use super::build::Build;
use super::gradient::GradCx;
use super::sample::Sample;
use super::{InferCx, OpEntry};
use crate::ir::{Node, TensorType, ValueId};

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("Sigmoid", like_first, "").gradient(|cx| by_slope(cx, sigmoid), plain),
    OpEntry::new("Tanh", like_first, "").gradient(|cx| by_slope(cx, tanh), plain),
    OpEntry::new("LeakyRelu", like_first, "").gradient(|cx| by_slope(cx, leaky_relu), leaky_relu_samples),
    OpEntry::new("PRelu", like_first, "").gradient(prelu, prelu_samples),
    OpEntry::new("Elu", like_first, "").gradient(|cx| by_slope(cx, elu), alpha_samples),
    OpEntry::new("Selu", like_first, "").gradient(|cx| by_slope(cx, selu), selu_samples),
    OpEntry::new("Celu", like_first, "").gradient(|cx| by_slope(cx, celu), alpha_samples),
    OpEntry::new("Softplus", like_first, "").gradient(|cx| by_slope(cx, softplus), plain),
    OpEntry::new("Softsign", like_first, "").gradient(|cx| by_slope(cx, softsign), plain),
    OpEntry::new("HardSigmoid", like_first, "").gradient(|cx| by_slope(cx, hard_sigmoid), hard_sigmoid_samples),
    OpEntry::new("HardSwish", like_first, "").gradient(|cx| by_slope(cx, hard_swish), hard_swish_samples),
    OpEntry::new("Mish", like_first, "").gradient(|cx| by_slope(cx, mish), mish_samples),
    OpEntry::new("Swish", like_first, "").gradient(|cx| by_slope(cx, swish), swish_samples),
    OpEntry::new("Gelu", like_first, "").gradient(|cx| by_slope(cx, gelu), gelu_samples),
    OpEntry::new("Erf", like_first, "").gradient(|cx| by_slope(cx, erf), plain),
    OpEntry::new("ThresholdedRelu", like_first, "").gradient(|cx| by_slope(cx, thresholded_relu), threshold_samples),
    OpEntry::new("Shrink", like_first, "").gradient(|cx| by_slope(cx, shrink), shrink_samples),
];

pub(super) fn like_first(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    cx.like_first()
}

/// What a slope is built from: the node, x and y.
pub(super) struct At<'n> {
    pub node: &'n Node,
    pub x: ValueId,
    pub y: ValueId,
}

/// ∂x = ∂y · f'(x).
pub(super) fn by_slope(cx: &mut GradCx, slope: fn(&mut Build, &At) -> ValueId) -> Result<(), String> {
    let (dy, x, y, node) = (cx.dy()?, cx.x(0)?, cx.y(0)?, cx.node.clone());
    cx.give_with(0, |b| {
        let slope = slope(b, &At { node: &node, x, y });
        Ok(b.mul(dy, slope))
    })
}

/// `yes` where the mask is 1, `no` where it is 0: m·yes + (1 − m)·no. Both must be finite.
fn choose(b: &mut Build, mask: ValueId, yes: ValueId, no: ValueId) -> ValueId {
    let one = b.scalar(1.0);
    let other = b.sub(one, mask);
    let (yes, no) = (b.mul(mask, yes), b.mul(other, no));
    b.add(yes, no)
}

pub(super) fn above(b: &mut Build, x: ValueId, threshold: f32) -> ValueId {
    let threshold = b.scalar(threshold);
    b.greater(x, threshold)
}

/// c − v·v.
pub(super) fn less_square(b: &mut Build, c: f32, v: ValueId) -> ValueId {
    let (c, square) = (b.scalar(c), b.mul(v, v));
    b.sub(c, square)
}

/// y·(1 − y).
fn sigmoid(b: &mut Build, at: &At) -> ValueId {
    sigmoid_slope(b, at.y)
}

fn sigmoid_slope(b: &mut Build, y: ValueId) -> ValueId {
    let one = b.scalar(1.0);
    let rest = b.sub(one, y);
    b.mul(y, rest)
}

/// 1 − y².
fn tanh(b: &mut Build, at: &At) -> ValueId {
    less_square(b, 1.0, at.y)
}

/// ONNX LeakyRelu, operator set 16: 1 above 0, else α.
fn leaky_relu(b: &mut Build, at: &At) -> ValueId {
    let (one, alpha) = (b.scalar(1.0), b.scalar(at.node.float("alpha").unwrap_or(0.01)));
    let mask = above(b, at.x, 0.0);
    choose(b, mask, one, alpha)
}

/// ONNX PRelu, operator set 16, y = x above 0, else s·x, with s broadcast to x: ∂x = ∂y or ∂y·s,  ∂s = ∂y·min(x, 0).
fn prelu(cx: &mut GradCx) -> Result<(), String> {
    let (dy, x, slope) = (cx.dy()?, cx.x(0)?, cx.x(1)?);
    cx.give_with(0, |b| {
        let (one, mask) = (b.scalar(1.0), above(b, x, 0.0));
        let slope = choose(b, mask, one, slope);
        Ok(b.mul(dy, slope))
    })?;
    cx.give_with(1, |b| {
        let zero = b.scalar(0.0);
        let below = b.binary("Min", x, zero);
        Ok(b.mul(dy, below))
    })
}

/// ONNX Elu, operator set 6, y = x above 0, else α·(exp x − 1): its slope there is y + α.
fn elu(b: &mut Build, at: &At) -> ValueId {
    let (one, alpha) = (b.scalar(1.0), b.scalar(at.node.float("alpha").unwrap_or(1.0)));
    let (mask, below) = (above(b, at.x, 0.0), b.add(at.y, alpha));
    choose(b, mask, one, below)
}

/// ONNX Selu, operator set 6, y = γ·x above 0, else γ·α·(exp x − 1): its slope there is y + γ·α.
fn selu(b: &mut Build, at: &At) -> ValueId {
    let alpha = at.node.float("alpha").unwrap_or(1.673_263_2);
    let gamma = at.node.float("gamma").unwrap_or(1.050_701);
    let (scale, shift) = (b.scalar(gamma), b.scalar(gamma * alpha));
    let (mask, below) = (above(b, at.x, 0.0), b.add(at.y, shift));
    choose(b, mask, scale, below)
}

/// ONNX Celu, operator set 12, y = x above 0, else α·(exp(x/α) − 1): its slope there is y/α + 1.
fn celu(b: &mut Build, at: &At) -> ValueId {
    let alpha = at.node.float("alpha").unwrap_or(1.0);
    let (one, ratio) = (b.scalar(1.0), b.scale(at.y, 1.0 / alpha));
    let (mask, below) = (above(b, at.x, 0.0), b.add(ratio, one));
    choose(b, mask, one, below)
}

/// ONNX Softplus, operator set 1, y = ln(1 + exp x): σ(x).
fn softplus(b: &mut Build, at: &At) -> ValueId {
    b.unary("Sigmoid", at.x)
}

/// ONNX Softsign, operator set 1, y = x/(1 + |x|): (1 − |y|)².
fn softsign(b: &mut Build, at: &At) -> ValueId {
    let (one, size) = (b.scalar(1.0), b.unary("Abs", at.y));
    let rest = b.sub(one, size);
    b.mul(rest, rest)
}

/// ONNX HardSigmoid, operator set 6, y = clip(α·x + β, 0, 1): α strictly inside.
fn hard_sigmoid(b: &mut Build, at: &At) -> ValueId {
    let (lo, hi) = (above(b, at.y, 0.0), b.scalar(1.0));
    let under = b.less(at.y, hi);
    let inside = b.mul(lo, under);
    b.scale(inside, at.node.float("alpha").unwrap_or(0.2))
}

/// ONNX HardSwish, operator set 14, y = x·clip(x/6 + 1/2, 0, 1): 0 up to −3, x/3 + 1/2 up to 3, then 1.
fn hard_swish(b: &mut Build, at: &At) -> ValueId {
    let (third, half, one) = (b.scale(at.x, 1.0 / 3.0), b.scalar(0.5), b.scalar(1.0));
    let (low, high) = (above(b, at.x, -3.0), above(b, at.x, 3.0));
    let line = b.add(third, half);
    let inside = b.mul(low, line);
    choose(b, high, one, inside)
}

/// ONNX Mish, operator set 18, y = x·t with t = tanh(softplus x): t + x·σ(x)·(1 − t²).
fn mish(b: &mut Build, at: &At) -> ValueId {
    let (soft, sigma) = (b.unary("Softplus", at.x), b.unary("Sigmoid", at.x));
    let t = b.unary("Tanh", soft);
    let (rest, weighted) = (less_square(b, 1.0, t), b.mul(at.x, sigma));
    let second = b.mul(weighted, rest);
    b.add(t, second)
}

/// ONNX Swish, operator set 24, y = x·s with s = σ(α·x): s + α·y·(1 − s).
fn swish(b: &mut Build, at: &At) -> ValueId {
    let alpha = at.node.float("alpha").unwrap_or(1.0);
    let inner = b.scale(at.x, alpha);
    let s = b.unary("Sigmoid", inner);
    let (one, scaled) = (b.scalar(1.0), b.scale(at.y, alpha));
    let rest = b.sub(one, s);
    let second = b.mul(scaled, rest);
    b.add(s, second)
}

/// ONNX Gelu, operator set 20. Exact, y = x·Φ(x): Φ(x) + x·φ(x). With tanh, u = √(2/π)·(x + k·x³), y = x·(1 + tanh u)/2:
/// (1 + tanh u)/2 + x·(1 − tanh² u)·√(2/π)·(1 + 3k·x²)/2.
fn gelu(b: &mut Build, at: &At) -> ValueId {
    const CUBE: f32 = 0.044_715;
    /// √(2/π).
    const ROOT: f32 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
    let (x, half) = (at.x, b.scalar(0.5));
    let square = b.mul(x, x);
    let (inner, density) = if at.node.text("approximate") == Some("tanh") {
        let (one, cubic, slope) = (b.scalar(1.0), b.scale(square, CUBE), b.scale(square, 3.0 * CUBE));
        let (cubic, slope) = (b.add(cubic, one), b.add(slope, one));
        let line = b.mul(x, cubic);
        let u = b.scale(line, ROOT);
        let t = b.unary("Tanh", u);
        let rest = less_square(b, 1.0, t);
        let density = b.mul(rest, slope);
        (t, b.scale(density, 0.5 * ROOT))
    } else {
        let (line, exponent) = (b.scale(x, FRAC_1_SQRT_2), b.scale(square, -0.5));
        let density = b.unary("Exp", exponent);
        (b.unary("Erf", line), b.scale(density, 0.5 * ROOT))
    };
    let scaled = b.mul(inner, half);
    let (mass, second) = (b.add(scaled, half), b.mul(x, density));
    b.add(mass, second)
}

/// ONNX Erf, operator set 13: 2/√π · exp(−x²).
fn erf(b: &mut Build, at: &At) -> ValueId {
    let square = b.mul(at.x, at.x);
    let exponent = b.unary("Neg", square);
    let density = b.unary("Exp", exponent);
    b.scale(density, FRAC_2_SQRT_PI)
}

/// ONNX ThresholdedRelu, operator set 10: 1 above α.
fn thresholded_relu(b: &mut Build, at: &At) -> ValueId {
    above(b, at.x, at.node.float("alpha").unwrap_or(1.0))
}

/// ONNX Shrink, operator set 9: 1 where |x| is above λ.
fn shrink(b: &mut Build, at: &At) -> ValueId {
    let size = b.unary("Abs", at.x);
    above(b, size, at.node.float("lambd").unwrap_or(0.5))
}

fn plain() -> Vec<Sample> {
    vec![
        Sample::new("both signs").x_in(&[2, 5], -3.0, 3.0),
        Sample::new("scalar").x(&[]),
    ]
}

fn leaky_relu_samples() -> Vec<Sample> {
    vec![
        Sample::new("default slope").x(&[3, 4]),
        Sample::new("a slope of its own").x(&[2, 1, 3]).attr("alpha", 0.3f32),
    ]
}

fn prelu_samples() -> Vec<Sample> {
    vec![
        Sample::new("a slope for each channel").x(&[2, 3, 2, 2]).x(&[3, 1, 1]),
        Sample::new("one slope").x(&[2, 3]).x(&[1]),
        Sample::new("a slope for each element").x(&[2, 3]).x(&[2, 3]),
    ]
}

fn alpha_samples() -> Vec<Sample> {
    vec![
        Sample::new("default α").x_in(&[3, 4], -2.0, 2.0),
        Sample::new("an α of its own").x_in(&[7], -2.0, 2.0).attr("alpha", 0.6f32),
    ]
}

fn selu_samples() -> Vec<Sample> {
    vec![
        Sample::new("defaults").x_in(&[3, 4], -2.0, 2.0),
        Sample::new("α and γ of its own")
            .x_in(&[7], -2.0, 2.0)
            .attr("alpha", 1.2f32)
            .attr("gamma", 0.8f32),
    ]
}

fn hard_sigmoid_samples() -> Vec<Sample> {
    vec![
        Sample::new("beyond both ends").x_in(&[3, 5], -4.0, 4.0),
        Sample::new("as torch exports it")
            .x_in(&[3, 5], -4.0, 4.0)
            .attr("alpha", 1.0f32 / 6.0),
    ]
}

fn hard_swish_samples() -> Vec<Sample> {
    vec![Sample::new("beyond both ends").x_in(&[3, 6], -4.5, 4.5)]
}

fn mish_samples() -> Vec<Sample> {
    vec![Sample::new("both signs").x_in(&[3, 5], -3.0, 3.0).opset(18)]
}

fn swish_samples() -> Vec<Sample> {
    vec![
        Sample::new("default α").x_in(&[3, 5], -3.0, 3.0).opset(24),
        Sample::new("an α of its own")
            .x_in(&[3, 5], -3.0, 3.0)
            .attr("alpha", 1.7f32)
            .opset(24),
    ]
}

fn gelu_samples() -> Vec<Sample> {
    vec![
        Sample::new("exact").x_in(&[3, 5], -3.0, 3.0).opset(20),
        Sample::new("with tanh")
            .x_in(&[3, 5], -3.0, 3.0)
            .attr("approximate", "tanh")
            .opset(20),
    ]
}

fn threshold_samples() -> Vec<Sample> {
    vec![
        Sample::new("default α").x_in(&[3, 4], -2.0, 2.0),
        Sample::new("an α below 0").x(&[7]).attr("alpha", -0.3f32),
    ]
}

fn shrink_samples() -> Vec<Sample> {
    vec![
        Sample::new("hard").x_in(&[3, 4], -1.9, 1.9),
        Sample::new("soft")
            .x_in(&[3, 4], -1.9, 1.9)
            .attr("lambd", 0.6f32)
            .attr("bias", 0.6f32),
    ]
}
