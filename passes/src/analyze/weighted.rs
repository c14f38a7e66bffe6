//! Weighted ops: where their weights, biases and output channels are, and which BatchNormalization folds into them exactly.

use super::quantized_weight;
use crate::ir::{Def, Graph, NodeId, Tensor, ValueId};
use crate::ops::{self, Quant};

/// Why a layer is left as it is whose weight another tool has quantized.
pub const QUANTIZED_ALREADY: &str = "its weight is quantized already, and is not quantized twice";

/// A matrix multiply with a constant (or trained) weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighted {
    /// The node.
    pub node: NodeId,
    /// The stored weight, behind its quantizer if it has one.
    pub weight: ValueId,
    /// The operand that takes the weight.
    pub weight_index: usize,
    /// The operand that takes the bias, if the op has one.
    pub bias_index: Option<usize>,
    /// The weight's axis of output channels.
    pub axis: usize,
}

/// The stored tensor behind an operand: the value itself, or what its fake quantizer takes.
#[must_use]
pub fn stored(graph: &Graph, value: ValueId) -> ValueId {
    match graph.producer(value) {
        Some((_, node)) if node.op.is_lsqc("FakeQuantize") => node.input(0).unwrap_or(value),
        _ => value,
    }
}

/// Reads `node` as a weighted op.
///
/// # Errors
/// Why it is none, or not of a form that is quantized; `None` where it is no matrix multiply at all.
pub fn weighted(graph: &Graph, id: NodeId) -> Result<Weighted, Option<&'static str>> {
    let node = &graph[id];
    let Quant::Weighted {
        weight: weight_index,
        bias,
    } = ops::quant(node)
    else {
        return Err(None);
    };
    let (Some(x), Some(operand)) = (node.input(0), node.input(weight_index)) else {
        return Err(Some("an operand is missing"));
    };
    let weight = stored(graph, operand);
    let Some(tensor) = graph[weight].initial() else {
        if quantized_weight(graph, operand) {
            return Err(Some(QUANTIZED_ALREADY));
        }
        return Err(Some("its weight is no constant"));
    };
    if graph[x].initial().is_some() {
        return Err(Some("its data operand is a constant"));
    }
    if tensor.dtype() != crate::ir::DType::F32 {
        return Err(Some("its weight is not of type float"));
    }
    let rank = tensor.shape().len();
    let axis = match node.op.name.as_ref() {
        "Conv" => 0,
        "Gemm" => gemm_axis(graph, id)?,
        _ if rank == 2 => 1,
        _ => return Err(Some("its weight is not a matrix")),
    };
    if tensor.is_empty() || rank < 2 {
        return Err(Some("its weight is empty"));
    }
    let bias_index = bias.filter(|&index| node.input(index).is_some());
    if let Some(bias) = bias_index.and_then(|index| node.input(index)) {
        let channels = tensor.shape().get(axis).copied().unwrap_or(0);
        match graph[bias].initial() {
            Some(bias) if bias.shape() == [channels] => {}
            Some(_) => return Err(Some("its bias is not one number for each output channel")),
            None => return Err(Some("its bias is not constant")),
        }
    }
    Ok(Weighted {
        node: id,
        weight,
        weight_index,
        bias_index,
        axis,
    })
}

fn gemm_axis(graph: &Graph, id: NodeId) -> Result<usize, Option<&'static str>> {
    let node = &graph[id];
    #[allow(clippy::float_cmp)]
    let scaled = node.float("alpha").unwrap_or(1.0) != 1.0 || node.float("beta").unwrap_or(1.0) != 1.0;
    if scaled {
        return Err(Some("its alpha or beta is not 1"));
    }
    if node.int("transA").unwrap_or(0) != 0 {
        return Err(Some("its data operand is transposed"));
    }
    Ok(if node.int("transB").unwrap_or(0) != 0 { 0 } else { 1 })
}

/// A BatchNormalization that folds exactly into the weighted op before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    /// The weighted op.
    pub op: Weighted,
    /// The BatchNormalization.
    pub norm: NodeId,
}

/// Can the BatchNormalization `norm` be folded into the op before it?
///
/// It can where it alone takes that op's result and no other op shares the weight.
///
/// # Errors
/// Why it cannot.
pub fn fold_of(graph: &Graph, norm: NodeId) -> Result<Fold, &'static str> {
    let node = &graph[norm];
    let Some(input) = node.input(0) else {
        return Err("it has no input");
    };
    // A quantizer stands between the two only where they are not folded: what kept them from it is the reason.
    let x = stored(graph, input);
    let Some(before) = graph[x].producer() else {
        return Err("no weighted op stands directly before it");
    };
    let op = weighted(graph, before).map_err(|why| why.unwrap_or("no weighted op stands directly before it"))?;
    if graph.only_use(x).is_none() || graph.only_use(input).is_none() {
        return Err("the result of the op before it has other uses");
    }
    if graph[op.node].op.is("MatMul") && graph[x].ty.as_ref().and_then(crate::ir::TensorType::rank) != Some(2) {
        return Err("its channels are not the columns of the MatMul before it");
    }
    if node.outputs().iter().skip(1).any(Option::is_some) {
        return Err("it is in training mode");
    }
    let weight_uses = graph[op.weight].uses();
    let behind_quantizer = weight_uses.iter().all(|used| graph[used.node].op.is_lsqc("FakeQuantize"));
    let tied = match (weight_uses, behind_quantizer) {
        ([_], false) => false,
        ([quantizer], true) => graph[quantizer.node]
            .output(0)
            .is_none_or(|quantized| graph.only_use(quantized).is_none()),
        _ => true,
    };
    if tied {
        return Err("the weight of the op before it is shared");
    }
    for index in 1..5 {
        let constant = node
            .input(index)
            .is_some_and(|value| matches!(graph[value].def(), Def::Constant(_) | Def::Input(Some(_))));
        if !constant {
            return Err("its parameters are not constant");
        }
    }
    if x != input {
        return Err("a quantizer stands between it and the op before it");
    }
    Ok(Fold { op, norm })
}

/// Multiplies each slice of `tensor` along `axis` by its factor.
///
/// # Errors
/// If the tensor is not of floats, or the factors are not one for each slice.
pub fn scale_slices(tensor: &Tensor, axis: usize, factors: &[f32]) -> Result<Tensor, &'static str> {
    let mut values = tensor.to_f32().ok_or("the tensor is not numeric")?;
    let shape = tensor.shape();
    let inner: usize = shape.iter().skip(axis + 1).product();
    if shape.get(axis) != Some(&factors.len()) || inner == 0 {
        return Err("the factors do not fit the tensor");
    }
    for (index, value) in values.iter_mut().enumerate() {
        if let Some(factor) = factors.get((index / inner) % factors.len()) {
            *value *= factor;
        }
    }
    Ok(Tensor::new(shape, values))
}
