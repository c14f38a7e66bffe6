//! The training loop: cosine-decayed SGD over shuffled, prefetched batches, with the state on the engine's device.
//!
//! Where the loss is not finite, a step has shrunk to its floor, or the loss of the same few batches is higher after training than before,
//! training does harm. A learning rate that was asked for stands, and the run stops or says so; the method's own is lowered, and training
//! begins again.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result};
use lsqc_passes::ir::Tensor;
use lsqc_passes::onnx::OwnOps;
use lsqc_passes::train::names;

use super::Loop;
use super::assemble::StepGraph;
use super::memory::Meter;
use super::oscillations::freeze_threshold;
use crate::compiler::load_as_is;
use crate::config::{Rate, Size};
use crate::data::{Batch, TrainBatches, TrainOptions};
use crate::engine::{Engine, LoadOptions, Session, Tensors};
use crate::failure::{Failure, Kind};
use crate::interrupt;

/// How long and how fast.
#[derive(Clone, Copy, Debug)]
pub struct TrainPlan {
    /// Steps in all.
    pub steps: u64,
    /// The learning rate of the first step.
    pub rate: Rate,
    /// Batches.
    pub batches: TrainOptions,
}

/// What training left.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The state after the last step.
    pub state: Tensors,
    /// The loss of every step; none where the network stays as it was calibrated.
    pub losses: Vec<f32>,
    /// The learning rate η₀ that it was trained with.
    pub learning_rate: f64,
    /// What it took beyond what was there before the first step, where the system tells.
    pub peak: Option<Size>,
    /// What the user should know.
    pub warnings: Vec<String>,
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
        let mut session = load_as_is(engine, &graph.model, OwnOps::Keep, &options)?;
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

    /// The mean loss of some batches; the state is as before then.
    ///
    /// # Errors
    /// If the engine fails.
    #[allow(clippy::cast_precision_loss)]
    fn loss_of(&mut self, batches: &[Batch]) -> Result<f32> {
        let state = self.session.state()?;
        self.set_freeze_threshold(f32::INFINITY);
        let mut sum = 0.0;
        for batch in batches {
            sum += self.step(batch.clone(), 0.0)?;
        }
        self.session.set_state(&state)?;
        Ok(sum / batches.len() as f32)
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

/// How often training is begun again at a lower rate, and how much lower.
const RETREATS: i32 = 3;
const RETREAT: f64 = 10.0;

/// Runs `plan.steps` steps of `graph`. Where they do harm at the method's own learning rate, training begins again from the first state at a
/// tenth of it, and after [`RETREATS`] of these the network stays as it was calibrated.
///
/// # Errors
/// Engine, if it fails or training diverges; interrupted, on a signal.
pub fn train(graph: &StepGraph, plan: &TrainPlan, with: Loop) -> Result<Trained> {
    let mut stepper = Stepper::load(graph, with.engine, with.options)?;
    let meter = Meter::start();
    let seen = Seen::by(&mut stepper, plan, with)?;
    let mut warnings = Vec::new();
    let mut warn = |warning: String| {
        with.terminal.warn(&warning);
        warnings.push(warning);
    };
    let mut rate = plan.rate.start();
    let mut retreats = 0;
    let losses = loop {
        let Attempt { losses, mut harm } = attempt(&mut stepper, graph, plan, rate, with)?;
        if harm.is_none() {
            harm = seen.worse(&mut stepper)?;
        }
        match (harm, plan.rate) {
            (None, _) => break losses,
            (Some(harm), Rate::Own(_)) => {
                stepper.session.set_state(&graph.state)?;
                let cure = "give a lower one (--lr), more or other data, or calibrate only (--epochs 0)";
                if retreats == RETREATS {
                    warn(format!(
                        "{harm}, at a learning rate of {rate}, too: the network stays as it was calibrated; {cure}"
                    ));
                    break Vec::new();
                }
                retreats += 1;
                let lower = plan.rate.start() / RETREAT.powi(retreats);
                warn(format!("{harm}, at a learning rate of {rate}: it begins again at {lower}"));
                rate = lower;
            }
            (Some(harm @ Harm::Worse(..)), Rate::Asked(_)) => {
                warn(format!("{harm}: {CURE}, or calibrate only (--epochs 0)"));
                break losses;
            }
            (Some(Harm::Broken(how)), Rate::Asked(_)) => return Err(Failure::new(Kind::Engine, how).help(CURE).into()),
        }
    };
    Ok(Trained {
        state: stepper.session.state()?,
        losses,
        learning_rate: rate,
        peak: meter.peak().map(Size::of),
        warnings,
    })
}

const CURE: &str = "lower the learning rate (--lr), or check the data's preprocessing";

/// The steps that were taken, and what is wrong with them.
struct Attempt {
    losses: Vec<f32>,
    harm: Option<Harm>,
}

fn attempt(stepper: &mut Stepper, graph: &StepGraph, plan: &TrainPlan, rate: f64, with: Loop) -> Result<Attempt> {
    let mut batches = TrainBatches::start(Arc::clone(with.data), plan.batches)?;
    let progress = with.terminal.progress("train", plan.steps);
    let mut losses = Vec::new();
    let mut harm = None;
    for step in 0..plan.steps {
        interrupt::check()?;
        stepper.set_freeze_threshold(freeze_threshold(step, plan.steps));
        let loss = stepper.step(batches.next_batch()?, cosine(rate, step, plan.steps))?;
        if loss.is_finite() {
            losses.push(loss);
            if (step + 1) % LOOK_EVERY == 0 || step + 1 == plan.steps {
                harm = of_state(&stepper.session.state()?, graph, step);
            }
        } else {
            harm = Some(diverged(stepper.session.as_ref(), step, loss));
        }
        if harm.is_some() {
            return Ok(Attempt { losses, harm });
        }
        progress.advance(1, format!("loss {loss:.4}"));
    }
    Ok(Attempt { losses, harm })
}

/// A few batches, and their loss before training.
struct Seen {
    batches: Vec<Batch>,
    before: f32,
}

impl Seen {
    fn by(stepper: &mut Stepper, plan: &TrainPlan, with: Loop) -> Result<Seen> {
        /// Of so many steps one batch is looked at again, within bounds: it costs as much as two steps.
        const STEPS: u64 = 32;
        const COUNT: (u64, u64) = (2, 8);
        let mut batches = TrainBatches::start(Arc::clone(with.data), plan.batches)?;
        let count = (plan.steps / STEPS).clamp(COUNT.0, COUNT.1);
        let batches = (0..count).map(|_| batches.next_batch()).collect::<Result<Vec<Batch>>>()?;
        let before = stepper.loss_of(&batches)?;
        Ok(Seen { batches, before })
    }

    /// Whether training has left the network worse than it found it.
    fn worse(&self, stepper: &mut Stepper) -> Result<Option<Harm>> {
        /// The batches are the same, but few: on others the loss may have fallen while it rose a little on these.
        const FACTOR: f32 = 1.1;
        let after = stepper.loss_of(&self.batches)?;
        Ok((after > FACTOR * self.before).then_some(Harm::Worse(self.before, after)))
    }
}

/// How training does harm.
#[derive(Debug, PartialEq)]
enum Harm {
    /// In a way that leaves nothing to use.
    Broken(String),
    /// The mean loss of the same batches before training and after it.
    Worse(f32, f32),
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Harm::Broken(how) => f.write_str(how),
            Harm::Worse(before, after) => write!(f, "training made the loss worse, from {before:.3e} to {after:.3e}"),
        }
    }
}

fn diverged(session: &dyn Session, step: u64, loss: f32) -> Harm {
    let state = session.state().unwrap_or_default();
    let first = state
        .iter()
        .find(|(_, tensor)| !is_finite(tensor))
        .map(|(name, _)| name.clone());
    let at = first.map_or(String::new(), |name| {
        format!("; the first tensor that is not finite is '{name}'")
    });
    Harm::Broken(format!("training diverged: the loss is {loss} at step {}{at}", step + 1))
}

fn of_state(state: &Tensors, graph: &StepGraph, step: u64) -> Option<Harm> {
    let step = step + 1;
    if let Some((name, _)) = state.iter().find(|(_, tensor)| !is_finite(tensor)) {
        return Some(Harm::Broken(format!(
            "training diverged: '{name}' is not finite after step {step}"
        )));
    }
    graph.floors.iter().find_map(|(name, floors)| {
        let values = state.get(name).and_then(Tensor::to_f32)?;
        // Of a step for each channel some may fall: such a channel is as good as dead.
        let fallen = values.iter().zip(floors).all(|(value, floor)| value <= floor);
        let floor = floors.first().copied().unwrap_or_default();
        fallen.then(|| {
            Harm::Broken(format!(
                "the quantizer step '{name}' has vanished after step {step}: it fell to {floor:e}"
            ))
        })
    })
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
