//! Times inference and training steps, engine by engine.
//!
//! Within an engine the subjects take turns: one run of each in every round, so that what slows the machine for a while slows all of them
//! alike. The first rounds warm up and are not timed; of the others the median counts. What is resident beyond the start is measured over
//! the warm-up of the training step, before the other subjects of that engine are loaded. Noise is good enough for timing, and labels are
//! made up where there are none.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use lsqc_passes::ir::{Model, Tensor};
use lsqc_passes::quantize::Sites;

use crate::calibrate::{self, Start};
use crate::compiler::{Compiler, load};
use crate::config::{BatchNorm, Loss, LossChoice, Oscillations, Quantization};
use crate::data::{self, Batch, Data, Dataset};
use crate::engine::{Engine, LoadOptions, QdqFusion, Session, Tensors};
use crate::failure::Failure;
use crate::interrupt;
use crate::report::{BenchRow, EngineBench, Measured};
use crate::run::step::StepWish;
use crate::run::{classes, place, set_steps, step_init};
use crate::shapes;
use crate::terminal::Terminal;
use crate::tune::memory::Meter;
use crate::tune::{self, Stepper};

/// Rounds that are not timed.
pub const WARM_UP: u64 = 1;
/// Samples that first steps are set from: enough to be sound, few enough not to be waited for.
const CALIBRATION: usize = 32;
/// So small that weights stay where they are, however often a step is taken.
const LEARNING_RATE: f32 = 1e-6;

/// What is timed, on each engine in turn.
pub struct Subjects {
    float: Model,
    initial: Model,
    sites: Sites,
    against: Option<Model>,
    data: Arc<dyn Dataset>,
    bn: BatchNorm,
    batch: Batch,
    /// What the training step minimises.
    pub loss: Loss,
}

/// What the training step is made for.
pub struct Wish<'a> {
    /// What is quantized, and to how many bits.
    pub asked: &'a Quantization,
    /// What is minimised, and BatchNorm in training.
    pub training: (LossChoice, BatchNorm),
    /// Samples in a batch.
    pub batch: usize,
    /// Threads; 0: the engine's choice.
    pub threads: usize,
}

/// How many rounds, and with how many threads.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// Rounds that are timed.
    pub count: u64,
    /// Threads; 0: the engine's choice.
    pub threads: usize,
}

impl Subjects {
    /// Makes the training step of `float`, a model in plain form; `engine` calibrates.
    ///
    /// # Errors
    /// Where a pass or the engine refuses the model.
    pub fn make(
        wish: &Wish,
        mut float: Model,
        against: Option<Model>,
        data: &Data,
        engine: &dyn Engine,
        compiler: &mut Compiler,
        terminal: &Terminal,
    ) -> Result<Subjects> {
        let options = LoadOptions {
            threads: wish.threads,
            qdq_fusion: QdqFusion::Off,
            ..LoadOptions::plain()
        };
        shapes::complete(&mut float, &data.train, engine, &options)?;
        let (mut initial, sites) = place(wish.asked, compiler, &mut float)?;
        let few = data::few(&data.train, CALIBRATION);
        let init = step_init(crate::config::Init::default());
        let start = Start {
            init,
            target: wish.asked.deployment.target,
            untrained: &std::collections::BTreeSet::new(),
        };
        let calibration = calibrate::calibrate(&float, &sites, &few, engine, &options, start, terminal)?;
        set_steps(compiler, &mut initial, &calibration, init)?;

        let classes = classes(&float);
        let (asked, bn) = wish.training;
        let loss = match (asked, classes) {
            (LossChoice::Kd, _) | (_, None) => Loss::Kd,
            (LossChoice::Ce, Some(_)) => Loss::Ce,
            (LossChoice::Auto | LossChoice::Both, Some(_)) => Loss::Both,
        };
        Ok(Subjects {
            batch: batch(&data.train, wish.batch, classes)?,
            data: Arc::clone(&data.train),
            float,
            initial,
            sites,
            against,
            bn,
            loss,
        })
    }

    /// Times all of them on one engine, whose step graph is its own.
    ///
    /// # Errors
    /// If a pass or the engine refuses or fails.
    pub fn time(&self, engine: &dyn Engine, rounds: Rounds, compiler: &mut Compiler, terminal: &Terminal) -> Result<EngineBench> {
        let with = StepWish {
            batch: self.batch.samples.len(),
            data: &self.data,
            bn: self.bn,
            loss: self.loss,
            outputs: std::collections::BTreeMap::new(),
            weight_decay: None,
            oscillations: Oscillations::Left,
            dialect: tune::dialect(engine),
        };
        let networks = (&self.initial, &self.float, &self.sites);
        let step = with.assemble(self.batch.samples.len(), compiler, networks)?;
        let options = LoadOptions {
            threads: rounds.threads,
            ..LoadOptions::plain()
        };
        let training = LoadOptions {
            qdq_fusion: QdqFusion::Off,
            ..options.clone()
        };
        let mut stepper = Stepper::load(&step, engine, &training)?;
        let meter = Meter::start();
        for _ in 0..WARM_UP {
            stepper.step(self.batch.clone(), LEARNING_RATE)?;
        }
        let memory_peak = meter.peak();
        let mut float = load(engine, &self.float, &options)?;
        let mut against = self.against.as_ref().map(|model| load(engine, model, &options)).transpose()?;
        let mut times: [Vec<f64>; 3] = Default::default();
        let progress = terminal.progress(&format!("bench {}", engine.name()), WARM_UP + rounds.count);
        for round in 0..WARM_UP + rounds.count {
            interrupt::check()?;
            let timed = [
                Some(seconds(|| infer(float.as_mut(), &self.batch.inputs))?),
                // Warm already.
                (round >= WARM_UP)
                    .then(|| seconds(|| stepper.step(self.batch.clone(), LEARNING_RATE).map(drop)))
                    .transpose()?,
                against
                    .as_mut()
                    .map(|session| seconds(|| infer(session.as_mut(), &self.batch.inputs)))
                    .transpose()?,
            ];
            if round >= WARM_UP {
                for (times, time) in times.iter_mut().zip(timed) {
                    times.extend(time);
                }
            }
            progress.advance(1, "");
        }
        drop(progress);
        Ok(EngineBench {
            name: engine.name().to_owned(),
            description: engine.version(),
            memory_estimate: step.estimate().bytes(),
            rows: self.rows(times, memory_peak),
        })
    }

    #[allow(clippy::cast_precision_loss)]
    fn rows(&self, times: [Vec<f64>; 3], memory_peak: Option<u64>) -> Vec<BenchRow> {
        let samples = self.batch.samples.len() as f64;
        let mut first = None;
        let whats = [Measured::FloatInference, Measured::TrainingStep, Measured::AgainstInference];
        let rows = whats.into_iter().zip(times).filter_map(|(what, mut times)| {
            times.sort_by(f64::total_cmp);
            let seconds = median(&times)?;
            Some(BenchRow {
                what,
                seconds,
                least: *times.first()?,
                most: *times.last()?,
                ratio: seconds / *first.get_or_insert(seconds),
                samples_per_second: samples / seconds,
                memory_peak: memory_peak.filter(|_| what == Measured::TrainingStep),
            })
        });
        rows.collect()
    }
}

/// The middle of sorted numbers, or the mean of the two in the middle.
fn median(sorted: &[f64]) -> Option<f64> {
    let (low, high) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
    Some(f64::midpoint(*sorted.get(low)?, *sorted.get(high)?))
}

fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

fn infer(session: &mut dyn Session, inputs: &Tensors) -> Result<()> {
    session.run(inputs).map(drop)
}

/// The first samples, gone round until the batch is full, with labels made up where there are none.
fn batch(data: &Arc<dyn Dataset>, size: usize, classes: Option<usize>) -> Result<Batch> {
    anyhow::ensure!(!data.is_empty(), Failure::bad_input("there is no sample to run on"));
    let samples: Vec<usize> = (0..size).map(|sample| sample % data.len()).collect();
    let mut batch = data.batch(&samples, None)?;
    if let (None, Some(classes)) = (&batch.labels, classes.filter(|&classes| classes > 0)) {
        let label = |sample: usize| i64::try_from(sample % classes).context("there are absurdly many classes");
        let labels: Vec<i64> = (0..size).map(label).collect::<Result<_>>()?;
        batch.labels = Some(Tensor::vector(labels));
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[1.0, 2.0]), Some(1.5));
        assert_eq!(median(&[1.0, 2.0, 9.0]), Some(2.0));
    }
}
