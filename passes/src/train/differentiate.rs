//! Reverse-mode differentiation: adds the nodes that compute ∂loss/∂p for every trained input p.
//!
//! The engine owns what rules must not repeat: only nodes between a trained input and the loss are visited; gradients of several uses are
//! added; a gradient is summed back over the axes on which its operand was broadcast; each gets the name `grad/<value>`. A path that ends
//! in an op without a rule, or of a form that its rule refuses, contributes nothing and is noted with the reason; a trained input that no
//! gradient reaches is noted too.

use std::collections::HashMap;

use super::names::GRADIENT;
use crate::ir::{Graph, Model, NodeId, Role, Tensor, ValueId};
use crate::ops::build::Build;
use crate::ops::{self, GradCx, Gradient};
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static DIFFERENTIATE: Pass = Pass {
    name: "differentiate",
    about: "add the gradient of the loss with respect to every trained input",
    needs: "the output with the role Loss; types are fixed",
    gives: "an output with the role Gradient for every trained input that the loss depends on",
    run,
};

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let graph = &mut model.graph;
    let Some(loss) = graph
        .outputs()
        .iter()
        .copied()
        .find(|&output| graph[output].role == Role::Loss)
    else {
        return Err(PassError::new("there is no loss to differentiate"));
    };
    let trained: Vec<ValueId> = graph
        .inputs()
        .iter()
        .copied()
        .filter(|&input| matches!(graph[input].role, Role::Parameter | Role::Step))
        .collect();
    let gradients = gradients(graph, loss, &trained, cx)?;
    for (input, gradient) in trained.into_iter().zip(gradients) {
        let Some(gradient) = gradient else {
            let user = graph[input].uses().first().map(|used| used.node);
            if let Some(user) = user {
                cx.note(
                    graph,
                    user,
                    format!("'{}' is not trained: no gradient reaches it", graph[input].name()),
                );
            }
            continue;
        };
        let base = format!("{GRADIENT}{}", graph[input].name());
        let gradient = if graph[gradient].role == Role::Plain && graph[gradient].producer().is_some() {
            gradient
        } else {
            // Two inputs may have one gradient, and each output needs a name of its own.
            Build::new(graph, &base).unary("Identity", gradient)
        };
        graph.rename(gradient, &base);
        graph[gradient].role = Role::Gradient(input);
        graph.add_output(gradient);
    }
    Ok(Changed::Yes)
}

/// Adds the gradients of the scalar `of` with respect to each of `wrt`.
///
/// # Errors
/// If a rule fails because shapes are not fixed.
pub fn gradients(graph: &mut Graph, of: ValueId, wrt: &[ValueId], cx: &mut PassCx) -> Result<Vec<Option<ValueId>>, PassError> {
    let mut depends: Vec<bool> = Vec::new();
    let mark = |depends: &mut Vec<bool>, index: usize| {
        if depends.len() <= index {
            depends.resize(index + 1, false);
        }
        if let Some(slot) = depends.get_mut(index) {
            *slot = true;
        }
    };
    let reached = |depends: &[bool], value: ValueId| depends.get(value.index()).copied().unwrap_or(false);
    for &value in wrt {
        mark(&mut depends, value.index());
    }
    let forward = graph.node_list();
    for &id in &forward {
        let stops = matches!(ops::lookup(&graph[id].op).map(|entry| entry.gradient), Some(Gradient::Zero));
        if !stops && graph[id].inputs().iter().flatten().any(|&input| reached(&depends, input)) {
            for output in graph[id].outputs().iter().flatten() {
                mark(&mut depends, output.index());
            }
        }
    }

    let mut pending: HashMap<ValueId, Vec<ValueId>> = HashMap::new();
    let shape = graph[of].shape().unwrap_or_default();
    let one = graph.add_constant(&format!("{GRADIENT}seed"), Tensor::full(&shape, 1.0f32));
    pending.insert(of, vec![one]);
    for &id in forward.iter().rev() {
        let outputs = graph[id].outputs().to_vec();
        let dy: Vec<Option<ValueId>> = outputs.iter().map(|output| total(graph, &mut pending, (*output)?)).collect();
        if dy.iter().all(Option::is_none) {
            continue;
        }
        let wanted: Vec<bool> = graph[id]
            .inputs()
            .iter()
            .map(|input| input.is_some_and(|value| reached(&depends, value)))
            .collect();
        if !wanted.contains(&true) {
            continue;
        }
        for (input, gradient) in flow(graph, id, dy, wanted, cx)? {
            pending.entry(input).or_default().push(gradient);
        }
    }
    Ok(wrt.iter().map(|&value| total(graph, &mut pending, value)).collect())
}

/// The sum of what has flowed back to `value` so far.
fn total(graph: &mut Graph, pending: &mut HashMap<ValueId, Vec<ValueId>>, value: ValueId) -> Option<ValueId> {
    let parts = pending.remove(&value)?;
    let base = format!("{GRADIENT}{}", graph[value].name());
    let mut build = Build::new(graph, &base);
    parts.into_iter().reduce(|a, b| build.add(a, b))
}

fn flow(
    graph: &mut Graph,
    id: NodeId,
    dy: Vec<Option<ValueId>>,
    wanted: Vec<bool>,
    cx: &mut PassCx,
) -> Result<Vec<(ValueId, ValueId)>, PassError> {
    let rule = match ops::lookup(&graph[id].op).map(|entry| entry.gradient) {
        Some(Gradient::Rule(rule)) => rule,
        Some(Gradient::Zero) => return Ok(Vec::new()),
        Some(Gradient::Unsupported(why)) => {
            cx.note(graph, id, format!("gradients stop here: {why}"));
            return Ok(Vec::new());
        }
        None => {
            cx.note(graph, id, "gradients stop here: lsqc does not know this op");
            return Ok(Vec::new());
        }
    };
    let label = graph[id].label(graph).into_owned();
    let inputs = graph[id].inputs().to_vec();
    let mut grad = GradCx::new(Build::new(graph, &format!("{GRADIENT}{label}")), id, dy, wanted);
    let outcome = rule(&mut grad);
    let given = grad.into_given();
    if let Err(why) = outcome {
        let node = &graph[id];
        let is_fixed = |value: &ValueId| graph[*value].shape().is_some();
        if !node.inputs().iter().chain(node.outputs()).flatten().all(is_fixed) {
            return Err(PassError::at(graph, id, format!("its gradient cannot be built: {why}")));
        }
        cx.note(graph, id, format!("gradients stop here: {why}"));
        return Ok(Vec::new());
    }
    let mut flowed = Vec::new();
    for (input, gradient) in inputs.into_iter().zip(given) {
        let (Some(input), Some(gradient)) = (input, gradient) else {
            continue;
        };
        let shape = graph[input].shape();
        let mut build = Build::new(graph, &format!("{GRADIENT}{label}"));
        let summed = match shape {
            Some(shape) => build.sum_to(gradient, &shape),
            None => Err(format!("the shape of '{}' is not fixed", build.graph[input].name())),
        };
        flowed.push((input, summed.map_err(|why| PassError::at(graph, id, why))?));
    }
    Ok(flowed)
}
