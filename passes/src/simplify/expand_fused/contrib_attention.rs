//! Attention and MultiHeadAttention of ONNX Runtime's domain `com.microsoft`, version 1.
//!
//! Attention takes Q, K and V from one product with `[Wq Wk Wv]` and the bias `[bq bk bv]`. Here each is a product of its own, so that each
//! weight has its own step. MultiHeadAttention takes them computed, and may add that bias. A mask `[batch, keys]` or `[batch, queries, keys]`
//! has numbers over 0 where a key takes part; where it does not, `mask_filter_value` is added to the score. A bias of the scores is added.
//!
//! Declined: past and present keys and values, masks of other ranks (lengths), packed operands, rotary positions, and a mask of rank 3 that is
//! causal too.

use super::attention::{
    Causal, EmptyRows, Heads, Scores, attend, head_size, join_heads, scale_of, split_heads, split_heads_transposed,
};
use super::site::Site;
use crate::ir::{Tensor, ValueId};

type Results = Result<Vec<Option<ValueId>>, String>;

/// com.microsoft Attention.
pub(super) fn attention(site: &mut Site) -> Results {
    site.attributes(&[
        "num_heads",
        "unidirectional",
        "scale",
        "mask_filter_value",
        "qkv_hidden_sizes",
        "do_rotary",
        "past_present_share_buffer",
        "rotary_embedding_dim",
    ])?;
    site.at_most(7)?;
    site.not_set("do_rotary")?;
    site.not_set("past_present_share_buffer")?;
    site.without(4, "past")?;
    site.without(6, "past_sequence_length")?;
    let heads = site.count("num_heads")?.ok_or("its attribute num_heads is missing")?;
    let (x, weights) = (site.float(0, "input")?, site.float(1, "weights")?);
    let bias = site.optional_float(2, "bias")?;
    if site.rank(x, "input")? != 3 {
        return Err("its operand input has not rank 3".to_owned());
    }
    let columns = site.last(weights, "weights")?;
    let widths = match site.node.attr("qkv_hidden_sizes") {
        None if columns % 3 == 0 => [columns / 3; 3],
        None => return Err(format!("its {columns} columns of weights are not those of three")),
        Some(_) => <[i64; 3]>::try_from(site.node.ints("qkv_hidden_sizes").unwrap_or_default())
            .map_err(|_| "its attribute qkv_hidden_sizes holds no three integers")?,
    };
    let total = widths.iter().try_fold(0i64, |sum, &width| sum.checked_add(width));
    if total != Some(columns) || widths[0] != widths[1] {
        return Err(format!("its widths {widths:?} do not fit {columns} columns"));
    }
    let size = head_size(widths[0], heads, "a query")?;
    let value_size = head_size(widths[2], heads, "a value")?;
    let masks = masks(site, 3, 5)?;
    let mut parts = Vec::with_capacity(3);
    let mut start = 0;
    for (width, name) in widths.into_iter().zip(["query", "key", "value"]) {
        let weight = site.b.slice(weights, 1, start, start + width, 1);
        let mut part = site.b.matmul(x, weight);
        site.name(part, name);
        if let Some(bias) = bias {
            let bias = site.b.slice(bias, 0, start, start + width, 1);
            part = site.b.add(part, bias);
        }
        parts.push(part);
        start += width;
    }
    let operands = Heads {
        query: split_heads(site, parts[0], heads, size),
        key_transposed: split_heads_transposed(site, parts[1], heads, size),
        value: split_heads(site, parts[2], heads, value_size),
    };
    finish(site, &operands, masks, size, widths[2])
}

/// com.microsoft MultiHeadAttention.
pub(super) fn multi_head(site: &mut Site) -> Results {
    site.attributes(&["num_heads", "scale", "mask_filter_value", "unidirectional"])?;
    site.at_most(6)?;
    let heads = site.count("num_heads")?.ok_or("its attribute num_heads is missing")?;
    let mut parts = Vec::with_capacity(3);
    let mut widths = Vec::with_capacity(3);
    for (index, name) in ["query", "key", "value"].into_iter().enumerate() {
        let part = site.float(index, name)?;
        if site.rank(part, name)? != 3 {
            return Err(format!("its operand {name} has not rank 3"));
        }
        parts.push(part);
        widths.push(site.last(part, name)?);
    }
    let (size, value_size) = (
        head_size(widths[0], heads, "a query")?,
        head_size(widths[2], heads, "a value")?,
    );
    if widths[0] != widths[1] {
        return Err(format!("a query has {} features and a key {}", widths[0], widths[1]));
    }
    let masks = masks(site, 4, 5)?;
    if let Some(bias) = site.optional_float(3, "bias")? {
        let mut start = 0;
        for (part, width) in parts.iter_mut().zip(&widths) {
            let bias = site.b.slice(bias, 0, start, start + width, 1);
            *part = site.b.add(*part, bias);
            start += width;
        }
    }
    let operands = Heads {
        query: split_heads(site, parts[0], heads, size),
        key_transposed: split_heads_transposed(site, parts[1], heads, size),
        value: split_heads(site, parts[2], heads, value_size),
    };
    finish(site, &operands, masks, size, widths[2])
}

/// The mask at operand `mask` as what it adds to the scores, and the bias at operand `bias`; their sum where both are there.
fn masks(site: &mut Site, mask: usize, bias: usize) -> Result<Option<ValueId>, String> {
    let bias = site.optional_float(bias, "attention_bias")?;
    let Some(mask) = site.node.input(mask) else { return Ok(bias) };
    let filter = site.number("mask_filter_value")?.unwrap_or(-10_000.0);
    let axes: &[i64] = match site.rank(mask, "mask")? {
        2 => &[1, 2],
        3 if site.flag("unidirectional")? => return Err("it is causal and has a mask of rank 3".to_owned()),
        3 => &[1],
        rank => return Err(format!("its mask has rank {rank}")),
    };
    let dtype = site.b.dtype(mask);
    if dtype.is_float() {
        return Err("its mask holds floats".to_owned());
    }
    let mask = site.unsqueeze(mask, axes);
    let mask = site.b.cast(mask, crate::ir::DType::F32);
    let zero = site.b.scalar(0.0);
    let kept = site.b.binary("Greater", mask, zero);
    let filter = site.b.constant(Tensor::scalar(filter));
    let added = site.op("Where", &[kept, zero, filter], vec![]);
    Ok(Some(match bias {
        Some(bias) => site.b.add(added, bias),
        None => added,
    }))
}

fn finish(site: &mut Site, operands: &Heads, bias: Option<ValueId>, size: i64, width: i64) -> Results {
    // 0 stands for the default.
    let scale = site.number("scale")?.filter(|&scale| scale != 0.0);
    let scores = Scores {
        scale: scale_of(scale, size),
        cap: None,
        bias,
        keep: None,
        causal: Causal::from(site.flag("unidirectional")?),
        empty_rows: EmptyRows::None,
    };
    let y = attend(site, operands, &scores);
    Ok(vec![Some(join_heads(site, y, width))])
}
