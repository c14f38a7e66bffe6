//! Ops that put tensors side by side or take them apart: Concat, Split, Tile.
//!
//! Concat gives each operand its slice of dy; Split joins the gradients of its parts, zeros for a part that has none; Tile adds up those of
//! the copies. Refused: a Tile by computed repeats.

use super::build::{KeepDims, as_i64};
use super::gradient::GradCx;
use super::sample::Sample;
use super::shape::{held, unknown_shape};
use super::{InferCx, OpEntry, Quant, normalize_axis};
use crate::ir::{Dim, Tensor, TensorType};

type Types = Result<Vec<Option<TensorType>>, String>;

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("Concat", infer_concat, "")
        .shape_value(held_by_concat)
        .gradient(gradient_concat, samples_concat)
        .quant(Quant::Joins),
    OpEntry::new("Split", infer_split, "").gradient(gradient_split, samples_split),
    OpEntry::new("Tile", infer_tile, "").gradient(gradient_tile, samples_tile),
];

/// ONNX Concat, operator set 13.
fn infer_concat(cx: &InferCx) -> Types {
    let dtype = (0..cx.node.inputs().len()).find_map(|index| cx.dtype(index));
    let shapes: Option<Vec<&[Dim]>> = (0..cx.node.inputs().len()).map(|index| cx.shape(index)).collect();
    let Some(shapes) = shapes else {
        return cx.one(dtype, None);
    };
    let Some((first, others)) = shapes.split_first() else {
        return Err("Concat of nothing".to_owned());
    };
    let axis = normalize_axis(cx.node.int("axis").unwrap_or(1), first.len())?;
    let mut shape = first.to_vec();
    for other in others {
        if other.len() != shape.len() {
            return Err(format!("operands of ranks {} and {} do not join", shape.len(), other.len()));
        }
        for (at, (have, new)) in shape.iter_mut().zip(*other).enumerate() {
            *have = match (&*have, new) {
                (Dim::Known(a), Dim::Known(b)) if at == axis => a.checked_add(*b).map_or(Dim::Unknown, Dim::Known),
                _ if at == axis => Dim::Unknown,
                (Dim::Known(a), Dim::Known(b)) if a != b => {
                    return Err(format!("extents {a} and {b} of axis {at} do not join"));
                }
                (Dim::Known(_), _) => continue,
                (Dim::Symbol(_), Dim::Unknown) => continue,
                _ => new.clone(),
            };
        }
    }
    cx.one(dtype, Some(shape))
}

fn held_by_concat(cx: &InferCx) -> Option<Vec<Dim>> {
    let mut dims = Vec::new();
    for index in 0..cx.node.inputs().len() {
        match held(cx, index) {
            Some(held) => dims.extend(held),
            None => {
                let [Dim::Known(count)] = cx.shape(index)? else { return None };
                dims.extend(unknown_shape(Some(*count))?);
            }
        }
    }
    Some(dims)
}

/// Each operand's part of dy.
fn gradient_concat(cx: &mut GradCx) -> Result<(), String> {
    let dy = cx.dy()?;
    let rank = cx.y_shape()?.len();
    let axis = normalize_axis(cx.node.int("axis").unwrap_or(1), rank)?;
    let mut start = 0i64;
    for index in 0..cx.node.inputs().len() {
        let extent = as_i64(&cx.x_shape(index)?)
            .get(axis)
            .copied()
            .ok_or("operands of Concat have one rank")?;
        let end = start.saturating_add(extent);
        let at = i64::try_from(axis).map_err(|_| "the rank is absurd")?;
        cx.give_with(index, |build| Ok(build.slice(dy, at, start, end, 1)))?;
        start = end;
    }
    Ok(())
}

fn samples_concat() -> Vec<Sample> {
    vec![
        Sample::new("three along the channels")
            .x(&[2, 1, 3])
            .x(&[2, 2, 3])
            .x(&[2, 1, 3])
            .attr("axis", 1),
    ]
}

/// ONNX Split, operator set 18: by sizes, else into equal parts, of which the last may be smaller.
fn infer_split(cx: &InferCx) -> Types {
    let count = cx.node.outputs().len();
    let Some(shape) = cx.shape(0) else {
        return Ok(vec![cx.dtype(0).map(TensorType::unranked); count]);
    };
    let axis = normalize_axis(cx.node.int("axis").unwrap_or(0), shape.len())?;
    let sized = cx.node.input(1).is_some() || cx.node.ints("split").is_some();
    let parts: Vec<Dim> = match (cx.ints_of("split", 1), shape.get(axis)) {
        (Some(sizes), _) => {
            let sizes = sizes.into_iter().map(|size| usize::try_from(size).map(Dim::Known));
            sizes.collect::<Result<_, _>>().map_err(|_| "sizes are not negative")?
        }
        (None, Some(Dim::Known(extent))) if !sized => {
            let size = extent.div_ceil(count.max(1));
            (0..count)
                .map(|part| Dim::Known(size.min(extent.saturating_sub(part * size))))
                .collect()
        }
        _ => vec![Dim::Unknown; count],
    };
    if parts.len() != count {
        return Err(format!("{} sizes for {count} results", parts.len()));
    }
    let types = parts.into_iter().map(|part| {
        let mut shape = shape.to_vec();
        if let Some(slot) = shape.get_mut(axis) {
            *slot = part;
        }
        cx.dtype(0).map(|dtype| TensorType::new(dtype, shape))
    });
    Ok(types.collect())
}

/// ONNX Tile, operator set 13.
fn infer_tile(cx: &InferCx) -> Types {
    let Some(shape) = cx.shape(0) else {
        return cx.one(cx.dtype(0), None);
    };
    let Some(repeats) = cx.ints(1) else {
        return cx.one(cx.dtype(0), unknown_shape(Some(shape.len())));
    };
    if repeats.len() != shape.len() {
        return Err(format!("{} repeats for {} axes", repeats.len(), shape.len()));
    }
    let tiled = shape
        .iter()
        .zip(repeats)
        .map(|(dim, repeat)| match (dim, usize::try_from(repeat)) {
            (dim, Ok(1)) => dim.clone(),
            (Dim::Known(extent), Ok(repeat)) => extent.checked_mul(repeat).map_or(Dim::Unknown, Dim::Known),
            _ => Dim::Unknown,
        });
    cx.one(cx.dtype(0), Some(tiled.collect()))
}

/// Joins the gradients of the parts.
fn gradient_split(cx: &mut GradCx) -> Result<(), String> {
    let rank = cx.x_shape(0)?.len();
    let axis = normalize_axis(cx.node.int("axis").unwrap_or(0), rank)?;
    let axis = i64::try_from(axis).map_err(|_| "the rank is absurd")?;
    let mut parts = Vec::new();
    for index in 0..cx.node.outputs().len() {
        let part = match (cx.dy_of(index), cx.node.output(index)) {
            (Some(dy), _) => dy,
            (None, Some(part)) => {
                let shape = cx.build.shape(part)?;
                cx.build.constant(Tensor::full(&shape, 0f32))
            }
            (None, None) => return Err("a part that is left out has no shape".to_owned()),
        };
        parts.push(part);
    }
    cx.give_with(0, |build| Ok(build.concat(&parts, axis)))
}

fn samples_split() -> Vec<Sample> {
    vec![
        Sample::new("into sizes, all used")
            .x(&[2, 5])
            .constant(Tensor::vector(vec![2i64, 3]))
            .attr("axis", 1)
            .weighed(2),
        Sample::new("into halves, one used").x(&[4, 2]).results(2),
        Sample::new("from the last axis, unevenly by count")
            .x(&[2, 5])
            .attr("axis", -1)
            .attr("num_outputs", 3)
            .weighed(3)
            .opset(18),
    ]
}

/// With dy as `[r₀, d₀, r₁, d₁, …]` the sum over the repeats r.
fn gradient_tile(cx: &mut GradCx) -> Result<(), String> {
    let (dy, shape) = (cx.dy()?, cx.x_shape(0)?);
    let repeats = cx.build.graph[cx.x(1)?].constant().and_then(Tensor::to_i64);
    let repeats = repeats.ok_or("the repeats are computed")?;
    let repeats = repeats.into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>();
    let repeats = repeats.map_err(|_| "repeats are not negative")?;
    let apart: Vec<usize> = repeats
        .iter()
        .zip(&shape)
        .flat_map(|(&repeat, &extent)| [repeat, extent])
        .collect();
    let copies: Vec<i64> = (0..).step_by(2).take(shape.len()).collect();
    cx.give_with(0, |build| {
        if copies.is_empty() {
            return Ok(dy);
        }
        let apart = build.reshape(dy, &apart);
        Ok(build.reduce_sum(apart, &copies, KeepDims::No))
    })
}

fn samples_tile() -> Vec<Sample> {
    vec![
        Sample::new("two axes of three")
            .x(&[2, 1, 3])
            .constant(Tensor::vector(vec![1i64, 2, 3])),
    ]
}
