//! Attention of ONNX, operator sets 23 and 24.
//!
//! Operands are `[batch, heads, length, size]`, or `[batch, length, heads · size]` with the heads as attributes. Where there are fewer heads of
//! keys than of queries, several queries share one: keys and values are gathered once for each. A mask of booleans says what is kept, one of
//! floats is added, and −∞ in it keeps nothing. A query that keeps no key gives 0.
//!
//! Declined: past and present keys and values, lengths without padding, the scores as a result, a softmax in other precision than float, and
//! a mask that may be shorter than the keys.

use super::attention::{
    Causal, EmptyRows, Heads, Scores, attend, head_size, join_heads, scale_of, split_heads, split_heads_transposed,
};
use super::site::Site;
use crate::ir::{Attribute, DType, Dim, Tensor, ValueId};

type Results = Result<Vec<Option<ValueId>>, String>;

/// ONNX Attention, operator set 23.
pub(super) fn attention(site: &mut Site) -> Results {
    site.attributes(&[
        "is_causal",
        "kv_num_heads",
        "q_num_heads",
        "qk_matmul_output_mode",
        "scale",
        "softcap",
        "softmax_precision",
    ])?;
    site.without(4, "past_key")?;
    site.without(5, "past_value")?;
    site.without(6, "nonpad_kv_seqlen")?;
    site.at_most(7)?;
    for (index, name) in [(1, "present_key"), (2, "present_value"), (3, "qk_matmul_output")] {
        site.unused(index, name)?;
    }
    if site
        .int("softmax_precision")?
        .is_some_and(|code| code != i64::from(DType::F32.code()))
    {
        return Err("its softmax is not in the precision of float".to_owned());
    }
    let cap = site.number("softcap")?.filter(|&cap| cap != 0.0);
    let given_scale = site.number("scale")?;
    let causal = Causal::from(site.flag("is_causal")?);
    let [q, k, v] = [site.float(0, "Q")?, site.float(1, "K")?, site.float(2, "V")?];
    let (bias, keep, empty_rows) = masks(site, k)?;
    let ranks = [site.rank(q, "Q")?, site.rank(k, "K")?, site.rank(v, "V")?];
    let (size, width, operands) = match ranks {
        [3, 3, 3] => packed(site, q, k, v)?,
        [4, 4, 4] => unpacked(site, q, k, v)?,
        _ => return Err(format!("its operands have the ranks {ranks:?}")),
    };
    let scores = Scores {
        scale: scale_of(given_scale, size),
        cap,
        bias,
        keep,
        causal,
        empty_rows,
    };
    let y = attend(site, &operands, &scores);
    Ok(vec![Some(match width {
        Some(width) => join_heads(site, y, width),
        None => y,
    })])
}

/// The size of a head, the width of the result where its heads are joined, and the operands.
type Operands = Result<(i64, Option<i64>, Heads), String>;

fn packed(site: &mut Site, q: ValueId, k: ValueId, v: ValueId) -> Operands {
    let heads = site.count("q_num_heads")?.ok_or("its attribute q_num_heads is missing")?;
    let shared = site.count("kv_num_heads")?.ok_or("its attribute kv_num_heads is missing")?;
    let size = head_size(site.last(q, "Q")?, heads, "Q")?;
    if head_size(site.last(k, "K")?, shared, "K")? != size {
        return Err("heads of Q and K have other sizes".to_owned());
    }
    let value_size = head_size(site.last(v, "V")?, shared, "V")?;
    let operands = Heads {
        query: split_heads(site, q, heads, size),
        key_transposed: split_heads_transposed(site, k, shared, size),
        value: split_heads(site, v, shared, value_size),
    };
    let operands = shared_by(site, operands, heads, shared)?;
    Ok((size, Some(heads * value_size), operands))
}

fn unpacked(site: &mut Site, q: ValueId, k: ValueId, v: ValueId) -> Operands {
    let size = site.last(q, "Q")?;
    let operands = Heads {
        query: q,
        key_transposed: site.b.transpose(k, &[0, 1, 3, 2]),
        value: v,
    };
    let dims = |value: ValueId| site.ty(value).and_then(|ty| ty.shape.as_ref()?.get(1).cloned());
    let known = |dim: Option<Dim>| dim.and_then(|dim| i64::try_from(dim.known()?).ok());
    let operands = match (dims(q), dims(k)) {
        (Some(a), Some(b)) if a.same_as(&b) => operands,
        (a, b) => {
            let (Some(heads), Some(shared)) = (known(a), known(b)) else {
                return Err("how many heads it has is not known".to_owned());
            };
            shared_by(site, operands, heads, shared)?
        }
    };
    Ok((size, None, operands))
}

/// No network has more; a file may say anything.
const MOST_HEADS: i64 = 1 << 16;

/// Gives each head of queries its head of keys and values.
fn shared_by(site: &mut Site, operands: Heads, heads: i64, shared: i64) -> Result<Heads, String> {
    if heads == shared {
        return Ok(operands);
    }
    if shared < 1 || heads % shared != 0 || heads > MOST_HEADS {
        return Err(format!("{heads} heads of queries cannot share {shared} of keys"));
    }
    let each = heads / shared;
    let of: Vec<i64> = (0..heads).map(|head| head / each).collect();
    let of = site.b.ints(&of);
    let mut gathered = |x: ValueId| site.op("Gather", &[x, of], vec![Attribute::new("axis", 1)]);
    Ok(Heads {
        key_transposed: gathered(operands.key_transposed),
        value: gathered(operands.value),
        ..operands
    })
}

/// What the mask adds, what it keeps, and whether a query may keep nothing.
fn masks(site: &mut Site, k: ValueId) -> Result<(Option<ValueId>, Option<ValueId>, EmptyRows), String> {
    let Some(mask) = site.node.input(3) else {
        return Ok((None, None, EmptyRows::None));
    };
    // From operator set 24 on a mask of fewer keys is filled up with −∞, where broadcasting would refuse it, or repeat its only key.
    if site.opset >= 24 {
        let last = |value: ValueId, back: usize| {
            let dims = site.ty(value)?.shape.as_ref()?;
            dims.get(dims.len().checked_sub(back)?).cloned()
        };
        match (last(mask, 1), last(k, 2)) {
            (Some(a), Some(b)) if a.same_as(&b) || a == Dim::Unknown || matches!(a, Dim::Symbol(_)) => {}
            (Some(Dim::Known(extent)), Some(Dim::Symbol(_) | Dim::Unknown)) if extent > 1 => {}
            _ => return Err("its mask may have fewer keys than K".to_owned()),
        }
    }
    match site.ty(mask).map(|ty| ty.dtype) {
        Some(DType::Bool) => Ok((None, Some(mask), EmptyRows::Zero)),
        Some(DType::F32) => {
            let finite = site.b.graph[mask].constant().and_then(Tensor::to_f32);
            if finite.is_some_and(|values| values.iter().all(|&value| value > f32::MIN)) {
                return Ok((Some(mask), None, EmptyRows::None));
            }
            let lowest = site.b.scalar(f32::MIN);
            let keep = site.b.binary("Greater", mask, lowest);
            let bias = site.b.binary("Max", mask, lowest);
            Ok((Some(bias), Some(keep), EmptyRows::Zero))
        }
        Some(other) => Err(format!("its mask is {other}")),
        None => Err("the element type of its mask is not known".to_owned()),
    }
}
