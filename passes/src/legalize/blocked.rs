//! Convolutions in the channel-blocked layout of ONNX Runtime's CPU (`com.microsoft.nchwc`), which runs windows larger than 1×1 faster:
//! ReorderInput → Conv → ReorderOutput, its weights blocked inside the graph.
//!
//! With b channels to a block a tensor `[N, C, H, W]` lies as `[N, C/b, H, W, b]`, and a weight `[O, C, k…]` as `[O/b, C/b, k…, b of C, b of O]`, or
//! as `[O/b, 1, k…, b of O]` where every channel has its own filter. ∂X of a Conv of stride 1 is a Conv too, with both channel axes of
//! the weight exchanged, its taps reversed and pads of d·(k − 1) − p.
//!
//! The block is the engine's and depends on the CPU; with a wrong one it computes garbage, so whoever sets it asks the engine first.
//! Not taken: other ranks than 4, channels that fill no whole blocks, 1×1 windows, groups other than depthwise ones.

use super::conv_gradients::{extents, group_of, tail};
use super::{operand, taps::Taps};
use crate::ir::{Attribute, DType, Node, Op, TensorType, ValueId};
use crate::ops::build::{Build, as_i64};
use crate::ops::window::Window;

/// The domain of the blocked ops.
pub(super) const DOMAIN: &str = "com.microsoft.nchwc";

/// Which of a weight's two channel axes the result's channels are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// The first: the forward op.
    Forward,
    /// The second, with reversed taps: ∂X.
    Backward,
}

/// How filters see channels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dense,
    Depthwise,
}

/// The shape of a weight that blocks of `block` channels take.
fn kind_of(w_shape: &[usize], group: usize, block: usize) -> Option<Kind> {
    let &[filters, per_group, height, width] = w_shape else {
        return None;
    };
    if height * width < 2 || !filters.is_multiple_of(block) {
        return None;
    }
    match group {
        1 if per_group.is_multiple_of(block) => Some(Kind::Dense),
        group if group == filters && per_group == 1 => Some(Kind::Depthwise),
        _ => None,
    }
}

/// A Conv as the blocked op; `None` where that is not possible.
pub(super) fn conv(build: &mut Build, node: &Node, block: usize) -> Result<Option<ValueId>, String> {
    let (x, w) = (operand(node, 0)?, operand(node, 1)?);
    let (x_shape, w_shape, group) = (build.shape(x)?, build.shape(w)?, group_of(node)?);
    let Some(kind) = kind_of(&w_shape, group, block).filter(|_| build.dtype(x) == DType::F32) else {
        return Ok(None);
    };
    let window = Window::of(node, tail(&x_shape)?, tail(&w_shape)?)?;
    let y = node.output(0).ok_or("its result is missing")?;
    let shape = build.shape(y)?;
    let bias = node.input(2);
    let weight = blocked_weight(build, w, &w_shape, kind, Use::Forward, block);
    Ok(Some(spell(build, x, weight, bias, &window, (group, &shape))))
}

/// ∂X of a Conv of stride 1 as the blocked op; `None` where that is not possible.
pub(super) fn input_gradient(build: &mut Build, node: &Node, block: usize) -> Result<Option<ValueId>, String> {
    let (dy, w) = (operand(node, 0)?, operand(node, 1)?);
    let shape = extents(node, "input_shape")?;
    let (dy_shape, w_shape, group) = (build.shape(dy)?, build.shape(w)?, group_of(node)?);
    let Some(kind) = kind_of(&w_shape, group, block).filter(|_| build.dtype(dy) == DType::F32) else {
        return Ok(None);
    };
    let mut window = Taps::of(node, tail(&shape)?, tail(&w_shape)?, tail(&dy_shape)?)?.window;
    if window.strides.iter().any(|&stride| stride != 1) {
        return Ok(None);
    }
    let (begins, ends) = (window.pads_begin.clone(), window.pads_end.clone());
    for (axis, (begin, end)) in begins.into_iter().zip(ends).enumerate() {
        let reach = window.dilations[axis] * (window.kernel[axis] - 1);
        let (Some(begin), Some(end)) = (reach.checked_sub(begin), reach.checked_sub(end)) else {
            return Ok(None);
        };
        (window.pads_begin[axis], window.pads_end[axis]) = (begin, end);
    }
    let weight = blocked_weight(build, w, &w_shape, kind, Use::Backward, block);
    Ok(Some(spell(build, dy, weight, None, &window, (group, &shape))))
}

fn spell(
    build: &mut Build,
    x: ValueId,
    weight: ValueId,
    bias: Option<ValueId>,
    window: &Window,
    (group, shape): (usize, &[usize]),
) -> ValueId {
    let op = |name: &'static str| Op {
        domain: DOMAIN.into(),
        name: name.into(),
    };
    let mut attributes = window.attributes();
    attributes.push(Attribute::new("group", as_i64(&[group])[0]));
    let x_type = build.graph[x].ty.clone();
    let blocked = build.node(op("ReorderInput"), &[x], vec![]);
    build.graph[blocked].ty = x_type;
    let operands: Vec<ValueId> = [Some(blocked), Some(weight), bias].into_iter().flatten().collect();
    let product = build.node(op("Conv"), &operands, attributes);
    let channels = shape.get(1).copied().unwrap_or_default();
    let y = build.node(
        op("ReorderOutput"),
        &[product],
        vec![Attribute::new("channels", as_i64(&[channels])[0])],
    );
    for value in [product, y] {
        build.graph[value].ty = Some(TensorType::fixed(DType::F32, shape));
    }
    y
}

/// The weight in blocks, under its own extents, or its channel axes exchanged.
fn blocked_weight(build: &mut Build, w: ValueId, shape: &[usize], kind: Kind, used: Use, block: usize) -> ValueId {
    let (filters, channels) = (shape[0], shape[1]);
    let taps: usize = shape.iter().skip(2).product();
    let (split, perm, first, second): (Vec<usize>, &[i64], usize, usize) = match (kind, used) {
        (Kind::Dense, Use::Forward) => (
            vec![filters / block, block, channels / block, block, taps],
            &[0, 2, 4, 3, 1],
            filters,
            channels,
        ),
        (Kind::Dense, Use::Backward) => (
            vec![filters / block, block, channels / block, block, taps],
            &[2, 0, 4, 1, 3],
            channels,
            filters,
        ),
        (Kind::Depthwise, _) => (vec![filters / block, block, taps], &[0, 2, 1], filters, channels),
    };
    let mut weight = build.reshape(w, &split);
    if used == Use::Backward {
        let axis = split.len() - 1;
        let reversed: Vec<i64> = (0..as_i64(&[taps])[0]).rev().collect();
        let reversed = build.ints(&reversed);
        weight = build.node(
            Op::onnx("Gather"),
            &[weight, reversed],
            vec![Attribute::new("axis", as_i64(&[axis])[0])],
        );
    }
    let turned = build.transpose(weight, perm);
    let extents: Vec<usize> = [first, second].into_iter().chain(shape.iter().skip(2).copied()).collect();
    build.reshape(turned, &extents)
}
