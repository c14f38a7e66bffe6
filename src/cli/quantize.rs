//! `lsqc quantize`: the whole chain, from a float model to a proven integer one.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use lsqc_passes::ir::{Model, Tensor};
use lsqc_passes::onnx::{OwnOps, check_opset};
use lsqc_passes::pipelines;

use super::{Purpose, choose_engine, simplify};
use crate::compiler::{Compiler, serialize};
use crate::config::{Flags, Plan};
use crate::data::FileDigest;
use crate::failure::{Classify, Failure, Kind};
use crate::model_file::{self, ModelFile};
use crate::output::Staged;
use crate::report::{GateOutcome, Output, OutputRole, render};
use crate::run::{self, Outcome, Prepared};
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
    let terminal = Terminal::new(plan.verbosity);
    let engine = choose_engine(&plan.engine, Purpose::Train, &terminal)?;
    let ModelFile { model, warnings, bytes } = model_file::read(&plan.model)?;
    let input = FileDigest::of(&plan.model, &bytes);
    let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    check_opset(&model).map_err(|error| {
        let help = error.help();
        Failure::bad_input(format!("{}: {error}", plan.model.display())).help(help)
    })?;

    let mut compiler = Compiler {
        file: Some(plan.model.clone()),
        ..Compiler::default()
    };
    let mut float = model;
    simplify(&mut compiler, &mut float)?;
    check_globs(&plan, &float)?;
    check_weights(&plan, &float)?;
    let prepared = Prepared {
        float,
        engine: engine.clone(),
        threads: plan.engine.threads,
    };
    for warning in &warnings {
        terminal.warn(warning);
    }
    let (outcome, step) = run::quantize(&plan, prepared, &mut compiler, &terminal)?;
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
    let report = summary::report(frame, &outcome);
    staged.file(&plan.outputs.report, report.to_json()?.as_bytes())?;
    staged.commit()?;

    terminal.note(render(&report));
    for path in [&plan.outputs.model, &plan.outputs.report] {
        terminal.note(format!("wrote {}", path.display()));
    }
    match &report.gate {
        Some(gate) if gate.outcome == GateOutcome::Failed => {
            let drop = gate.drop.unwrap_or(f64::NAN);
            Err(Failure::new(
                Kind::Gate,
                format!(
                    "{drop:.2} points of top-1 were lost, more than --max-drop {} allows",
                    gate.max_drop
                ),
            )
            .help("train longer (--epochs), or give the layers that lose most more bits in lsqc.toml")
            .into())
        }
        _ => Ok(()),
    }
}

/// Refuses patterns of lsqc.toml that no weighted layer matches.
fn check_globs(plan: &Plan, float: &Model) -> Result<()> {
    let graph = &float.graph;
    let names: Vec<String> = graph
        .nodes()
        .filter(|(_, node)| lsqc_passes::ops::is_weighted(node))
        .map(|(_, node)| node.label(graph).into_owned())
        .collect();
    let unmatched = plan.layers.unmatched(names.iter().map(String::as_str));
    let Some(pattern) = unmatched.first() else { return Ok(()) };
    let shown: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
    let more = if names.len() > shown.len() { ", …" } else { "" };
    let config = plan.config.as_deref().unwrap_or_else(|| Path::new("lsqc.toml"));
    Err(Failure::usage(format!(
        "{}: the pattern \"{pattern}\" in [quantize] layers matches no layer",
        config.display()
    ))
    .help(format!("the layers of this model are {}{more}", shown.join(", ")))
    .into())
}

/// Refuses weights that are not finite: a Relu on some engines hides what they do.
fn check_weights(plan: &Plan, float: &Model) -> Result<()> {
    let graph = &float.graph;
    for (_, node) in graph.nodes() {
        if !lsqc_passes::ops::is_weighted(node) && !node.op.is("BatchNormalization") {
            continue;
        }
        for &operand in node.inputs().iter().flatten() {
            let values = graph[operand].constant().and_then(Tensor::to_f32).unwrap_or_default();
            if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
                let (file, name) = (plan.model.display(), graph[operand].name());
                let message = format!("{file}: '{name}' of the node '{}' holds {bad}", node.label(graph));
                return Err(Failure::bad_input(message)
                    .help("export the model again, from a training run that did not diverge")
                    .into());
            }
        }
    }
    Ok(())
}

/// Stages every file but the report; gives what they are, and the bytes of the lowered model.
fn stage_models(plan: &Plan, outcome: &Outcome, step: Option<&StepGraph>, staged: &mut Staged) -> Result<(Vec<Output>, u64)> {
    let mut outputs = Vec::new();
    let mut add = |role: OutputRole, path: &Path, bytes: &[u8]| {
        let digest = FileDigest::of(path, bytes);
        outputs.push(Output {
            role,
            file: summary::file(&digest),
        });
        digest.bytes
    };
    let lowered = signed(plan, outcome, &outcome.lowered)?;
    let bytes = serialize(&lowered, OwnOps::Refuse)?;
    let lowered_bytes = add(OutputRole::Model, &plan.outputs.model, &bytes);
    staged.file(&plan.outputs.model, &bytes)?;
    if let Some(path) = &plan.outputs.fakequant {
        let bytes = serialize(&signed(plan, outcome, &outcome.fake)?, OwnOps::Refuse)?;
        add(OutputRole::FakeQuantized, path, &bytes);
        staged.file(path, &bytes)?;
    }
    if let (Some(wanted), Some(step)) = (&plan.outputs.step, step) {
        for (path, bytes) in tune::emit(step, &wanted.folder, staged)? {
            add(OutputRole::Step, &path, &bytes);
        }
    }
    Ok((outputs, lowered_bytes))
}

/// The model with what a user of the file must know: how it was made, and how its inputs are prepared.
fn signed(plan: &Plan, outcome: &Outcome, model: &Model) -> Result<Model> {
    let mut model = model.clone();
    model.ir_version = pipelines::lowest_ir_version(model.opset()).unwrap_or(model.ir_version);
    model.set_metadata("lsqc.version", env!("CARGO_PKG_VERSION"));
    model.set_metadata("lsqc.bits", &plan.bits.to_string());
    model.set_metadata("lsqc.placement", &plan.placement.to_string());
    if outcome.data.origin == crate::data::Origin::Synthetic {
        model.set_metadata("lsqc.warning", "calibrated and trained on noise: not to be trusted");
    }
    if !plan.data.inputs.is_empty() {
        let text = serde_json::to_string(&plan.data.inputs).usage()?;
        model.set_metadata(super::PREPROCESSING, &text);
    }
    Ok(model)
}
