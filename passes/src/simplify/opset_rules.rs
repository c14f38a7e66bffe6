//! One rule for each change of an op between two operator sets: it rewrites a node of the older set into one of the newer.
//!
//! Most move an attribute to an operand. Others: Softmax and its kin no longer flatten their input to a matrix (a Flatten and a Reshape do it
//! then, unless the axis is the last); Resize 10 sampled as `asymmetric`, and rounded down where it enlarges; a renamed op or mode. A rule
//! refuses, with the reason, what has no such spelling.

use half::{bf16, f16};

use crate::ir::{Attr, Attribute, DType, Dim, Graph, NodeId, Op, Tensor};

/// Rewrites a node, or says why it cannot.
pub(super) type Rule = fn(&mut Graph, NodeId) -> Result<(), String>;

/// The rule for what operator set `version` changed of `op`.
pub(super) fn rule(op: &str, version: i64) -> Option<Rule> {
    Some(match (op, version) {
        ("BatchNormalization", 9) => batch_norm_9,
        ("BatchNormalization", 14) => batch_norm_14,
        ("Clip", 11) => clip_11,
        ("Dropout", 10) => dropout_10,
        ("Dropout", 12) => |graph, id| floats_to_operand(graph, id, "ratio", 1),
        ("GridSample", 20) => grid_sample_20,
        ("Softmax" | "LogSoftmax" | "Hardmax", 13) => softmax_13,
        ("OneHot", 11) => one_hot_11,
        ("Pad", 11) => pad_11,
        ("Resize", 11) => resize_11,
        ("Resize", 13) => resize_13,
        ("RoiAlign", 16) => roi_align_16,
        ("Scatter", 11) => |graph, id| renamed(graph, id, "ScatterElements"),
        ("Slice", 10) => slice_10,
        ("Split", 13) => |graph, id| ints_to_operand(graph, id, "split", 1),
        ("Split", 18) => split_18,
        ("ReduceSum" | "Squeeze" | "Unsqueeze", 13) => axes_to_operand,
        (
            "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean" | "ReduceMin"
            | "ReduceProd" | "ReduceSumSquare",
            18,
        ) => axes_to_operand,
        ("TopK", 10) => |graph, id| ints_to_operand(graph, id, "k", 1),
        ("Upsample", 9) => |graph, id| floats_to_operand(graph, id, "scales", 1),
        ("Upsample", 10) => |graph, id| renamed(graph, id, "Resize"),
        _ => return None,
    })
}

fn renamed(graph: &mut Graph, id: NodeId, name: &'static str) -> Result<(), String> {
    graph[id].op.name = name.into();
    Ok(())
}

/// Makes `tensor` operand `index`, under a name like `<result>/<what>`.
fn set_operand(graph: &mut Graph, id: NodeId, index: usize, what: &str, tensor: Tensor) {
    let base = match graph[id].output(0) {
        Some(output) => format!("{}/{what}", graph[output].name()),
        None => what.to_owned(),
    };
    let constant = graph.add_constant(&base, tensor);
    graph.set_input(id, index, Some(constant));
}

fn ints_to_operand(graph: &mut Graph, id: NodeId, name: &str, index: usize) -> Result<(), String> {
    match graph[id].take_attr(name) {
        None => {}
        Some(Attr::Ints(values)) => set_operand(graph, id, index, name, Tensor::vector(values)),
        Some(Attr::Int(value)) => set_operand(graph, id, index, name, Tensor::vector(vec![value])),
        Some(_) => return Err(format!("{name} holds no integers")),
    }
    Ok(())
}

fn floats_to_operand(graph: &mut Graph, id: NodeId, name: &str, index: usize) -> Result<(), String> {
    match graph[id].take_attr(name) {
        None => {}
        Some(Attr::Floats(values)) => set_operand(graph, id, index, name, Tensor::vector(values)),
        Some(Attr::Float(value)) => set_operand(graph, id, index, name, Tensor::scalar(value)),
        Some(_) => return Err(format!("{name} holds no floats")),
    }
    Ok(())
}

fn axes_to_operand(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    ints_to_operand(graph, id, "axes", 1)
}

/// Moves a float attribute to an operand of the type of operand 0.
fn like_first(graph: &mut Graph, id: NodeId, name: &str, index: usize) -> Result<(), String> {
    let value = match graph[id].take_attr(name) {
        None => return Ok(()),
        Some(Attr::Float(value)) => value,
        Some(_) => return Err(format!("{name} is no float")),
    };
    let ty = graph[id].input(0).and_then(|input| graph[input].ty.as_ref());
    let tensor = match ty.map(|ty| ty.dtype) {
        Some(DType::F32) => Tensor::scalar(value),
        Some(DType::F64) => Tensor::scalar(f64::from(value)),
        Some(DType::F16) => Tensor::scalar(f16::from_f32(value)),
        Some(DType::BF16) => Tensor::scalar(bf16::from_f32(value)),
        Some(other) => return Err(format!("{name} has no element type {other}")),
        None => {
            return Err(format!(
                "{name} becomes an operand, and the element type of the input is not known"
            ));
        }
    };
    set_operand(graph, id, index, name, tensor);
    Ok(())
}

fn clip_11(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    like_first(graph, id, "min", 1)?;
    like_first(graph, id, "max", 2)
}

fn pad_11(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    if graph[id].ints("pads").is_none() {
        return Err("pads are missing".to_owned());
    }
    ints_to_operand(graph, id, "pads", 1)?;
    like_first(graph, id, "value", 2)
}

fn slice_10(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    if graph[id].ints("starts").is_none() || graph[id].ints("ends").is_none() {
        return Err("starts or ends are missing".to_owned());
    }
    for (index, name) in (1..).zip(["starts", "ends", "axes"]) {
        ints_to_operand(graph, id, name, index)?;
    }
    Ok(())
}

fn split_18(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    if graph[id].input(1).is_none() {
        let parts = i64::try_from(graph[id].outputs().len()).map_err(|_| "it has too many results")?;
        graph[id].set_attr("num_outputs", parts);
    }
    Ok(())
}

fn batch_norm_9(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    match graph[id].take_attr("spatial") {
        None | Some(Attr::Int(1)) => Ok(()),
        Some(_) => Err("statistics for every position (spatial = 0) cannot be said any longer".to_owned()),
    }
}

fn batch_norm_14(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    if graph[id].outputs().iter().skip(1).any(Option::is_some) {
        return Err("it trains, which it says by having more results than one".to_owned());
    }
    Ok(())
}

fn dropout_10(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    let Some(mask) = graph[id].output(1) else { return Ok(()) };
    if !graph[mask].uses().is_empty() || graph.outputs().contains(&mask) {
        return Err("its mask became boolean, and is used".to_owned());
    }
    graph[mask].ty = None;
    Ok(())
}

fn grid_sample_20(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    let mode = match graph[id].text("mode") {
        Some("bilinear") => "linear",
        Some("bicubic") => "cubic",
        _ => return Ok(()),
    };
    graph[id].set_attr("mode", mode);
    Ok(())
}

fn roi_align_16(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    graph[id].set_attr("coordinate_transformation_mode", "output_half_pixel");
    Ok(())
}

fn one_hot_11(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    let Some(indices) = graph[id].input(0) else { return Ok(()) };
    let positive = match graph.producer(indices) {
        Some((_, node)) => node.op.is("ArgMax") || node.op.is("ArgMin"),
        None => graph[indices]
            .constant()
            .and_then(Tensor::to_f64)
            .is_some_and(|values| values.iter().all(|&v| v >= 0.0)),
    };
    if positive {
        return Ok(());
    }
    Err("negative indices count from the back; before they chose nothing".to_owned())
}

fn resize_11(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    let scales = graph[id].input(1);
    if matches!(graph[id].text("mode"), None | Some("nearest")) {
        let values = scales.and_then(|scales| graph[scales].constant()?.to_f32());
        let enlarges = values.is_some_and(|values| values.iter().all(|&scale| scale >= 1.0));
        if !enlarges {
            return Err("to the nearest pixel it was defined for constant scales of 1 or more only".to_owned());
        }
        graph[id].set_attr("nearest_mode", "floor");
    }
    graph[id].set_attr("coordinate_transformation_mode", "asymmetric");
    graph.set_input(id, 2, scales);
    set_operand(graph, id, 1, "roi", Tensor::vector(Vec::<f32>::new()));
    Ok(())
}

fn resize_13(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    if graph[id].text("coordinate_transformation_mode") == Some("tf_half_pixel_for_nn") {
        return Err("tf_half_pixel_for_nn is gone".to_owned());
    }
    // An operand that is not there was an empty tensor before.
    for index in [1, 2] {
        if graph.constant_input(id, index).is_some_and(Tensor::is_empty) {
            graph.set_input(id, index, None);
        }
    }
    Ok(())
}

/// y = reshape(softmax(flatten(x, axis)), shape of x); where all extents after the axis are 1, the new op along `axis` is the same.
fn softmax_13(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    let (Some(x), Some(y)) = (graph[id].input(0), graph[id].output(0)) else {
        return Err("operand or result is missing".to_owned());
    };
    let axis = graph[id].int("axis").unwrap_or(1);
    let shape = graph[x].ty.as_ref().and_then(|ty| ty.shape.clone());
    let known = graph[x].shape();
    if axis == -1 || shape.is_some_and(|shape| ends_at(&shape, axis)) {
        graph[id].set_attr("axis", axis);
        return Ok(());
    }
    let base = graph[y].name().to_owned();
    let flat = graph.insert(
        Op::onnx("Flatten"),
        &[x],
        vec![Attribute::new("axis", axis)],
        &format!("{base}/flat"),
    );
    let op = graph[id].op.clone();
    let rows = graph.insert(op, &[flat], vec![Attribute::new("axis", -1)], &format!("{base}/rows"));
    if let Some(made) = graph[rows].producer() {
        graph[made].name = graph[id].name.clone();
        graph[made].origin.source = graph[id].origin.source.clone();
    }
    let target = match known {
        Some(shape) => {
            let shape = crate::ops::build::as_i64(&shape);
            graph.add_constant(&format!("{base}/shape"), Tensor::vector(shape))
        }
        None => graph.insert(Op::onnx("Shape"), &[x], vec![], &format!("{base}/shape")),
    };
    let shaped = graph.insert(Op::onnx("Reshape"), &[rows, target], vec![], &format!("{base}/shaped"));
    graph.replace(y, shaped);
    graph.remove_node(id);
    Ok(())
}

/// Is every extent after `axis` 1?
fn ends_at(shape: &[Dim], axis: i64) -> bool {
    let Ok(axis) = crate::ops::normalize_axis(axis, shape.len()) else {
        return false;
    };
    shape.iter().skip(axis + 1).all(|dim| *dim == Dim::Known(1))
}
