//! DepthToSpace and SpaceToDepth: the elements of blocks of positions, among the channels or side by side. Both are a reshape, a
//! permutation and a reshape, and their gradients the way back.
//!
//! With blocks of b × b: DepthToSpace splits C into `[b, b, C/b²]` (DCR) or `[C/b², b, b]` (CRD); SpaceToDepth is the way back of DCR.

use super::gradient::GradCx;
use super::sample::Sample;
use super::{InferCx, OpEntry, Quant};
use crate::ir::{Dim, Node, TensorType, ValueId};
use crate::ops::build::Build;

type Types = Result<Vec<Option<TensorType>>, String>;

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("DepthToSpace", infer_to_space, "")
        .gradient(to_space, samples_to_space)
        .quant(Quant::Transparent),
    OpEntry::new("SpaceToDepth", infer_to_depth, "")
        .gradient(to_depth, samples_to_depth)
        .quant(Quant::Transparent),
];

fn block_of(node: &Node) -> Result<usize, String> {
    let block = node.int("blocksize").and_then(|block| usize::try_from(block).ok());
    block
        .filter(|&block| block > 0)
        .ok_or_else(|| "blocksize must be positive".to_owned())
}

fn times(dim: &Dim, factor: usize) -> Dim {
    dim.known()
        .and_then(|extent| extent.checked_mul(factor))
        .map_or(Dim::Unknown, Dim::Known)
}

fn over(dim: &Dim, divisor: usize) -> Result<Dim, String> {
    match dim.known() {
        None => Ok(Dim::Unknown),
        Some(extent) if extent % divisor == 0 => Ok(Dim::Known(extent / divisor)),
        Some(extent) => Err(format!("an extent of {extent} does not divide by {divisor}")),
    }
}

/// ONNX DepthToSpace, operator set 13.
fn infer_to_space(cx: &InferCx) -> Types {
    let block = block_of(cx.node)?;
    let shape = match cx.shape(0) {
        None => None,
        Some([batch, channels, height, width]) => Some(vec![
            batch.clone(),
            over(channels, block.saturating_mul(block))?,
            times(height, block),
            times(width, block),
        ]),
        Some(other) => return Err(format!("its operand has rank 4, not {}", other.len())),
    };
    cx.one(cx.dtype(0), shape)
}

/// ONNX SpaceToDepth, operator set 13.
fn infer_to_depth(cx: &InferCx) -> Types {
    let block = block_of(cx.node)?;
    let shape = match cx.shape(0) {
        None => None,
        Some([batch, channels, height, width]) => Some(vec![
            batch.clone(),
            times(channels, block.saturating_mul(block)),
            over(height, block)?,
            over(width, block)?,
        ]),
        Some(other) => return Err(format!("its operand has rank 4, not {}", other.len())),
    };
    cx.one(cx.dtype(0), shape)
}

/// `[N, C, b·H, b·W] → [N, b²·C, H, W]`, with the axes of the block at this place among the channels.
fn gathered(build: &mut Build, x: ValueId, block: usize, perm: [i64; 6]) -> Result<ValueId, String> {
    let &[batch, channels, height, width] = &build.shape(x)?[..] else {
        return Err("its operand has rank 4".to_owned());
    };
    let (rows, columns) = (height / block, width / block);
    let apart = build.reshape(x, &[batch, channels, rows, block, columns, block]);
    let turned = build.transpose(apart, &perm);
    Ok(build.reshape(turned, &[batch, channels * block * block, rows, columns]))
}

/// Gathers blocks back among the channels.
fn to_space(cx: &mut GradCx) -> Result<(), String> {
    let (dy, block) = (cx.dy()?, block_of(&cx.node)?);
    let perm = match cx.node.text("mode") {
        None | Some("DCR") => [0, 3, 5, 1, 2, 4],
        Some("CRD") => [0, 1, 3, 5, 2, 4],
        Some(other) => return Err(format!("the mode {other} is not known")),
    };
    cx.give_with(0, |build| gathered(build, dy, block, perm))
}

/// Lays blocks out side by side again.
fn to_depth(cx: &mut GradCx) -> Result<(), String> {
    let (dy, block, shape) = (cx.dy()?, block_of(&cx.node)?, cx.x_shape(0)?);
    let &[batch, channels, height, width] = &shape[..] else {
        return Err("its operand has rank 4".to_owned());
    };
    cx.give_with(0, |build| {
        let apart = build.reshape(dy, &[batch, block, block, channels, height / block, width / block]);
        let turned = build.transpose(apart, &[0, 3, 4, 1, 5, 2]);
        Ok(build.reshape(turned, &shape))
    })
}

fn samples_to_space() -> Vec<Sample> {
    vec![
        Sample::new("block first").x(&[2, 8, 1, 2]).attr("blocksize", 2),
        Sample::new("block last")
            .x(&[1, 8, 2, 1])
            .attr("blocksize", 2)
            .attr("mode", "CRD"),
        Sample::new("blocks of three").x(&[1, 9, 1, 2]).attr("blocksize", 3),
    ]
}

fn samples_to_depth() -> Vec<Sample> {
    vec![
        Sample::new("blocks of two").x(&[2, 2, 2, 4]).attr("blocksize", 2),
        Sample::new("blocks of one").x(&[1, 2, 2, 3]).attr("blocksize", 1),
    ]
}
