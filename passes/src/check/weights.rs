//! Rules on weights: the axis of their scales, types of less than a byte, and layers of which only one operand is quantized.

use super::view::{Kind, Linear, View, Weight};
use super::{Findings, Look, Rule};
use crate::ir::{DType, NodeId, Tensor};
use crate::target::TENSORRT;

/// A scale for each output channel.
pub static WEIGHT_AXIS: Rule = Rule {
    id: "weight-axis",
    says: "a quantized layer's weight has one scale, or one for each output channel (axis 0 of Conv, 1 of ConvTranspose, the columns of Gemm and \
           MatMul): with scales along another axis a sum of levels is no sum of values",
    cure: "quantize the weight along its output channels, or with one scale",
    look: Look::Graphs(weight_axis),
};

fn weight_axis(view: &View, found: &mut Findings) {
    for (op, _) in view.integer_multiplies().collect::<Vec<_>>() {
        let Weight::Levels(linear, Some(wants)) = &op.weight else {
            continue;
        };
        let (Some(axis), Some(rank)) = (linear.axis(), view.rank(linear.x)) else {
            continue;
        };
        let axis = if axis < 0 { axis + rank } else { axis };
        if axis != *wants {
            let what = format!("its weight has scales along axis {axis}; the output channels are axis {wants}");
            found.at(view.graph, op.id, what);
        }
    }
}

/// Are these levels of less than a byte?
fn is_packed(linear: &Linear) -> bool {
    matches!(linear.levels, Some(DType::I4 | DType::U4 | DType::I2 | DType::U2))
}

/// Weights of less than a byte, for runtimes that compute with bytes.
pub static PACKED_CAST: Rule = Rule {
    id: "packed-cast",
    says: "a quantized layer takes weights of less than a byte through a Cast to int8, which is folded when the file is loaded: from int4 \
           straight into DequantizeLinear the layer runs in floats",
    cure: "write Cast(to int8) between the weight and its DequantizeLinear, or store int8",
    look: Look::Graphs(packed_cast),
};

fn packed_cast(view: &View, found: &mut Findings) {
    for op in view.multiplies() {
        let quantized = op.node.op.is("Conv") || op.node.op.is("ConvTranspose") || view.quantized(op.data).is_some();
        if let Some(linear) = op.levels().filter(|linear| is_packed(linear) && quantized) {
            let dtype = linear.levels.map_or(String::new(), |dtype| dtype.to_string());
            found.at(view.graph, op.id, format!("its weight is {dtype}, dequantized straight"));
        }
    }
}

/// The same, for runtimes that have such weights beside matrix multiplies only.
pub static PACKED_CONV: Rule = Rule {
    id: "packed-conv",
    says: "weights of convolutions are int8: from int4 the layer runs in floats",
    cure: "store the weight as int8",
    look: Look::Graphs(packed_conv),
};

fn packed_conv(view: &View, found: &mut Findings) {
    for op in view.multiplies() {
        let convolves = op.node.op.is("Conv") || op.node.op.is("ConvTranspose");
        if let Some(linear) = op.levels().filter(|linear| is_packed(linear) && convolves) {
            let dtype = linear.levels.map_or(String::new(), |dtype| dtype.to_string());
            found.at(view.graph, op.id, format!("its weight is {dtype}"));
        }
    }
}

/// int4 in TensorRT.
pub static INT4_WEIGHTS: Rule = Rule {
    id: "int4-weights",
    says: "int4 is for weights alone, with scales of blocks of 64 or 128 and activations in floats: TensorRT has no kernels for anything else in \
           int4",
    cure: "store the weight as int8, or take the quantizers off its layer's activations and give it scales of blocks (block_size 64 or 128)",
    look: Look::Graphs(int4_weights),
};

/// Does TensorRT have blocks of so many weights?
fn is_block(block: i64) -> bool {
    let has = TENSORRT.weight_only.map_or(&[][..], |has| has.blocks);
    usize::try_from(block).is_ok_and(|block| has.contains(&block))
}

fn int4_weights(view: &View, found: &mut Findings) {
    for linear in view.grids().collect::<Vec<_>>() {
        if linear.levels != Some(DType::I4) {
            continue;
        }
        if !view.is_constant(linear.x) {
            found.at(view.graph, linear.id, "an activation of int4");
            continue;
        }
        match linear.block() {
            0 => found.at(view.graph, linear.id, "a weight of int4 without scales of blocks"),
            block if is_block(block) => {}
            block => found.at(
                view.graph,
                linear.id,
                format!("a weight of int4 with scales of blocks of {block}"),
            ),
        }
    }
    for (op, _) in view.integer_multiplies().collect::<Vec<_>>() {
        if op.levels().is_some_and(|linear| linear.levels == Some(DType::I4)) {
            found.at(view.graph, op.id, "its weight is int4, and its input is quantized");
        }
    }
}

/// Both operands are quantized, or none.
pub static WEIGHT_AND_INPUT: Rule = Rule {
    id: "weight-and-input",
    says: "of a layer both operands are quantized or none, but for int4 weights: with one alone it runs in floats",
    cure: "quantize the other operand too, or neither",
    look: Look::Graphs(weight_and_input),
};

fn weight_and_input(view: &View, found: &mut Findings) {
    for op in view.multiplies() {
        if view.is_captured(op.data) || view.is_captured(op.other) {
            continue;
        }
        let data = view.quantized(op.data).is_some();
        let weight_only = op.levels().is_some_and(is_packed);
        let what = match &op.weight {
            Weight::Levels(..) if !data && !weight_only => "its weight is quantized, its input is not",
            Weight::Float if data => "its input is quantized, its weight is not",
            Weight::Activation if data != view.quantized(op.other).is_some() => {
                "one of its operands is quantized, the other is not"
            }
            _ => continue,
        };
        found.at(view.graph, op.id, what);
    }
}

/// Rows of a quantized table.
pub static GATHER_LEVELS: Rule = Rule {
    id: "gather-levels",
    says: "of a quantized table the rows are gathered first and dequantized then: else the whole table is dequantized in every run",
    cure: "write Gather of the int8 table and DequantizeLinear behind it",
    look: Look::Graphs(gather_levels),
};

fn gather_levels(view: &View, found: &mut Findings) {
    for (id, node) in view.graph.nodes() {
        let Some(table) = node.input(0).filter(|_| node.op.is("Gather")) else {
            continue;
        };
        let dequantized = view.made_by(Kind::Dequantize, table);
        let whole = dequantized.is_some_and(|linear| linear.block() == 0 && view.is_constant(linear.x) && is_table(view, id));
        if whole {
            found.at(view.graph, id, "it gathers from a dequantized table");
        }
    }
}

/// Are rows taken by indices that are fed, and not constants?
fn is_table(view: &View, gather: NodeId) -> bool {
    let indices = view.graph[gather].input(1);
    indices.is_some_and(|indices| view.tensor(indices).is_none_or(|tensor: Tensor| tensor.is_empty()))
}
