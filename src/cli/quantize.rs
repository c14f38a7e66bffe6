//! `lsqc quantize`: the whole chain, from a float model to a proven integer one.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use lsqc_passes::analyze::Halves;
use lsqc_passes::ir::{DType, Model};
use lsqc_passes::onnx::OwnOps;
use lsqc_passes::pipelines;

use super::{Purpose, choose_engine, details, say_data};
use crate::compiler::{Compiler, serialize};
use crate::config::{Flags, Plan};
use crate::data::FileDigest;
use crate::deploy;
use crate::failure::{Classify, Failure, Kind};
use crate::model_file;
use crate::output::Staged;
use crate::report::{GateOutcome, Output, OutputRole, render};
use crate::run::{self, Front, Outcome, Prepared};
use crate::summary::{self, Frame};
use crate::terminal::Terminal;
use crate::tune::{self, StepGraph};

const EXAMPLES: &str = "\
Examples:
  lsqc quantize model.onnx --bits 3
      settings and data from the lsqc.toml beside the model; writes model.w3a3.onnx and its report
  lsqc quantize model.onnx --bits w4a8 --data train.npz --test test.npz --max-drop 1
      fails with exit code 3 if more than 1 point of top-1 is lost
  lsqc quantize model.onnx --data images.idx3.gz,labels.idx1.gz --epochs 0
      calibrates only
  lsqc quantize model.onnx --bits 4 --target openvino --per-channel --deploy handover/
      for OpenVINO, with a folder for those who deploy it
  lsqc quantize model.onnx --bits 2 --emit-step step/ --emit-gradients
      also writes the training step as an ONNX graph";

/// The flags of `lsqc quantize`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct QuantizeArgs {
    /// All of them.
    #[command(flatten)]
    pub flags: Flags,
}

/// Runs it.
///
/// # Errors
/// Whatever stops the run; see [`crate::failure::Kind`].
pub fn run(args: &QuantizeArgs) -> Result<()> {
    let start = Instant::now();
    let plan = Plan::new(&args.flags)?;
    let terminal = Terminal::new(plan.manner);
    let engine = choose_engine(&plan.engine, Purpose::Train, &terminal)?;
    let mut compiler = Compiler {
        file: Some(plan.model.clone()),
        ..Compiler::default()
    };
    let Front {
        float,
        halves,
        mut warnings,
        input,
    } = run::read(&plan.quantization(), &mut compiler)?;
    check_sample(&plan, &halves)?;
    let prepared = Prepared {
        float,
        halves,
        engine: engine.clone(),
        threads: plan.engine.threads,
    };
    for warning in &warnings {
        terminal.warn(warning);
    }
    let done = run::quantize(&plan, prepared, &mut compiler, &terminal);
    details(&compiler, &terminal);
    let (outcome, step) = done?;
    terminal.detail(format!("data: {} samples to train on", outcome.data.train.len()));
    say_data(&outcome.data, &terminal);
    warnings.retain(|warning| !outcome.warnings.contains(warning));

    let mut staged = Staged::new();
    let (outputs, lowered_bytes) = stage_models(&plan, &outcome, step.as_ref(), &mut staged)?;
    let frame = Frame {
        plan: &plan,
        engine: &engine,
        input,
        lowered_bytes,
        outputs,
        warnings,
        elapsed: start.elapsed(),
    };
    let mut report = summary::report(frame, &outcome);
    if let (Some(folder), Some(sample)) = (&plan.outputs.deploy, &outcome.sample) {
        let model = serialize(&signed(&plan, &outcome, &outcome.lowered)?, OwnOps::Refuse)?;
        let files = deploy::stage(folder, (&plan, &engine), (&outcome, sample), &report, &model, &mut staged)?;
        report.outputs.extend(files.iter().map(|(path, bytes)| Output {
            role: OutputRole::Deployment,
            file: summary::file(&FileDigest::of(path, bytes)),
        }));
    }
    staged.file(&plan.outputs.report, report.to_json()?.as_bytes())?;
    staged.commit()?;

    terminal.note(render(&report));
    for path in [&plan.outputs.model, &plan.outputs.report]
        .into_iter()
        .chain(&plan.outputs.deploy)
    {
        terminal.note(format!("wrote {}", path.display()));
    }
    match &report.gate {
        Some(gate) if gate.outcome == GateOutcome::NotMeasured => {
            terminal.warn("--max-drop was not measured: the test data has no labels");
            Ok(())
        }
        Some(gate) if gate.outcome == GateOutcome::Failed => {
            let drop = gate.drop.unwrap_or(f64::NAN);
            let interval = gate
                .interval
                .map_or_else(String::new, |[low, high]| format!(" (95 %: {low:.2} to {high:.2})"));
            Err(Failure::new(
                Kind::Gate,
                format!(
                    "{drop:.2} points of top-1{interval} were lost, more than --max-drop {} allows",
                    gate.max_drop
                ),
            )
            .help("train longer (--epochs), or give the layers that lose most more bits in lsqc.toml")
            .into())
        }
        _ => Ok(()),
    }
}

/// Refuses a hand-over folder whose sample no file can hold.
fn check_sample(plan: &Plan, halves: &Halves) -> Result<()> {
    let has_none = |(_, dtype): &&(String, DType)| *dtype == DType::BF16;
    match halves.inputs.iter().chain(&halves.outputs).find(has_none) {
        Some((name, dtype)) if plan.outputs.deploy.is_some() => Err(Failure::usage(format!(
            "--deploy writes a sample for numpy, which has no {dtype}, the type of '{name}'"
        ))
        .help("leave --deploy out, or export the model with inputs and outputs of float16 or float")
        .into()),
        _ => Ok(()),
    }
}

/// Stages every file but the report; gives what they are, and the bytes of the lowered model.
fn stage_models(plan: &Plan, outcome: &Outcome, step: Option<&StepGraph>, staged: &mut Staged) -> Result<(Vec<Output>, u64)> {
    let mut outputs = Vec::new();
    let mut add = |role: OutputRole, files: Vec<(PathBuf, Bytes)>| {
        let digests = files.iter().map(|(path, bytes)| FileDigest::of(path, bytes));
        outputs.extend(digests.map(|digest| Output {
            role,
            file: summary::file(&digest),
        }));
        files.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    };
    let lowered = signed(plan, outcome, &outcome.lowered)?;
    let files = model_file::stage(staged, &plan.outputs.model, &lowered, OwnOps::Refuse)?;
    let lowered_bytes = add(OutputRole::Model, files);
    if let Some(path) = &plan.outputs.fakequant {
        let fake = signed(plan, outcome, &outcome.fake)?;
        add(
            OutputRole::FakeQuantized,
            model_file::stage(staged, path, &fake, OwnOps::Refuse)?,
        );
    }
    if let (Some(wanted), Some(step)) = (&plan.outputs.step, step) {
        for (path, bytes) in tune::emit(step, &wanted.folder, staged)? {
            add(OutputRole::Step, vec![(path, bytes.into())]);
        }
    }
    Ok((outputs, lowered_bytes))
}

/// The model with what a user of the file must know: how it was made, and how its inputs are prepared.
fn signed(plan: &Plan, outcome: &Outcome, model: &Model) -> Result<Model> {
    let mut model = model.clone();
    if let Some(extent) = outcome.fixed_batch {
        run::batch::restore(&mut model, extent);
    }
    model.ir_version = pipelines::lowest_ir_version(model.opset()).unwrap_or(model.ir_version);
    model.set_metadata("lsqc.version", env!("CARGO_PKG_VERSION"));
    model.set_metadata("lsqc.bits", &plan.bits.to_string());
    model.set_metadata("lsqc.target", plan.deployment.target.name);
    model.set_metadata("lsqc.placement", &plan.deployment.placement_word());
    if let Some(weight_only) = &plan.deployment.weight_only {
        model.set_metadata("lsqc.block", &weight_only.block.to_string());
    }
    if outcome.data.origin == crate::data::Origin::Synthetic {
        model.set_metadata("lsqc.warning", "calibrated and trained on noise: not to be trusted");
    }
    if !plan.data.inputs.is_empty() {
        let text = serde_json::to_string(&plan.data.inputs).usage()?;
        model.set_metadata(super::PREPROCESSING, &text);
    }
    Ok(model)
}
