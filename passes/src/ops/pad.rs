//! Pad (ONNX 1, 2, 11, 13, 18, 19) in every mode.
//!
//! With constants, ∂x is dy with the pads cut off, and the gradient of the value that fills them is the sum of what was cut. In the modes
//! reflect, edge and wrap each element of a padded axis is one of x: ∂x is the product of dy with the matrix that says which, axis by axis.
//! Refused: computed pads; pads that crop, in the modes that copy.

use super::along;
use super::build::{Build, as_i64};
use super::gradient::GradCx;
use super::sample::Sample;
use super::shape::unknown_shape;
use super::{InferCx, OpEntry, normalize_axes};
use crate::ir::{Dim, Tensor, TensorType, ValueId};

type Types = Result<Vec<Option<TensorType>>, String>;

pub(super) const ENTRIES: &[OpEntry] = &[OpEntry::new("Pad", infer_pad, "").gradient(gradient_pad, samples_pad)];

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

fn gradient_pad(cx: &mut GradCx) -> Result<(), String> {
    let (dy, shape) = (cx.dy()?, cx.x_shape(0)?);
    let graph = &*cx.build.graph;
    let ints = |index: usize| graph[cx.node.input(index)?].constant()?.to_i64();
    let pads = pads_of(&cx.node, ints, shape.len())?.ok_or("the pads are computed")?;
    let mode = match cx.node.text("mode") {
        None | Some("constant") => return by_constants(cx, dy, pads),
        Some("reflect") => Mode::Reflect,
        Some("edge") => Mode::Edge,
        Some("wrap") => Mode::Wrap,
        Some(other) => return Err(format!("the mode {other} is not known")),
    };
    if pads.iter().flatten().any(|&pad| pad < 0) {
        return Err("its pads crop what it copies from".to_owned());
    }
    let [begins, ends] = pads;
    cx.give_with(0, |build| {
        let mut dx = dy;
        for (axis, (&begin, &end)) in begins.iter().zip(&ends).enumerate() {
            if begin > 0 || end > 0 {
                let extent = shape.get(axis).copied().unwrap_or(0);
                dx = mode.adjoint(build, dx, axis, extent, [begin, end])?;
            }
        }
        Ok(dx)
    })
}

/// Crops what was padded and pads with zeros what was cropped.
fn by_constants(cx: &mut GradCx, dy: ValueId, [begins, ends]: [Vec<i64>; 2]) -> Result<(), String> {
    let build = &mut cx.build;
    let mut inside = dy;
    for ((axis, &begin), &end) in (0..).zip(&begins).zip(&ends) {
        if begin > 0 || end > 0 {
            let stop = if end > 0 { -end } else { i64::MAX };
            inside = build.slice(inside, axis, begin.max(0), stop, 1);
        }
    }
    cx.give_with(0, |build| {
        let cropped = begins.iter().chain(&ends).map(|pad| (-pad).max(0));
        Ok(build.pad(inside, &cropped.collect::<Vec<_>>()))
    })?;
    cx.give_with(2, |build| {
        let (all, kept) = (build.sum_all(dy), build.sum_all(inside));
        Ok(build.sub(all, kept))
    })
}

/// From where a padded axis copies.
#[derive(Clone, Copy)]
enum Mode {
    Reflect,
    Edge,
    Wrap,
}

impl Mode {
    /// The position of x that stands at this position, counted from the first of x, of a padded axis.
    fn source(self, position: i64, extent: i64) -> i64 {
        match self {
            Mode::Edge => position.clamp(0, extent - 1),
            Mode::Wrap => position.rem_euclid(extent),
            // Back and forth between both ends, which are not repeated.
            Mode::Reflect => {
                let period = (2 * (extent - 1)).max(1);
                let within = position.rem_euclid(period);
                within.min(period - within).min(extent - 1)
            }
        }
    }

    fn adjoint(
        self,
        build: &mut Build,
        dy: ValueId,
        axis: usize,
        extent: usize,
        [begin, end]: [i64; 2],
    ) -> Result<ValueId, String> {
        let known = as_i64(&[extent])[0];
        if known == 0 {
            return Err("there is nothing to copy from".to_owned());
        }
        let positions = (-begin..known.saturating_add(end)).map(|position| self.source(position, known));
        let sources: Vec<usize> = positions.filter_map(|source| usize::try_from(source).ok()).collect();
        let shape = [extent, sources.len()];
        let entries = sources.into_iter().enumerate().map(|(column, row)| (row, column, 1.0));
        let matrix = along::matrix(build, shape, entries)?;
        along::apply(build, matrix, dy, axis)
    }
}

fn samples_pad() -> Vec<Sample> {
    let pads = |values: &[i64]| Tensor::vector(values.to_vec());
    vec![
        Sample::new("zeros all round").x(&[2, 3]).constant(pads(&[1, 0, 2, 1])),
        Sample::new("a value of its own")
            .x(&[2, 3])
            .constant(pads(&[0, 2, 0, 0]))
            .constant(Tensor::scalar(0.5f32)),
        Sample::new("a value that is trained")
            .x(&[2, 3])
            .constant(pads(&[0, 1, 1, 0]))
            .x(&[]),
        Sample::new("cropped at one end").x(&[2, 4]).constant(pads(&[0, -1, 0, 2])),
        Sample::new("reflected")
            .x(&[2, 4])
            .constant(pads(&[0, 2, 0, 3]))
            .attr("mode", "reflect"),
        Sample::new("edges of two axes")
            .x(&[1, 2, 3])
            .constant(pads(&[0, 1, 2, 0, 3, 1]))
            .attr("mode", "edge"),
        Sample::new("wrapped")
            .x(&[2, 3])
            .constant(pads(&[0, 2, 0, 1]))
            .attr("mode", "wrap")
            .opset(19),
        Sample::new("an axis that is named")
            .x(&[2, 3])
            .constant(pads(&[1, 2]))
            .none()
            .constant(pads(&[-1]))
            .opset(18),
    ]
}
