//! Scaled dot-product attention (Vaswani et al., arXiv 1706.03762) in standard ops: what all fused forms of it come to.
//!
//! y = softmax(c·tanh(α·Q·Kᵀ/c) + bias)·V, without tanh where there is no cap c. Masks come in two kinds: a bias that is added, and booleans
//! that say what is kept. A score that is not kept is the lowest float, so that no row is NaN; where a row may keep none, its probabilities are
//! made 0 once more. (A factor behind the product would be cheaper, but then a mask reaches the next layer past all others, which makes that one
//! a first layer.) Causal: query i keeps the keys j ≤ i.

use super::site::Site;
use crate::ir::{Attribute, Tensor, ValueId};

/// Operands of the products, with their heads as axis 1.
pub(super) struct Heads {
    /// Q, `[batch, heads, queries, size]`.
    pub query: ValueId,
    /// Kᵀ, `[batch, heads, size, keys]`.
    pub key_transposed: ValueId,
    /// V, `[batch, heads, keys, size of values]`.
    pub value: ValueId,
}

/// What is done to the scores.
pub(super) struct Scores {
    /// α
    pub scale: f32,
    /// c
    pub cap: Option<f32>,
    /// What is added, in a shape that broadcasts to `[batch, heads, queries, keys]`.
    pub bias: Option<ValueId>,
    /// What is kept, in such a shape.
    pub keep: Option<ValueId>,
    /// Is every query without the keys behind it?
    pub causal: Causal,
    /// May a row keep nothing, and is its result 0 then?
    pub empty_rows: EmptyRows,
}

/// Which keys a query has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Causal {
    Yes,
    No,
}

impl From<bool> for Causal {
    fn from(causal: bool) -> Causal {
        if causal { Causal::Yes } else { Causal::No }
    }
}

/// What a row without keys gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EmptyRows {
    /// 0.
    Zero,
    /// There is none.
    None,
}

/// The attention of each head, `[batch, heads, queries, size of values]`.
pub(super) fn attend(site: &mut Site, heads: &Heads, scores: &Scores) -> ValueId {
    let product = site.b.matmul(heads.query, heads.key_transposed);
    site.name(product, "scores");
    let mut s = super::products::scaled(site, product, scores.scale);
    if let Some(cap) = scores.cap {
        let inner = site.b.scale(s, 1.0 / cap);
        let inner = site.b.unary("Tanh", inner);
        s = site.b.scale(inner, cap);
    }
    if let Some(bias) = scores.bias {
        s = site.b.add(s, bias);
    }
    let causal = (scores.causal == Causal::Yes).then(|| causal(site, heads));
    let keep = match (scores.keep, causal) {
        (Some(keep), Some(causal)) => Some(site.b.binary("And", keep, causal)),
        (keep, causal) => keep.or(causal),
    };
    if let Some(keep) = keep {
        let lowest = site.b.scalar(f32::MIN);
        s = site.op("Where", &[keep, s, lowest], vec![]);
    }
    let mut p = site.op("Softmax", &[s], vec![Attribute::new("axis", -1)]);
    if let (EmptyRows::Zero, Some(keep)) = (scores.empty_rows, keep) {
        let zero = site.b.scalar(0.0);
        p = site.op("Where", &[keep, p, zero], vec![]);
    }
    let y = site.b.matmul(p, heads.value);
    site.name(y, "context");
    y
}

/// j ≤ i, as booleans `[queries, keys]`.
fn causal(site: &mut Site, heads: &Heads) -> ValueId {
    let queries = counted(site, heads.query, 2);
    let keys = counted(site, heads.key_transposed, 3);
    let queries = site.unsqueeze(queries, &[1]);
    site.b.binary("LessOrEqual", keys, queries)
}

/// 0, 1, … up to the extent of an axis.
pub(super) fn counted(site: &mut Site, x: ValueId, axis: i64) -> ValueId {
    let shape = site.op("Shape", &[x], vec![]);
    let [axis, start, step] = [axis, 0, 1].map(|value| site.b.constant(Tensor::scalar(value)));
    let extent = site.op("Gather", &[shape, axis], vec![]);
    site.op("Range", &[start, extent, step], vec![])
}

/// `[batch, length, heads · size]` as `[batch, heads, length, size]`.
pub(super) fn split_heads(site: &mut Site, x: ValueId, heads: i64, size: i64) -> ValueId {
    let x = site.reshape(x, &[0, 0, heads, size]);
    site.b.transpose(x, &[0, 2, 1, 3])
}

/// `[batch, length, heads · size]` as `[batch, heads, size, length]`.
pub(super) fn split_heads_transposed(site: &mut Site, x: ValueId, heads: i64, size: i64) -> ValueId {
    let x = site.reshape(x, &[0, 0, heads, size]);
    site.b.transpose(x, &[0, 2, 3, 1])
}

/// `[batch, heads, length, size]` as `[batch, length, heads · size]`.
pub(super) fn join_heads(site: &mut Site, x: ValueId, width: i64) -> ValueId {
    let x = site.b.transpose(x, &[0, 2, 1, 3]);
    site.reshape(x, &[0, 0, width])
}

/// `width / heads`, where it is whole.
pub(super) fn head_size(width: i64, heads: i64, name: &str) -> Result<i64, String> {
    if width < 1 || heads < 1 || width % heads != 0 {
        return Err(format!("the {width} features of {name} are not those of {heads} heads"));
    }
    Ok(width / heads)
}

/// α, by default 1/√size.
#[allow(clippy::cast_precision_loss)]
pub(super) fn scale_of(given: Option<f32>, size: i64) -> f32 {
    given.unwrap_or_else(|| 1.0 / (size as f32).sqrt())
}
