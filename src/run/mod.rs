//! One run of `quantize`, from the plan to the files: the order of the stages, and nothing else.

pub mod batch;
mod channels;
mod front;
mod inputs;
mod proof;
mod statistics;
pub mod step;
mod weight_only;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use lsqc_passes::analyze::Halves;
use lsqc_passes::ir::Model;
use lsqc_passes::lower::{BlockSites, LevelSites};
use lsqc_passes::pipelines;
use lsqc_passes::quantize::Sites;
use lsqc_passes::simplify::{TargetOpset, UPGRADE_OPSET};

use crate::calibrate::{self, Calibration, Start};
use crate::compiler::{Compiler, load};
use crate::config::{BatchNorm, Loss, Plan, Size};
use crate::data::{self, Data, TrainBatches, TrainOptions};
use crate::engine::{Engine, LoadOptions, QdqFusion, Selected, Tensors};
use crate::metric::{self, Compared, Measured};
use crate::shapes;
use crate::terminal::Terminal;
use crate::tune::{self, Oscillation, StepGraph, TrainPlan};
use crate::verify::{Pair, Proof};
use crate::verify_blocks::BlockProof;
pub use batch::model_inputs;
pub use front::{Front, Plain, form, place, place_with, plain, read, restore, set_steps, step_init};
use statistics::Candidates;
use step::{Step, StepWish, step};

/// Which of the float, fake-quantized and lowered network are compared, the reference first.
pub const PAIRS: [(usize, usize); 3] = [(0, 1), (0, 2), (1, 2)];

/// One sample as a model gets it, and what the model gives for it.
pub struct Sample {
    /// By input.
    pub inputs: Tensors,
    /// By output.
    pub outputs: Tensors,
}

/// Everything that a run found out, for the report.
pub struct Outcome {
    /// Data that was used.
    pub data: Data,
    /// Where quantizers are.
    pub sites: Sites,
    /// How they started.
    pub calibration: Calibration,
    /// What passes declined.
    pub notes: Vec<lsqc_passes::pass::Note>,
    /// The float network, in plain form.
    pub float: Model,
    /// The quantized network before training.
    pub initial: Model,
    /// The quantized network after training, BatchNormalization not folded yet.
    pub trained: Model,
    /// The fake-quantized network that was lowered.
    pub fake: Model,
    /// The lowered network.
    pub lowered: Model,
    /// The first test sample and what the lowered network gives for it, where a hand-over folder is asked for.
    pub sample: Option<Sample>,
    /// What is minimised, if anything was.
    pub loss: Option<Loss>,
    /// The loss of each step.
    pub losses: Vec<f32>,
    /// What a training step was estimated to take, where a step graph was made.
    pub estimate: Option<Size>,
    /// What training took beyond what was there before its first step, where the system tells.
    pub peak: Option<Size>,
    /// What became of the weights whose oscillations were watched, by the name of the weight; empty where none were.
    pub oscillations: BTreeMap<String, Oscillation>,
    /// The learning rate of the first step.
    pub learning_rate: f64,
    /// Samples in a training batch.
    pub batch: usize,
    /// BatchNormalization as it was trained.
    pub bn: BatchNorm,
    /// Batches that BatchNormalization's statistics were taken over at the end; 0 where they were not.
    pub batch_norm_batches: u64,
    /// How each output is trained, and why.
    pub outputs: Vec<tune::Chosen>,
    /// The float, fake-quantized and lowered network on the test samples, in this order.
    pub measured: metric::Comparison,
    /// The proof by levels; of nothing where weights alone are quantized.
    pub proof: Proof,
    /// The proof by weights and results, where weights alone are quantized.
    pub block_proof: Option<BlockProof>,
    /// The batch that the file has, where the exporter fixed it and the run opened it.
    pub fixed_batch: Option<usize>,
    /// The lowered network's levels.
    pub levels: LevelSites,
    /// How long each stage took.
    pub timing: Vec<(&'static str, Duration)>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A float model that is read and checked, and the engine that will run it.
pub struct Prepared {
    /// The model in plain form.
    pub float: Model,
    /// What of it was in half precision.
    pub halves: Halves,
    /// The engine.
    pub engine: Selected,
    /// Threads; 0: the engine's choice.
    pub threads: usize,
}

/// The number of classes, where an output is `[N, classes]`.
#[must_use]
pub fn classes(model: &Model) -> Option<usize> {
    metric::scored_output(model).map(|(_, classes)| classes)
}

/// Times stages.
#[derive(Default)]
struct Clock(Vec<(&'static str, Duration)>);

impl Clock {
    fn stage<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = std::time::Instant::now();
        let done = work();
        self.0.push((name, start.elapsed()));
        done
    }
}

/// Runs the whole chain.
///
/// # Errors
/// Each stage's own, with its exit code.
#[allow(clippy::too_many_lines)]
pub fn quantize(
    plan: &Plan,
    prepared: Prepared,
    compiler: &mut Compiler,
    terminal: &Terminal,
) -> Result<(Outcome, Option<StepGraph>)> {
    let Prepared {
        mut float,
        halves,
        engine,
        threads,
    } = prepared;
    let Selected { engine, judge, .. } = engine;
    let (engine, judge): (&dyn Engine, &dyn Engine) = (engine.as_ref(), judge.as_ref());
    let options = LoadOptions {
        threads,
        qdq_fusion: QdqFusion::Off,
        ..LoadOptions::plain()
    };
    tune::check_outputs(&plan.output_rules, &float)?;
    let mut clock = Clock::default();
    let open = |model: &Model| data::open(&plan.data, &model_inputs(model), classes(model), plan.seed);
    let (data, fixed_batch, settled) = clock.stage("data", || match batch::freed(&float, compiler) {
        Err(None) => Ok((open(&float)?, None, None)),
        Err(Some(why)) => batch::kept(&float, &why).and_then(|warning| Ok((open(&float)?, None, warning))),
        Ok(freed) => {
            let data = open(&freed.model)?;
            match batch::check(&float, &freed, &data.train, engine, &options) {
                Ok(()) => {
                    let warning = batch::opened(&float);
                    float = freed.model;
                    Ok((data, Some(freed.extent), warning))
                }
                Err(why) => batch::kept(&float, &format!("{why:#}")).and_then(|warning| Ok((open(&float)?, None, warning))),
            }
        }
    })?;
    let mut warnings = data.warnings.clone();
    warnings.extend(settled);
    for warning in &warnings {
        terminal.warn(warning);
    }
    shapes::complete(&mut float, &data.train, engine, &options)?;

    let scored = metric::scored_output(&float).map(|(place, _)| place);
    let labelled = scored.filter(|_| data.train.has_labels());
    let outputs = clock.stage("outputs", || {
        tune::choose_outputs(&float, &plan.output_rules, labelled, &data.train, (engine, &options))
    })?;
    if step::is_wanted(plan) {
        tune::refuse_no_output(&outputs)?;
    }

    let asked = plan.quantization();
    let form = form(&asked);
    let init = step_init(plan.init);
    let (mut initial, mut sites) = place(&asked, compiler, &mut float)?;
    weight_only::check_engine(&asked, &sites.blocks, judge)?;
    let most = data.train.largest_batch().unwrap_or(usize::MAX);
    let mut bn = batch::batch_norm(plan.bn, &data, most, &initial, terminal);
    let of_classes = labelled.and_then(|place| outputs.get(place)?.classes).is_some();
    let loss = plan.loss(match (data.train.has_labels(), of_classes) {
        (true, true) => crate::config::Labels::Present,
        (true, false) => crate::config::Labels::Useless,
        (false, _) => crate::config::Labels::Missing,
    })?;
    let mut wanted = StepWish {
        data: &data.train,
        batch: plan.batch.min(most),
        bn,
        loss,
        outputs: tune::losses_of(&outputs),
        weight_decay: plan.weight_decay,
        oscillations: plan.oscillations,
        dialect: tune::dialect(engine),
    };
    if let Some(limit) = plan.memory.filter(|_| step::is_wanted(plan)) {
        step::check_memory(&wanted, wanted.batch, limit, compiler, (&initial, &float, &sites))?;
    }
    let unreached = if plan.length.is_zero() {
        BTreeSet::new()
    } else {
        tune::unreached(compiler, &initial, &float, &sites, &wanted.plan(1)?)?
    };
    if !unreached.is_empty() {
        (initial, sites) = place_with(&asked, &unreached, compiler, &mut float)?;
        let warning = untrained(&sites, &unreached, &compiler.notes);
        terminal.warn(&warning);
        warnings.push(warning);
    }
    let of_unreached = sites.layers.iter().filter(|layer| unreached.contains(&layer.name));
    let quantizers = of_unreached
        .flat_map(|layer| [layer.weight.clone(), layer.input.clone()])
        .collect();
    let start = Start {
        init,
        target: plan.deployment.target,
        untrained: &quantizers,
    };
    let calibration = clock.stage("calibration", || {
        calibrate::calibrate(&float, &sites, &data.train, engine, &options, start, terminal)
    })?;
    for dead in &calibration.dead {
        warnings.push(format!(
            "'{dead}' showed nothing but zeros in calibration: its step cannot be set from data"
        ));
    }
    set_steps(compiler, &mut initial, &calibration, init)?;
    if let Some(warning) = channels::coarse(&initial) {
        terminal.warn(&warning);
        warnings.push(warning);
    }
    let with = tune::Loop {
        data: &data.train,
        engine,
        options: &options,
        terminal,
    };
    if bn == BatchNorm::Batch && plan.bn.is_none() {
        let candidates = Candidates {
            float: &float,
            quantized: &initial,
            outputs: &outputs,
            form,
            wanted: &wanted,
            seed: plan.seed,
        };
        if let Some(warning) = clock.stage("statistics", || statistics::unlike(&candidates, compiler, with))? {
            terminal.warn(&warning);
            warnings.push(warning);
            bn = BatchNorm::Frozen;
            wanted.bn = bn;
        }
    }
    let Step {
        batch,
        shapes,
        graph,
        emitted,
    } = clock.stage("compilation", || {
        step(plan, &wanted, engine, compiler, (&initial, &float, &sites), &mut warnings)
    })?;
    let estimate = graph.as_ref().map(StepGraph::estimate);
    if let Some(estimate) = estimate {
        terminal.note(format!("a training step takes about {estimate} (batch {batch})"));
    }
    let batches = TrainOptions {
        batch,
        seed: plan.seed,
        augment: plan.data.augment,
    };
    let steps = plan.length.steps(TrainBatches::per_epoch(data.train.len(), batch));
    let mut trained = initial.clone();
    let (mut losses, mut peak, mut oscillations) = (Vec::new(), None, BTreeMap::new());
    let mut learning_rate = plan.rate().start();
    if let Some(graph) = graph.as_ref().filter(|_| steps > 0) {
        let train_plan = TrainPlan {
            steps,
            rate: plan.rate(),
            batches,
        };
        let result = clock.stage("training", || tune::train(graph, &train_plan, with))?;
        losses = result.losses;
        learning_rate = result.learning_rate;
        warnings.extend(result.warnings);
        peak = result.peak;
        oscillations = tune::oscillations(&result.state);
        set_constants(&mut trained, &result.state);
    }
    let mut batch_norm_batches = 0;
    if bn == BatchNorm::Batch {
        // Of images as the network will meet them.
        let plain = TrainOptions {
            augment: data::Augment::default(),
            ..batches
        };
        let estimate = || {
            let over = (plain, tune::STATISTICS_BATCHES);
            tune::reestimate(compiler, &trained, (&shapes, wanted.dialect.clone()), over, with)
        };
        let found = clock.stage("BatchNorm", estimate)?;
        batch_norm_batches = found.batches;
        set_constants(&mut trained, &found.values);
    }

    let mut fake = trained.clone();
    compiler.run(pipelines::FINISH, &mut fake, |cx| cx.set(form), |_| ())?;
    let mut lowered = fake.clone();
    let (levels, blocks): (LevelSites, BlockSites) = compiler.run(
        pipelines::LOWER,
        &mut lowered,
        |cx| cx.set(form),
        |cx| (cx.take().unwrap_or_default(), cx.take().unwrap_or_default()),
    )?;
    let opset = TargetOpset(plan.deployment.opset);
    compiler.run(&[&UPGRADE_OPSET], &mut lowered, |cx| cx.set(opset), |_| ())?;
    let pair = Pair {
        fake: &fake,
        lowered: &lowered,
        sites: &levels.0,
        form,
    };
    let on = proof::On {
        data: &data.test,
        samples: plan.proof_images,
        engine: judge,
        options: &options,
        terminal,
    };
    let (proof, block_proof) = clock.stage("proof", || proof::prove(compiler, &pair, &blocks.0, &initial.graph, &on))?;

    let mut spelled = fake.clone();
    compiler.run(pipelines::SPELL, &mut spelled, |_| (), |_| ())?;
    let integer = LoadOptions {
        qdq_fusion: QdqFusion::Default,
        ..options.clone()
    };
    let networks = [(&float, &integer), (&spelled, &options), (&lowered, &integer)].map(|(model, options)| Measured {
        model,
        data: &data.test,
        options,
    });
    let compared = compared(&outputs, networks.len());
    let measured = clock.stage("measurement", || {
        metric::compare(&networks, &compared, (scored, &PAIRS), judge, terminal)
    })?;
    for network in [&mut spelled, &mut lowered] {
        restore(&halves, network, compiler)?;
    }
    let sample = match &plan.outputs.deploy {
        None => None,
        Some(_) => {
            let inputs = front::as_halves(data.test.batch(&[0], None)?.inputs, &halves);
            let outputs = load(judge, &lowered, &integer)?.run(&inputs)?;
            Some(Sample { inputs, outputs })
        }
    };
    let outcome = Outcome {
        sample,
        data,
        sites,
        calibration,
        notes: compiler.notes.clone(),
        float,
        initial,
        trained,
        fake: spelled,
        lowered,
        loss: (!losses.is_empty()).then_some(loss),
        losses,
        estimate,
        peak,
        oscillations,
        learning_rate,
        batch,
        bn,
        batch_norm_batches,
        outputs,
        measured,
        proof,
        block_proof,
        fixed_batch,
        levels,
        timing: clock.0,
        warnings,
    };
    Ok((outcome, emitted))
}

/// Every output, at the same place in each of so many networks.
fn compared(outputs: &[tune::Chosen], networks: usize) -> Vec<Compared> {
    let of = |(place, output): (usize, &tune::Chosen)| Compared {
        places: vec![place; networks],
        classes: output.classes,
    };
    outputs.iter().enumerate().map(of).collect()
}

/// What the user should know of layers that no gradient reaches.
fn untrained(sites: &Sites, unreached: &BTreeSet<String>, notes: &[lsqc_passes::pass::Note]) -> String {
    /// Names that are shown.
    const SHOWN: usize = 8;
    let names: Vec<&str> = sites
        .layers
        .iter()
        .map(|layer| layer.name.as_str())
        .filter(|&name| unreached.contains(name))
        .collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    let stops = notes
        .iter()
        .filter(|note| note.pass == "differentiate" && note.reason.starts_with("gradients stop"));
    let mut stops: Vec<String> = stops.map(|note| format!("'{}': {}", note.node, note.reason)).collect();
    stops.truncate(SHOWN);
    let why = if stops.is_empty() {
        String::new()
    } else {
        format!(" ({})", stops.join("; "))
    };
    let shown = names.get(..SHOWN).unwrap_or(&names).join(", ");
    format!(
        "no gradient reaches {} of {} layers{why}: they are not trained, but calibrated, with 8 bits where no rule for them says otherwise: \
         {shown}{more}",
        names.len(),
        sites.layers.len()
    )
}

/// The first input that is fed and whose batch is a number, with that number.
#[must_use]
pub fn fixed_batch(model: &Model) -> Option<(String, usize)> {
    let graph = &model.graph;
    let fed = graph.inputs().iter().filter(|&&input| graph[input].initial().is_none());
    fed.filter_map(|&input| {
        let shape = graph[input].ty.as_ref()?.shape.as_ref()?;
        Some((graph[input].name().to_owned(), shape.first()?.known()?))
    })
    .next()
}

/// Gives the constants that `state` names their trained values; momentum and the like have no constant and are left out.
fn set_constants(model: &mut Model, state: &Tensors) {
    for (name, tensor) in state {
        if let Some(value) = model
            .graph
            .find(name)
            .filter(|&value| model.graph[value].constant().is_some())
        {
            model.graph.set_literal(value, tensor.clone());
        }
    }
}
