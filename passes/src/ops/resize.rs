//! Resize (ONNX 10, 11, 13, 18, 19) and its ancestor Upsample (7, 9), in the modes nearest, linear and cubic.
//!
//! Every mode is a linear map along each axis: the result at o blends x around a coordinate c(o), by weights that depend on c alone. So ∂x is
//! dy times the transposed matrix, axis by axis. With the scale s, D positions in and D' out, c(o) is o/s (asymmetric), (o + ½)/s − ½
//! (half_pixel), the same or 0 where D' = 1 (pytorch_half_pixel), o·(D − 1)/(D' − 1) (align_corners), or half_pixel about the centre of
//! what a whole number of positions covers (half_pixel_symmetric). Coordinates are single precision, as engines have them: in double precision
//! a tie would be broken otherwise.
//!
//! Refused: computed scales and sizes; tf_crop_and_resize; antialias; sizes that keep an aspect ratio; Upsample, which the compiler spells as
//! Resize before it trains.

use super::along;
use super::build::as_i64;
use super::gradient::GradCx;
use super::sample::Sample;
use super::shape::unknown_shape;
use super::{InferCx, OpEntry, normalize_axes};
use crate::ir::{Dim, Node, Tensor, TensorType};

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("Resize", infer, "").gradient(gradient, samples),
    OpEntry::new("Upsample", infer, "a network that is trained has a Resize in its place"),
];

/// The operand or attribute that holds the scales.
fn scales(node: &Node, opset: i64, constant: impl Fn(usize) -> Option<Vec<f32>>) -> Option<Vec<f32>> {
    const ROI_STANDS_BEFORE: i64 = 11;
    if let Some(crate::ir::Attr::Floats(scales)) = node.attr("scales") {
        return Some(scales.clone());
    }
    constant(if opset < ROI_STANDS_BEFORE { 1 } else { 2 }).filter(|scales| !scales.is_empty())
}

/// The axes that scales and sizes are of.
fn axes(node: &Node, rank: usize) -> Result<Vec<usize>, String> {
    match node.ints("axes") {
        Some(axes) => normalize_axes(axes, rank),
        None => Ok((0..rank).collect()),
    }
}

fn keeps_aspect(node: &Node) -> bool {
    !matches!(node.text("keep_aspect_ratio_policy"), None | Some("stretch"))
}

fn infer(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    let Some(shape) = cx.shape(0) else {
        return cx.one(cx.dtype(0), None);
    };
    let axes = axes(cx.node, shape.len())?;
    let unknown = unknown_shape(Some(shape.len()));
    let scales = scales(cx.node, cx.opset, |index| cx.constant(index)?.to_f32());
    let new: Vec<Dim> = match (scales, cx.held_dims(3)) {
        (Some(scales), _) => {
            let dims = axes.iter().filter_map(|&axis| shape.get(axis)).zip(&scales);
            if scales.len() != axes.len() {
                return Err(format!("{} scales for {} axes", scales.len(), axes.len()));
            }
            dims.map(|(dim, &scale)| scaled(dim, scale)).collect()
        }
        (None, Some(sizes)) if !sizes.is_empty() && !keeps_aspect(cx.node) => {
            if sizes.len() != axes.len() {
                return Err(format!("{} sizes for {} axes", sizes.len(), axes.len()));
            }
            sizes
        }
        _ => return cx.one(cx.dtype(0), unknown),
    };
    let mut shape = shape.to_vec();
    for (axis, dim) in axes.into_iter().zip(new) {
        if let Some(slot) = shape.get_mut(axis) {
            *slot = dim;
        }
    }
    cx.one(cx.dtype(0), Some(shape))
}

/// ⌊extent · scale⌋.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn scaled(dim: &Dim, scale: f32) -> Dim {
    match dim {
        dim if scale.to_bits() == 1f32.to_bits() => dim.clone(),
        Dim::Known(extent) if scale > 0.0 => Dim::Known((*extent as f32 * scale).floor() as usize),
        _ => Dim::Unknown,
    }
}

/// How one axis is resized.
struct Axis<'n> {
    node: &'n Node,
    input: usize,
    output: usize,
    scale: f32,
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
impl Axis<'_> {
    /// c(o).
    fn coordinate(&self, at: usize) -> Result<f32, String> {
        let (at, input, output) = (at as f32, self.input as f32, self.output as f32);
        let half_pixel = (at + 0.5) / self.scale - 0.5;
        match self.node.text("coordinate_transformation_mode").unwrap_or("half_pixel") {
            "asymmetric" => Ok(at / self.scale),
            "half_pixel" => Ok(half_pixel),
            "pytorch_half_pixel" => Ok(if self.output > 1 { half_pixel } else { 0.0 }),
            "align_corners" if self.output > 1 => Ok(at * (input - 1.0) / (output - 1.0)),
            "align_corners" => Ok(0.0),
            "half_pixel_symmetric" => {
                let covered = output / (input * self.scale);
                Ok(input / 2.0 * (1.0 - covered) + half_pixel)
            }
            other => Err(format!("the gradient of Resize by {other} is not written")),
        }
    }

    /// The positions of x that the result at `at` blends, with their weights.
    fn blend(&self, at: usize) -> Result<Vec<(usize, f32)>, String> {
        let c = self.coordinate(at)?;
        let last = self.input.saturating_sub(1);
        let inside = |position: f32| position.clamp(0.0, last as f32) as usize;
        match self.node.text("mode").unwrap_or("nearest") {
            "nearest" => {
                let tie = c - c.floor() == 0.5;
                let position = match self.node.text("nearest_mode").unwrap_or("round_prefer_floor") {
                    "floor" => c.floor(),
                    "ceil" => c.ceil(),
                    "round_prefer_ceil" if tie => c.ceil(),
                    _ if tie => c.floor(),
                    _ => c.round(),
                };
                Ok(vec![(inside(position), 1.0)])
            }
            "linear" => {
                let c = c.clamp(0.0, last as f32);
                let (low, share) = (c.floor(), c - c.floor());
                Ok(vec![(inside(low), 1.0 - share), (inside(low + 1.0), share)])
            }
            "cubic" => Ok(self.cubic(c)),
            other => Err(format!("the mode {other} is not known")),
        }
    }

    /// Keys' cubic convolution (IEEE ASSP 29, 1981) with a = `cubic_coeff_a`; beyond the ends the last position stands again, or, with
    /// `exclude_outside`, is left out.
    fn cubic(&self, c: f32) -> Vec<(usize, f32)> {
        let a = self.node.float("cubic_coeff_a").unwrap_or(-0.75);
        let excludes = self.node.int("exclude_outside").unwrap_or(0) != 0;
        let last = self.input.saturating_sub(1) as f32;
        let weight = |distance: f32| {
            let d = distance.abs();
            if d <= 1.0 {
                ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
            } else {
                ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
            }
        };
        let taps = [-1.0, 0.0, 1.0, 2.0].map(|by| c.floor() + by);
        let met = taps.into_iter().filter(|tap| !excludes || (0.0..=last).contains(tap));
        let met: Vec<(usize, f32)> = met.map(|tap| (tap.clamp(0.0, last) as usize, weight(c - tap))).collect();
        let total: f32 = if excludes {
            met.iter().map(|(_, weight)| weight).sum()
        } else {
            1.0
        };
        met.into_iter().map(|(position, weight)| (position, weight / total)).collect()
    }
}

fn gradient(cx: &mut GradCx) -> Result<(), String> {
    let (dy, shape, result, node) = (cx.dy()?, cx.x_shape(0)?, cx.y_shape()?, cx.node.clone());
    if node.int("antialias").unwrap_or(0) != 0 || keeps_aspect(&node) {
        return Err("the gradient of Resize by antialias, or by a kept aspect ratio, is not written".to_owned());
    }
    let graph = &*cx.build.graph;
    let axes = axes(&node, shape.len())?;
    // A graph that is trained is of operator set 13 or later.
    let scales = scales(&node, i64::MAX, |index| graph[node.input(index)?].constant()?.to_f32());
    if scales.is_none() && node.input(3).is_none_or(|sizes| graph[sizes].constant().is_none()) {
        return Err("the scales are computed".to_owned());
    }
    cx.give_with(0, |build| {
        let mut dx = dy;
        for (index, &axis) in axes.iter().enumerate() {
            let (Some(&input), Some(&output)) = (shape.get(axis), result.get(axis)) else {
                return Err("an axis is missing".to_owned());
            };
            #[allow(clippy::cast_precision_loss)]
            let by_size = output as f32 / input as f32;
            let scale = scales
                .as_ref()
                .and_then(|scales| scales.get(index).copied())
                .unwrap_or(by_size);
            if input == output && scale.to_bits() == 1f32.to_bits() {
                continue;
            }
            let along = Axis {
                node: &node,
                input,
                output,
                scale,
            };
            let mut entries = Vec::new();
            for at in 0..output {
                entries.extend(along.blend(at)?.into_iter().map(|(position, weight)| (position, at, weight)));
            }
            let matrix = along::matrix(build, [input, output], entries)?;
            dx = along::apply(build, matrix, dx, axis)?;
        }
        Ok(dx)
    })
}

fn samples() -> Vec<Sample> {
    let by_scales = |about, x: &[usize], scales: &[f32]| {
        let sample = Sample::new(about).x(x).none();
        sample.constant(Tensor::vector(scales.to_vec()))
    };
    let by_sizes = |about, x: &[usize], sizes: &[usize]| {
        let sample = Sample::new(about).x(x).none().none();
        sample.constant(Tensor::vector(as_i64(sizes)))
    };
    vec![
        by_scales("nearest, doubled", &[1, 2, 2, 3], &[1.0, 1.0, 2.0, 2.0])
            .attr("coordinate_transformation_mode", "asymmetric")
            .attr("nearest_mode", "floor"),
        by_scales(
            "nearest by half pixels, ties to the floor",
            &[1, 1, 4, 3],
            &[1.0, 1.0, 0.5, 1.5],
        ),
        by_scales("nearest, ties to the ceiling", &[1, 1, 4, 4], &[1.0, 1.0, 0.5, 0.5]).attr("nearest_mode", "round_prefer_ceil"),
        by_sizes("nearest, rounded up, to a size", &[1, 1, 3, 4], &[1, 1, 5, 2]).attr("nearest_mode", "ceil"),
        by_scales("linear, doubled", &[1, 2, 2, 3], &[1.0, 1.0, 2.0, 2.0]).attr("mode", "linear"),
        by_sizes("linear, corners aligned", &[1, 1, 3, 4], &[1, 1, 5, 6])
            .attr("mode", "linear")
            .attr("coordinate_transformation_mode", "align_corners"),
        by_sizes("linear as torch has it, to one row", &[1, 1, 3, 4], &[1, 1, 1, 3])
            .attr("mode", "linear")
            .attr("coordinate_transformation_mode", "pytorch_half_pixel"),
        by_scales("cubic", &[1, 1, 4, 4], &[1.0, 1.0, 1.5, 2.0]).attr("mode", "cubic"),
        by_scales("cubic, without what lies outside", &[1, 1, 4, 4], &[1.0, 1.0, 2.0, 0.75])
            .attr("mode", "cubic")
            .attr("cubic_coeff_a", -0.5f32)
            .attr("exclude_outside", 1),
        by_scales("linear, about the centre", &[1, 1, 3, 5], &[1.0, 1.0, 1.5, 0.7])
            .attr("mode", "linear")
            .attr("coordinate_transformation_mode", "half_pixel_symmetric")
            .opset(19),
        by_sizes("two axes that are named", &[1, 1, 2, 3], &[4, 5])
            .attr("mode", "linear")
            .attr("axes", vec![2, -1])
            .opset(18),
    ]
}
