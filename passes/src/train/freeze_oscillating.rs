//! Freezes weights that oscillate between two levels: iterative weight freezing of Nagel et al., *Overcoming Oscillations in
//! Quantization-Aware Training* (arXiv 2203.11086, section 4.3).
//!
//! For every element of a quantized weight the graph keeps its code c, the direction d of the last change of c, the frequency f of
//! oscillations, the running mean μ of its codes, and b, which is 1 where it is frozen. With p̃ and s' the weight and the step as the
//! optimizer leaves them, θ the threshold that is fed, and m = 0.01:
//!
//! - c̃ = b·c + (1 − b)·round(clip(p̃/s', −Q_N, Q_P)): the code after the update, were nothing frozen now;
//! - Δ = sign(c̃ − c),  o = \[Δ·d = −1\]: it changed, and against its last change; this is an oscillation;
//! - d' = Δ where Δ ≠ 0, else d;
//! - f' = m·o + (1 − m)·f,  μ' = m·c̃ + (1 − m)·μ;
//! - n = \[b = 0 and f' > θ\], what is frozen now;  b' = b + n;
//! - c' = round(μ') where n, else c̃;
//! - p' = s'·c' where b', else p̃.
//!
//! So the code of a frozen element never changes again, while its value follows the step, and its gradient moves nothing. It starts from
//! the code of the first weight, d = f = b = 0 and μ = c. Conditions are products with 0 and 1, and \[x > 0\] is Relu(sign x): engines run
//! float ops several times faster than Where.
//!
//! Only weights of at most 4 bits are watched, as in the authors' own code: on a finer grid a code turns back with every noisy
//! gradient, and costs nothing by it. It declines, with a note, weights of more bits, with several quantizers, with a step for each
//! channel or block, and those that are not trained; it refuses a step that is not one number.

use super::Oscillations;
use super::names::{FREEZE_THRESHOLD, NEXT};
use crate::ir::{DType, Graph, Model, NodeId, Oscillation, Role, Tensor, TensorType, ValueId};
use crate::ops::Quantizer;
use crate::ops::build::Build;
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static FREEZE_OSCILLATING: Pass = Pass {
    name: "freeze-oscillating",
    about: "freeze weights that oscillate between levels, where Oscillations asks for it",
    needs: "updates are attached",
    gives: "for every weight of few bits what is kept of its oscillations, as state",
    run,
};

/// The weight m of the present step in both running means, as in the paper's experiments.
pub const MOMENTUM: f32 = 0.01;
/// The most bits of a weight that is watched.
pub const MAX_BITS: u32 = 4;

/// A weight that is watched.
struct Watched {
    quantizer: Quantizer,
    weight: ValueId,
    step: ValueId,
    /// p̃, an output.
    updated: ValueId,
    /// s'.
    next_step: ValueId,
}

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    if cx.get::<Oscillations>() == Oscillations::Left {
        return Ok(Changed::No);
    }
    let graph = &mut model.graph;
    let mut sites = Vec::new();
    for id in graph.node_list() {
        let node = &graph[id];
        let weight = node.input(0).filter(|&v| graph[v].role == Role::Parameter);
        let Some(weight) = weight.filter(|_| node.op.is_lsqc("FakeQuantize")) else {
            continue;
        };
        let quantizer = Quantizer::of(node).map_err(|why| PassError::at(graph, id, why))?;
        match watch(graph, id, weight, quantizer) {
            Ok(site) => sites.push((id, site)),
            Err(why) => cx.note(graph, id, format!("oscillations of its weight are left alone: {why}")),
        }
    }
    if sites.is_empty() {
        return Ok(Changed::No);
    }
    let threshold = graph
        .add_input(FREEZE_THRESHOLD, Some(TensorType::fixed(DType::F32, &[])), None)
        .map_err(|error| PassError::new(error.to_string()))?;
    graph[threshold].role = Role::FreezeThreshold;
    for (id, site) in sites {
        freeze(graph, &site, threshold).map_err(|why| PassError::at(graph, id, why))?;
    }
    Ok(Changed::Yes)
}

fn watch(graph: &Graph, id: NodeId, weight: ValueId, quantizer: Quantizer) -> Result<Watched, String> {
    let bits = quantizer.range.bits;
    if bits > MAX_BITS {
        return Err(format!("it has {bits} bits, more than {MAX_BITS}"));
    }
    if quantizer.block.is_some() {
        return Err("it has a step for each block".to_owned());
    }
    if quantizer.axis.is_some() {
        return Err("it has a step for each channel".to_owned());
    }
    let quantizers = graph[weight].uses().iter().filter(|used| {
        let user = &graph[used.node];
        user.op.is_lsqc("FakeQuantize") && used.node != id
    });
    if quantizers.count() > 0 {
        return Err("it has several quantizers".to_owned());
    }
    let next = |input: ValueId| {
        let mut outputs = graph.outputs().iter().copied();
        outputs.find(|&output| graph[output].role == Role::Next(input))
    };
    let step = graph[id].input(1).ok_or("it has no step")?;
    Ok(Watched {
        quantizer,
        weight,
        step,
        updated: next(weight).ok_or("it is not trained")?,
        next_step: next(step).unwrap_or(step),
    })
}

/// The state before the first step, in the order of [`Oscillation::ALL`].
fn first(graph: &Graph, site: &Watched) -> Result<[Tensor; 5], String> {
    let values = |value: ValueId, what: &str| {
        let values = graph[value].initial().and_then(Tensor::to_f32);
        values.ok_or_else(|| format!("{what} '{}' is not set", graph[value].name()))
    };
    let step = values(site.step, "the step")?;
    let &[step] = &step[..] else {
        return Err(format!("the step '{}' is not one number", graph[site.step].name()));
    };
    let (lo, hi) = site.quantizer.range.bounds();
    let code = |value: &f32| (value / step).clamp(lo, hi).round_ties_even();
    let codes: Vec<f32> = values(site.weight, "the weight")?.iter().map(code).collect();
    let shape = graph[site.weight].shape().ok_or("the shape of its weight is not fixed")?;
    let zeros = || Tensor::full(&shape, 0.0f32);
    let codes = Tensor::new(&shape, codes);
    Ok([codes.clone(), zeros(), zeros(), codes, zeros()])
}

fn freeze(graph: &mut Graph, site: &Watched, threshold: ValueId) -> Result<(), String> {
    let name = graph[site.weight].name().to_owned();
    let mut kept = Vec::new();
    for (what, tensor) in Oscillation::ALL.into_iter().zip(first(graph, site)?) {
        let ty = TensorType::fixed(DType::F32, tensor.shape());
        let input = graph.add_input(&what.input(&name), Some(ty), Some(tensor.into()));
        let input = input.map_err(|error| error.to_string())?;
        graph[input].role = Role::Oscillation(what, site.weight);
        kept.push(input);
    }
    let &[last, direction, frequency, mean, frozen] = &kept[..] else {
        return Err("the state is incomplete".to_owned());
    };

    let updated_name = graph[site.updated].name().to_owned();
    graph.rename(site.updated, &format!("{updated_name}/free"));
    graph[site.updated].role = Role::Plain;

    let mut build = Build::new(graph, &format!("oscillation/{name}"));
    let (lo, hi) = site.quantizer.range.bounds();
    let one = build.scalar(1.0);
    let free = build.sub(one, frozen);
    let ratio = build.div(site.updated, site.next_step);
    let clipped = build.clip(ratio, lo, hi);
    let rounded = build.unary("Round", clipped);
    let code = select(&mut build, (frozen, last), (free, rounded));

    let change = build.sub(code, last);
    let change = build.unary("Sign", change);
    let along = build.mul(change, direction);
    let against = build.unary("Neg", along);
    let oscillated = build.unary("Relu", against);
    let changed = build.unary("Abs", change);
    let same = build.sub(one, changed);
    let held = build.mul(same, direction);
    let next_direction = build.add(change, held);
    let next_frequency = running_mean(&mut build, frequency, oscillated);
    let next_mean = running_mean(&mut build, mean, code);

    let above = build.sub(next_frequency, threshold);
    let above = build.unary("Sign", above);
    let above = build.unary("Relu", above);
    let now = build.mul(above, free);
    let next_frozen = build.add(frozen, now);
    let rounded = build.unary("Round", next_mean);
    let not_now = build.sub(one, now);
    let next_code = select(&mut build, (now, rounded), (not_now, code));
    let value = build.mul(next_code, site.next_step);
    let next_free = build.sub(one, next_frozen);
    let next = select(&mut build, (next_frozen, value), (next_free, site.updated));

    graph.rename(next, &updated_name);
    graph[next].role = Role::Next(site.weight);
    let swapped = |&output: &ValueId| if output == site.updated { next } else { output };
    let outputs = graph.outputs().iter().map(swapped).collect();
    graph.set_outputs(outputs);
    let nexts = [next_code, next_direction, next_frequency, next_mean, next_frozen];
    for (input, next) in kept.into_iter().zip(nexts) {
        let base = format!("{NEXT}{}", graph[input].name());
        graph.rename(next, &base);
        graph[next].role = Role::Next(input);
        graph.add_output(next);
    }
    Ok(())
}

/// One of two values, each beside its mask of 0 and 1: a sum in which one summand is 0, and so exact.
fn select(build: &mut Build, (mask, value): (ValueId, ValueId), (other_mask, other): (ValueId, ValueId)) -> ValueId {
    let value = build.mul(mask, value);
    let other = build.mul(other_mask, other);
    build.add(value, other)
}

/// m·new + (1 − m)·mean.
fn running_mean(build: &mut Build, mean: ValueId, new: ValueId) -> ValueId {
    let kept = build.scale(mean, 1.0 - MOMENTUM);
    let added = build.scale(new, MOMENTUM);
    build.add(kept, added)
}
