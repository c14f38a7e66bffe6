//! ConvTranspose (ONNX 1, 11, 22): X `[N, C, spatial…]`, W `[C, M/group, kernel…]`, B `[M]` → Y `[N, M, spatial'…]`.
//!
//! Along one axis of input extent D, kernel k, dilation d, stride s and output padding o, f = s·(D − 1) + o + d·(k − 1) + 1 positions are
//! written, of which the pads cut off both ends. It is the adjoint of the Conv with the same W, window and groups, so that
//! ∂X = Conv(∂Y, W), and ∂W is that Conv's weight gradient with the places of input and result exchanged. ∂B is the sum of ∂Y over all axes
//! but the channel's.
//!
//! Refused: gradients where `auto_pad` or `output_shape` asks for more than is written.

use super::build::{KeepDims, as_i64};
use super::gradient::GradCx;
use super::normalize::other_axes;
use super::sample::Sample;
use super::window::{Rounding, Window, covered, positive_or_ones};
use super::{InferCx, OpEntry};
use crate::ir::{Attribute, Dim, Node, Op, TensorType};

pub(super) const ENTRIES: &[OpEntry] = &[OpEntry::new("ConvTranspose", infer, "").gradient(gradient, samples)];

fn group_of(node: &Node) -> Result<usize, String> {
    let group = node.int("group").map_or(Ok(1), usize::try_from).ok();
    group
        .filter(|&group| group > 0)
        .ok_or_else(|| "group must be positive".to_owned())
}

/// The window of the adjoint Conv, and the spatial extents of the result.
fn resolved(node: &Node, input: &[usize], kernel: &[usize]) -> Result<(Window, Vec<usize>), String> {
    let rank = input.len();
    if kernel.len() != rank || kernel.contains(&0) {
        return Err(format!("a kernel of shape {kernel:?} does not fit {rank} spatial axes"));
    }
    let strides = positive_or_ones(node, "strides", rank)?;
    let dilations = positive_or_ones(node, "dilations", rank)?;
    let naturals = |name: &str, count: usize| match node.ints(name) {
        None | Some([]) => Ok(vec![0; count]),
        Some(values) if values.len() == count => {
            let values = values.iter().map(|&value| usize::try_from(value));
            values
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| format!("{name} are not negative"))
        }
        Some(values) => Err(format!("{} {name} for {rank} spatial axes", values.len())),
    };
    let output_padding = naturals("output_padding", rank)?;
    let written = (0..rank).map(|axis| {
        let moved = strides[axis].checked_mul(input[axis].saturating_sub(1));
        let reached = moved.and_then(|moved| moved.checked_add(covered(kernel[axis], dilations[axis])));
        reached.and_then(|reached| reached.checked_add(output_padding[axis]))
    });
    let written: Vec<usize> = written.collect::<Option<_>>().ok_or("its result is absurdly large")?;
    let auto_pad = node.text("auto_pad").unwrap_or("NOTSET");
    let asked: Option<Vec<usize>> = match (node.ints("output_shape"), auto_pad) {
        (Some(shape), _) if shape.len() >= rank => {
            let spatial = shape.iter().skip(shape.len() - rank).map(|&extent| usize::try_from(extent));
            Some(
                spatial
                    .collect::<Result<_, _>>()
                    .map_err(|_| "output_shape is not negative")?,
            )
        }
        (Some(shape), _) => return Err(format!("{} extents in output_shape for {rank} spatial axes", shape.len())),
        (None, "SAME_UPPER" | "SAME_LOWER") => Some(input.iter().zip(&strides).map(|(&n, &s)| n * s).collect()),
        (None, _) => None,
    };
    let (pads_begin, pads_end, output) = if let Some(asked) = asked {
        let totals = written
            .iter()
            .zip(&asked)
            .map(|(&written, &asked)| written.checked_sub(asked));
        let totals: Vec<usize> = totals
            .collect::<Option<_>>()
            .ok_or("it is asked for more than its window writes")?;
        let small: Vec<usize> = totals.iter().map(|total| total / 2).collect();
        let large: Vec<usize> = totals.iter().map(|total| total - total / 2).collect();
        match auto_pad {
            "SAME_UPPER" => (small, large, asked),
            _ => (large, small, asked),
        }
    } else {
        let pads = match auto_pad {
            "VALID" => vec![0; 2 * rank],
            _ => naturals("pads", 2 * rank)?,
        };
        let (begin, end) = pads.split_at(rank);
        let output = written.iter().zip(begin.iter().zip(end));
        let output = output.map(|(&written, (&begin, &end))| written.checked_sub(begin.saturating_add(end)));
        let output = output.collect::<Option<_>>().ok_or("pads cut off more than there is")?;
        (begin.to_vec(), end.to_vec(), output)
    };
    let window = Window {
        kernel: kernel.to_vec(),
        strides,
        dilations,
        pads_begin,
        pads_end,
        rounding: Rounding::Floor,
    };
    Ok((window, output))
}

fn infer(cx: &InferCx) -> Result<Vec<Option<TensorType>>, String> {
    let (Some([batch, channels, spatial @ ..]), Some([inputs, per_group, taps @ ..])) = (cx.shape(0), cx.shape(1)) else {
        return cx.one(cx.dtype(0), None);
    };
    if spatial.len() != taps.len() {
        return Err("input and weight differ in rank".to_owned());
    }
    if let (Some(channels), Some(inputs)) = (channels.known(), inputs.known())
        && channels != inputs
    {
        return Err(format!("the input has {channels} channels, the weight takes {inputs}"));
    }
    let group = group_of(cx.node)?;
    let filters = per_group.known().and_then(|filters| filters.checked_mul(group));
    let input: Option<Vec<usize>> = spatial.iter().map(Dim::known).collect();
    let kernel: Option<Vec<usize>> = taps.iter().map(Dim::known).collect();
    let extents = match (input, kernel, cx.node.ints("output_shape")) {
        // What is asked for is what comes, even where the pads cannot be told.
        (_, _, Some(asked)) if asked.len() == spatial.len() => {
            let extent = |&extent: &i64| usize::try_from(extent).map_or(Dim::Unknown, Dim::Known);
            asked.iter().map(extent).collect()
        }
        (Some(input), Some(kernel), None) => match resolved(cx.node, &input, &kernel) {
            Ok((_, output)) => output.into_iter().map(Dim::Known).collect(),
            Err(_) if cx.node.text("auto_pad").is_some_and(|mode| mode.starts_with("SAME")) => vec![Dim::Unknown; spatial.len()],
            Err(why) => return Err(why),
        },
        _ => vec![Dim::Unknown; spatial.len()],
    };
    let lead = [batch.clone(), filters.map_or(Dim::Unknown, Dim::Known)];
    cx.one(cx.dtype(0), Some(lead.into_iter().chain(extents).collect()))
}

fn gradient(cx: &mut GradCx) -> Result<(), String> {
    let (dy, x, w) = (cx.dy()?, cx.x(0)?, cx.x(1)?);
    let (x_shape, w_shape) = (cx.x_shape(0)?, cx.x_shape(1)?);
    let (Some(spatial), Some(kernel)) = (x_shape.get(2..), w_shape.get(2..)) else {
        return Err("its operands have rank 3 or more".to_owned());
    };
    let (window, _) = resolved(&cx.node, spatial, kernel)?;
    let group = Attribute::new("group", as_i64(&[group_of(&cx.node)?])[0]);
    let attributes = [window.attributes(), vec![group]].concat();
    cx.give_with(0, |b| {
        let mut dx = b.conv(dy, w, attributes.clone());
        // An output padding of a stride or more lets the window stop once more.
        for (axis, (have, want)) in b.shape(dx)?.into_iter().zip(&x_shape).enumerate() {
            if have > *want {
                let [axis, end] = [axis, *want].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
                dx = b.slice(dx, axis, 0, end, 1);
            }
        }
        Ok(dx)
    })?;
    cx.give_with(1, |b| {
        let shape = Attribute::new("weight_shape", as_i64(&w_shape));
        Ok(b.node(Op::lsqc("ConvGradWeight"), &[dy, x], [attributes, vec![shape]].concat()))
    })?;
    cx.give_with(2, |b| Ok(b.reduce_sum(dy, &other_axes(x_shape.len()), KeepDims::No)))
}

fn samples() -> Vec<Sample> {
    let case = |about, x: &[usize], w: &[usize]| Sample::new(about).x(x).x(w);
    vec![
        case("2x2, stride 2", &[2, 3, 3, 2], &[3, 2, 2, 2])
            .x(&[2])
            .attr("strides", vec![2, 2]),
        case("3x3, stride 2, padded, with output padding", &[1, 2, 3, 3], &[2, 3, 3, 3])
            .attr("strides", vec![2, 2])
            .attr("pads", vec![1, 1, 1, 1])
            .attr("output_padding", vec![1, 0]),
        case("groups", &[1, 4, 3, 3], &[4, 2, 2, 2]).x(&[4]).attr("group", 2),
        case("depthwise", &[1, 3, 3, 4], &[3, 1, 3, 3])
            .attr("group", 3)
            .attr("strides", vec![1, 2])
            .attr("pads", vec![1, 1, 1, 1]),
        case("dilated, padded unevenly", &[1, 2, 4, 4], &[2, 2, 2, 2])
            .attr("dilations", vec![2, 1])
            .attr("pads", vec![1, 0, 0, 1]),
        case("one axis", &[2, 2, 4], &[2, 3, 3]).x(&[3]).attr("strides", vec![2]),
        case("SAME_UPPER", &[1, 1, 3, 3], &[1, 2, 3, 3])
            .attr("auto_pad", "SAME_UPPER")
            .attr("strides", vec![2, 2]),
        case("SAME_LOWER", &[1, 1, 3, 3], &[1, 2, 3, 3])
            .attr("auto_pad", "SAME_LOWER")
            .attr("strides", vec![2, 2]),
        case("an output shape", &[1, 1, 3, 3], &[1, 2, 3, 3])
            .attr("output_shape", vec![6, 5])
            .attr("strides", vec![2, 2]),
    ]
}
