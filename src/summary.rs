//! From what a run found out to its report.

use std::collections::BTreeMap;
use std::time::Duration;

use lsqc_passes::ir::Model;
use lsqc_passes::lower::Fixed;
use lsqc_passes::pipelines::lowest_ir_version;
use lsqc_passes::target::{BlockForm, Sums};
use lsqc_passes::train::OutputKind;

use crate::calibrate::SignReason;
use crate::config::{Deployment, Granularity, Loss, Oscillations, Plan, Size};
use crate::data::{FileDigest, Origin, TestOrigin};
use crate::engine::Selected;
use crate::report::{
    self, BlockLayerProof, DataOrigin, Gate, GateOutcome, Layer, LayerProof, LossPoint, Metric, Metrics, ModelOutput, Note,
    Oscillating, Output, OutputProof, Phase, Proof, Report, Requires, Settings, Site, Sizes, Status, TensorReport, TestSet,
    Timing, Tool, Training, drop_of,
};
use crate::run::{Outcome, PAIRS};
use crate::tune::{Chosen, Oscillation};
use crate::verify::{Compared, layer_of};
use crate::verify_blocks::{self, ComparedBlocks};

/// Points of the loss curve that the report keeps.
const LOSS_POINTS: usize = 50;

/// What is known besides the outcome.
pub struct Frame<'a> {
    /// What was asked for.
    pub plan: &'a Plan,
    /// What ran the graphs.
    pub engine: &'a Selected,
    /// The float model's file.
    pub input: FileDigest,
    /// Bytes of the lowered model.
    pub lowered_bytes: u64,
    /// What was written.
    pub outputs: Vec<Output>,
    /// Warnings from reading the model.
    pub warnings: Vec<String>,
    /// The whole run.
    pub elapsed: Duration,
}

/// The report of a run.
#[must_use]
pub fn report(frame: Frame, outcome: &Outcome) -> Report {
    let metrics = metrics(outcome);
    let gate = frame.plan.max_drop.map(|max_drop| gate(max_drop, &metrics));
    let failed = gate.as_ref().is_some_and(|gate| gate.outcome == GateOutcome::Failed);
    let (not_quantized, notes) = notes(outcome);
    Report {
        schema_version: report::SCHEMA_VERSION,
        tool: Tool::this(),
        status: if failed { Status::GateFailed } else { Status::Passed },
        warnings: frame.warnings.iter().chain(&outcome.warnings).cloned().collect(),
        input: file(&frame.input),
        outputs: frame.outputs.clone(),
        data: data(outcome),
        settings: settings(frame.plan, outcome),
        engine: report::Engine {
            name: frame.engine.engine.name().to_owned(),
            description: frame.engine.engine.version(),
            reason: frame.engine.reason.clone(),
        },
        layers: layers(outcome),
        not_quantized,
        notes,
        training: training(outcome),
        proof: proof(&frame, outcome),
        sizes: sizes(&frame, outcome),
        requires: requires(frame.plan, outcome),
        timing: timing(&frame, outcome),
        metrics: Some(metrics),
        gate,
    }
}

/// The report's word for a file that was read or written.
#[must_use]
pub fn file(digest: &FileDigest) -> report::File {
    report::File {
        name: digest.name.clone(),
        bytes: digest.bytes,
        sha256: digest.sha256.clone(),
    }
}

fn data(outcome: &Outcome) -> report::Data {
    let data = &outcome.data;
    report::Data {
        origin: if data.origin == Origin::Real {
            DataOrigin::Real
        } else {
            DataOrigin::Synthetic
        },
        files: data.files.iter().map(file).collect(),
        train_samples: data.train.len() as u64,
        test_samples: data.test.len() as u64,
        test_set: match data.test_origin {
            TestOrigin::Given => TestSet::Given,
            TestOrigin::Split { .. } => TestSet::Split,
            TestOrigin::Synthetic => TestSet::Synthetic,
        },
        labels: data.train.has_labels(),
    }
}

fn settings(plan: &Plan, outcome: &Outcome) -> Settings {
    Settings {
        weight_bits: plan.bits.weights(),
        activation_bits: plan.bits.activations(),
        block: plan
            .deployment
            .weight_only
            .as_ref()
            .map(|weight_only| weight_only.block as u64),
        placement: plan.deployment.placement_word(),
        target: plan.deployment.target.name.to_owned(),
        per_channel: plan.deployment.granularity == Granularity::PerChannel,
        storage: storage(plan),
        no_vnni: plan.deployment.sums == Sums::SixteenBit,
        init: plan.init.to_string(),
        loss: outcome.loss.map(|loss: Loss| loss.to_string()),
        steps: outcome.losses.len() as u64,
        batch: outcome.batch as u64,
        learning_rate: outcome.learning_rate,
        weight_decay: plan.weight_decay,
        batch_norm: outcome.bn.to_string(),
        freeze_oscillating: plan.oscillations == Oscillations::Frozen,
        seed: plan.seed,
        threads: plan.engine.threads as u64,
    }
}

/// The smallest type that weights are stored in.
fn storage(plan: &Plan) -> String {
    let Deployment {
        target,
        storage,
        weight_only,
        ..
    } = &plan.deployment;
    match weight_only {
        Some(_) => format!("int{}", target.stored_in_blocks(plan.bits.weights().into())),
        None => storage.to_string(),
    }
}

/// A quantizer in a model, with its steps.
#[must_use]
pub fn quantizer(model: &Model, value: &str) -> Option<Fixed> {
    let (_, fixed) = Fixed::behind(&model.graph, model.graph.find(value)?)?;
    Some(fixed)
}

/// The middle one of a quantizer's steps.
fn median(fixed: &Fixed) -> f64 {
    let mut steps = fixed.steps.clone();
    steps.sort_by(f32::total_cmp);
    steps.get(steps.len() / 2).copied().map_or(f64::NAN, f64::from)
}

#[allow(clippy::cast_precision_loss)]
fn weights(outcome: &Outcome, value: &str) -> Option<TensorReport> {
    let first = quantizer(&outcome.initial, value)?;
    let last = quantizer(&outcome.trained, value)?;
    let weight = outcome.trained.graph[last.x].constant()?;
    let values = weight.to_f32()?;
    let (lo, hi) = last.quantizer.range.bounds();
    let (mut clipped, mut error) = (0u64, 0.0);
    for (index, (&v, level)) in values.iter().zip(last.levels(weight)?).enumerate() {
        let step = last.step_at(weight.shape(), index);
        clipped += u64::from(v / step > hi || v / step < lo);
        error += (f64::from(step) * f64::from(level) - f64::from(v)).powi(2);
    }
    let count = values.len().max(1) as f64;
    Some(TensorReport {
        bits: u8::try_from(last.quantizer.range.bits).unwrap_or(u8::MAX),
        signed: true,
        signed_reason: "weights are signed".to_owned(),
        steps: last.steps.len() as u64,
        block: last.quantizer.block.map(|block| block as u64),
        first_step: median(&first),
        last_step: median(&last),
        clipped: Some(clipped as f64 / count),
        mean_squared_error: Some(error / count),
    })
}

#[allow(clippy::cast_precision_loss)]
fn activation(outcome: &Outcome, value: &str) -> Option<TensorReport> {
    let first = quantizer(&outcome.initial, value)?;
    let last = quantizer(&outcome.trained, value)?;
    let seen: Option<&Compared> = outcome.proof.sites.iter().find(|site| site.value == value);
    let share = |part: f64| seen.filter(|seen| seen.levels > 0).map(|seen| part / seen.levels as f64);
    let reason = outcome
        .calibration
        .reasons
        .get(value)
        .map_or_else(String::new, SignReason::to_string);
    let below = seen.map_or(0, |seen| seen.below);
    let reason = if below > 0 {
        format!("{reason}; {below} values below 0 were met in the proof and clipped")
    } else {
        reason
    };
    Some(TensorReport {
        bits: u8::try_from(last.quantizer.range.bits).unwrap_or(u8::MAX),
        signed: last.quantizer.range.signed,
        signed_reason: reason,
        steps: last.steps.len() as u64,
        block: last.quantizer.block.map(|block| block as u64),
        first_step: median(&first),
        last_step: median(&last),
        clipped: share(seen.map_or(0.0, |seen| seen.clipped as f64)),
        mean_squared_error: share(seen.map_or(0.0, |seen| seen.squared_error)),
    })
}

/// Weighted layers with their inputs, products of two activations with both of theirs, then the quantizers that only joins and pools take.
fn layers(outcome: &Outcome) -> Vec<Layer> {
    let mut inputs: BTreeMap<&str, usize> = BTreeMap::new();
    let mut layers = Vec::new();
    for layer in &outcome.sites.layers {
        inputs.insert(&layer.input, layers.len());
        layers.push(Layer {
            name: layer.name.clone(),
            op: layer.op.clone(),
            weights: weights(outcome, &layer.weight),
            activations: activation(outcome, &layer.input).into_iter().collect(),
            oscillating: layer_oscillations(outcome, &layer.weight).and_then(|seen| oscillating(&[seen])),
        });
    }
    layers.extend(outcome.sites.blocks.iter().map(|layer| Layer {
        name: layer.name.clone(),
        op: layer.op.clone(),
        weights: weights(outcome, &layer.weight),
        activations: Vec::new(),
        oscillating: None,
    }));
    for product in &outcome.sites.products {
        for input in &product.inputs {
            inputs.insert(input, layers.len());
        }
        layers.push(Layer {
            name: product.name.clone(),
            op: product.op.clone(),
            weights: None,
            activations: product.inputs.iter().filter_map(|input| activation(outcome, input)).collect(),
            oscillating: None,
        });
    }
    for site in &outcome.sites.activations {
        if inputs.contains_key(site.value.as_str()) {
            continue;
        }
        let graph = &outcome.initial.graph;
        let user = graph
            .find(&site.value)
            .and_then(|value| graph[value].uses().first().map(|used| &graph[used.node]));
        let op = user.map_or_else(String::new, |node| node.op.name.to_string());
        layers.push(Layer {
            name: site.source.clone(),
            op,
            weights: None,
            activations: activation(outcome, &site.value).into_iter().collect(),
            oscillating: None,
        });
    }
    layers
}

/// What was seen of the stored weight behind the quantized one.
fn layer_oscillations(outcome: &Outcome, quantized: &str) -> Option<Oscillation> {
    let graph = &outcome.initial.graph;
    let (_, node) = graph.producer(graph.find(quantized)?)?;
    outcome.oscillations.get(graph[node.input(0)?].name()).copied()
}

/// Of all weights together; none where there are none.
#[allow(clippy::cast_precision_loss)]
fn oscillating(seen: &[Oscillation]) -> Option<Oscillating> {
    let sum = |count: fn(&Oscillation) -> u64| seen.iter().map(count).sum::<u64>();
    let weights = sum(|seen| seen.elements);
    let share = |part: u64| part as f64 / weights as f64;
    (weights > 0).then(|| Oscillating {
        weights,
        share: share(sum(|seen| seen.oscillating)),
        frozen: share(sum(|seen| seen.frozen)),
    })
}

fn notes(outcome: &Outcome) -> (Vec<Site>, Vec<Note>) {
    const STAYS: &str = "stays in floats: ";
    let mut sites: Vec<Site> = Vec::new();
    let mut notes = Vec::new();
    for note in &outcome.notes {
        match note.reason.strip_prefix(STAYS) {
            Some(reason) => {
                let site = Site {
                    name: note.node.clone(),
                    op: note.op.clone(),
                    reason: reason.to_owned(),
                };
                if !sites.contains(&site) {
                    sites.push(site);
                }
            }
            None => {
                notes.push(Note {
                    pass: note.pass.to_owned(),
                    node: Some(note.node.clone()),
                    message: note.reason.clone(),
                });
            }
        }
    }
    (sites, notes)
}

fn training(outcome: &Outcome) -> Option<Training> {
    if outcome.losses.is_empty() {
        return None;
    }
    let steps = outcome.losses.len();
    let every = steps.div_ceil(LOSS_POINTS).max(1);
    let shown = |step: &usize| step.is_multiple_of(every) || *step == steps - 1;
    let losses = (0..steps).filter(shown).filter_map(|step| {
        let loss = f64::from(*outcome.losses.get(step)?);
        Some(LossPoint { step: step as u64, loss })
    });
    let per_epoch = crate::data::TrainBatches::per_epoch(outcome.data.train.len(), outcome.batch);
    Some(Training {
        steps: steps as u64,
        epochs: steps.div_ceil(per_epoch) as u64,
        losses: losses.collect(),
        batch_norm_batches: outcome.batch_norm_batches,
        memory_estimate: outcome.estimate.map(Size::bytes),
        oscillating: oscillating(&outcome.oscillations.values().copied().collect::<Vec<Oscillation>>()),
    })
}

fn metrics(outcome: &Outcome) -> Metrics {
    let measured = &outcome.measured;
    let answers = [0, 1, 2].map(|side: usize| measured.scores.get(side)?.as_ref()?.outcomes());
    let [float, fake_quantized, lowered] = [0, 1, 2].map(|i: usize| Metric::of(answers.get(i)?.as_ref()?));
    let drop = match (&answers[0], &answers[2]) {
        (Some(before), Some(after)) => drop_of(before, after),
        _ => None,
    };
    let [_, float_lowered, fake_quantized_lowered] = PAIRS;
    Metrics {
        float,
        fake_quantized,
        lowered,
        drop,
        float_lowered: measured.agreement(1, float_lowered),
        fake_quantized_lowered: measured.agreement(2, fake_quantized_lowered),
        outputs: outcome
            .outputs
            .iter()
            .enumerate()
            .map(|(at, output)| model_output(outcome, at, output))
            .collect(),
    }
}

fn model_output(outcome: &Outcome, at: usize, output: &Chosen) -> ModelOutput {
    let fidelity = |pair: usize| {
        let seen = outcome.measured.pairs.get(pair).and_then(|outputs| outputs.get(at));
        seen.cloned().unwrap_or_default().report()
    };
    ModelOutput {
        name: output.name.clone(),
        kind: match output.loss.kind {
            OutputKind::Classes => report::OutputKind::Classes,
            OutputKind::Probabilities => report::OutputKind::Probabilities,
            OutputKind::Values => report::OutputKind::Values,
            OutputKind::Cosine => report::OutputKind::Cosine,
            OutputKind::Ignored => report::OutputKind::Ignored,
        },
        reason: output.reason.clone(),
        weight: (output.loss.kind != OutputKind::Ignored).then(|| f64::from(output.loss.weight)),
        fake_quantized: fidelity(0),
        lowered: fidelity(1),
    }
}

fn gate(max_drop: f64, metrics: &Metrics) -> Gate {
    let drop = metrics.drop.as_ref();
    Gate {
        max_drop,
        drop: drop.map(|drop| drop.points),
        interval: drop.map(|drop| drop.interval),
        outcome: match drop {
            None => GateOutcome::NotMeasured,
            Some(drop) if drop.points > max_drop => GateOutcome::Failed,
            Some(_) => GateOutcome::Passed,
        },
    }
}

fn proof(frame: &Frame, outcome: &Outcome) -> Proof {
    let layer = |site: &Compared| LayerProof {
        name: layer_of(&outcome.initial.graph, &site.value),
        compared: site.levels,
        mismatches: site.mismatches,
        ties: site.ties,
    };
    let mut remarks = Vec::new();
    if frame.engine.quant_precision() {
        remarks.push("this CPU's fast 8-bit sums saturate at 16 bits: session.x64quantprecision=1 was set".to_owned());
    }
    let Selected { engine, judge, .. } = frame.engine;
    let weight_only = frame.plan.deployment.weight_only.as_ref();
    if weight_only.is_some_and(|weight_only| weight_only.has.form == BlockForm::Int4) && judge.name() == "ort" {
        remarks.push(
            "ONNX Runtime rounds activations before int4 weights to int8 by itself: session.qdq_matmulnbits_accuracy_level=1 was set".to_owned(),
        );
    }
    if engine.name() != judge.name() {
        remarks.push(format!(
            "the proof and the measurement ran on {}, which the integer model is made for",
            judge.version()
        ));
    }
    let of_blocks = |layer: &ComparedBlocks| BlockLayerProof {
        name: layer.layer.clone(),
        weights: layer.weights,
        different: layer.different,
        results: layer.results,
        beyond: layer.beyond,
        largest: Some(layer.largest).filter(|largest| largest.is_finite()),
    };
    let blocks = outcome.block_proof.as_ref();
    Proof {
        images: outcome.proof.samples as u64,
        layers: outcome.proof.sites.iter().map(layer).collect(),
        blocks: blocks.map_or_else(Vec::new, |proof| proof.layers.iter().map(of_blocks).collect()),
        outputs: blocks.map(|proof| OutputProof {
            largest: proof.outputs,
            allowed: verify_blocks::OUTPUTS,
        }),
        remarks,
    }
}

/// What a runtime must have to load the file.
fn requires(plan: &Plan, outcome: &Outcome) -> Requires {
    let opset = outcome.lowered.opset();
    let Deployment {
        target,
        storage,
        weight_only,
        ..
    } = &plan.deployment;
    let by_blocks = weight_only.as_ref().and_then(|weight_only| {
        let layers = outcome.sites.blocks.iter();
        layers.filter_map(|layer| weight_only.has.oldest(layer.bits)).max()
    });
    let oldest = target.oldest(opset, *storage);
    Requires {
        runtime: target.title.to_owned(),
        version: oldest.map(|oldest| by_blocks.map_or(oldest, |version| version.max(oldest)).to_string()),
        opset,
        ir_version: lowest_ir_version(opset).unwrap_or(outcome.lowered.ir_version),
    }
}

fn sizes(frame: &Frame, outcome: &Outcome) -> Sizes {
    let graph = &outcome.trained.graph;
    let Deployment { target, storage, .. } = frame.plan.deployment;
    let mut sizes = Sizes {
        float_model: frame.input.bytes,
        lowered_model: frame.lowered_bytes,
        float_weights: 0,
        stored_weights: 0,
        block_steps: 0,
        packed_weights: 0,
    };
    for (_, weight, bits) in outcome.sites.weights() {
        let found = quantizer(&outcome.trained, weight);
        let Some(fixed) = found else { continue };
        let Some(tensor) = graph[fixed.x].constant() else { continue };
        let (count, steps) = (tensor.len() as u64, fixed.steps.len() as u64);
        let (elements, stored) = match fixed.quantizer.block {
            // The last block is filled up where the file has whole blocks.
            Some(block) if target.weight_only.is_some_and(|has| has.form == BlockForm::MatMulNBits) => {
                sizes.block_steps += 4 * steps;
                (steps * block as u64, target.stored_in_blocks(bits))
            }
            Some(_) => {
                sizes.block_steps += 4 * steps;
                (count, target.stored_in_blocks(bits))
            }
            None => (count, storage.stored_bits(bits)),
        };
        sizes.float_weights += count * 4;
        sizes.stored_weights += (elements * u64::from(stored)).div_ceil(8);
        sizes.packed_weights += (count * u64::from(bits)).div_ceil(8);
    }
    sizes
}

#[allow(clippy::cast_precision_loss)]
fn timing(frame: &Frame, outcome: &Outcome) -> Timing {
    let phase = |(name, time): &(&str, Duration)| Phase {
        name: (*name).to_owned(),
        seconds: time.as_secs_f64(),
    };
    let trained = outcome
        .timing
        .iter()
        .find(|(name, _)| *name == "training")
        .map(|(_, time)| time.as_secs_f64());
    Timing {
        seconds: frame.elapsed.as_secs_f64(),
        phases: outcome.timing.iter().map(phase).collect(),
        steps_per_second: trained
            .filter(|&time| time > 0.0)
            .map(|time| outcome.losses.len() as f64 / time),
        memory_peak: outcome.peak.map(Size::bytes),
    }
}
