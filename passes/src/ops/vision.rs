//! Ops that sample feature maps at computed places, and attention in one op: types only. Gradients stop there.

use super::{InferCx, OpEntry};
use crate::ir::{DType, Dim, TensorType};

type Types = Result<Vec<Option<TensorType>>, String>;

const WHY: &str = "the gradient of this op is not written";

/// The others were expanded before.
const NOT_EXPANDED: &str =
    "this form of it is not spelled in other ops (expand-fused says why), and the gradient of this op is not written";

pub(super) const ENTRIES: &[OpEntry] = &[
    OpEntry::new("GridSample", infer_grid_sample, WHY),
    OpEntry::new("RoiAlign", infer_roi_align, WHY),
    OpEntry::new("MaxRoiPool", infer_max_roi_pool, WHY),
    OpEntry::new("DeformConv", infer_deform_conv, WHY),
    OpEntry::new("NonMaxSuppression", infer_non_max_suppression, "").zero_gradient(),
    OpEntry::new("Attention", infer_attention, NOT_EXPANDED),
    OpEntry::new("RotaryEmbedding", |cx| cx.like_first(), NOT_EXPANDED),
];

/// ONNX GridSample, operator set 22: `[N, C, …]` at a grid `[N, …places, axes]`.
fn infer_grid_sample(cx: &InferCx) -> Types {
    let shape = match (cx.shape(0), cx.shape(1)) {
        (Some([batch, channels, ..]), Some([_, places @ .., _])) => {
            let lead = [batch.clone(), channels.clone()];
            Some(lead.into_iter().chain(places.iter().cloned()).collect())
        }
        _ => None,
    };
    cx.one(cx.dtype(0), shape)
}

/// `[regions, channels, height, width]`.
fn regions(cx: &InferCx, extents: [Option<i64>; 2]) -> Types {
    let first = |operand: usize, axis: usize| cx.shape(operand).and_then(|shape| shape.get(axis).cloned());
    let extents = extents.map(|extent| {
        let extent = extent.and_then(|extent| usize::try_from(extent).ok());
        extent.map_or(Dim::Unknown, Dim::Known)
    });
    let lead = [first(1, 0), first(0, 1)].map(|dim| dim.unwrap_or(Dim::Unknown));
    cx.one(cx.dtype(0), Some(lead.into_iter().chain(extents).collect()))
}

/// ONNX RoiAlign, operator set 22.
fn infer_roi_align(cx: &InferCx) -> Types {
    regions(
        cx,
        ["output_height", "output_width"].map(|name| Some(cx.node.int(name).unwrap_or(1))),
    )
}

/// ONNX MaxRoiPool, operator set 22.
fn infer_max_roi_pool(cx: &InferCx) -> Types {
    let shape = cx.node.ints("pooled_shape").ok_or("pooled_shape is missing")?;
    regions(cx, [shape.first().copied(), shape.get(1).copied()])
}

/// ONNX DeformConv, operator set 22: as many positions as its offsets, operand 2, have.
fn infer_deform_conv(cx: &InferCx) -> Types {
    let shape = match (cx.shape(0), cx.shape(1), cx.shape(2)) {
        (Some([batch, ..]), Some([features, ..]), Some([_, _, places @ ..])) => {
            let lead = [batch.clone(), features.clone()];
            Some(lead.into_iter().chain(places.iter().cloned()).collect())
        }
        _ => None,
    };
    cx.one(cx.dtype(0), shape)
}

/// ONNX NonMaxSuppression, operator set 11: batch, class and box of each that was selected.
fn infer_non_max_suppression(cx: &InferCx) -> Types {
    cx.one(Some(DType::I64), Some(vec![Dim::Unknown, Dim::Known(3)]))
}

/// ONNX Attention, operator set 24: `[N, heads, L, D of the values]` of operands of rank 4; of rank 3 only where the values' heads can be
/// told from the attributes.
fn infer_attention(cx: &InferCx) -> Types {
    let heads = |name: &str| cx.node.int(name).and_then(|heads| usize::try_from(heads).ok());
    let shape = match (cx.shape(0), cx.shape(2)) {
        (Some([batch, heads, length, _]), Some([.., depth])) => {
            Some(vec![batch.clone(), heads.clone(), length.clone(), depth.clone()])
        }
        (Some([batch, length, _]), Some([.., width])) => {
            let width = match (width.known(), heads("q_num_heads"), heads("kv_num_heads")) {
                (Some(width), Some(queries), Some(values)) if values > 0 => (width / values).checked_mul(queries),
                _ => None,
            };
            Some(vec![batch.clone(), length.clone(), width.map_or(Dim::Unknown, Dim::Known)])
        }
        _ => None,
    };
    cx.one(cx.dtype(0), shape)
}
