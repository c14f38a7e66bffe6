//! The command line: one file per subcommand, each with its flags and a `run`.

mod alike;
pub mod bench;
pub mod check;
pub mod completions;
pub mod data;
pub mod engines;
pub mod eval;
pub mod inspect;
pub mod opt;
pub mod quantize;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use lsqc_passes::ir::Model;
use lsqc_passes::pass::{Note, PassRun};

use crate::compiler::Compiler;
use crate::config::{self, EnginePlan};
use crate::data::{Data, Preprocess, Spec};
use crate::engine::{self, Selected};
use crate::failure::Classify;
use crate::report::PreprocessingSource;
use crate::terminal::Terminal;
use crate::{failure, interrupt};

/// The metadata key under which a lowered model says how its inputs are prepared.
const PREPROCESSING: &str = "lsqc.preprocessing";

/// A compiler that makes neural networks small without making them wrong.
#[derive(Debug, Parser)]
#[command(name = "lsqc", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a float model to few bits, lower it to integers, prove that both are the same
    Quantize(Box<quantize::QuantizeArgs>),
    /// Measure a model: top-1, top-5, loss; with --against, two on the same data
    Eval(eval::EvalArgs),
    /// Show what quantize would do with a model, and what not and why; nothing is run or written
    Inspect(inspect::InspectArgs),
    /// Check a quantized file, by lsqc or by another tool, for what a runtime would not run as it is meant
    Check(check::CheckArgs),
    /// Time inference and a training step on each engine
    Bench(bench::BenchArgs),
    /// Show training samples as a model gets them
    Data(data::DataArgs),
    /// Show which engines are there, and what helps the others
    Engines(engines::EnginesArgs),
    /// Read a model, run passes over it, write it again
    Opt(opt::OptArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

const EXIT_CODES: &str =
    "Exit codes: 0 good; 2 usage; 3 a gate failed; 4 bad input; 5 engine; 6 the proof failed; 130, 143 interrupted.";

/// Parses the command line, runs the command, reports what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = interrupt::listen().and_then(|()| match cli.command {
        Command::Quantize(args) => quantize::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Engines(args) => engines::run(&args),
        Command::Opt(args) => opt::run(&args),
        Command::Completions(args) => completions::run(&args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

/// What an engine is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Training, and what belongs to it.
    Train,
    /// Measurement alone: `auto` stays on the CPU, which integer models are made for.
    Measure,
}

/// Takes the engine that is asked for and says which, and why.
fn choose_engine(plan: &EnginePlan, purpose: Purpose, terminal: &Terminal) -> Result<Selected> {
    let choice = match plan.choice {
        config::EngineChoice::Auto if purpose == Purpose::Measure => engine::EngineChoice::AutoCpu,
        config::EngineChoice::Auto => engine::EngineChoice::Auto,
        config::EngineChoice::Tract => engine::EngineChoice::Tract,
        config::EngineChoice::Ort => engine::EngineChoice::Ort,
        config::EngineChoice::OrtCuda => engine::EngineChoice::OrtCuda,
    };
    let engine = engine::select(choice, plan.ort_lib.as_deref())?;
    terminal.note(format!("engine: {} ({})", engine.engine.describe(), engine.reason));
    Ok(engine)
}

/// Who says how a model's inputs are prepared.
struct Preprocessing {
    /// For all of its inputs.
    source: Option<PreprocessingSource>,
    /// Inputs of which lsqc.toml says something else than the model.
    overruled: Vec<String>,
}

/// Takes what a model says of its own preprocessing. It holds over what lsqc.toml says of the same input: with it the model was made.
fn read_preprocessing(model: &Model, spec: &mut Spec) -> Result<Preprocessing> {
    let stored: BTreeMap<String, Preprocess> = match model.metadata.iter().find(|(key, _)| key == PREPROCESSING) {
        None => BTreeMap::new(),
        Some((_, text)) => serde_json::from_str(text)
            .context("the model's metadata describes its preprocessing wrongly")
            .help(format!(
                "remove `{PREPROCESSING}` from the model's metadata, and say it in lsqc.toml"
            ))
            .bad_input()?,
    };
    let by_settings = spec.inputs.keys().any(|input| !stored.contains_key(input));
    let source = match (stored.is_empty(), by_settings) {
        (true, false) => None,
        (true, true) => Some(PreprocessingSource::Settings),
        (false, false) => Some(PreprocessingSource::Model),
        (false, true) => Some(PreprocessingSource::Both),
    };
    let mut overruled = Vec::new();
    for (input, own) in stored {
        let replaced = spec.inputs.insert(input.clone(), own.clone());
        overruled.extend(replaced.filter(|other| *other != own).map(|_| input));
    }
    Ok(Preprocessing { source, overruled })
}

/// The warning that a model's word about an input holds.
fn overruled(model: &str, input: &str) -> String {
    format!("{model} says of itself how '{input}' is prepared, and lsqc.toml says otherwise: the model's word holds")
}

/// Says where samples came from, to those who want details.
fn say_data(data: &Data, terminal: &Terminal) {
    for file in &data.files {
        terminal.detail(format!("data: {} ({} bytes, sha256 {})", file.name, file.bytes, file.sha256));
    }
    let labels = if data.test.has_labels() { "with" } else { "without" };
    terminal.detail(format!("data: {} samples to measure on, {labels} labels", data.test.len()));
}

/// Says what passes ran, how long, and what they declined, to those who want details.
fn details(compiler: &Compiler, terminal: &Terminal) {
    for run in &compiler.runs {
        terminal.detail(timed(run));
    }
    for note in &compiler.notes {
        terminal.detail(noted(note));
    }
}

/// A pass and its time.
fn timed(run: &PassRun) -> String {
    format!("{:>10.3} ms  {}", run.time.as_secs_f64() * 1e3, run.pass)
}

/// What a pass declined.
fn noted(note: &Note) -> String {
    format!("note: {}: {} ({}): {}", note.pass, note.node, note.op, note.reason)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
