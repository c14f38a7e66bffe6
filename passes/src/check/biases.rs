//! Rules on biases: int32 on the grid of the accumulator where the runtime adds them there, floats elsewhere.

use super::view::{Linear, Multiply, View, all_zero};
use super::{Findings, Look, Rule};
use crate::ir::DType;

/// Float biases.
pub static BIAS_FLOAT: Rule = Rule {
    id: "bias-float",
    says: "biases are floats: an int32 constant behind a DequantizeLinear is not read",
    cure: "store the bias in floats: in ONNX Runtime's tools QuantizeBias = False",
    look: Look::Graphs(bias_float),
};

fn bias_float(view: &View, found: &mut Findings) {
    for linear in view.grids().collect::<Vec<_>>() {
        if linear.levels == Some(DType::I32) {
            found.at(view.graph, linear.id, "levels of int32");
        }
    }
}

/// The bias of a quantized Conv or Gemm, and what dequantizes it.
fn bias<'a>(view: &'a View, op: &Multiply) -> Option<Option<Linear<'a>>> {
    if !op.node.op.is("Conv") && !op.node.op.is("Gemm") {
        return None;
    }
    let bias = op.node.input(2)?;
    Some(view.made_by(super::view::Kind::Dequantize, bias))
}

/// Integer biases.
pub static BIAS_INT32: Rule = Rule {
    id: "bias-int32",
    says: "the bias of a Conv or Gemm between quantizers is int32 behind a DequantizeLinear: versions of ONNX Runtime that do not quantize \
           float biases themselves run the layer in floats, and others round the bias",
    cure: "store the bias as int32 with scale s_x·s_w and zero point 0",
    look: Look::Graphs(bias_int32),
};

fn bias_int32(view: &View, found: &mut Findings) {
    for (op, _) in view.integer_multiplies().collect::<Vec<_>>() {
        // A Conv whose result stays in floats is computed in floats whatever its bias is; a Gemm is not.
        let in_integers = op.node.op.is("Gemm") || op.node.output(0).is_some_and(|y| view.reaches_quantizer(y));
        match bias(view, &op) {
            Some(None) if in_integers => found.at(view.graph, op.id, "its bias is in floats"),
            Some(Some(bias)) if bias.levels != Some(DType::I32) => {
                let dtype = bias.levels.map_or("another type".to_owned(), |dtype| dtype.to_string());
                found.at(view.graph, op.id, format!("its bias is of {dtype}"));
            }
            _ => {}
        }
    }
}

/// The bias's grid.
pub static BIAS_GRID: Rule = Rule {
    id: "bias-grid",
    says: "the scale of an int32 bias is s_x·s_w, the product in single precision, and its zero point 0: ONNX Runtime adds the integers to the \
           accumulator and does not look at the scale",
    cure: "divide the bias by s_x·s_w, computed in single precision, and store that product as its scale",
    look: Look::Graphs(bias_grid),
};

fn bias_grid(view: &View, found: &mut Findings) {
    for (op, data) in view.integer_multiplies().collect::<Vec<_>>() {
        let Some(Some(bias)) = bias(view, &op) else { continue };
        if bias.levels != Some(DType::I32) {
            continue;
        }
        if bias.zero.as_ref().is_some_and(|zero| !all_zero(zero)) {
            found.at(
                view.graph,
                bias.id,
                format!("the zero point of the bias of {} is not 0", op.node.label(view.graph)),
            );
        }
        if let Some((has, wants)) = off_grid(&data, op.levels(), &bias) {
            let what = format!(
                "the bias of {} has the scale {has:e}; s_x·s_w is {wants:e}",
                op.node.label(view.graph)
            );
            found.at(view.graph, bias.id, what);
        }
    }
}

/// The first scale of a bias that is not the product of the others: what it is and what it should be.
fn off_grid(data: &Linear, weight: Option<&Linear>, bias: &Linear) -> Option<(f32, f32)> {
    let step = data.step()?;
    let scales = |linear: &Linear| linear.scale.as_ref()?.to_f32();
    let (weights, biases) = (scales(weight?)?, scales(bias)?);
    let channels = weights.len().max(biases.len());
    let pairs = weights.iter().cycle().zip(biases.iter().cycle()).take(channels);
    let products = pairs.map(|(weight, &bias)| (bias, step * weight));
    products.into_iter().find(|(has, wants)| has.to_bits() != wants.to_bits())
}

/// The bias of a MatMul.
pub static MATMUL_BIAS: Rule = Rule {
    id: "matmul-bias",
    says: "what is added to a quantized MatMul has rank 3 or more, or goes to a quantizer: ONNX Runtime makes a Gemm of a MatMul and an Add of \
           [N], which then runs in floats",
    cure: "give the bias the shape [1, 1, N]; write a MatMul of rank 2 as a Gemm with an int32 bias; or quantize the sum",
    look: Look::Graphs(matmul_bias),
};

fn matmul_bias(view: &View, found: &mut Findings) {
    for (op, _) in view.integer_multiplies().collect::<Vec<_>>() {
        let Some(y) = op.node.output(0).filter(|_| op.node.op.is("MatMul")) else {
            continue;
        };
        let Some(used) = view.graph.only_use(y) else { continue };
        let add = &view.graph[used.node];
        let beside = add
            .input(1 - used.index.min(1))
            .filter(|&value| add.op.is("Add") && view.is_constant(value));
        let (Some(bias), Some(sum)) = (beside, add.output(0)) else {
            continue;
        };
        let flat = view.rank(y) == Some(2) || view.rank(bias).is_some_and(|rank| rank <= 1);
        let long = view.shape(bias).is_some_and(|shape| shape.iter().product::<usize>() > 1);
        if flat && long && !view.reaches_quantizer(sum) {
            let shape = view.shape(bias).unwrap_or_default();
            found.at(
                view.graph,
                used.node,
                format!("it adds a bias of shape {shape:?} to {}", op.node.label(view.graph)),
            );
        }
    }
}
