//! Normalizations by the statistics of the sample itself: LayerNormalization, GroupNormalization, InstanceNormalization,
//! RMSNormalization, MeanVarianceNormalization, LpNormalization, LRN.
//!
//! Over K elements with mean μ and variance σ², x̂ = (x − μ)·i with i = 1/√(σ² + ε), and g the gradient of x̂:
//! ∂x = i·(g − mean g − x̂·mean(g·x̂))  (Ba, Kiros & Hinton, arXiv 1607.06450). RMSNormalization has μ = 0, and mean g falls away. Scale and
//! shift are broadcast: ∂scale = ∂y·x̂, ∂shift = ∂y, summed over what they were broadcast over.
//!
//! The statistics are computed again: the op's own results need not be there. The gradients of those further results are refused.

use super::build::{Build, KeepDims, as_i64};
use super::gradient::GradCx;
use super::normalize::{epsilon, per_channel};
use super::sample::Sample;
use super::{InferCx, OpEntry, normalize_axes, normalize_axis};
use crate::ir::{DType, Dim, Tensor, TensorType, ValueId};

type Types = Result<Vec<Option<TensorType>>, String>;

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("LayerNormalization", infer_layer, "").gradient(|cx| layer(cx, Centre::Mean), samples_layer),
    OpEntry::new("RMSNormalization", |cx| cx.like_first(), "").gradient(|cx| layer(cx, Centre::Zero), samples_rms),
    OpEntry::new("GroupNormalization", |cx| cx.like_first(), "").gradient(group, samples_group),
    OpEntry::new("InstanceNormalization", |cx| cx.like_first(), "").gradient(instance, samples_instance),
    OpEntry::new("MeanVarianceNormalization", |cx| cx.like_first(), "").gradient(mean_variance, samples_mean_variance),
    OpEntry::new("LpNormalization", |cx| cx.like_first(), "").gradient(lp, samples_lp),
    OpEntry::new("LRN", |cx| cx.like_first(), "").gradient(lrn, samples_lrn),
];

/// What x is measured from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Centre {
    Mean,
    Zero,
}

/// x̂ and 1/√(σ² + ε), and the axes that were averaged over.
struct Standard {
    x_hat: ValueId,
    inverse: ValueId,
    axes: Vec<i64>,
    centre: Centre,
}

/// The mean over `axes`, which stay.
fn mean(b: &mut Build, x: ValueId, axes: &[i64]) -> Result<ValueId, String> {
    let before: usize = b.shape(x)?.iter().product();
    let sum = b.reduce_sum(x, axes, KeepDims::Yes);
    let count = before / b.shape(sum)?.iter().product::<usize>().max(1);
    #[allow(clippy::cast_precision_loss)]
    Ok(b.scale(sum, 1.0 / count as f32))
}

impl Standard {
    fn of(b: &mut Build, x: ValueId, axes: &[i64], epsilon: f32, centre: Centre) -> Result<Standard, String> {
        let centred = match centre {
            Centre::Zero => x,
            Centre::Mean => {
                let mean = mean(b, x, axes)?;
                b.sub(x, mean)
            }
        };
        let square = b.mul(centred, centred);
        let variance = mean(b, square, axes)?;
        let inverse = super::normalize::inverse_deviation(b, variance, epsilon);
        Ok(Standard {
            x_hat: b.mul(centred, inverse),
            inverse,
            axes: axes.to_vec(),
            centre,
        })
    }

    /// ∂x from the gradient of x̂.
    fn back(&self, b: &mut Build, g: ValueId) -> Result<ValueId, String> {
        let product = b.mul(g, self.x_hat);
        let along = mean(b, product, &self.axes)?;
        let along = b.mul(self.x_hat, along);
        let mut rest = b.sub(g, along);
        if self.centre == Centre::Mean {
            let level = mean(b, g, &self.axes)?;
            rest = b.sub(rest, level);
        }
        Ok(b.mul(rest, self.inverse))
    }
}

fn only_first(cx: &GradCx) -> Result<(), String> {
    if (1..cx.node.outputs().len()).any(|index| cx.dy_of(index).is_some()) {
        return Err("the gradient of the statistics that it gives is not written".to_owned());
    }
    Ok(())
}

/// ONNX LayerNormalization, operator set 17: y, and the mean and 1/√(σ² + ε) in the precision of `stash_type`.
fn infer_layer(cx: &InferCx) -> Types {
    let stash = cx.node.int("stash_type").unwrap_or(1);
    let stash = i32::try_from(stash).ok().and_then(DType::from_code);
    let shape = match cx.shape(0) {
        None => None,
        Some(shape) => {
            let axis = normalize_axis(cx.node.int("axis").unwrap_or(-1), shape.len())?;
            let kept = shape.iter().enumerate();
            Some(
                kept.map(|(at, dim)| if at < axis { dim.clone() } else { Dim::Known(1) })
                    .collect(),
            )
        }
    };
    let statistics = stash.map(|dtype| TensorType { dtype, shape });
    Ok(vec![cx.ty(0).cloned(), statistics.clone(), statistics])
}

/// LayerNormalization, and RMSNormalization (operator set 23): over the axes from `axis` on.
fn layer(cx: &mut GradCx, centre: Centre) -> Result<(), String> {
    only_first(cx)?;
    let (dy, x, scale, rank) = (cx.dy()?, cx.x(0)?, cx.x(1)?, cx.x_shape(0)?.len());
    let axis = normalize_axis(cx.node.int("axis").unwrap_or(-1), rank)?;
    let axes = as_i64(&(axis..rank).collect::<Vec<_>>());
    let standard = Standard::of(&mut cx.build, x, &axes, epsilon(&cx.node), centre)?;
    cx.give_with(0, |b| {
        let g = b.mul(dy, scale);
        standard.back(b, g)
    })?;
    cx.give_with(1, |b| Ok(b.mul(dy, standard.x_hat)))?;
    cx.give_with(2, |_| Ok(dy))
}

/// ONNX GroupNormalization: over the channels of each of `num_groups` groups. Scale and shift are one for each channel from operator set 21
/// on, one for each group in 18.
fn group(cx: &mut GradCx) -> Result<(), String> {
    let groups = cx.node.int("num_groups").and_then(|groups| usize::try_from(groups).ok());
    by_groups(cx, groups.ok_or("num_groups is missing")?)
}

/// ONNX InstanceNormalization, operator set 6: each channel is a group.
fn instance(cx: &mut GradCx) -> Result<(), String> {
    let channels = cx.x_shape(0)?.get(1).copied().ok_or("it has no channels")?;
    by_groups(cx, channels)
}

fn by_groups(cx: &mut GradCx, groups: usize) -> Result<(), String> {
    let (dy, x, scale, shape) = (cx.dy()?, cx.x(0)?, cx.x(1)?, cx.x_shape(0)?);
    let (&[batch, channels, ..], parameters) = (&shape[..], cx.x_shape(1)?) else {
        return Err("it has no channels".to_owned());
    };
    if groups == 0 || channels % groups != 0 || batch == 0 {
        return Err(format!("{channels} channels do not divide into {groups} groups"));
    }
    let rows = [batch, groups, shape.iter().product::<usize>() / (batch * groups)];
    let per_group = parameters != [channels];
    // A parameter of each group stands for all of its channels.
    let wide = if per_group { rows.to_vec() } else { shape.clone() };
    let b = &mut cx.build;
    let grouped = b.reshape(x, &rows);
    let standard = Standard::of(b, grouped, &[2], epsilon(&cx.node), Centre::Mean)?;
    let (x_hat, dy) = (b.reshape(standard.x_hat, &wide), b.reshape(dy, &wide));
    let others: Vec<i64> = super::normalize::other_axes(wide.len());
    cx.give_with(0, |b| {
        let scale = per_channel(b, scale, wide.len())?;
        let g = b.mul(dy, scale);
        let g = b.reshape(g, &rows);
        let dx = standard.back(b, g)?;
        Ok(b.reshape(dx, &shape))
    })?;
    cx.give_with(1, |b| {
        let product = b.mul(dy, x_hat);
        Ok(b.reduce_sum(product, &others, KeepDims::No))
    })?;
    cx.give_with(2, |b| Ok(b.reduce_sum(dy, &others, KeepDims::No)))
}

/// ONNX MeanVarianceNormalization, operator set 13: y = (x − μ)/(σ + 1e-9), over the axes 0, 2 and 3 by default.
fn mean_variance(cx: &mut GradCx) -> Result<(), String> {
    let (dy, x, rank) = (cx.dy()?, cx.x(0)?, cx.x_shape(0)?.len());
    let axes = normalize_axes(cx.node.ints("axes").unwrap_or(&[0, 2, 3]), rank)?;
    cx.give_with(0, |b| {
        let standard = Standard::of(b, x, &as_i64(&axes), 0.0, Centre::Mean)?;
        standard.back(b, dy)
    })
}

/// ONNX LpNormalization, operator set 22, y = x/n along an axis. p = 2, n = √Σx²: (∂y − y·Σ∂y·y)/n;  p = 1, n = Σ|x|:
/// (∂y − sign x·Σ∂y·y)/n.
fn lp(cx: &mut GradCx) -> Result<(), String> {
    let (dy, x, y, rank) = (cx.dy()?, cx.x(0)?, cx.y(0)?, cx.x_shape(0)?.len());
    let axis = as_i64(&[normalize_axis(cx.node.int("axis").unwrap_or(-1), rank)?]);
    let p = cx.node.int("p").unwrap_or(2);
    if !matches!(p, 1 | 2) {
        return Err(format!("p is 1 or 2, not {p}"));
    }
    cx.give_with(0, |b| {
        let (size, direction) = if p == 1 {
            (b.unary("Abs", x), b.unary("Sign", x))
        } else {
            (b.mul(x, x), y)
        };
        let sum = b.reduce_sum(size, &axis, KeepDims::Yes);
        let norm = if p == 1 { sum } else { b.unary("Sqrt", sum) };
        let product = b.mul(dy, y);
        let along = b.reduce_sum(product, &axis, KeepDims::Yes);
        let away = b.mul(direction, along);
        let rest = b.sub(dy, away);
        Ok(b.div(rest, norm))
    })
}

/// ONNX LRN, operator set 13: y = x·D^−β, where D = bias + α/size·S and S sums the squares of `size` channels around. With A summing
/// over channels whose window has the present one:  ∂x = ∂y·D^−β − 2αβ/size · x·A(∂y·y/D).
fn lrn(cx: &mut GradCx) -> Result<(), String> {
    let (dy, x, y, shape) = (cx.dy()?, cx.x(0)?, cx.y(0)?, cx.x_shape(0)?);
    let &[batch, channels, ..] = &shape[..] else {
        return Err("it has no channels".to_owned());
    };
    let size = cx.node.int("size").and_then(|size| usize::try_from(size).ok());
    let size = size.filter(|&size| size > 0).ok_or("size is positive")?;
    let or = |name: &str, default: f32| cx.node.float(name).unwrap_or(default);
    let (alpha, beta, bias) = (or("alpha", 1e-4), or("beta", 0.75), or("bias", 1.0));
    // Channel c sums those from c − ⌊(size − 1)/2⌋ to c + ⌈(size − 1)/2⌉.
    let (low, high) = ((size - 1) / 2, size / 2);
    let sums = |c: usize, other: usize| other + low >= c && other <= c.saturating_add(high);
    let square = |f: &dyn Fn(usize, usize) -> bool| -> Tensor {
        let cells = (0..channels).flat_map(|row| (0..channels).map(move |column| (row, column)));
        let cells = cells.map(|(row, column)| f32::from(u8::from(f(row, column))));
        Tensor::new(&[channels, channels], cells.collect())
    };
    let maps = [batch, channels, shape.iter().skip(2).product()];
    #[allow(clippy::cast_precision_loss)]
    let share = alpha / size as f32;
    cx.give_with(0, |b| {
        let (band, adjoint) = (square(&sums), square(&|row, column| sums(column, row)));
        let (band, adjoint) = (b.constant(band), b.constant(adjoint));
        let [x, y, dy] = [x, y, dy].map(|value| b.reshape(value, &maps));
        let squares = b.mul(x, x);
        let sum = b.matmul(band, squares);
        let scaled = b.scale(sum, share);
        let bias = b.scalar(bias);
        let divisor = b.add(scaled, bias);
        let exponent = b.scalar(-beta);
        let power = b.binary("Pow", divisor, exponent);
        let direct = b.mul(dy, power);
        let product = b.mul(dy, y);
        let ratio = b.div(product, divisor);
        let gathered = b.matmul(adjoint, ratio);
        let indirect = b.mul(x, gathered);
        let indirect = b.scale(indirect, 2.0 * share * beta);
        let dx = b.sub(direct, indirect);
        Ok(b.reshape(dx, &shape))
    })
}

fn samples_layer() -> Vec<Sample> {
    vec![
        Sample::new("last axis").x(&[2, 3, 4]).x(&[4]).x(&[4]),
        Sample::new("two axes, no shift").x(&[2, 3, 2]).x(&[3, 2]).attr("axis", 1),
        Sample::new("one of two, counted from the back, ε of its own")
            .x(&[2, 3, 2])
            .x(&[3, 2])
            .x(&[3, 2])
            .attr("axis", -2)
            .attr("epsilon", 0.1f32),
        Sample::new("a scale that is broadcast").x(&[2, 4]).x(&[1]).x(&[4]),
    ]
}

fn samples_rms() -> Vec<Sample> {
    vec![
        Sample::new("last axis").x(&[2, 3, 4]).x(&[4]).opset(23),
        Sample::new("two axes, ε of its own")
            .x(&[2, 3, 2])
            .x(&[3, 2])
            .attr("axis", 1)
            .attr("epsilon", 0.1f32)
            .opset(23),
    ]
}

fn samples_group() -> Vec<Sample> {
    vec![
        Sample::new("a scale for each channel")
            .x(&[2, 4, 3])
            .x(&[4])
            .x(&[4])
            .attr("num_groups", 2)
            .opset(21),
        Sample::new("a scale for each group")
            .x(&[2, 4, 2, 2])
            .x(&[2])
            .x(&[2])
            .attr("num_groups", 2)
            .attr("epsilon", 0.1f32)
            .opset(18),
        Sample::new("one group")
            .x(&[1, 2, 3, 1])
            .x(&[2])
            .x(&[2])
            .attr("num_groups", 1)
            .opset(21),
    ]
}

fn samples_instance() -> Vec<Sample> {
    vec![
        Sample::new("images").x(&[2, 3, 2, 2]).x(&[3]).x(&[3]),
        Sample::new("one axis, ε of its own")
            .x(&[1, 2, 4])
            .x(&[2])
            .x(&[2])
            .attr("epsilon", 0.1f32),
    ]
}

fn samples_mean_variance() -> Vec<Sample> {
    vec![
        Sample::new("default axes").x(&[2, 2, 2, 2]),
        Sample::new("one axis").x(&[2, 5]).attr("axes", vec![1]),
    ]
}

fn samples_lp() -> Vec<Sample> {
    vec![
        Sample::new("Euclidean").x(&[2, 4]),
        Sample::new("sum of sizes, first axis")
            .x(&[3, 2])
            .attr("p", 1)
            .attr("axis", 0),
    ]
}

fn samples_lrn() -> Vec<Sample> {
    vec![
        Sample::new("as in AlexNet, with more weight")
            .x(&[2, 6, 1, 2])
            .attr("size", 5)
            .attr("alpha", 0.9f32)
            .attr("bias", 2.0f32),
        Sample::new("three channels")
            .x(&[1, 5, 2, 1])
            .attr("size", 3)
            .attr("alpha", 0.5f32)
            .attr("beta", 1.25f32),
    ]
}
