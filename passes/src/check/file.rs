//! Rules on the file: versions, ops that a runtime does not have, and whether there is anything to check.

use super::view::{MICROSOFT, View};
use super::{Findings, Look, Rule};
use crate::ir::{Attr, DType, Graph, LSQC_DOMAIN, Node};
use crate::pipelines::lowest_ir_version;
use crate::target::Storage;

/// There is something to check.
pub static QUANTIZED: Rule = Rule {
    id: "quantized",
    says: "the file has quantizers: without any there is nothing to check, and everything runs in floats",
    cure: "give the quantized file, not the float model",
    look: Look::File(quantized),
};

fn quantized(view: &View, found: &mut Findings) {
    if !any(view.graph, &|node| is_quantized_op(node)) {
        found.whole("there is no QuantizeLinear, no DequantizeLinear and no integer op in it");
    }
}

fn any(graph: &Graph, holds: &dyn Fn(&Node) -> bool) -> bool {
    graph
        .nodes()
        .any(|(_, node)| holds(node) || node.subgraphs().any(|inner| any(inner, holds)))
}

fn is_quantized_op(node: &Node) -> bool {
    let name = node.op.name.as_ref();
    let named = ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"].contains(&name);
    named || is_integer_op(node) || name.starts_with("MatMulNBits") || name.starts_with("DynamicQuantize")
}

/// Ops that compute with levels themselves.
fn is_integer_op(node: &Node) -> bool {
    let name = node.op.name.as_ref();
    name.starts_with("QLinear") || ["ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "QGemm"].contains(&name)
}

/// No ops of lsqc's own.
pub static OWN_OPS: Rule = Rule {
    id: "own-ops",
    says: "there are no ops of the domain lsqc, which only lsqc knows",
    cure: "take the file that `lsqc quantize` writes to its output; fake quantizers are for training",
    look: Look::Graphs(own_ops),
};

fn own_ops(view: &View, found: &mut Findings) {
    for (id, node) in view.graph.nodes() {
        if node.op.domain == LSQC_DOMAIN {
            found.at(view.graph, id, "no runtime has this op");
        }
    }
}

/// No ops on levels.
pub static INTEGER_OPS: Rule = Rule {
    id: "integer-ops",
    says: "quantization is QuantizeLinear and DequantizeLinear around float ops: TensorRT, as other runtimes, has no ops that compute with levels \
           or choose scales as they run",
    cure: "write the file in QDQ form: in ONNX Runtime's tools QuantFormat.QDQ",
    look: Look::Graphs(integer_ops),
};

fn integer_ops(view: &View, found: &mut Findings) {
    for (id, node) in view.graph.nodes() {
        if is_integer_op(node) || node.op.name == "DynamicQuantizeLinear" {
            found.at(view.graph, id, "this op is not in QDQ form");
        }
    }
}

/// Standard ops alone.
pub static STANDARD_OPS: Rule = Rule {
    id: "standard-ops",
    says: "there are no ops of the domain com.microsoft, which only ONNX Runtime has",
    cure: "write standard ops; 16-bit quantizers are not for every runtime",
    look: Look::Graphs(standard_ops),
};

fn standard_ops(view: &View, found: &mut Findings) {
    for (id, node) in view.graph.nodes() {
        if node.op.domain == MICROSOFT {
            found.at(view.graph, id, "only ONNX Runtime has this op");
        }
    }
}

/// Operator set 13.
pub static OPSET_13: Rule = Rule {
    id: "opset-13",
    says: "the operator set is 13 or later, the first that has scales along an axis",
    cure: "convert the file with onnx.version_converter, or export with a newer operator set",
    look: Look::File(opset_13),
};

fn opset_13(view: &View, found: &mut Findings) {
    let opset = view.model.opset();
    if opset < 13 {
        found.whole(format!("the operator set is {opset}"));
    }
}

/// Forms that the operator set has.
pub static OPSET_FORMS: Rule = Rule {
    id: "opset-forms",
    says: "quantizers and Casts are of a form that the file's operator set has: scales along an axis from 13 on, int4 and 16 bits and blocks from 21, \
           int2 from 25; a runtime refuses the file otherwise",
    cure: "write the operator set that has the form, or int8 with scales along an axis",
    look: Look::Graphs(opset_forms),
};

fn opset_forms(view: &View, found: &mut Findings) {
    let opset = view.model.opset();
    for (id, node) in view.graph.nodes().filter(|(_, node)| node.op.in_default_domain()) {
        let needs = match view.linear(id) {
            Some(linear) => {
                let typed = linear.levels.map_or((10, "this op"), since);
                let along = if linear.axis().is_some() {
                    (13, "scales along an axis")
                } else {
                    (10, "this op")
                };
                let blocks = if linear.block() == 0 {
                    (10, "this op")
                } else {
                    (21, "scales of blocks")
                };
                [typed, along, blocks].into_iter().max_by_key(|(opset, _)| *opset)
            }
            None if node.op.is("Cast") => cast(view, node),
            None => None,
        };
        if let Some((since, what)) = needs.filter(|(since, _)| *since > opset) {
            found.at(
                view.graph,
                id,
                format!("{what} needs operator set {since}, and the file's is {opset}"),
            );
        }
    }
}

/// The operator set since which quantizers take a type of levels, and its name.
fn since(dtype: DType) -> (i64, &'static str) {
    match dtype {
        DType::U8 | DType::I8 | DType::I32 => (10, "this op"),
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ => (19, dtype.name()),
        DType::I2 | DType::U2 => (25, dtype.name()),
        DType::F4E2M1 => (23, dtype.name()),
        _ => (21, dtype.name()),
    }
}

/// The same of a Cast, if it is from or to a type of less than a byte.
fn cast(view: &View, node: &Node) -> Option<(i64, &'static str)> {
    let from = node
        .input(0)
        .and_then(|value| view.graph[value].ty.as_ref())
        .map(|ty| ty.dtype);
    let to = node.int("to").and_then(|code| DType::from_code(i32::try_from(code).ok()?));
    let packed = |dtype: &DType| matches!(dtype, DType::I4 | DType::U4 | DType::I2 | DType::U2);
    from.into_iter()
        .chain(to)
        .filter(packed)
        .map(since)
        .max_by_key(|(opset, _)| *opset)
}

/// The file format's version.
pub static IR_VERSION: Rule = Rule {
    id: "ir-version",
    says: "the file's IR version is 4 or later, the first that has constants which are no inputs: ONNX's checker refuses such constants in older \
           files, and so may a runtime",
    cure: "set ir_version as the table in ONNX's Versioning.md has it for the operator set",
    look: Look::File(ir_version),
};

fn ir_version(view: &View, found: &mut Findings) {
    let has = view.model.ir_version;
    if has < 4 && view.graph.values().any(|(_, value)| value.constant().is_some()) {
        found.whole(format!("the IR version is {has}, and there are constants that are no inputs"));
    }
}

/// The version of the runtime.
pub static RUNTIME: Rule = Rule {
    id: "runtime",
    says: "the version of the runtime that is named loads the file: its operator set, its IR version and the types that its weights are stored in",
    cure: "take a newer version of the runtime; or write an older operator set, the lowest IR version and int8 weights",
    look: Look::File(runtime),
};

fn runtime(view: &View, found: &mut Findings) {
    let (target, opset, ir) = (view.target, view.model.opset(), view.model.ir_version);
    let Some(runtime) = view.runtime else { return };
    let mut needs = Vec::new();
    needs.extend(
        target
            .oldest(opset, Storage::Int8)
            .map(|version| (version, format!("operator set {opset}"))),
    );
    // A version knows the IR version of the newest operator set that it has.
    let of_ir = target
        .opsets
        .iter()
        .find(|(opset, _)| lowest_ir_version(*opset).is_some_and(|has| has >= ir));
    needs.extend(of_ir.map(|(_, version)| (*version, format!("IR version {ir}"))));
    for &(storage, version) in target.packed {
        let dtypes: &[DType] = match storage {
            Storage::Int2 => &[DType::I2, DType::U2],
            Storage::Int4 => &[DType::I4, DType::U4],
            Storage::Int8 => &[],
        };
        if stores(view.graph, dtypes) {
            needs.push((version, format!("weights of {storage}")));
        }
    }
    for (_, node) in view.graph.nodes() {
        let blocks = target
            .weight_only
            .filter(|_| node.op.domain == MICROSOFT && node.op.name == "MatMulNBits");
        let bits = node.int("bits").and_then(|bits| u32::try_from(bits).ok());
        let (Some(blocks), Some(bits)) = (blocks, bits) else {
            continue;
        };
        let oldest = blocks.oldest_stored(bits);
        let need = oldest.map(|version| (version, format!("MatMulNBits of {bits} bits")));
        needs.extend(need.filter(|need| !needs.contains(need)));
    }
    for (version, what) in needs.into_iter().filter(|(version, _)| *version > runtime) {
        found.whole(format!(
            "{what}: {} {runtime} does not load it, {version} and later do",
            target.title
        ));
    }
}

/// Is a constant of one of these types in the graph?
fn stores(graph: &Graph, dtypes: &[DType]) -> bool {
    let initial = graph.values().filter_map(|(_, value)| value.initial());
    let in_attribute = |node: &Node| {
        let tensors = node.attributes.iter().filter_map(|attribute| match &attribute.value {
            Attr::Tensor(literal) => Some(literal.tensor.dtype()),
            _ => None,
        });
        tensors.into_iter().any(|dtype| dtypes.contains(&dtype))
    };
    initial.into_iter().any(|tensor| dtypes.contains(&tensor.dtype())) || any(graph, &in_attribute)
}
