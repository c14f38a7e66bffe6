//! Gives every quantizer its initial step and activations their sign.
//!
//! Weights are signed and start from their own values. What activations start from was measured on data; the tool hands it over as
//! [`ActivationSteps`]. Quantizers that share a step share the sign too. A weight with a step for each output channel starts each of them from
//! that channel's values, and so does a block of each; one of zeros takes the step of the whole.

use super::{ActivationSteps, Sign, StepInit, Untrained, step_size};
use crate::ir::{Graph, Model, NodeId, Tensor};
use crate::ops::Quantizer;
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static SET_STEPS: Pass = Pass {
    name: "set-steps",
    about: "give every fake quantizer its initial step, and activations their sign",
    needs: "fake quantizers are placed; ActivationSteps are measured",
    gives: "every step positive",
    run,
};

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let measured: ActivationSteps = cx.get();
    let init: StepInit = cx.get();
    let untrained: Untrained = cx.get();
    let graph = &mut model.graph;
    for id in graph.node_list() {
        if graph[id].op.is_lsqc("FakeQuantize") {
            let name = graph[id].output(0).map(|y| graph[y].name());
            let init = match name {
                Some(name) if untrained.0.contains(name) => StepInit::MinMse,
                _ => init,
            };
            set_step(graph, id, &measured, init).map_err(|why| PassError::at(graph, id, why))?;
        }
    }
    Ok(Changed::Yes)
}

fn set_step(graph: &mut Graph, id: NodeId, measured: &ActivationSteps, init: StepInit) -> Result<(), String> {
    let node = &graph[id];
    let (Some(x), Some(step), Some(y)) = (node.input(0), node.input(1), node.output(0)) else {
        return Err("an operand is missing".to_owned());
    };
    let quantizer = Quantizer::of(node)?;
    let range = quantizer.range;
    let start = match graph[x].initial() {
        Some(weight) => {
            let values = weight.to_f32().ok_or("its weight is not numeric")?;
            if values.iter().any(|value| !value.is_finite()) {
                return Err("its weight has values that are not finite".to_owned());
            }
            let of = |values: &[f32]| step_size::initial(values, range, init);
            // Any step holds zeros; one that is not tiny keeps the integer bias in range.
            let whole = of(&values).unwrap_or(1.0);
            let shape = quantizer.steps_shape(weight.shape())?;
            let steps = match shape.iter().product() {
                1 => vec![whole],
                count => {
                    let parts = parts(quantizer, weight.shape(), &values, count);
                    parts.iter().map(|part| of(part).unwrap_or(whole)).collect()
                }
            };
            Tensor::new(&shape, steps)
        }
        None => {
            let Some(&(start, sign)) = measured.0.get(graph[y].name()) else {
                return Err("no step was measured for it".to_owned());
            };
            graph[id].set_attr("signed", i64::from(sign == Sign::Signed));
            Tensor::scalar(start)
        }
    };
    let starts = start.to_f32().unwrap_or_default();
    if let Some(start) = starts.iter().find(|&&start| !(start > 0.0 && start.is_finite())) {
        return Err(format!("its initial step {start} is not positive"));
    }
    graph.set_literal(step, start);
    Ok(())
}

/// The values that share each of `count` steps.
fn parts(quantizer: Quantizer, shape: &[usize], values: &[f32], count: usize) -> Vec<Vec<f32>> {
    let mut parts = vec![Vec::new(); count];
    for (index, &value) in values.iter().enumerate() {
        if let Some(part) = parts.get_mut(quantizer.step_of(shape, index)) {
            part.push(value);
        }
    }
    parts
}
