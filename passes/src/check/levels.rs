//! Rules on the types of levels, a rule for each target, and on the Clip that narrows them.

use super::view::{Kind, Linear, View};
use super::{Findings, Look, Rule};
use crate::ir::{DType, NodeId, Tensor};

/// ONNX Runtime computes with uint8.
pub static ACTIVATION_UINT8: Rule = Rule {
    id: "activation-uint8",
    says: "activations are uint8: ONNX Runtime's kernels for int8 are slower than floats, and it computes other types in floats",
    cure: "quantize activations to uint8; signed ones with zero point 128",
    look: Look::Graphs(activation_uint8),
};

fn activation_uint8(view: &View, found: &mut Findings) {
    each(view, found, |linear| {
        let (false, Some(dtype)) = (view.is_constant(linear.x), linear.levels) else {
            return None;
        };
        (linear.quantizes() && dtype != DType::U8).then(|| format!("an activation of {dtype}"))
    });
}

/// TensorRT has signed levels only.
pub static SIGNED_TYPES: Rule = Rule {
    id: "signed-types",
    says: "levels are int8, float8e4m3fn or float4e2m1, and of weights alone int4: TensorRT reads no other types",
    cure: "quantize to int8; unsigned levels of at most 7 bits fit into it",
    look: Look::Graphs(signed_types),
};

fn signed_types(view: &View, found: &mut Findings) {
    refuse(view, found, |dtype| {
        !matches!(dtype, DType::I8 | DType::F8E4M3FN | DType::F4E2M1 | DType::I4 | DType::I32)
    });
}

/// Types that OpenVINO does not compute with.
pub static NARROW_TYPES: Rule = Rule {
    id: "narrow-types",
    says: "levels are not uint4, uint2 or int2: OpenVINO computes such layers in floats or does not read the file",
    cure: "store levels in int8 or uint8, with a Clip that narrows them",
    look: Look::Graphs(narrow_types),
};

fn narrow_types(view: &View, found: &mut Findings) {
    refuse(view, found, |dtype| matches!(dtype, DType::U4 | DType::U2 | DType::I2));
}

/// What operator set 13 has with zero point 0.
pub static INT8_LEVELS: Rule = Rule {
    id: "int8-levels",
    says: "levels are int8: runtimes differ in which other types they take",
    cure: "quantize to int8; unsigned levels of at most 7 bits fit into it",
    look: Look::Graphs(int8_levels),
};

fn int8_levels(view: &View, found: &mut Findings) {
    refuse(view, found, |dtype| !matches!(dtype, DType::I8 | DType::I32));
}

/// Refuses types of levels. Those of biases, int32, are another rule's.
fn refuse(view: &View, found: &mut Findings, wrong: fn(DType) -> bool) {
    each(view, found, |linear| {
        let dtype = linear.levels.filter(|&dtype| wrong(dtype))?;
        Some(format!("levels of {dtype}"))
    });
}

fn each(view: &View, found: &mut Findings, wrong: impl Fn(&Linear) -> Option<String>) {
    for linear in view.grids().collect::<Vec<_>>() {
        if let Some(what) = wrong(&linear) {
            found.at(view.graph, linear.id, what);
        }
    }
}

/// The Clip that narrows levels.
pub static INTEGER_CLIP: Rule = Rule {
    id: "integer-clip",
    says: "a Clip between QuantizeLinear and DequantizeLinear is of uint8, with two constant bounds, the lower not above the upper: ONNX \
           Runtime fuses no other",
    cure: "write Clip(uint8) with constant bounds; levels of another type are converted first",
    look: Look::Graphs(integer_clip),
};

fn integer_clip(view: &View, found: &mut Findings) {
    for dequantize in view.linears(Kind::Dequantize) {
        let source = view.source(&dequantize);
        let Some(quantize) = source.quantize.filter(|quantize| !view.is_constant(quantize.x)) else {
            continue;
        };
        for id in source.between {
            if let Some(what) = wrong_clip(view, id, quantize.levels) {
                found.at(view.graph, id, what);
            }
        }
    }
}

fn wrong_clip(view: &View, id: NodeId, levels: Option<DType>) -> Option<String> {
    let node = &view.graph[id];
    if !node.op.is("Clip") {
        return None;
    }
    if let Some(dtype) = levels.filter(|&dtype| dtype != DType::U8) {
        return Some(format!("a Clip of {dtype}"));
    }
    let bound = |index: usize| match node.input(index).map(|value| view.tensor(value)) {
        None => Ok(None),
        Some(None) => Err("a bound is not constant".to_owned()),
        Some(Some(tensor)) if tensor.dtype() != DType::U8 => Err(format!("a bound is of type {}, not uint8", tensor.dtype())),
        Some(Some(tensor)) => single(&tensor).map(Some).ok_or("a bound is not one number".to_owned()),
    };
    match (bound(1), bound(2)) {
        (Err(what), _) | (_, Err(what)) => Some(what),
        (Ok(Some(lo)), Ok(Some(hi))) if lo > hi => Some(format!("the range {lo} to {hi} is empty")),
        _ => None,
    }
}

fn single(tensor: &Tensor) -> Option<i64> {
    match tensor.to_i64()?[..] {
        [value] => Some(value),
        _ => None,
    }
}
