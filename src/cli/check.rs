//! `lsqc check`: a finished quantized file against the rules of a target.
//!
//! Refused are a runtime's version that is none, and one of a target whose versions lsqc does not know. Findings are printed first; then the run
//! ends as a gate that failed.

use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgAction, Args};
use lsqc_passes::check::{check, rules_of};
use lsqc_passes::target::{self, TARGETS, Version};

use crate::config::{Target, check_model};
use crate::data::FileDigest;
use crate::failure::{Failure, Kind};
use crate::model_file::{self, ModelFile};
use crate::report::{self, CheckFinding, Checked, Tool};
use crate::{summary, terminal};

const EXAMPLES: &str = "\
Examples:
  lsqc check model.w3a3.onnx --target ort
      what ONNX Runtime would refuse, compute otherwise, or run in floats; nothing where the file is right
  lsqc check model.int8.onnx --target tensorrt --json
      a file by any tool, as JSON (docs/check.schema.json)
  lsqc check model.w4a8.onnx --target ort --runtime 1.23
      also whether that version loads it
The rules of each target are listed in docs/checks.md. Exit code 3: a rule is broken.";

/// The flags of `lsqc check`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// The quantized model, an ONNX file by lsqc or by another tool
    #[arg(value_name = "FILE")]
    pub model: PathBuf,
    /// The runtime whose rules must hold
    #[arg(long, value_enum, value_name = "TARGET")]
    pub target: Target,
    /// The version of the runtime that must load the file, such as 1.23
    #[arg(long, value_name = "VERSION")]
    pub runtime: Option<String>,
    /// Print JSON
    #[arg(long, action = ArgAction::SetTrue)]
    pub json: bool,
}

/// Runs it.
///
/// # Errors
/// Bad input for a file that cannot be read; usage for the version; a gate where a rule is broken.
pub fn run(args: &CheckArgs) -> Result<()> {
    let target = described(args.target);
    let runtime = version(target, args.runtime.as_deref())?;
    check_model(&args.model)?;
    let ModelFile { model, warnings, bytes } = model_file::read(&args.model)?;
    let findings = check(&model, target, runtime);
    let checked = Checked {
        schema_version: report::SCHEMA_VERSION,
        tool: Tool::this(),
        model: summary::file(&FileDigest::of(&args.model, &bytes)),
        target: target.name.to_owned(),
        runtime: runtime.map(|version| version.to_string()),
        opset: model.opset(),
        ir_version: model.ir_version,
        warnings: warnings.iter().map(ToString::to_string).collect(),
        rules: rules_of(target).iter().map(|rule| rule.id.to_owned()).collect(),
        findings: findings
            .into_iter()
            .map(|finding| CheckFinding {
                rule: finding.rule.to_owned(),
                node: finding.node,
                op: finding.op,
                what: finding.what,
                says: finding.says.to_owned(),
                cure: finding.cure.to_owned(),
            })
            .collect(),
    };
    let text = if args.json {
        report::to_json(&checked)?
    } else {
        checked.render()
    };
    terminal::print(&text)?;
    if checked.findings.is_empty() {
        return Ok(());
    }
    let message = format!("{} is not as {} needs it", args.model.display(), target.title);
    let help = format!(
        "the findings say what helps; docs/checks.md lists the rules of \"{}\"",
        target.name
    );
    Err(Failure::new(Kind::Gate, message).help(help).into())
}

fn described(choice: Target) -> &'static target::Target {
    let name = choice.to_string();
    let of_name = TARGETS.iter().find(|target| target.name == name);
    of_name.copied().unwrap_or(&target::ORT)
}

fn version(target: &target::Target, text: Option<&str>) -> Result<Option<Version>> {
    let Some(text) = text else { return Ok(None) };
    if target.opsets.is_empty() {
        let message = format!("--runtime: lsqc does not know what versions of {} load", target.title);
        return Err(Failure::usage(message).help("leave it out").into());
    }
    let version = text.parse().map_err(|why| Failure::usage(format!("--runtime: {why}")))?;
    Ok(Some(version))
}
