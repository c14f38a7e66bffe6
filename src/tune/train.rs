//! The training loop: cosine-decayed SGD over shuffled, prefetched batches, with the state on the engine's device.
//!
//! It stops, naming the tensor, when the loss is not finite or when a step has shrunk to its floor.

use std::sync::Arc;

use anyhow::{Context, Result};
use lsqc_passes::ir::Tensor;
use lsqc_passes::onnx::OwnOps;
use lsqc_passes::train::names;

use super::Loop;
use super::assemble::StepGraph;
use super::memory::Meter;
use super::oscillations::freeze_threshold;
use crate::compiler::serialize;
use crate::config::Size;
use crate::data::{Batch, TrainBatches, TrainOptions};
use crate::engine::{Engine, LoadOptions, Session, Tensors};
use crate::failure::{Failure, Kind};
use crate::interrupt;

/// How long and how fast.
#[derive(Clone, Copy, Debug)]
pub struct TrainPlan {
    /// Steps in all.
    pub steps: u64,
    /// The learning rate η₀ of the first step.
    pub learning_rate: f64,
    /// Batches.
    pub batches: TrainOptions,
}

/// What training left.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The state after the last step.
    pub state: Tensors,
    /// The loss of every step.
    pub losses: Vec<f32>,
    /// What it took beyond what was there before the first step, where the system tells.
    pub peak: Option<Size>,
}

/// A step graph that is loaded.
pub struct Stepper {
    session: Box<dyn Session>,
    wants_labels: bool,
    /// What is fed where the graph freezes weights.
    freeze_threshold: Option<f32>,
}

impl Stepper {
    /// Loads `graph` and sets its state.
    ///
    /// # Errors
    /// If the engine refuses it.
    pub fn load(graph: &StepGraph, engine: &dyn Engine, options: &LoadOptions) -> Result<Stepper> {
        let options = LoadOptions {
            state: graph.bindings.clone(),
            ..options.clone()
        };
        let mut session = engine.load(&serialize(&graph.model, OwnOps::Keep)?, &options)?;
        session.set_state(&graph.state)?;
        Ok(Stepper {
            session,
            wants_labels: graph.model.graph.find(names::LABEL).is_some(),
            freeze_threshold: graph.model.graph.find(names::FREEZE_THRESHOLD).map(|_| f32::INFINITY),
        })
    }

    /// From now on weights are frozen that oscillate more often than this, where the graph freezes any; before, none are.
    pub fn set_freeze_threshold(&mut self, threshold: f32) {
        if let Some(present) = &mut self.freeze_threshold {
            *present = threshold;
        }
    }

    /// Takes one step with the learning rate η; gives the loss before it.
    ///
    /// # Errors
    /// If the engine fails.
    pub fn step(&mut self, batch: Batch, rate: f32) -> Result<f32> {
        let mut feeds = batch.inputs;
        if let Some(labels) = batch.labels.filter(|_| self.wants_labels) {
            feeds.insert(names::LABEL.to_owned(), labels);
        }
        feeds.insert(names::LEARNING_RATE.to_owned(), Tensor::scalar(rate));
        if let Some(threshold) = self.freeze_threshold {
            feeds.insert(names::FREEZE_THRESHOLD.to_owned(), Tensor::scalar(threshold));
        }
        let out = self.session.step(&feeds)?;
        let loss = out
            .get(names::LOSS)
            .and_then(Tensor::to_f32)
            .and_then(|values| values.first().copied());
        loss.context("the step graph gave no loss")
    }
}

/// How often the steps are looked at: copying them from the device takes time.
const LOOK_EVERY: u64 = 64;

/// η = η₀/2 · (1 + cos(π·t/T)) for t = 0 … T − 1: cosine decay without restarts (Loshchilov & Hutter, arXiv 1608.03983).
#[must_use]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
pub fn cosine(start: f64, step: u64, steps: u64) -> f32 {
    let part = step as f64 / steps.max(1) as f64;
    (start * 0.5 * (1.0 + (std::f64::consts::PI * part).cos())) as f32
}

/// Runs `plan.steps` steps of `graph`.
///
/// # Errors
/// Engine, if it fails or training diverges; interrupted, on a signal.
pub fn train(graph: &StepGraph, plan: &TrainPlan, with: Loop) -> Result<Trained> {
    let mut stepper = Stepper::load(graph, with.engine, with.options)?;
    let meter = Meter::start();
    let mut batches = TrainBatches::start(Arc::clone(with.data), plan.batches)?;
    let progress = with.terminal.progress("train", plan.steps);
    let mut losses = Vec::new();
    for step in 0..plan.steps {
        interrupt::check()?;
        stepper.set_freeze_threshold(freeze_threshold(step, plan.steps));
        let loss = stepper.step(batches.next_batch()?, cosine(plan.learning_rate, step, plan.steps))?;
        let session = stepper.session.as_ref();
        if !loss.is_finite() {
            return Err(diverged(session, step, loss));
        }
        losses.push(loss);
        if (step + 1) % LOOK_EVERY == 0 || step + 1 == plan.steps {
            check_state(&session.state()?, graph, step)?;
        }
        progress.advance(1, format!("loss {loss:.4}"));
    }
    Ok(Trained {
        state: stepper.session.state()?,
        losses,
        peak: meter.peak().map(Size::of),
    })
}

const CURE: &str = "lower the learning rate (--lr), or check the data's preprocessing";

fn diverged(session: &dyn Session, step: u64, loss: f32) -> anyhow::Error {
    let state = session.state().unwrap_or_default();
    let first = state
        .iter()
        .find(|(_, tensor)| !is_finite(tensor))
        .map(|(name, _)| name.clone());
    let at = first.map_or(String::new(), |name| {
        format!("; the first tensor that is not finite is '{name}'")
    });
    Failure::new(
        Kind::Engine,
        format!("training diverged: the loss is {loss} at step {}{at}", step + 1),
    )
    .help(CURE)
    .into()
}

fn check_state(state: &Tensors, graph: &StepGraph, step: u64) -> Result<()> {
    for (name, tensor) in state {
        if !is_finite(tensor) {
            let message = format!("training diverged: '{name}' is not finite after step {}", step + 1);
            return Err(Failure::new(Kind::Engine, message).help(CURE).into());
        }
    }
    for (name, floors) in &graph.floors {
        let Some(values) = state.get(name).and_then(Tensor::to_f32) else {
            continue;
        };
        // Of a step for each channel some may fall: such a channel is as good as dead.
        if values.iter().zip(floors).all(|(value, floor)| value <= floor) {
            let floor = floors.first().copied().unwrap_or_default();
            let message = format!(
                "the quantizer step '{name}' has vanished after step {}: it fell to {floor:e}",
                step + 1
            );
            return Err(Failure::new(Kind::Engine, message).help(CURE).into());
        }
    }
    Ok(())
}

fn is_finite(tensor: &Tensor) -> bool {
    tensor
        .to_f32()
        .is_none_or(|values| values.iter().all(|value| value.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_starts_at_the_rate_and_ends_near_zero() {
        assert_eq!(cosine(0.01, 0, 100), 0.01);
        assert!((cosine(0.01, 50, 100) - 0.005).abs() < 1e-9);
        assert!(cosine(0.01, 99, 100) < 1e-5);
    }
}
