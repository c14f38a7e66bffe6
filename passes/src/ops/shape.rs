//! Ops that show the same elements under another shape: Flatten, Reshape, Transpose, Squeeze, Unsqueeze, Expand.
//!
//! Their gradients take dy back to the shape of x: by Reshape, by the inverse permutation, or (Expand) by the sum over stretched axes that
//! the engine of differentiation adds. Axes are an attribute of Squeeze and Unsqueeze before operator set 13, an operand from then on.

use super::build::as_i64;
use super::dims::{product, quotient};
use super::gradient::GradCx;
use super::sample::Sample;
use super::{InferCx, OpEntry, Quant, broadcast, normalize_axes, normalize_axis};
use crate::ir::{Dim, Tensor, TensorType};

/// More axes than any engine has; a larger number is a broken model's.
pub(super) const MOST_AXES: usize = 64;

type Types = Result<Vec<Option<TensorType>>, String>;

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("Flatten", infer_flatten, "")
        .gradient(reshape_back, samples_flatten)
        .quant(Quant::Transparent),
    OpEntry::new("Reshape", infer_reshape, "")
        .shape_value(held_as_vector)
        .gradient(reshape_back, samples_reshape)
        .quant(Quant::Transparent),
    OpEntry::new("Transpose", infer_transpose, "")
        .gradient(gradient_transpose, samples_transpose)
        .quant(Quant::Transparent),
    OpEntry::new("Squeeze", infer_squeeze, "")
        .shape_value(held_as_vector)
        .gradient(reshape_back, samples_squeeze)
        .quant(Quant::Transparent),
    OpEntry::new("Unsqueeze", infer_unsqueeze, "")
        .shape_value(held_as_vector)
        .gradient(reshape_back, samples_unsqueeze)
        .quant(Quant::Transparent),
    OpEntry::new("Expand", infer_expand, "").gradient(gradient_expand, samples_expand),
];

/// The dimensions that operand 0 holds: they do not change with its shape.
pub(super) fn held_as_vector(cx: &InferCx) -> Option<Vec<Dim>> {
    held(cx, 0)
}

/// The dimensions that an operand holds, if it is small enough to hold a shape.
pub(super) fn held(cx: &InferCx, index: usize) -> Option<Vec<Dim>> {
    match cx.constant(index) {
        Some(tensor) if tensor.len() > MOST_AXES => None,
        _ => cx.held_dims(index),
    }
}

/// The result has the elements of x in the same order, so dy has those of ∂x.
fn reshape_back(cx: &mut GradCx) -> Result<(), String> {
    let (dy, shape) = (cx.dy()?, cx.x_shape(0)?);
    cx.give_with(0, |build| Ok(build.reshape(dy, &shape)))
}

/// ONNX Flatten, operator set 13: `[∏ before axis, ∏ from axis on]`.
fn infer_flatten(cx: &InferCx) -> Types {
    let Some(shape) = cx.shape(0) else {
        return cx.one(cx.dtype(0), Some(vec![Dim::Unknown; 2]));
    };
    let axis = cx.node.int("axis").unwrap_or(1);
    // The axis may stand after the last one.
    let axis = if usize::try_from(axis) == Ok(shape.len()) {
        shape.len()
    } else {
        normalize_axis(axis, shape.len())?
    };
    let (before, after) = shape.split_at(axis);
    cx.one(cx.dtype(0), Some(vec![product(before), product(after)]))
}

fn samples_flatten() -> Vec<Sample> {
    vec![
        Sample::new("after the batch").x(&[2, 3, 4]),
        Sample::new("from the last axis on").x(&[2, 3, 4]).attr("axis", -1),
    ]
}

/// ONNX Reshape, operator set 14: 0 copies an extent unless `allowzero`, −1 is worked out.
fn infer_reshape(cx: &InferCx) -> Types {
    let Some(target) = cx.held_dims(1) else {
        let rank = cx.shape(1).and_then(|shape| shape.first()?.known());
        return cx.one(cx.dtype(0), unknown_shape(rank));
    };
    let copies_zeros = cx.node.int("allowzero").unwrap_or(0) == 0;
    let shape = reshaped(cx.shape(0), &target, copies_zeros)?;
    cx.one(cx.dtype(0), Some(shape))
}

/// The shape that Reshape gives; an unknown entry of `target` may be −1.
fn reshaped(from: Option<&[Dim]>, target: &[Dim], copies_zeros: bool) -> Result<Vec<Dim>, String> {
    let mut shape = Vec::with_capacity(target.len());
    for (axis, dim) in target.iter().enumerate() {
        shape.push(match (dim, from) {
            (Dim::Known(0), Some(from)) if copies_zeros => {
                let copied = from.get(axis).cloned();
                copied.ok_or_else(|| format!("axis {axis} of the target copies an axis that is not there"))?
            }
            (Dim::Known(0), None) if copies_zeros => Dim::Unknown,
            (dim, _) => dim.clone(),
        });
    }
    let Some(from) = from else { return Ok(shape) };
    let mut unknown = shape.iter().enumerate().filter(|(_, dim)| **dim == Dim::Unknown);
    match (unknown.next().map(|(axis, _)| axis), unknown.next()) {
        (None, _) => {
            if let (Dim::Known(have), Dim::Known(want)) = (product(from), product(&shape))
                && have != want
            {
                return Err(format!("{have} elements do not fill a shape of {want}"));
            }
        }
        (Some(axis), None) => {
            let rest: Vec<Dim> = shape.iter().filter(|dim| **dim != Dim::Unknown).cloned().collect();
            let missing = quotient(from, &rest)?;
            if let Some(slot) = shape.get_mut(axis) {
                *slot = missing;
            }
        }
        (Some(_), Some(_)) => {}
    }
    Ok(shape)
}

/// A shape of this rank of which nothing else is known.
pub(super) fn unknown_shape(rank: Option<usize>) -> Option<Vec<Dim>> {
    rank.filter(|&rank| rank <= MOST_AXES).map(|rank| vec![Dim::Unknown; rank])
}

fn samples_reshape() -> Vec<Sample> {
    let target = |values: &[i64]| Tensor::vector(values.to_vec());
    vec![
        Sample::new("to fixed extents").x(&[2, 6]).constant(target(&[3, 4])),
        Sample::new("a copied and a worked out extent")
            .x(&[2, 3, 4])
            .constant(target(&[0, -1])),
    ]
}

fn permutation(cx: &InferCx, rank: usize) -> Result<Vec<usize>, String> {
    let Some(perm) = cx.node.ints("perm") else {
        return Ok((0..rank).rev().collect());
    };
    let axes = normalize_axes(perm, rank)?;
    let mut seen = axes.clone();
    seen.sort_unstable();
    if !seen.into_iter().eq(0..rank) {
        return Err(format!("perm {perm:?} is no permutation of {rank} axes"));
    }
    Ok(axes)
}

/// ONNX Transpose, operator set 13; without `perm` the axes are reversed.
fn infer_transpose(cx: &InferCx) -> Types {
    let Some(shape) = cx.shape(0) else {
        let rank = cx.node.ints("perm").map(<[i64]>::len);
        return cx.one(cx.dtype(0), unknown_shape(rank));
    };
    let axes = permutation(cx, shape.len())?;
    let shape = axes.iter().filter_map(|&axis| shape.get(axis).cloned()).collect();
    cx.one(cx.dtype(0), Some(shape))
}

/// The inverse permutation.
fn gradient_transpose(cx: &mut GradCx) -> Result<(), String> {
    let (dy, rank) = (cx.dy()?, cx.x_shape(0)?.len());
    let mut inverse: Vec<usize> = (0..rank).rev().collect();
    if let Some(perm) = cx.node.ints("perm") {
        for (to, from) in normalize_axes(perm, rank)?.into_iter().enumerate() {
            *inverse.get_mut(from).ok_or("perm is no permutation")? = to;
        }
    }
    cx.give_with(0, |build| Ok(build.transpose(dy, &as_i64(&inverse))))
}

fn samples_transpose() -> Vec<Sample> {
    vec![
        Sample::new("reversed").x(&[2, 3, 4]),
        Sample::new("a rotation, which is not its own inverse")
            .x(&[2, 3, 4])
            .attr("perm", vec![2, 0, 1]),
    ]
}

/// ONNX Squeeze, operator set 13; without axes every extent of 1 goes.
fn infer_squeeze(cx: &InferCx) -> Types {
    let given = cx.node.input(1).is_some() || cx.node.ints("axes").is_some();
    let axes = cx.ints_of("axes", 1);
    let Some(shape) = cx.shape(0) else {
        return cx.one(cx.dtype(0), None);
    };
    let axes = match axes {
        Some(axes) => normalize_axes(&axes, shape.len())?,
        None if given => return cx.one(cx.dtype(0), None),
        None if shape.iter().all(|dim| dim.known().is_some()) => {
            let ones = shape.iter().enumerate().filter(|(_, dim)| **dim == Dim::Known(1));
            ones.map(|(axis, _)| axis).collect()
        }
        None => return cx.one(cx.dtype(0), None),
    };
    for &axis in &axes {
        if let Some(Dim::Known(extent)) = shape.get(axis)
            && *extent != 1
        {
            return Err(format!("axis {axis} has extent {extent}, not 1"));
        }
    }
    let kept = shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
    cx.one(cx.dtype(0), Some(kept.map(|(_, dim)| dim.clone()).collect()))
}

fn samples_squeeze() -> Vec<Sample> {
    vec![
        Sample::new("one axis of two")
            .x(&[1, 3, 1])
            .constant(Tensor::vector(vec![-1i64])),
        Sample::new("every axis of extent 1").x(&[1, 3, 1]),
    ]
}

/// ONNX Unsqueeze, operator set 13.
fn infer_unsqueeze(cx: &InferCx) -> Types {
    let (Some(shape), Some(axes)) = (cx.shape(0), cx.ints_of("axes", 1)) else {
        return cx.one(cx.dtype(0), None);
    };
    let rank = shape.len() + axes.len();
    let axes = normalize_axes(&axes, rank)?;
    let mut kept = shape.iter().cloned();
    let shape: Vec<Dim> = (0..rank)
        .filter_map(|axis| {
            if axes.contains(&axis) {
                Some(Dim::Known(1))
            } else {
                kept.next()
            }
        })
        .collect();
    if shape.len() != rank {
        return Err(format!("axes {axes:?} name an axis twice"));
    }
    cx.one(cx.dtype(0), Some(shape))
}

fn samples_unsqueeze() -> Vec<Sample> {
    vec![
        Sample::new("first and last")
            .x(&[2, 3])
            .constant(Tensor::vector(vec![0i64, -1])),
    ]
}

/// ONNX Expand, operator set 13: both shapes broadcast to each other.
fn infer_expand(cx: &InferCx) -> Types {
    let shape = match (cx.shape(0), cx.held_dims(1)) {
        (Some(from), Some(target)) => Some(broadcast(from, &target)?),
        (Some(from), None) => {
            let rank = cx.shape(1).and_then(|shape| shape.first()?.known());
            unknown_shape(rank.map(|rank| rank.max(from.len())))
        }
        (None, _) => None,
    };
    cx.one(cx.dtype(0), shape)
}

fn gradient_expand(cx: &mut GradCx) -> Result<(), String> {
    let dy = cx.dy()?;
    cx.give_with(0, |_| Ok(dy))
}

fn samples_expand() -> Vec<Sample> {
    let target = |values: &[i64]| Tensor::vector(values.to_vec());
    vec![
        Sample::new("a stretched and a new axis")
            .x(&[3, 1])
            .constant(target(&[2, 3, 4])),
        Sample::new("a target of extent 1 keeps x's")
            .x(&[3, 2])
            .constant(target(&[1, 1])),
    ]
}
