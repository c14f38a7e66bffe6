//! Attention and MultiHeadAttention of ONNX Runtime's domain `com.microsoft`, version 1.
//!
//! Attention takes Q, K and V from one product with `[Wq Wk Wv]` and the bias `[bq bk bv]`. Here each is a product of its own, so that each
//! weight has its own step. MultiHeadAttention takes them computed, and may add that bias. A mask `[batch, keys]` or `[batch, queries, keys]`
//! has numbers over 0 where a key takes part, a mask `[batch]` the number of keys that do; where one does not, `mask_filter_value` is added to
//! the score. A bias of the scores is added.
//!
//! Declined: past and present keys and values, masks of other ranks and of keys that do not begin at the first, packed operands, rotary positions, and a mask of rank 3 that is
//! causal too.

use super::attention::{
    Causal, EmptyRows, Heads, Scores, attend, counted, head_size, join_heads, scale_of, split_heads, split_heads_transposed,
};
use super::site::Site;
use crate::ir::{DType, Tensor, ValueId};

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
    let masks = masks(site, 3, 5, x)?;
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
    let masks = masks(site, 4, 5, parts[1])?;
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
/// `keys` is `[batch, keys, features]`.
fn masks(site: &mut Site, mask: usize, bias: usize, keys: ValueId) -> Result<Option<ValueId>, String> {
    let bias = site.optional_float(bias, "attention_bias")?;
    let Some(mask) = site.node.input(mask) else { return Ok(bias) };
    let filter = site.number("mask_filter_value")?.unwrap_or(-10_000.0);
    let rank = site.rank(mask, "mask")?;
    if site.b.dtype(mask).is_float() {
        return Err("its mask holds floats".to_owned());
    }
    let zero = site.b.scalar(0.0);
    let kept = match rank {
        1 => shorter(site, mask, keys)?,
        3 if site.flag("unidirectional")? => return Err("it is causal and has a mask of rank 3".to_owned()),
        2 | 3 => {
            let axes: &[i64] = if rank == 2 { &[1, 2] } else { &[1] };
            let mask = site.unsqueeze(mask, axes);
            let mask = site.b.cast(mask, DType::F32);
            site.b.binary("Greater", mask, zero)
        }
        _ => return Err(format!("its mask has rank {rank}")),
    };
    let filter = site.b.constant(Tensor::scalar(filter));
    let added = site.op("Where", &[kept, zero, filter], vec![]);
    Ok(Some(match bias {
        Some(bias) => site.b.add(added, bias),
        None => added,
    }))
}

/// Which keys there are where `lengths` has one number for each sample.
fn shorter(site: &mut Site, lengths: ValueId, keys: ValueId) -> Result<ValueId, String> {
    let first = |value: ValueId| site.ty(value).and_then(|ty| ty.shape.as_ref()?.first().cloned());
    // Where there are more numbers than samples, they are where keys begin, too. A sum is what an embedding gives, whose batch may be unknown.
    let sum = site
        .b
        .graph
        .producer(lengths)
        .is_some_and(|(_, node)| node.op.is("ReduceSum"));
    if !sum && !matches!((first(lengths), first(keys)), (Some(a), Some(b)) if a.same_as(&b)) {
        return Err("its mask of rank 1 is not known to have a number for each sample".to_owned());
    }
    let places = counted(site, keys, 1);
    let lengths = site.unsqueeze(lengths, &[1, 2, 3]);
    let lengths = site.b.cast(lengths, DType::I64);
    Ok(site.b.binary("Less", places, lengths))
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
