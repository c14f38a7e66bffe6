//! Attaches SGD with momentum: v' = μ·v + ∂ + λ·p,  p' = max(p − η·v', floor), and for steps s' = max(s − η·v', s/2, floor).
//!
//! Weight decay λ is for weights alone, by the plan (arXiv 1902.08153, section 2.3 scales it with the bits). A floor keeps steps positive and
//! the γ of a BatchNormalization that folds from changing sign. A step at most halves in one update: where few features share it g is large, and
//! one batch that looks unlike the others would throw it to its floor, from which it hardly comes back.

use super::OptimizerPlan;
use super::names::{LEARNING_RATE, MOMENTUM, NEXT};
use crate::ir::{DType, Graph, Model, Role, Tensor, TensorType, ValueId};
use crate::ops::build::Build;
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static ATTACH_OPTIMIZER: Pass = Pass {
    name: "attach-optimizer",
    about: "attach SGD with momentum, weight decay and floors",
    needs: "outputs with the role Gradient",
    gives: "for every trained input its momentum, and both after the step as outputs with the role Next",
    run,
};

/// What one update leaves of a step at least.
const LEAST_SHARE: f32 = 0.5;

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let plan: OptimizerPlan = cx.get();
    let graph = &mut model.graph;
    let rate = graph
        .add_input(LEARNING_RATE, Some(TensorType::fixed(DType::F32, &[])), None)
        .map_err(|error| PassError::new(error.to_string()))?;
    graph[rate].role = Role::LearningRate;
    let gradients: Vec<(ValueId, ValueId)> = graph
        .outputs()
        .iter()
        .filter_map(|&output| {
            if let Role::Gradient(of) = graph[output].role {
                Some((of, output))
            } else {
                None
            }
        })
        .collect();
    for (parameter, gradient) in gradients {
        update(graph, parameter, gradient, rate, &plan).map_err(PassError::new)?;
    }
    Ok(Changed::Yes)
}

fn update(graph: &mut Graph, parameter: ValueId, gradient: ValueId, rate: ValueId, plan: &OptimizerPlan) -> Result<(), String> {
    let name = graph[parameter].name().to_owned();
    let shape = graph[parameter]
        .shape()
        .ok_or_else(|| format!("the shape of '{name}' is not fixed"))?;
    let zeros = Tensor::full(&shape, 0.0f32);
    let momentum_name = format!("{MOMENTUM}{name}");
    let ty = Some(TensorType::fixed(DType::F32, &shape));
    let velocity = graph
        .add_input(&momentum_name, ty, Some(zeros.into()))
        .map_err(|error| error.to_string())?;
    graph[velocity].role = Role::Momentum(parameter);

    let is_step = graph[parameter].role == Role::Step;
    let mut build = Build::new(graph, &format!("{NEXT}{name}"));
    let kept = build.scale(velocity, plan.momentum);
    let mut moved = build.add(kept, gradient);
    if let Some(&decay) = plan.weight_decay.get(&name).filter(|&&decay| decay > 0.0) {
        let pull = build.scale(parameter, decay);
        moved = build.add(moved, pull);
    }
    let step = build.mul(moved, rate);
    let mut next = build.sub(parameter, step);
    if let Some(floor) = plan.floors.get(&name) {
        let floor = match floor[..] {
            [one] => build.scalar(one),
            _ if floor.len() == shape.iter().product() => build.constant(Tensor::new(&shape, floor.clone())),
            _ => return Err(format!("'{name}' has {} floors", floor.len())),
        };
        if is_step {
            let half = build.scale(parameter, LEAST_SHARE);
            next = build.binary("Max", next, half);
        }
        next = build.binary("Max", next, floor);
    }
    for (value, of, base) in [
        (moved, velocity, format!("{NEXT}{momentum_name}")),
        (next, parameter, format!("{NEXT}{name}")),
    ] {
        graph.rename(value, &base);
        graph[value].role = Role::Next(of);
        graph.add_output(value);
    }
    Ok(())
}
