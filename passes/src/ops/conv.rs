//! Conv (ONNX 1, 11, 22): X `[N, C, spatial…]`, W `[O, C/group, kernel…]`, B `[O]` → Y `[N, O, spatial'…]`.
//!
//! Its gradients are ops of their own, because they have several good spellings:
//! `lsqc.ConvGradInput(∂Y, W; input_shape, …) → ∂X` and `lsqc.ConvGradWeight(X, ∂Y; kernel_shape, …) → ∂W`, both with explicit
//! `strides`, `dilations`, `pads` and `group`. ∂B is the sum of ∂Y over all axes but the channel's.

use super::build::{KeepDims, as_i64};
use super::gradient::GradCx;
use super::normalize::other_axes;
use super::sample::Sample;
use super::window::{Window, infer_conv};
use super::{InferCx, OpEntry, Quant};
use crate::ir::{Attribute, Dim, Op, TensorType};

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("Conv", infer, "")
        .gradient(gradient, samples)
        .quant(Quant::Weighted {
            weight: 1,
            bias: Some(2),
        }),
    OpEntry::new("ConvGradInput", infer_grad_input, "gradients of gradients are not taken").lsqc(),
    OpEntry::new("ConvGradWeight", infer_grad_weight, "gradients of gradients are not taken").lsqc(),
];

fn infer(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    let shape = match (cx.shape(0), cx.shape(1)) {
        (Some(x), Some(w)) => Some(infer_conv(cx.node, x, w)?),
        _ => None,
    };
    cx.one(cx.dtype(0), shape)
}

fn infer_grad_input(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    let shape = cx.node.ints("input_shape").ok_or("input_shape is missing")?;
    cx.one(cx.dtype(0), Some(known_dims(shape)))
}

fn infer_grad_weight(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    let shape = cx.node.ints("weight_shape").ok_or("weight_shape is missing")?;
    cx.one(cx.dtype(0), Some(known_dims(shape)))
}

fn known_dims(shape: &[i64]) -> Vec<Dim> {
    shape
        .iter()
        .map(|&extent| usize::try_from(extent).map_or(Dim::Unknown, Dim::Known))
        .collect()
}

fn gradient(cx: &mut GradCx) -> Result<(), String> {
    let (dy, x, w) = (cx.dy()?, cx.x(0)?, cx.x(1)?);
    let (x_shape, w_shape) = (cx.x_shape(0)?, cx.x_shape(1)?);
    let (Some(spatial), Some(kernel)) = (x_shape.get(2..), w_shape.get(2..)) else {
        return Err("its operands have rank 3 or more".to_owned());
    };
    let mut attributes = Window::of(&cx.node, spatial, kernel)?.attributes();
    attributes.push(Attribute::new("group", cx.node.int("group").unwrap_or(1)));
    let with = |name: &str, shape: &[usize]| [attributes.clone(), vec![Attribute::new(name, as_i64(shape))]].concat();
    cx.give_with(0, |b| {
        Ok(b.node(Op::lsqc("ConvGradInput"), &[dy, w], with("input_shape", &x_shape)))
    })?;
    cx.give_with(1, |b| {
        Ok(b.node(Op::lsqc("ConvGradWeight"), &[x, dy], with("weight_shape", &w_shape)))
    })?;
    cx.give_with(2, |b| Ok(b.reduce_sum(dy, &other_axes(x_shape.len()), KeepDims::No)))
}

fn samples() -> Vec<Sample> {
    let case = |about, x: &[usize], w: &[usize]| Sample::new(about).x(x).x(w);
    vec![
        case("3x3, same", &[2, 3, 5, 5], &[4, 3, 3, 3])
            .x(&[4])
            .attr("pads", vec![1, 1, 1, 1]),
        case("1x1", &[2, 3, 4, 4], &[5, 3, 1, 1]),
        case("1x1, stride 2", &[2, 3, 5, 5], &[4, 3, 1, 1]).attr("strides", vec![2, 2]),
        case("3x3, stride 2, even extent", &[2, 3, 6, 6], &[4, 3, 3, 3])
            .attr("strides", vec![2, 2])
            .attr("pads", vec![1, 1, 1, 1]),
        case("3x3, stride 2, odd extent", &[1, 2, 7, 7], &[3, 2, 3, 3])
            .attr("strides", vec![2, 2])
            .attr("pads", vec![1, 1, 1, 1]),
        case("stride 3 leaves a rest", &[1, 2, 9, 8], &[2, 2, 2, 2]).attr("strides", vec![3, 3]),
        case("dilated", &[1, 2, 7, 7], &[2, 2, 3, 3])
            .attr("dilations", vec![2, 2])
            .attr("pads", vec![1, 2, 2, 1]),
        case("groups", &[2, 4, 4, 4], &[6, 2, 3, 3])
            .attr("group", 2)
            .attr("pads", vec![1, 1, 1, 1]),
        case("depthwise", &[2, 4, 5, 5], &[4, 1, 3, 3])
            .attr("group", 4)
            .attr("pads", vec![1, 1, 1, 1]),
        case("depthwise, stride 2, multiplier 2", &[2, 3, 6, 6], &[6, 1, 3, 3])
            .attr("group", 3)
            .attr("strides", vec![2, 2])
            .attr("pads", vec![1, 1, 1, 1]),
        case("asymmetric pads", &[1, 2, 4, 5], &[2, 2, 3, 2]).attr("pads", vec![0, 1, 2, 0]),
        case("auto_pad SAME_UPPER, stride 2", &[1, 2, 6, 6], &[2, 2, 3, 3])
            .attr("auto_pad", "SAME_UPPER")
            .attr("strides", vec![2, 2]),
        case("auto_pad SAME_LOWER", &[1, 2, 4, 4], &[2, 2, 2, 2]).attr("auto_pad", "SAME_LOWER"),
        case("one axis", &[2, 3, 8], &[4, 3, 3]).attr("pads", vec![1, 1]),
        case("one axis, stride 2, depthwise, dilated", &[2, 3, 9], &[3, 1, 3])
            .x(&[3])
            .attr("group", 3)
            .attr("dilations", vec![2])
            .attr("strides", vec![2]),
        case("one axis, groups, padded unevenly", &[1, 4, 6], &[2, 2, 2])
            .attr("group", 2)
            .attr("pads", vec![1, 0]),
        case("three axes", &[1, 2, 3, 4, 3], &[2, 2, 2, 3, 2])
            .x(&[2])
            .attr("pads", vec![0, 1, 0, 1, 1, 0]),
        case("three axes, stride 2, groups", &[1, 2, 4, 3, 4], &[2, 1, 2, 2, 2])
            .attr("group", 2)
            .attr("strides", vec![2, 1, 2]),
    ]
}
