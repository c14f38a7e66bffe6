//! Ops that pick or place elements by indices: Gather, GatherElements, GatherND, ScatterElements, ScatterND, TopK.
//!
//! ∂x of what is gathered puts dy back and adds up where an index repeats: a product with a one-hot tensor of the indices, because no
//! operator set before 16 scatters by adding. Constant indices make a constant matrix, computed ones a OneHot. GatherND gathers from x with
//! its indexed axes flattened to one. What is scattered is gathered back; what was overwritten gets no gradient. Where several
//! updates without a reduction meet, which of them stands is the engine's choice, and so their gradients are not defined.
//!
//! Refused: reductions of a scatter other than `none` and `add`; one-hot tensors of more than 2²⁶ numbers.

use super::along;
use super::build::Build;
use super::gradient::GradCx;
use super::sample::Sample;
use super::shape::{held, unknown_shape};
use super::{InferCx, OpEntry, normalize_axis};
use crate::ir::{Attribute, DType, Dim, Op, Tensor, TensorType, ValueId};

type Types = Result<Vec<Option<TensorType>>, String>;

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("Gather", infer_gather, "")
        .shape_value(held_by_gather)
        .gradient(gather, samples_gather),
    OpEntry::new("GatherElements", infer_gather_elements, "").gradient(gather_elements, samples_gather_elements),
    OpEntry::new("GatherND", infer_gather_nd, "").gradient(gather_nd, samples_gather_nd),
    OpEntry::new("ScatterElements", |cx| cx.like_first(), "").gradient(scatter_elements, samples_scatter_elements),
    OpEntry::new("ScatterND", |cx| cx.like_first(), "").gradient(scatter_nd, samples_scatter_nd),
    OpEntry::new("TopK", infer_top_k, "").gradient(top_k, samples_top_k),
];

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
fn gather(cx: &mut GradCx) -> Result<(), String> {
    let (dy, indices, shape) = (cx.dy()?, cx.x(1)?, cx.x_shape(0)?);
    let axis = normalize_axis(cx.node.int("axis").unwrap_or(0), shape.len())?;
    let count: usize = cx.x_shape(1)?.iter().product();
    let (Some(before), Some(&extent), Some(after)) = (shape.get(..axis), shape.get(axis), shape.get(axis + 1..)) else {
        return Err("Gather takes no scalar".to_owned());
    };
    cx.give_with(0, |build| {
        let matrix = one_hot_matrix(build, indices, extent, count)?;
        let dy = build.reshape(dy, &[before, &[count], after].concat());
        let dx = along::apply(build, matrix, dy, axis)?;
        Ok(build.reshape(dx, &shape))
    })
}

/// The matrix `[extent, count]` that is 1 where a row is the index of the column.
fn one_hot_matrix(build: &mut Build, indices: ValueId, extent: usize, count: usize) -> Result<ValueId, String> {
    let known = build.graph[indices].constant().and_then(Tensor::to_i64);
    let Some(known) = known else {
        along::within_bounds(&[extent, count])?;
        let flat = build.reshape(indices, &[count]);
        return Ok(along::one_hot(build, flat, extent, 0));
    };
    let rows = known.iter().map(|&index| normalize_axis(index, extent));
    let rows: Vec<usize> = rows.collect::<Result<_, _>>().map_err(|_| "an index lies outside its axis")?;
    let entries = rows.into_iter().enumerate().map(|(column, row)| (row, column, 1.0));
    along::matrix(build, [extent, count], entries)
}

/// ONNX GatherElements, operator set 13: the shape of the indices.
fn infer_gather_elements(cx: &InferCx) -> Types {
    let shape = match (cx.shape(1), cx.shape(0)) {
        (Some(indices), _) => Some(indices.to_vec()),
        (None, data) => unknown_shape(data.map(<[Dim]>::len)),
    };
    cx.one(cx.dtype(0), shape)
}

fn gather_elements(cx: &mut GradCx) -> Result<(), String> {
    let (dy, indices, shape) = (cx.dy()?, cx.x(1)?, cx.x_shape(0)?);
    let axis = normalize_axis(cx.node.int("axis").unwrap_or(0), shape.len())?;
    cx.give_with(0, |build| put_back(build, dy, indices, axis, &shape))
}

/// Adds each element of dy into zeros of `shape`, at its own position but along `axis`, where the indices say it: with H the one-hot tensor
/// that has the axis of x next to that of dy, the sum over the latter of dy·H. The other axes of dy may be shorter than those of x.
fn put_back(build: &mut Build, dy: ValueId, indices: ValueId, axis: usize, shape: &[usize]) -> Result<ValueId, String> {
    let mut apart = build.shape(dy)?;
    let &extent = shape.get(axis).ok_or("it takes no scalar")?;
    let (at, next) = (i64::try_from(axis).map_err(|_| "the rank is absurd")?, axis + 1);
    let mut hot = apart.clone();
    hot.insert(next, extent);
    along::within_bounds(&hot)?;
    let hot = along::one_hot(build, indices, extent, at + 1);
    apart.insert(next, 1);
    let dy = build.reshape(dy, &apart);
    let product = build.mul(dy, hot);
    let dx = build.reduce_sum(product, &[at], super::build::KeepDims::No);
    let short = build.shape(dx)?;
    let behind = shape
        .iter()
        .zip(&short)
        .map(|(&want, &have)| i64::try_from(want.saturating_sub(have)));
    let behind: Vec<i64> = behind.collect::<Result<_, _>>().map_err(|_| "an extent is absurd")?;
    Ok(build.pad(dx, &[vec![0; shape.len()], behind].concat()))
}

/// ONNX GatherND, operator set 13: `[…indices but the last axis, …data behind what is indexed]`.
fn infer_gather_nd(cx: &InferCx) -> Types {
    let (Some(data), Some([places @ .., Dim::Known(depth)])) = (cx.shape(0), cx.shape(1)) else {
        return cx.one(cx.dtype(0), None);
    };
    let batch = usize::try_from(cx.node.int("batch_dims").unwrap_or(0)).map_err(|_| "batch_dims is not negative")?;
    let rest = batch.checked_add(*depth).and_then(|from| data.get(from..));
    let rest = rest.ok_or_else(|| format!("indices of {depth} axes into {}", data.len()))?;
    cx.one(cx.dtype(0), Some([places, rest].concat()))
}

/// Like Gather's, with the indexed axes, and those of the batch before them, flattened to one.
fn gather_nd(cx: &mut GradCx) -> Result<(), String> {
    let (dy, indices, shape, places) = (cx.dy()?, cx.x(1)?, cx.x_shape(0)?, cx.x_shape(1)?);
    let batch = usize::try_from(cx.node.int("batch_dims").unwrap_or(0)).map_err(|_| "batch_dims is not negative")?;
    let depth = places.last().copied().ok_or("its indices are no scalar")?;
    let (Some(indexed), Some(rest)) = (shape.get(batch..batch + depth), shape.get(batch + depth..)) else {
        return Err("its indices have more axes than there are".to_owned());
    };
    let copies: usize = shape.iter().take(batch).product();
    let (extent, inner) = (indexed.iter().product::<usize>(), rest.iter().product());
    let count = places.iter().product::<usize>() / depth.max(1);
    if depth == 0 {
        return Err("its indices name no axis".to_owned());
    }
    cx.give_with(0, |build| {
        along::within_bounds(&[copies * extent, count])?;
        let rows = build.reshape(indices, &[count, depth]);
        let flat = flat_indices(build, rows, indexed, copies)?;
        let hot = along::one_hot(build, flat, copies * extent, 0);
        let dy = build.reshape(dy, &[count, inner]);
        let dx = build.matmul(hot, dy);
        Ok(build.reshape(dx, &shape))
    })
}

/// The positions in row-major order of indices `[count, axes]` into axes of these extents, in `copies` equal parts that lie one behind the
/// other.
fn flat_indices(build: &mut Build, rows: ValueId, extents: &[usize], copies: usize) -> Result<ValueId, String> {
    let count = build.shape(rows)?.first().copied().unwrap_or(0);
    let absurd = |_| "an extent is absurd".to_owned();
    let extents: Vec<i64> = extents
        .iter()
        .map(|&extent| i64::try_from(extent))
        .collect::<Result<_, _>>()
        .map_err(absurd)?;
    let mut strides = vec![1i64; extents.len()];
    for axis in (1..extents.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(extents[axis]);
    }
    let part = extents.iter().fold(1i64, |product, &extent| product.saturating_mul(extent));
    let rows = build.cast(rows, DType::I64);
    let (zero, extents, strides) = (
        build.constant(Tensor::scalar(0i64)),
        build.ints(&extents),
        build.ints(&strides),
    );
    let negative = build.binary("Less", rows, zero);
    let from_back = build.add(rows, extents);
    let rows = build.node(Op::onnx("Where"), &[negative, from_back, rows], vec![]);
    let offsets = build.mul(rows, strides);
    let flat = build.reduce_sum(offsets, &[1], super::build::KeepDims::No);
    if copies <= 1 {
        return Ok(flat);
    }
    let each = count / copies;
    let starts = (0..count).map(|place| i64::try_from(place / each.max(1)).map(|copy| copy.saturating_mul(part)));
    let starts: Vec<i64> = starts.collect::<Result<_, _>>().map_err(absurd)?;
    let starts = build.ints(&starts);
    Ok(build.add(flat, starts))
}

/// Does the scatter add to what is there? Else it overwrites.
fn adds(cx: &GradCx) -> Result<bool, String> {
    match cx.node.text("reduction") {
        None | Some("none") => Ok(false),
        Some("add") => Ok(true),
        Some(other) => Err(format!("the gradient of a scatter by {other} is not written")),
    }
}

/// ONNX ScatterElements, operator set 18: ∂updates is gathered from dy; ∂x is dy, without what was overwritten.
fn scatter_elements(cx: &mut GradCx) -> Result<(), String> {
    let axis = vec![Attribute::new("axis", cx.node.int("axis").unwrap_or(0))];
    scatter(cx, "ScatterElements", "GatherElements", &axis)
}

/// ONNX ScatterND, operator set 18.
fn scatter_nd(cx: &mut GradCx) -> Result<(), String> {
    scatter(cx, "ScatterND", "GatherND", &[])
}

fn scatter(cx: &mut GradCx, place: &'static str, pick: &'static str, attributes: &[Attribute]) -> Result<(), String> {
    let (dy, indices, adds, updates) = (cx.dy()?, cx.x(1)?, adds(cx)?, cx.x_shape(2)?);
    cx.give_with(0, |build| {
        if adds {
            return Ok(dy);
        }
        let zeros = build.constant(Tensor::full(&updates, 0f32));
        Ok(build.node(Op::onnx(place), &[dy, indices, zeros], attributes.to_vec()))
    })?;
    cx.give_with(2, |build| Ok(build.node(Op::onnx(pick), &[dy, indices], attributes.to_vec())))
}

/// ONNX TopK, operator set 11: values and their positions; `k` is an attribute before operator set 10.
fn infer_top_k(cx: &InferCx) -> Types {
    let k = match cx.node.int("k") {
        Some(k) => Some(k),
        None => cx.ints(1).and_then(|k| k.first().copied()),
    };
    let shape = match cx.shape(0) {
        None => None,
        Some(shape) => {
            let axis = normalize_axis(cx.node.int("axis").unwrap_or(-1), shape.len())?;
            let mut shape = shape.to_vec();
            if let Some(slot) = shape.get_mut(axis) {
                *slot = k.and_then(|k| usize::try_from(k).ok()).map_or(Dim::Unknown, Dim::Known);
            }
            Some(shape)
        }
    };
    let values = cx.dtype(0).map(|dtype| TensorType {
        dtype,
        shape: shape.clone(),
    });
    let positions = TensorType {
        dtype: DType::I64,
        shape,
    };
    Ok(vec![values, Some(positions)])
}

/// The values' gradient goes back to their positions, which are the second result.
fn top_k(cx: &mut GradCx) -> Result<(), String> {
    let Some(dy) = cx.dy_of(0) else { return Ok(()) };
    let (positions, shape) = (cx.y(1)?, cx.x_shape(0)?);
    let axis = normalize_axis(cx.node.int("axis").unwrap_or(-1), shape.len())?;
    cx.give_with(0, |build| put_back(build, dy, positions, axis, &shape))
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
        Sample::new("a matrix of indices along the last axis")
            .x(&[2, 3])
            .constant(Tensor::new(&[2, 2], vec![0i64, 2, -3, 0]))
            .attr("axis", -1),
        Sample::new("indices that are fed, one twice, one from the back")
            .x(&[4, 2])
            .fed(Tensor::new(&[3, 1], vec![1i64, -1, 1])),
    ]
}

fn samples_gather_elements() -> Vec<Sample> {
    vec![
        Sample::new("rows, an index twice")
            .x(&[3, 2])
            .constant(Tensor::new(&[2, 2], vec![1i64, 2, 1, 0])),
        Sample::new("fewer along the other axis, one from the back")
            .x(&[3, 4])
            .constant(Tensor::new(&[2, 3], vec![3i64, -1, 0, 1, 1, 1]))
            .attr("axis", -1),
        Sample::new("indices that are fed")
            .x(&[2, 3])
            .fed(Tensor::new(&[1, 3], vec![1i64, 0, 1])),
    ]
}

fn samples_gather_nd() -> Vec<Sample> {
    vec![
        Sample::new("elements, one twice, one from the back")
            .x(&[2, 3])
            .constant(Tensor::new(&[3, 2], vec![0i64, 1, 1, -1, 0, 1])),
        Sample::new("rows")
            .x(&[2, 3, 2])
            .constant(Tensor::new(&[1, 2, 1], vec![1i64, 0])),
        Sample::new("within a batch, fed")
            .x(&[2, 3, 2])
            .fed(Tensor::new(&[2, 1], vec![2i64, 0]))
            .attr("batch_dims", 1),
    ]
}

fn samples_scatter_elements() -> Vec<Sample> {
    let indices = Tensor::new(&[2, 2], vec![0i64, 2, 1, -3]);
    vec![
        Sample::new("over what was there")
            .x(&[3, 2])
            .constant(indices.clone())
            .x(&[2, 2]),
        Sample::new("along the last axis")
            .x(&[2, 3])
            .constant(indices)
            .x(&[2, 2])
            .attr("axis", -1),
        Sample::new("added, one place twice")
            .x(&[3, 2])
            .constant(Tensor::new(&[2, 2], vec![1i64, 2, 1, 0]))
            .x(&[2, 2])
            .attr("reduction", "add"),
    ]
}

fn samples_scatter_nd() -> Vec<Sample> {
    vec![
        Sample::new("elements")
            .x(&[2, 3])
            .constant(Tensor::new(&[2, 2], vec![0i64, 1, 1, 2]))
            .x(&[2]),
        Sample::new("rows, added, one place twice")
            .x(&[3, 2])
            .constant(Tensor::new(&[2, 1], vec![1i64, 1]))
            .x(&[2, 2])
            .attr("reduction", "add"),
    ]
}

fn samples_top_k() -> Vec<Sample> {
    let k = |k: i64| Tensor::vector(vec![k]);
    vec![
        Sample::new("the largest two").x(&[2, 4]).constant(k(2)).results(2),
        Sample::new("the smallest, along the first axis")
            .x(&[3, 2])
            .constant(k(1))
            .attr("axis", 0)
            .attr("largest", 0)
            .results(2),
    ]
}
