//! Ops that pick elements by position: Slice, Pad, Gather.
//!
//! The positions are fixed, so ∂x puts dy back there and zero elsewhere: Slice by Pad (after spreading dy by the step), Pad with constants by
//! Slice, Gather with constant indices by a product with a one-hot matrix, which adds up where an index repeats. Refused: Pad in the modes reflect, edge and wrap; Gather with indices that are computed.

use super::gradient::GradCx;
use super::picks::{Picks, Span};
use super::sample::Sample;
use super::shape::{held, unknown_shape};
use super::{InferCx, OpEntry, normalize_axes, normalize_axis};
use crate::ir::{Dim, Op, Tensor, TensorType, ValueId};
use crate::ops::build::{Build, as_i64};

type Types = Result<Vec<Option<TensorType>>, String>;

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("Slice", infer_slice, "")
        .shape_value(held_by_slice)
        .gradient(gradient_slice, samples_slice),
    OpEntry::new("Pad", infer_pad, "").gradient(gradient_pad, samples_pad),
    OpEntry::new("Gather", infer_gather, "")
        .shape_value(held_by_gather)
        .gradient(gradient_gather, samples_gather),
];

/// ONNX Slice, operator set 13; before 10 starts, ends and axes are attributes.
fn infer_slice(cx: &InferCx) -> Types {
    let Some(shape) = cx.shape(0) else {
        return cx.one(cx.dtype(0), None);
    };
    let Some(picks) = Picks::of(cx.node, |index| cx.ints(index), shape.len())? else {
        // Which extents change is unknown unless the axes are.
        let axes = cx.ints_of("axes", 3).unwrap_or_default();
        let axes = normalize_axes(&axes, shape.len())?;
        let all = axes.is_empty();
        let shape = shape.iter().enumerate();
        let shape = shape.map(|(axis, dim)| {
            if all || axes.contains(&axis) {
                Dim::Unknown
            } else {
                dim.clone()
            }
        });
        return cx.one(cx.dtype(0), Some(shape.collect()));
    };
    let shape = shape.iter().enumerate().map(|(axis, dim)| match (picks.on(axis), dim) {
        (None, dim) => dim.clone(),
        (Some(pick), Dim::Known(extent)) => Dim::Known(pick.span(*extent).count),
        (Some(pick), dim) if pick.takes_all() => dim.clone(),
        _ => Dim::Unknown,
    });
    cx.one(cx.dtype(0), Some(shape.collect()))
}

fn held_by_slice(cx: &InferCx) -> Option<Vec<Dim>> {
    let dims = held(cx, 0)?;
    let picks = Picks::of(cx.node, |index| cx.ints(index), 1).ok()??;
    let Some(pick) = picks.on(0) else { return Some(dims) };
    let positions = pick.span(dims.len()).positions();
    positions.map(|position| dims.get(position).cloned()).collect()
}

/// dy, spread by the step and turned round if that is negative, between zeros.
fn gradient_slice(cx: &mut GradCx) -> Result<(), String> {
    let (mut dx, shape) = (cx.dy()?, cx.x_shape(0)?);
    let graph = &*cx.build.graph;
    let ints = |index: usize| graph[cx.node.input(index)?].constant()?.to_i64();
    let picks = Picks::of(&cx.node, ints, shape.len())?;
    let picks = picks.ok_or("where the slice begins and ends is computed")?;
    if !cx.wants(0) {
        return Ok(());
    }
    let mut pads = vec![0; 2 * shape.len()];
    for (axis, &extent) in shape.iter().enumerate() {
        let Some(pick) = picks.on(axis) else { continue };
        let span = pick.span(extent);
        dx = spread(&mut cx.build, dx, axis, span)?;
        let (first, taken) = span.covered();
        let [begin, end] = [first, extent - first - taken].map(|pad| i64::try_from(pad).unwrap_or(i64::MAX));
        if let Some(slot) = pads.get_mut(axis) {
            *slot = begin;
        }
        if let Some(slot) = pads.get_mut(shape.len() + axis) {
            *slot = end;
        }
    }
    let dx = cx.build.pad(dx, &pads);
    cx.give(0, dx);
    Ok(())
}

/// `dy` along `axis` in the order of x, with zeros between, from the first to the last position of `span`.
fn spread(build: &mut Build, dy: ValueId, axis: usize, span: Span) -> Result<ValueId, String> {
    let step = usize::try_from(span.step.unsigned_abs()).map_err(|_| "the step is absurd")?;
    let at = i64::try_from(axis).map_err(|_| "the rank is absurd")?;
    let mut dy = dy;
    if span.step < 0 && span.count > 1 {
        let last = as_i64(&[span.count]).first().copied().unwrap_or_default() - 1;
        let backwards = build.ints(&(0..=last).rev().collect::<Vec<_>>());
        dy = build.node(
            Op::onnx("Gather"),
            &[dy, backwards],
            vec![crate::ir::Attribute::new("axis", at)],
        );
    }
    if step == 1 || span.count <= 1 {
        return Ok(dy);
    }
    let shape = build.shape(dy)?;
    let (before, after) = shape.split_at((axis + 1).min(shape.len()));
    let apart = build.reshape(dy, &[before, &[1], after].concat());
    let mut pads = vec![0; 2 * (shape.len() + 1)];
    if let Some(slot) = pads.get_mut(shape.len() + 1 + axis + 1) {
        *slot = i64::try_from(step - 1).map_err(|_| "the step is absurd")?;
    }
    let apart = build.pad(apart, &pads);
    let mut spaced = shape.clone();
    if let Some(extent) = spaced.get_mut(axis) {
        *extent = span.count * step;
    }
    let joined = build.reshape(apart, &spaced);
    let (_, taken) = span.covered();
    Ok(build.slice(joined, at, 0, i64::try_from(taken).unwrap_or(i64::MAX), 1))
}

fn samples_slice() -> Vec<Sample> {
    let ints = |values: &[i64]| Tensor::vector(values.to_vec());
    let sample = |about, starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]| {
        let sample = Sample::new(about).x(&[2, 7, 3]);
        sample
            .constant(ints(starts))
            .constant(ints(ends))
            .constant(ints(axes))
            .constant(ints(steps))
    };
    vec![
        sample(
            "two axes, one counted from the back",
            &[1, -2],
            &[6, i64::MAX],
            &[1, -1],
            &[1, 1],
        ),
        sample("every second", &[1], &[i64::MAX], &[1], &[2]),
        sample("backwards by three", &[-1], &[i64::MIN], &[1], &[-3]),
    ]
}

/// The pads of a Pad node as `[begins, ends]` of all axes.
fn pads_of(
    node: &crate::ir::Node,
    ints: impl Fn(usize) -> Option<Vec<i64>>,
    rank: usize,
) -> Result<Option<[Vec<i64>; 2]>, String> {
    let given = match node.ints("pads").or_else(|| node.ints("paddings")) {
        Some(pads) => Some(pads.to_vec()),
        None => ints(1),
    };
    let Some(given) = given else { return Ok(None) };
    let axes: Vec<usize> = match node.input(3) {
        None => (0..rank).collect(),
        Some(_) => match ints(3) {
            Some(axes) => normalize_axes(&axes, rank)?,
            None => return Ok(None),
        },
    };
    if given.len() != 2 * axes.len() {
        return Err(format!("{} pads for {} axes", given.len(), axes.len()));
    }
    let mut pads = [vec![0; rank], vec![0; rank]];
    for (side, given) in pads.iter_mut().zip(given.chunks(axes.len().max(1))) {
        for (&axis, &pad) in axes.iter().zip(given) {
            if let Some(slot) = side.get_mut(axis) {
                *slot = pad;
            }
        }
    }
    Ok(Some(pads))
}

/// ONNX Pad, operator set 19; before 11 pads and value are attributes. Negative pads crop.
fn infer_pad(cx: &InferCx) -> Types {
    let Some(shape) = cx.shape(0) else {
        return cx.one(cx.dtype(0), None);
    };
    let Some([begins, ends]) = pads_of(cx.node, |index| cx.ints(index), shape.len())? else {
        return cx.one(cx.dtype(0), unknown_shape(Some(shape.len())));
    };
    let padded = shape.iter().zip(begins.into_iter().zip(ends)).map(|(dim, (begin, end))| {
        let total = begin.checked_add(end).ok_or("pads are absurd")?;
        match dim {
            dim if begin == 0 && end == 0 => Ok(dim.clone()),
            Dim::Known(extent) => {
                let padded = i64::try_from(*extent).ok().and_then(|extent| extent.checked_add(total));
                let padded = padded.and_then(|padded| usize::try_from(padded).ok());
                padded.map(Dim::Known).ok_or("pads crop more than there is")
            }
            _ => Ok(Dim::Unknown),
        }
    });
    cx.one(cx.dtype(0), Some(padded.collect::<Result<_, _>>()?))
}

/// Crops what was padded and pads with zeros what was cropped.
fn gradient_pad(cx: &mut GradCx) -> Result<(), String> {
    if let Some(mode) = cx.node.text("mode")
        && mode != "constant"
    {
        return Err(format!("the gradient of Pad in mode {mode} is not written"));
    }
    if cx.wants(2) {
        return Err("the value that Pad fills in is not trained".to_owned());
    }
    let (mut dx, shape) = (cx.dy()?, cx.x_shape(0)?);
    let graph = &*cx.build.graph;
    let ints = |index: usize| graph[cx.node.input(index)?].constant()?.to_i64();
    let [begins, ends] = pads_of(&cx.node, ints, shape.len())?.ok_or("the pads are computed")?;
    if !cx.wants(0) {
        return Ok(());
    }
    for ((axis, &begin), &end) in (0..).zip(&begins).zip(&ends) {
        if begin > 0 || end > 0 {
            let stop = if end > 0 { -end } else { i64::MAX };
            dx = cx.build.slice(dx, axis, begin.max(0), stop, 1);
        }
    }
    let cropped = begins.iter().chain(&ends).map(|pad| (-pad).max(0));
    let dx = cx.build.pad(dx, &cropped.collect::<Vec<_>>());
    cx.give(0, dx);
    Ok(())
}

fn samples_pad() -> Vec<Sample> {
    let pads = |values: &[i64]| Tensor::vector(values.to_vec());
    vec![
        Sample::new("zeros all round").x(&[2, 3]).constant(pads(&[1, 0, 2, 1])),
        Sample::new("a value of its own")
            .x(&[2, 3])
            .constant(pads(&[0, 2, 0, 0]))
            .constant(Tensor::scalar(0.5f32)),
    ]
}

/// ONNX Gather, operator set 13: the extents of the indices stand in the place of the axis.
fn infer_gather(cx: &InferCx) -> Types {
    let (Some(data), Some(indices)) = (cx.shape(0), cx.shape(1)) else {
        return cx.one(cx.dtype(0), None);
    };
    let axis = normalize_axis(cx.node.int("axis").unwrap_or(0), data.len())?;
    let (before, after) = data.split_at(axis);
    let after = after.get(1..).unwrap_or_default();
    cx.one(cx.dtype(0), Some([before, indices, after].concat()))
}

fn held_by_gather(cx: &InferCx) -> Option<Vec<Dim>> {
    if !matches!(cx.node.int("axis"), None | Some(0 | -1)) || cx.shape(0)?.len() != 1 {
        return None;
    }
    let dims = held(cx, 0)?;
    let indices = cx.ints(1)?;
    indices
        .into_iter()
        .map(|index| dims.get(normalize_axis(index, dims.len()).ok()?).cloned())
        .collect()
}

/// With dy as `[P, M, Q]` and the one-hot matrix H `[D, M]` of the M indices, ∂x = H · dy, as `[P, D, Q]`.
fn gradient_gather(cx: &mut GradCx) -> Result<(), String> {
    // A larger one-hot matrix costs more than what it is a gradient of.
    const MOST: usize = 1 << 24;
    let (dy, shape) = (cx.dy()?, cx.x_shape(0)?);
    let indices = cx.build.graph[cx.x(1)?].constant().and_then(Tensor::to_i64);
    let indices = indices.ok_or("the gradient of Gather with computed indices is not written")?;
    let axis = normalize_axis(cx.node.int("axis").unwrap_or(0), shape.len())?;
    let (before, rest) = shape.split_at(axis);
    let (&extent, after) = rest.split_first().ok_or("Gather takes no scalar")?;
    let count = indices.len();
    if extent.checked_mul(count).is_none_or(|size| size > MOST) {
        return Err(format!("the gradient of Gather needs a one-hot matrix of {extent} × {count}"));
    }
    let mut one_hot = vec![0f32; extent * count];
    for (column, &index) in indices.iter().enumerate() {
        let row = normalize_axis(index, extent).map_err(|_| format!("index {index} lies outside the axis"))?;
        if let Some(slot) = one_hot.get_mut(row * count + column) {
            *slot = 1.0;
        }
    }
    cx.give_with(0, |build| {
        let (outer, inner): (usize, usize) = (before.iter().product(), after.iter().product());
        let dy = build.reshape(dy, &[outer, count, inner]);
        let one_hot = build.constant(Tensor::new(&[extent, count], one_hot));
        let dx = build.matmul(one_hot, dy);
        Ok(build.reshape(dx, &shape))
    })
}

fn samples_gather() -> Vec<Sample> {
    vec![
        Sample::new("an index twice, one from the back")
            .x(&[3, 4])
            .constant(Tensor::vector(vec![1i64, -1, 1])),
        Sample::new("a scalar index along an inner axis")
            .x(&[2, 3, 2])
            .constant(Tensor::scalar(2i64))
            .attr("axis", 1),
    ]
}
