//! Ops that put tensors side by side or take them apart: Concat, Split, Tile.
//!
//! The gradient of Concat gives each operand its slice of dy.

use super::build::as_i64;
use super::gradient::GradCx;
use super::sample::Sample;
use super::shape::{held, unknown_shape};
use super::{InferCx, OpEntry, Quant, normalize_axis};
use crate::ir::{Dim, TensorType};

type Types = Result<Vec<Option<TensorType>>, String>;

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("Concat", infer_concat, "")
        .shape_value(held_by_concat)
        .gradient(gradient_concat, samples_concat)
        .quant(Quant::Joins),
    OpEntry::new("Split", infer_split, "the gradient of Split is not written"),
    OpEntry::new("Tile", infer_tile, "the gradient of Tile is not written"),
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
