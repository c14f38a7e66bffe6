//! Gradients of pools.
//!
//! Average: every ∂y, divided by the number of values its window averaged, goes to each of them. Max: every ∂y goes to the first maximum of
//! its window in row-major order, as ONNX's Indices and torch count; the taps are asked in that order, and one that has answered shuts the
//! others out.

use super::operand;
use super::taps::Taps;
use crate::ir::{DType, Node, Tensor, ValueId};
use crate::ops::build::Build;
use crate::ops::window::kernel_shape;

/// `AveragePoolGrad(∂y) → ∂x`.
pub(super) fn average(build: &mut Build, node: &Node) -> Result<Vec<ValueId>, String> {
    let dy = operand(node, 0)?;
    let shape = node.ints("input_shape").ok_or("input_shape is missing")?;
    let shape: Vec<usize> = shape.iter().filter_map(|&extent| usize::try_from(extent).ok()).collect();
    let spatial = shape.get(2..).ok_or("the rank is under 3")?;
    let dy_shape = build.shape(dy)?;
    let taps = Taps::of(
        node,
        spatial,
        &kernel_shape(node)?,
        dy_shape.get(2..).ok_or("the rank is under 3")?,
    )?;
    let weights = taps_averaged(&taps, node.int("count_include_pad").unwrap_or(0) != 0);
    let mut wide = vec![1, 1];
    wide.extend(&taps.output);
    let weights = build.constant(Tensor::new(&wide, weights));
    let share = build.mul(dy, weights);
    let parts: Vec<(Vec<usize>, ValueId)> = taps.each().into_iter().map(|tap| (tap, share)).collect();
    Ok(vec![taps.scatter(build, &parts)?])
}

/// 1 / the number of values that each window averages.
#[allow(clippy::cast_precision_loss)]
fn taps_averaged(taps: &Taps, counts_pads: bool) -> Vec<f32> {
    let window = &taps.window;
    let along = |axis: usize| -> Vec<usize> {
        let (begin, extent) = (window.pads_begin[axis], taps.input[axis]);
        let counted = if counts_pads {
            0..begin + extent + window.pads_end[axis]
        } else {
            begin..begin + extent
        };
        let at = |o: usize, t: usize| window.strides[axis] * o + window.dilations[axis] * t;
        (0..taps.output[axis])
            .map(|o| (0..window.kernel[axis]).filter(|&t| counted.contains(&at(o, t))).count())
            .collect()
    };
    (0..taps.output.len()).fold(vec![1.0f32], |weights, axis| {
        let counts = along(axis);
        weights
            .iter()
            .flat_map(|weight| counts.iter().map(move |&count| weight / count.max(1) as f32))
            .collect()
    })
}

/// `MaxPoolGrad(x, y, ∂y) → ∂x`.
pub(super) fn max(build: &mut Build, node: &Node) -> Result<Vec<ValueId>, String> {
    let (x, y, dy) = (operand(node, 0)?, operand(node, 1)?, operand(node, 2)?);
    let (x_shape, y_shape) = (build.shape(x)?, build.shape(y)?);
    let (Some(input), Some(output)) = (x_shape.get(2..), y_shape.get(2..)) else {
        return Err("the rank is under 3".to_owned());
    };
    let taps = Taps::of(node, input, &kernel_shape(node)?, output)?;
    // The lowest float meets no maximum unless the window is all pads, and then its gradient falls on pads.
    let padded = taps.pad(build, x, f32::MIN);
    let mut open: Option<ValueId> = None;
    let mut parts = Vec::new();
    for tap in taps.each() {
        let met = taps.slice(build, padded, &tap);
        let is_max = build.binary("Equal", met, y);
        let (chosen, still_open) = match open {
            None => (is_max, build.unary("Not", is_max)),
            Some(open) => {
                let chosen = build.binary("And", is_max, open);
                let other = build.unary("Not", is_max);
                (chosen, build.binary("And", open, other))
            }
        };
        open = Some(still_open);
        let mask = build.cast(chosen, DType::F32);
        parts.push((tap, build.mul(dy, mask)));
    }
    Ok(vec![taps.scatter(build, &parts)?])
}
