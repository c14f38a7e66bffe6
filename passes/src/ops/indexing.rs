//! Slice, and Trilu and ReverseSequence, which keep every position.
//!
//! The positions that a Slice takes are fixed, so ∂x puts dy back there, spread by the step, and zero elsewhere. What Trilu keeps of x it
//! keeps of dy; what ReverseSequence turns round it turns back.

use super::gradient::GradCx;
use super::picks::{Picks, Span};
use super::sample::Sample;
use super::shape::held;
use super::{InferCx, OpEntry, normalize_axes};
use crate::ir::{Dim, Op, Tensor, TensorType, ValueId};
use crate::ops::build::{Build, as_i64};

type Types = Result<Vec<Option<TensorType>>, String>;

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("Slice", infer_slice, "")
        .shape_value(held_by_slice)
        .gradient(gradient_slice, samples_slice),
    OpEntry::new("Trilu", |cx| cx.like_first(), "").gradient(same_again, samples_trilu),
    OpEntry::new("ReverseSequence", |cx| cx.like_first(), "").gradient(same_again, samples_reverse_sequence),
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

/// The op on dy, with its other operands: it is its own adjoint. ONNX Trilu, operator set 14, and ReverseSequence, operator set 10.
fn same_again(cx: &mut GradCx) -> Result<(), String> {
    let (dy, op, attributes) = (cx.dy()?, cx.node.op.clone(), cx.node.attributes.clone());
    let operands: Vec<Option<ValueId>> = [Some(dy)]
        .into_iter()
        .chain(cx.node.inputs().iter().skip(1).copied())
        .collect();
    cx.give_with(0, |build| {
        let results = build.nodes(op, &operands, attributes, 1);
        results.first().copied().ok_or_else(|| "it has no result".to_owned())
    })
}

fn samples_trilu() -> Vec<Sample> {
    vec![
        Sample::new("upper").x(&[2, 3, 3]),
        Sample::new("lower, with a diagonal more")
            .x(&[3, 4])
            .constant(Tensor::scalar(1i64))
            .attr("upper", 0),
        Sample::new("upper, with a diagonal less")
            .x(&[3, 4])
            .constant(Tensor::scalar(1i64))
            .attr("upper", 1),
    ]
}

fn samples_reverse_sequence() -> Vec<Sample> {
    vec![
        Sample::new("a batch of two lengths")
            .x(&[2, 3, 2])
            .constant(Tensor::vector(vec![2i64, 3]))
            .attr("batch_axis", 0)
            .attr("time_axis", 1),
    ]
}
