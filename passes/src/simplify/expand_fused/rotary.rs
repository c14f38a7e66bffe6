//! RotaryEmbedding of ONNX, operator set 23 (Su et al., arXiv 2104.09864).
//!
//! The first r features of a head are pairs (x₁, x₂), turned by the angle of their position: (c·x₁ − s·x₂, s·x₁ + c·x₂). The pairs are the two
//! halves, or neighbours where `interleaved`. c and s are `[batch, length, r/2]`, or rows of a table that positions choose.

use super::attention::head_size;
use super::site::Site;
use crate::ir::ValueId;

type Results = Result<Vec<Option<ValueId>>, String>;

/// ONNX RotaryEmbedding, operator set 23.
pub(super) fn rotary(site: &mut Site) -> Results {
    site.attributes(&["interleaved", "num_heads", "rotary_embedding_dim"])?;
    site.at_most(4)?;
    let interleaved = site.flag("interleaved")?;
    let x = site.float(0, "X")?;
    let (mut cos, mut sin) = (site.float(1, "cos_cache")?, site.float(2, "sin_cache")?);
    let last = site.last(x, "X")?;
    // The axis of heads, and the features of one.
    let (axis, size, split) = match site.rank(x, "X")? {
        3 => {
            let heads = site.count("num_heads")?.ok_or("its attribute num_heads is missing")?;
            (2, head_size(last, heads, "X")?, Some(heads))
        }
        4 => (1, last, None),
        rank => return Err(format!("its operand X has rank {rank}")),
    };
    let turned = match site.int("rotary_embedding_dim")?.unwrap_or(0) {
        0 => size,
        turned if (1..=size).contains(&turned) => turned,
        turned => return Err(format!("it turns {turned} of {size} features")),
    };
    if turned % 2 != 0 {
        return Err(format!("its {turned} features are no pairs"));
    }
    if let Some(positions) = site.node.input(3) {
        cos = site.op("Gather", &[cos, positions], vec![]);
        sin = site.op("Gather", &[sin, positions], vec![]);
    }
    let [cos, sin] = [cos, sin].map(|table| site.unsqueeze(table, &[axis]));
    let by_head = match split {
        Some(heads) => site.reshape(x, &[0, 0, heads, size]),
        None => x,
    };
    let half = turned / 2;
    let (first, second) = if interleaved {
        (site.b.slice(by_head, 3, 0, turned, 2), site.b.slice(by_head, 3, 1, turned, 2))
    } else {
        (
            site.b.slice(by_head, 3, 0, half, 1),
            site.b.slice(by_head, 3, half, turned, 1),
        )
    };
    let [a, b, c, d] = [(cos, first), (sin, second), (sin, first), (cos, second)].map(|(t, x)| site.b.mul(t, x));
    let (real, imaginary) = (site.b.sub(a, b), site.b.add(c, d));
    let mut parts = if interleaved {
        let pair = [real, imaginary].map(|part| site.unsqueeze(part, &[4]));
        let pairs = site.b.concat(&pair, 4);
        vec![site.reshape(pairs, &[0, 0, 0, turned])]
    } else {
        vec![real, imaginary]
    };
    if turned < size {
        parts.push(site.b.slice(by_head, 3, turned, size, 1));
    }
    let y = site.b.concat(&parts, 3);
    Ok(vec![Some(match split {
        Some(_) => site.reshape(y, &[0, 0, last]),
        None => y,
    })])
}
