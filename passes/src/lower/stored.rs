//! Weights and biases as they lie in the lowered file.
//!
//! - Weights are int8, the level shifted left by k, with scale s_w/2^k; see [`Form::shift`].
//! - Packed, weights of at most 4 bits are int4 and of 2 bits int2, unshifted, behind a Cast to int8 and a Mul by 2^k, which a runtime folds when
//!   it loads the file: what it computes then is what bytes give. ONNX Cast takes int4 from operator set 21 and int2 from 25 on.
//!   Their zero points are each layer's own: ONNX Runtime's precise kernels on x86 without VNNI cannot load a file where layers share them.
//! - Biases are int32 with scale s_x·s_w/2^k and without zero points, or stay float where the target has them so. A zero point for each
//!   channel would be as large as the bias.

use super::snap_biases::integer_bias;
use super::{Fixed, Form, label};
use crate::analyze::Weighted;
use crate::ir::{Attribute, DType, Graph, NodeId, Op, Tensor, TensorType, ValueId};
use crate::target::BiasForm;

/// Replaces the fake quantizer of a constant by the levels and what takes them to floats again.
pub(super) fn lower_weight(graph: &mut Graph, id: NodeId, fixed: &Fixed, form: Form, shift: u32) -> Result<(), String> {
    let weight = graph[fixed.x].constant().ok_or("the weight is not constant")?;
    let shape = weight.shape().to_vec();
    let levels = fixed.levels(weight).ok_or("the weight is not a number")?;
    let bytes = |shift: u32| -> Result<Vec<i8>, String> {
        let shifted = levels.iter().map(|level| i8::try_from(level << shift));
        shifted
            .collect::<Result<_, _>>()
            .map_err(|_| "a level leaves int8".to_owned())
    };
    #[allow(clippy::cast_precision_loss)]
    let scales: Vec<f32> = fixed.steps.iter().map(|step| step / (1u32 << shift) as f32).collect();
    let name = graph[fixed.x].name().to_owned();
    let scale_shape: Vec<usize> = if fixed.quantizer.axis.is_some() {
        vec![scales.len()]
    } else {
        vec![]
    };
    let bits = form.storage.stored_bits(fixed.quantizer.range.bits);
    let (dtype, tensor) = match bits {
        2 => (DType::I2, pack(&shape, &bytes(0)?, DType::I2, 2)?),
        4 => (DType::I4, pack(&shape, &bytes(0)?, DType::I4, 4)?),
        _ => (DType::I8, Tensor::new(&shape, bytes(shift)?)),
    };
    let mut levels = graph.add_constant(&format!("{name}/{}", dtype.name()), tensor);
    if dtype != DType::I8 {
        let to = vec![Attribute::new("to", i64::from(DType::I8.code()))];
        levels = graph.insert(Op::onnx("Cast"), &[levels], to, &format!("{name}/int8"));
        graph[levels].ty = Some(TensorType::fixed(DType::I8, &shape));
        label(graph, &name, &[levels]);
        if shift > 0 {
            let factor = shared(graph, &format!("shift/{shift}"), Tensor::scalar(1i8 << shift));
            levels = graph.insert(Op::onnx("Mul"), &[levels, factor], vec![], &format!("{name}/shifted"));
            graph[levels].ty = Some(TensorType::fixed(DType::I8, &shape));
            label(graph, &name, &[levels]);
        }
    }
    let scale = graph.add_constant(&format!("{name}/scale"), Tensor::new(&scale_shape, scales));
    let zero_point = graph.add_constant(&format!("{name}/zero_point"), Tensor::full(&scale_shape, 0i8));
    let attributes = fixed
        .quantizer
        .axis
        .map(|axis| Attribute::new("axis", axis))
        .into_iter()
        .collect();
    let base = format!("{name}/dequantized");
    let dequantized = graph.insert(Op::onnx("DequantizeLinear"), &[levels, scale, zero_point], attributes, &base);
    graph[dequantized].ty = Some(TensorType::fixed(DType::F32, &shape));
    label(graph, &name, &[dequantized]);
    graph.replace(fixed.y, dequantized);
    graph.remove_node(id);
    for old in [fixed.x, fixed.step_value] {
        graph.remove_source(old);
    }
    Ok(())
}

/// A constant that several nodes share.
pub(super) fn shared(graph: &mut Graph, name: &str, tensor: Tensor) -> ValueId {
    let present = graph.find(name).filter(|&value| graph[value].constant() == Some(&tensor));
    present.unwrap_or_else(|| graph.add_constant(name, tensor))
}

/// Levels of `bits` bits each, the first in the lowest bits of a byte.
pub(super) fn pack(shape: &[usize], levels: &[i8], dtype: DType, bits: u32) -> Result<Tensor, String> {
    let bytes = packed(levels, bits);
    Tensor::from_bytes(dtype, shape, bytes.into()).map_err(|error| error.to_string())
}

/// The same as bytes.
pub(super) fn packed(levels: &[i8], bits: u32) -> Vec<u8> {
    let mask = u8::MAX >> (8 - bits);
    let in_byte = (8 / bits) as usize;
    let byte = |chunk: &[i8]| {
        let placed = chunk.iter().zip((0..8).step_by(bits as usize));
        placed.fold(0u8, |byte, (&level, at)| byte | (level.cast_unsigned() & mask) << at)
    };
    levels.chunks(in_byte).map(byte).collect()
}

/// Replaces the bias of a quantized op by its integers, where the target takes them.
pub(super) fn lower_bias(graph: &mut Graph, op: Weighted, form: Form) -> Result<(), String> {
    if form.biases == BiasForm::Float {
        return Ok(());
    }
    let Some(bias) = integer_bias(graph, op, form)? else {
        return Ok(());
    };
    let Some((index, value)) = op.bias_index.and_then(|index| Some((index, graph[op.node].input(index)?))) else {
        return Ok(());
    };
    let name = graph[value].name().to_owned();
    let channels = bias.levels.len();
    let scale_shape: Vec<usize> = if bias.scales.len() > 1 || op.axis == 0 && channels == 1 {
        vec![bias.scales.len()]
    } else {
        vec![]
    };
    let levels = graph.add_constant(&format!("{name}/int32"), Tensor::vector(bias.levels));
    let scale = graph.add_constant(&format!("{name}/scale"), Tensor::new(&scale_shape, bias.scales));
    let attributes = if scale_shape.is_empty() {
        vec![]
    } else {
        vec![Attribute::new("axis", 0i64)]
    };
    let base = format!("{name}/dequantized");
    let dequantized = graph.insert(Op::onnx("DequantizeLinear"), &[levels, scale], attributes, &base);
    graph[dequantized].ty = Some(TensorType::fixed(DType::F32, &[channels]));
    label(graph, &name, &[dequantized]);
    graph.set_input(op.node, index, Some(dequantized));
    graph.remove_source(value);
    Ok(())
}
