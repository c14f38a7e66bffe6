//! Pools: MaxPool, AveragePool and their global forms, and the backward ops that `legalize` spells for an engine.
//!
//! `lsqc.AveragePoolGrad(∂y; kernel_shape, strides, pads, dilations?, ceil_mode?, count_include_pad?, input_shape) → ∂x` spreads each ∂y
//! evenly over the elements of x that its window averages. `lsqc.MaxPoolGrad(x, y, ∂y; kernel_shape, strides, pads, dilations?,
//! ceil_mode?) → ∂x` gives each ∂y to the first maximum of its window, as ONNX's `Indices` counts. Their pads are resolved: neither has
//! `auto_pad`.

use super::build::{KeepDims, as_i64};
use super::gradient::GradCx;
use super::sample::Sample;
use super::window::{Window, infer_extents, kernel_shape};
use super::{InferCx, OpEntry, Quant};
use crate::ir::{Attribute, DType, Dim, Op, TensorType};

type Types = Result<Vec<Option<TensorType>>, String>;

const NO_SECOND: &str = "gradients of gradients are not taken";

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("MaxPool", infer_max_pool, "")
        .gradient(gradient_max_pool, samples_max_pool)
        .quant(Quant::Transparent),
    OpEntry::new("AveragePool", infer_pool, "")
        .gradient(gradient_average_pool, samples_average_pool)
        .quant(Quant::Inputs),
    OpEntry::new("GlobalAveragePool", infer_global, "")
        .gradient(gradient_global_average, samples_global)
        .quant(Quant::Inputs),
    OpEntry::new("GlobalMaxPool", infer_global, "")
        .gradient(gradient_global_max, samples_global)
        .quant(Quant::Transparent),
    OpEntry::new("GlobalLpPool", infer_global, "").gradient(gradient_global_lp, samples_global_lp),
    OpEntry::new("LpPool", infer_pool, "the gradient of this op is not written"),
    OpEntry::new("AveragePoolGrad", infer_average_grad, NO_SECOND).lsqc(),
    OpEntry::new("MaxPoolGrad", |cx| cx.like_first(), NO_SECOND).lsqc(),
];

/// ONNX AveragePool, operator set 22.
fn infer_pool(cx: &InferCx) -> Types {
    let kernel = kernel_shape(cx.node)?;
    let Some(shape) = cx.shape(0) else {
        return cx.one(cx.dtype(0), None);
    };
    let [batch, channels, spatial @ ..] = shape else {
        return Err("a pool's input has rank 3 or more".to_owned());
    };
    let extents = infer_extents(cx.node, spatial, &kernel)?;
    let shape = [batch, channels].into_iter().cloned().chain(extents);
    cx.one(cx.dtype(0), Some(shape.collect()))
}

/// ONNX MaxPool, operator set 22: the maxima, and their positions in the whole input.
fn infer_max_pool(cx: &InferCx) -> Types {
    let mut types = infer_pool(cx)?;
    let indices = types.first().cloned().flatten();
    types.push(indices.map(|ty| TensorType { dtype: DType::I64, ..ty }));
    Ok(types)
}

/// ONNX GlobalAveragePool, operator set 22: every spatial extent becomes 1.
fn infer_global(cx: &InferCx) -> Types {
    let Some(shape) = cx.shape(0) else {
        return cx.one(cx.dtype(0), None);
    };
    let [batch, channels, spatial @ ..] = shape else {
        return Err("a pool's input has rank 2 or more".to_owned());
    };
    let ones = spatial.iter().map(|_| Dim::Known(1));
    let shape = [batch, channels].into_iter().cloned().chain(ones);
    cx.one(cx.dtype(0), Some(shape.collect()))
}

fn infer_average_grad(cx: &InferCx) -> Types {
    let shape = cx.node.ints("input_shape").ok_or("input_shape is missing")?;
    let shape: Result<Vec<usize>, _> = shape.iter().map(|&extent| usize::try_from(extent)).collect();
    let shape = shape.map_err(|_| "input_shape is not negative")?;
    Ok(vec![cx.dtype(0).map(|dtype| TensorType::fixed(dtype, &shape))])
}

/// The node's window, resolved for its input.
fn window_of(cx: &GradCx) -> Result<Window, String> {
    let shape = cx.x_shape(0)?;
    let spatial = shape.get(2..).ok_or("a pool's input has rank 3 or more")?;
    Window::of(&cx.node, spatial, &kernel_shape(&cx.node)?)
}

fn gradient_max_pool(cx: &mut GradCx) -> Result<(), String> {
    let attributes = window_of(cx)?.attributes();
    let operands = [cx.x(0)?, cx.y(0)?, cx.dy()?];
    cx.give_with(0, |build| Ok(build.node(Op::lsqc("MaxPoolGrad"), &operands, attributes)))
}

fn samples_max_pool() -> Vec<Sample> {
    vec![
        Sample::new("windows apart")
            .x(&[2, 2, 4, 4])
            .attr("kernel_shape", vec![2, 2])
            .attr("strides", vec![2, 2]),
        Sample::new("windows that overlap, padded unevenly")
            .x(&[1, 2, 5, 6])
            .attr("kernel_shape", vec![3, 2])
            .attr("strides", vec![2, 1])
            .attr("pads", vec![1, 0, 0, 1]),
        Sample::new("SAME_UPPER")
            .x(&[1, 1, 6, 5])
            .attr("kernel_shape", vec![3, 3])
            .attr("strides", vec![2, 2])
            .attr("auto_pad", "SAME_UPPER"),
        Sample::new("dilated")
            .x(&[1, 1, 6, 6])
            .attr("kernel_shape", vec![2, 2])
            .attr("dilations", vec![2, 3]),
        Sample::new("a last window that hangs over")
            .x(&[1, 1, 6, 6])
            .attr("kernel_shape", vec![3, 3])
            .attr("strides", vec![2, 2])
            .attr("ceil_mode", 1),
        Sample::new("one axis")
            .x(&[2, 2, 6])
            .attr("kernel_shape", vec![3])
            .attr("strides", vec![2])
            .attr("pads", vec![0, 1]),
        Sample::new("three axes")
            .x(&[1, 1, 4, 3, 4])
            .attr("kernel_shape", vec![2, 2, 2])
            .attr("strides", vec![2, 1, 2]),
    ]
}

fn gradient_average_pool(cx: &mut GradCx) -> Result<(), String> {
    let mut attributes = window_of(cx)?.attributes();
    if let Some(include) = cx.node.int("count_include_pad").filter(|&include| include != 0) {
        attributes.push(Attribute::new("count_include_pad", include));
    }
    attributes.push(Attribute::new("input_shape", as_i64(&cx.x_shape(0)?)));
    let dy = cx.dy()?;
    cx.give_with(0, |build| Ok(build.node(Op::lsqc("AveragePoolGrad"), &[dy], attributes)))
}

fn samples_average_pool() -> Vec<Sample> {
    let padded = |about| {
        let sample = Sample::new(about).x(&[1, 2, 5, 5]);
        sample
            .attr("kernel_shape", vec![3, 2])
            .attr("strides", vec![2, 1])
            .attr("pads", vec![1, 0, 1, 1])
    };
    vec![
        Sample::new("windows apart")
            .x(&[2, 2, 4, 4])
            .attr("kernel_shape", vec![2, 2])
            .attr("strides", vec![2, 2]),
        padded("pads are not counted"),
        padded("pads are counted").attr("count_include_pad", 1),
        Sample::new("SAME_LOWER")
            .x(&[1, 1, 6, 5])
            .attr("kernel_shape", vec![3, 3])
            .attr("strides", vec![2, 2])
            .attr("auto_pad", "SAME_LOWER"),
        Sample::new("a last window that hangs over")
            .x(&[1, 1, 6, 6])
            .attr("kernel_shape", vec![3, 3])
            .attr("strides", vec![2, 2])
            .attr("ceil_mode", 1),
        Sample::new("one axis")
            .x(&[2, 2, 6])
            .attr("kernel_shape", vec![3])
            .attr("strides", vec![2])
            .attr("pads", vec![0, 1]),
        Sample::new("three axes")
            .x(&[1, 1, 4, 3, 4])
            .attr("kernel_shape", vec![2, 2, 2])
            .attr("strides", vec![2, 1, 2]),
    ]
}

/// ∂x = ∂y / count, everywhere.
fn gradient_global_average(cx: &mut GradCx) -> Result<(), String> {
    let (dy, shape) = (cx.dy()?, cx.x_shape(0)?);
    let count: usize = shape.iter().skip(2).product();
    cx.give_with(0, |build| {
        #[allow(clippy::cast_precision_loss)]
        let share = build.scale(dy, 1.0 / count as f32);
        Ok(build.expand(share, &shape))
    })
}

/// dy to the maxima of each map, shared evenly where several are equal.
fn gradient_global_max(cx: &mut GradCx) -> Result<(), String> {
    let (dy, x, y, rank) = (cx.dy()?, cx.x(0)?, cx.y(0)?, cx.x_shape(0)?.len());
    let spatial: Vec<i64> = (0..).take(rank).skip(2).collect();
    cx.give_with(0, |build| {
        let mask = build.binary("Equal", x, y);
        let mask = build.cast(mask, DType::F32);
        let ties = build.reduce_sum(mask, &spatial, KeepDims::Yes);
        let share = build.div(dy, ties);
        Ok(build.mul(share, mask))
    })
}

/// ONNX GlobalLpPool, operator set 22, y = (Σ|x|ᵖ)^(1/p): ∂x = ∂y·sign(x)·(|x|/y)^(p−1), and 0 in a map of zeros.
fn gradient_global_lp(cx: &mut GradCx) -> Result<(), String> {
    // Far under any norm that single precision tells from 0.
    const TINY: f32 = 1e-30;
    let (dy, x, y) = (cx.dy()?, cx.x(0)?, cx.y(0)?);
    let p = cx.node.int("p").unwrap_or(2);
    if p < 1 {
        return Err(format!("p is 1 or more, not {p}"));
    }
    cx.give_with(0, |build| {
        let sign = build.unary("Sign", x);
        let mut dx = build.mul(dy, sign);
        let (size, tiny) = (build.unary("Abs", x), build.scalar(TINY));
        let norm = build.binary("Max", y, tiny);
        let ratio = build.div(size, norm);
        for _ in 1..p {
            dx = build.mul(dx, ratio);
        }
        Ok(dx)
    })
}

fn samples_global_lp() -> Vec<Sample> {
    vec![
        Sample::new("Euclidean").x(&[2, 2, 3]),
        Sample::new("cubes, two axes").x(&[1, 2, 2, 3]).attr("p", 3),
    ]
}

fn samples_global() -> Vec<Sample> {
    vec![
        Sample::new("two spatial axes").x(&[2, 3, 4, 5]),
        Sample::new("one spatial axis").x(&[2, 3, 4]),
    ]
}
