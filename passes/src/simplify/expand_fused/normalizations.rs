//! Normalizations of the last axis, with what is fused before them.
//!
//! With s the sum of input, skip and bias: SkipLayerNormalization is LayerNormalization(s; γ, β, ε), and SkipSimplifiedLayerNormalization
//! s/√(mean s² + ε)·γ (`com.microsoft`, version 1); s is their fourth result. EmbedLayerNormalization is LayerNormalization of word +
//! position + segment embeddings; positions count from 0 where they are not given, and its second result is the length of each sample's mask. SimplifiedLayerNormalization, and LayerNormalization
//! before operator set 17, are ONNX Runtime's in ONNX's own domain. LayerNormalization (ONNX 17) and RMSNormalization (ONNX 23) are used where
//! the model has them, else their plain ops.
//!
//! Declined: results that are for training (mean, 1/σ), the length of a mask that is not there, and axes other than the last.

use super::site::Site;
use crate::ir::{Attribute, DType, Op, Tensor, ValueId};
use crate::ops::build::KeepDims;

type Results = Result<Vec<Option<ValueId>>, String>;

/// com.microsoft SkipLayerNormalization.
pub(super) fn skip_layer(site: &mut Site) -> Results {
    site.attributes(&["epsilon"])?;
    site.at_most(5)?;
    let epsilon = small(site, 1e-5)?;
    let (gamma, beta) = (site.float(2, "gamma")?, site.optional_float(3, "beta")?);
    let sum = skipped(site, 4)?;
    Ok(vec![Some(layer(site, sum, gamma, beta, epsilon)), None, None, Some(sum)])
}

/// com.microsoft SkipSimplifiedLayerNormalization.
pub(super) fn skip_simplified(site: &mut Site) -> Results {
    site.attributes(&["epsilon"])?;
    site.at_most(4)?;
    let epsilon = small(site, 1e-5)?;
    let gamma = site.float(2, "gamma")?;
    let sum = skipped(site, 3)?;
    Ok(vec![Some(rms(site, sum, gamma, epsilon)), None, None, Some(sum)])
}

/// SimplifiedLayerNormalization of ONNX Runtime, in ONNX's own domain.
pub(super) fn simplified(site: &mut Site) -> Results {
    site.attributes(&["axis", "epsilon", "stash_type"])?;
    site.at_most(2)?;
    let epsilon = small(site, 1e-5)?;
    let (x, scale) = (site.float(0, "X")?, site.float(1, "scale")?);
    last_axis(site, x)?;
    Ok(vec![Some(rms(site, x, scale, epsilon))])
}

/// LayerNormalization of ONNX Runtime before operator set 17, in ONNX's own domain.
pub(super) fn early_layer(site: &mut Site) -> Results {
    site.attributes(&["axis", "epsilon", "stash_type"])?;
    site.at_most(3)?;
    let epsilon = small(site, 1e-5)?;
    let (x, scale, bias) = (site.float(0, "X")?, site.float(1, "Scale")?, site.optional_float(2, "B")?);
    last_axis(site, x)?;
    Ok(vec![Some(layer(site, x, scale, bias, epsilon))])
}

/// com.microsoft EmbedLayerNormalization.
pub(super) fn embed(site: &mut Site) -> Results {
    // The mask's type matters for its result alone.
    site.attributes(&["epsilon", "mask_index_type"])?;
    site.at_most(9)?;
    let epsilon = small(site, 1e-12)?;
    let ids = site.operand(0, "input_ids")?;
    let (words, positions) = (site.float(2, "word_embedding")?, site.float(3, "position_embedding")?);
    let (gamma, beta) = (site.float(5, "gamma")?, site.float(6, "beta")?);
    let mask_index = match (site.node.output(1), site.node.input(7)) {
        (Some(_), Some(mask)) => Some(ones_of_last(site, mask)?),
        _ => None,
    };
    if mask_index.is_none() {
        site.unused(1, "mask_index without a mask")?;
    }
    let word = site.op("Gather", &[words, ids], vec![]);
    let position = match site.node.input(8) {
        Some(given) => site.op("Gather", &[positions, given], vec![]),
        None => {
            let shape = site.op("Shape", &[ids], vec![]);
            let length = site.b.slice(shape, 0, 1, 2, 1);
            let [start, axis] = [0, 0].map(|value| site.b.ints(&[value]));
            site.op("Slice", &[positions, start, length, axis], vec![])
        }
    };
    let mut sum = site.b.add(word, position);
    match (site.node.input(1), site.optional_float(4, "segment_embedding")?) {
        (Some(segment_ids), Some(segments)) => {
            let segment = site.op("Gather", &[segments, segment_ids], vec![]);
            sum = site.b.add(sum, segment);
        }
        (None, None) => {}
        _ => return Err("it has either segments or their embedding".to_owned()),
    }
    let y = layer(site, sum, gamma, Some(beta), epsilon);
    Ok(vec![Some(y), mask_index, Some(sum)])
}

/// How often 1 stands in each row, as int32.
fn ones_of_last(site: &mut Site, mask: ValueId) -> Result<ValueId, String> {
    if site.b.dtype(mask) != DType::I32 {
        return Err("its mask is not int32".to_owned());
    }
    let one = site.b.constant(Tensor::scalar(1i32));
    let equal = site.b.binary("Equal", mask, one);
    let ones = site.b.cast(equal, DType::I32);
    Ok(site.b.reduce_sum(ones, &[-1], KeepDims::No))
}

fn small(site: &Site, default: f32) -> Result<f32, String> {
    Ok(site.number("epsilon")?.unwrap_or(default))
}

fn last_axis(site: &Site, x: ValueId) -> Result<(), String> {
    match site.int("axis")?.unwrap_or(-1) {
        -1 => Ok(()),
        axis if i64::try_from(site.rank(x, "X")?) == Ok(axis.saturating_add(1)) => Ok(()),
        axis => Err(format!("it normalizes from axis {axis} on, not over the last alone")),
    }
}

/// input + skip, and the bias if there is one.
fn skipped(site: &mut Site, bias: usize) -> Result<ValueId, String> {
    let (input, skip) = (site.float(0, "input")?, site.float(1, "skip")?);
    let bias = site.optional_float(bias, "bias")?;
    let Some(bias) = bias else {
        return Ok(site.b.add(input, skip));
    };
    // Behind a product it is that product's bias.
    let of_product = |value: ValueId| site.b.graph.producer(value).is_some_and(|(_, node)| node.op.is("MatMul"));
    let (first, second) = if of_product(skip) && !of_product(input) {
        (skip, input)
    } else {
        (input, skip)
    };
    let first = site.b.add(first, bias);
    Ok(site.b.add(first, second))
}

/// (x − μ)/√(σ² + ε)·γ + β
fn layer(site: &mut Site, x: ValueId, gamma: ValueId, beta: Option<ValueId>, epsilon: f32) -> ValueId {
    if site.opset >= 17 {
        let attributes = vec![Attribute::new("axis", -1), Attribute::new("epsilon", epsilon)];
        let mut operands = vec![Some(x), Some(gamma)];
        operands.extend(beta.map(Some));
        let y = site.b.nodes(Op::onnx("LayerNormalization"), &operands, attributes, 1)[0];
        site.name(y, "");
        return y;
    }
    let mean = site.mean_of_last(x);
    let centred = site.b.sub(x, mean);
    let y = standardized(site, centred, gamma, epsilon);
    match beta {
        Some(beta) => site.b.add(y, beta),
        None => y,
    }
}

/// x/√(mean x² + ε)·γ (Zhang & Sennrich, arXiv 1910.07467)
fn rms(site: &mut Site, x: ValueId, gamma: ValueId, epsilon: f32) -> ValueId {
    if site.opset >= 23 {
        let attributes = vec![Attribute::new("axis", -1), Attribute::new("epsilon", epsilon)];
        let y = site.op("RMSNormalization", &[x, gamma], attributes);
        site.name(y, "");
        return y;
    }
    standardized(site, x, gamma, epsilon)
}

/// d/√(mean d² + ε)·γ
fn standardized(site: &mut Site, d: ValueId, gamma: ValueId, epsilon: f32) -> ValueId {
    let square = site.b.mul(d, d);
    let variance = site.mean_of_last(square);
    let epsilon = site.b.scalar(epsilon);
    let shifted = site.b.add(variance, epsilon);
    let deviation = site.b.unary("Sqrt", shifted);
    let standard = site.b.div(d, deviation);
    site.b.mul(standard, gamma)
}
