//! Turns what is trained from constants into inputs of the graph.
//!
//! Trained are the weights and biases of weighted ops, quantized or not; γ and β of BatchNormalization; the steps of quantizers; and a
//! constant added to the result of a MatMul, which is its bias. Every other constant stays one, and so do fixed transforms that are not
//! quantized.

use crate::analyze::{fixed_transform, weighted};
use crate::ir::{DType, Graph, Model, NodeId, Role, TensorType, ValueId};
use crate::ops::{self, Quant};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static CHOOSE_PARAMETERS: Pass = Pass {
    name: "choose-parameters",
    about: "turn weights, biases, BatchNormalization's γ and β, and steps into inputs that training updates",
    needs: "steps are set",
    gives: "inputs with the roles Parameter and Step, whose defaults are the initial values",
    run,
};

fn run(model: &mut Model, _: &mut PassCx) -> Result<Changed, PassError> {
    let graph = &mut model.graph;
    let mut changed = false;
    for id in graph.node_list() {
        for (index, role) in trained_operands(graph, id) {
            let Some(value) = graph[id].input(index) else { continue };
            if graph[value].constant().is_some_and(|tensor| tensor.dtype() == DType::F32) {
                graph.promote(value, role);
                changed = true;
            }
        }
    }
    Ok(Changed::from(changed))
}

fn trained_operands(graph: &Graph, id: NodeId) -> Vec<(usize, Role)> {
    let node = &graph[id];
    if node.op.is_lsqc("FakeQuantize") {
        return vec![(0, Role::Parameter), (1, Role::Step)];
    }
    if node.op.is("BatchNormalization") {
        return vec![(1, Role::Parameter), (2, Role::Parameter)];
    }
    if let Quant::Weighted { weight, bias } = ops::quant(node) {
        if weighted(graph, id).is_ok_and(|op| node.input(weight) == Some(op.weight) && fixed_transform(graph, &op).is_some()) {
            return Vec::new();
        }
        return std::iter::once(weight)
            .chain(bias)
            .map(|index| (index, Role::Parameter))
            .collect();
    }
    if node.op.is("Add") {
        let is_matmul = |value: ValueId| graph.producer(value).is_some_and(|(_, producer)| producer.op.is("MatMul"));
        let is_vector = |value: ValueId| {
            graph[value]
                .ty
                .as_ref()
                .and_then(TensorType::rank)
                .is_some_and(|rank| rank <= 1)
        };
        if let (Some(a), Some(b)) = (node.input(0), node.input(1)) {
            let bias = if is_matmul(a) && is_vector(b) {
                Some(1)
            } else {
                (is_matmul(b) && is_vector(a)).then_some(0)
            };
            return bias.map(|index| (index, Role::Parameter)).into_iter().collect();
        }
    }
    Vec::new()
}
