//! Places fake quantizers on weights alone, in blocks: activations stay in floats, and B elements of a weight along the axis that a product sums
//! over share a step.
//!
//! Blocks are of MatMul and Gemm with a constant matrix of floats. All of them take the bits that are asked for, the first and the last layers
//! too: the 8 bits of arXiv 1902.08153, section 2.3, are for layers whose inputs are quantized as well, and would cost runtimes that have 4
//! bits alone. Layers that share a weight, its bits and the axis share the quantizer.
//!
//! It refuses, with a note: convolutions, of which no runtime has blocks; what `analyze::weighted` refuses; a MatMul whose data operand is
//! a vector; layers that the user leaves float; and, where the runtime has whole blocks only, a weight whose extent is no multiple of one.

use std::sync::Arc;

use super::Sites;
use super::place_quantizers::{edge_layers, fake_quantize};
use crate::analyze::{Weighted, fixed_transform, weighted};
use crate::ir::{Graph, NodeId, Tensor, TensorType, ValueId};
use crate::ops::{self, Quant, QuantRange, Quantizer};
use crate::pass::{Changed, PassCx, PassError};
use crate::target::Tail;

/// The fewest elements that a runtime lets share a step.
const SMALLEST_BLOCK: usize = 16;

/// What is asked for where weights alone are quantized.
#[derive(Clone)]
pub struct WeightOnlyPlan {
    /// Bits of every layer that nothing else is said about.
    pub bits: u32,
    /// The elements that share a step.
    pub block: usize,
    /// May the last block be shorter?
    pub tail: Tail,
    /// What the user says of a layer, by its name.
    pub rule: WeightRules,
}

/// What the user says of a layer of this name; `None`: nothing.
pub type WeightRules = Arc<dyn Fn(&str) -> Option<WeightRule>>;

/// What the user asks for the weight of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightRule {
    /// These bits.
    Bits(u32),
    /// It stays in floats.
    Float,
}

/// A layer whose weight alone is quantized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockLayer {
    /// The node, as messages call it.
    pub name: String,
    /// Its op.
    pub op: String,
    /// Bits of the weight.
    pub bits: u32,
    /// The elements that share a step.
    pub block: usize,
    /// How many steps the weight has.
    pub steps: usize,
    /// Is there a path from an input on which it is the first weighted layer?
    pub first: bool,
    /// Is there a path to an output on which it is the last?
    pub last: bool,
    /// The quantized weight.
    pub weight: String,
}

/// A product whose weight takes blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The product.
    pub op: Weighted,
    /// The axis of the weight that it sums over.
    pub axis: usize,
    /// The extent of that axis, K.
    pub extent: usize,
}

/// Reads `node` as a product whose weight takes blocks.
///
/// # Errors
/// Why it takes none; `None` where it is no product at all.
pub fn blocked(graph: &Graph, id: NodeId) -> Result<Blocked, Option<&'static str>> {
    let node = &graph[id];
    if !matches!(ops::quant(node), Quant::Weighted { .. }) {
        return Err(None);
    }
    if !node.op.is("MatMul") && !node.op.is("Gemm") {
        return Err(Some(
            "weights alone are quantized in blocks, and blocks are of MatMul and Gemm: no runtime has them for convolutions",
        ));
    }
    let op = weighted(graph, id)?;
    let rank = node.input(0).and_then(|x| graph[x].ty.as_ref()).and_then(TensorType::rank);
    match rank {
        None => return Err(Some("the rank of its data operand is not known")),
        Some(0 | 1) => return Err(Some("its data operand is a vector")),
        Some(_) => {}
    }
    // A matrix: one axis is that of output channels, the other is summed over.
    let axis = 1 - op.axis.min(1);
    let extent = graph[op.weight]
        .initial()
        .and_then(|weight| weight.shape().get(axis).copied());
    Ok(Blocked {
        op,
        axis,
        extent: extent.ok_or(Some("the shape of its weight is not known"))?,
    })
}

/// The block of a layer that sums over `extent`: one that holds all of it is no larger than it need be.
fn block_of(extent: usize, asked: usize) -> usize {
    asked.min(extent.next_power_of_two().max(SMALLEST_BLOCK))
}

/// Quantizes every weight that takes blocks, and leaves [`Sites`].
pub(super) fn place(graph: &mut Graph, plan: &WeightOnlyPlan, cx: &mut PassCx) -> Result<Changed, PassError> {
    let (firsts, lasts) = edge_layers(graph);
    let mut sites = Sites::default();
    for id in graph.node_list() {
        let (op, bits) = match chosen(graph, id, plan) {
            Ok(chosen) => chosen,
            Err(None) => continue,
            Err(Some(why)) => {
                cx.note(graph, id, format!("stays in floats: {why}"));
                continue;
            }
        };
        let block = block_of(op.extent, plan.block);
        let (weight, steps) = quantize(graph, op, bits, block).map_err(|why| PassError::at(graph, id, why))?;
        let node = &graph[id];
        sites.blocks.push(BlockLayer {
            name: node.label(graph).into_owned(),
            op: node.op.to_string(),
            bits,
            block,
            steps,
            first: firsts.contains(&id),
            last: lasts.contains(&id),
            weight: graph[weight].name().to_owned(),
        });
    }
    if sites.blocks.is_empty() {
        return Err(
            PassError::new("there is no weight to quantize alone: no MatMul or Gemm with a constant float matrix takes blocks").help(
                "bits for weights and activations, such as 4 or w4a8, quantize convolutions too; the notes say why others stay in floats",
            ),
        );
    }
    cx.set(sites);
    Ok(Changed::Yes)
}

/// Reads `node` as a layer that `plan` quantizes, and gives the bits of its weight.
///
/// # Errors
/// Why it stays in floats; `None` where it is no product at all.
pub fn chosen(graph: &Graph, id: NodeId, plan: &WeightOnlyPlan) -> Result<(Blocked, u32), Option<String>> {
    let op = blocked(graph, id).map_err(|why| why.map(str::to_owned))?;
    Ok((op, bits_of(graph, op, plan)?))
}

fn bits_of(graph: &Graph, of: Blocked, plan: &WeightOnlyPlan) -> Result<u32, Option<String>> {
    let bits = match (plan.rule)(&graph[of.op.node].label(graph)) {
        Some(WeightRule::Float) => return Err(Some("the configuration says so".to_owned())),
        Some(WeightRule::Bits(bits)) => bits,
        None => match fixed_transform(graph, &of.op) {
            Some(what) => return Err(Some(format!("its weight is {what}"))),
            None => plan.bits,
        },
    };
    let Blocked { extent, .. } = of;
    if plan.tail == Tail::Refused && !extent.is_multiple_of(plan.block) {
        let block = plan.block;
        return Err(Some(format!(
            "it sums over {extent}, which is no multiple of the block of {block}, and the target has whole blocks only"
        )));
    }
    Ok(bits)
}

/// The quantized weight, and how many steps it has.
fn quantize(graph: &mut Graph, of: Blocked, bits: u32, block: usize) -> Result<(ValueId, usize), String> {
    let Weighted {
        node,
        weight,
        weight_index,
        ..
    } = of.op;
    let quantizer = Quantizer {
        range: QuantRange { bits, signed: true },
        axis: i64::try_from(of.axis).ok(),
        block: Some(block),
        gain: 1.0,
    };
    let shape = graph[weight]
        .initial()
        .map(Tensor::shape)
        .ok_or("its weight is not constant")?;
    let shape = quantizer.steps_shape(shape)?;
    let base = format!("{}/q{bits}", graph[weight].name());
    let present = graph.find(&base).filter(|&value| {
        let of = graph.producer(value).map(|(_, node)| Quantizer::of(node));
        of == Some(Ok(quantizer))
    });
    let quantized = present.unwrap_or_else(|| {
        let step = graph.add_constant(&format!("{base}/step"), Tensor::full(&shape, f32::NAN));
        fake_quantize(graph, weight, step, quantizer, &base)
    });
    graph.set_input(node, weight_index, Some(quantized));
    Ok((quantized, shape.iter().product()))
}
