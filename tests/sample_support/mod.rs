//! A sample case of the op table as a graph with a loss, to be differentiated.
#![allow(dead_code)] // Each test uses some of it.

use lsqc::engine::Tensors;
use lsqc_passes::analyze::INFER_TYPES;
use lsqc_passes::ir::{Attribute, Graph, Model, Op, OpsetImport, Remainder, Role, Tensor, TensorType};
use lsqc_passes::ops::OpEntry;
use lsqc_passes::ops::sample::{Kind, Sample};
use lsqc_passes::pass::{NoEvaluator, PassCx, run_quietly};

/// The sample's node, the loss Σ⟨r, y⟩ over the results that it weighs, and what to feed.
pub fn with_loss(entry: &OpEntry, sample: &Sample) -> Result<(Model, Tensors), String> {
    let mut graph = Graph::new("sample");
    let mut feeds = Tensors::new();
    let mut inputs = Vec::new();
    for (index, operand) in sample.inputs.iter().enumerate() {
        let Some(operand) = operand else {
            inputs.push(None);
            continue;
        };
        let (name, tensor) = (format!("x{index}"), operand.tensor.clone());
        let value = if operand.kind == Kind::Constant {
            graph.add_constant(&name, tensor)
        } else {
            let ty = TensorType::fixed(tensor.dtype(), tensor.shape());
            let input = graph.add_input(&name, Some(ty), None).map_err(|error| error.to_string())?;
            if operand.kind == Kind::Varies {
                graph[input].role = Role::Parameter;
            }
            feeds.insert(name, tensor);
            input
        };
        inputs.push(Some(value));
    }
    let results: Vec<String> = (0..sample.results).map(|index| format!("y{index}")).collect();
    let results: Vec<&str> = results.iter().map(String::as_str).collect();
    let op = Op {
        domain: entry.domain.into(),
        name: entry.name.into(),
    };
    let ys = graph.insert_many(op, &inputs, sample.attributes.clone(), &results);
    let ys = ys
        .get(..sample.weighed)
        .ok_or("the sample weighs more results than it has")?
        .to_vec();
    // r needs the shape of y.
    graph.set_outputs(ys.clone());
    let mut model = Model {
        ir_version: ir_version(sample.opset),
        opset_imports: vec![OpsetImport {
            domain: String::new(),
            version: sample.opset,
            remainder: Remainder::new(),
        }],
        metadata: vec![],
        graph,
        functions: vec![],
        remainder: Remainder::new(),
    };
    run_quietly(&[&INFER_TYPES], &mut model, &mut PassCx::new(&NoEvaluator)).map_err(|error| error.to_string())?;
    let graph = &mut model.graph;
    let mut losses = Vec::new();
    for y in ys {
        let shape = graph[y].shape().ok_or("the type rule does not tell the shape")?;
        let r = graph.add_constant("r", weights(&shape));
        let weighted = graph.insert(Op::onnx("Mul"), &[y, r], vec![], "weighted");
        let no_axes = vec![Attribute::new("keepdims", 0)];
        losses.push(graph.insert(Op::onnx("ReduceSum"), &[weighted], no_axes, "part"));
    }
    let sum = losses
        .into_iter()
        .reduce(|sum, part| graph.insert(Op::onnx("Add"), &[sum, part], vec![], "sum"));
    let loss = graph.insert(
        Op::onnx("Identity"),
        &[sum.ok_or("the sample weighs no result")?],
        vec![],
        "loss",
    );
    graph[loss].role = Role::Loss;
    graph.set_outputs(vec![loss]);
    Ok((model, feeds))
}

/// The IR version that came with an operator set.
pub fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=18 => 8,
        19 | 20 => 9,
        21 | 22 => 10,
        23 => 11,
        _ => 12,
    }
}

/// Distinct numbers of both signs, none near 0: with equal ones, a gradient that is off by a permutation would pass.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
pub fn weights(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let values = (0..count).map(|index| {
        let t = (index as f64 * 0.754_877_666_246_692_7 + 0.3).fract();
        let sign = if index % 3 == 0 { -1.0 } else { 1.0 };
        (sign * (0.2 + t)) as f32
    });
    Tensor::new(shape, values.collect())
}
