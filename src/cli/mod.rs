//! The command line: one file per subcommand, each with its flags and a `run`.

pub mod data;
pub mod eval;
pub mod opt;
pub mod quantize;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use lsqc_passes::ir::Model;
use lsqc_passes::pipelines;

use crate::compiler::Compiler;
use crate::config::{self, EnginePlan};
use crate::data::{Preprocess, Spec};
use crate::engine::{self, Selected};
use crate::failure::Classify;
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
    /// Read a model, run passes over it, write it again
    Opt(opt::OptArgs),
    /// Measure a model: top-1, top-5, loss
    Eval(eval::EvalArgs),
    /// Show training samples as a model gets them
    Data(data::DataArgs),
}

const EXIT_CODES: &str =
    "Exit codes: 0 good; 2 usage; 3 a gate failed; 4 bad input; 5 engine; 6 the proof failed; 130, 143 interrupted.";

/// Parses the command line, runs the command, reports what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = interrupt::listen().and_then(|()| match cli.command {
        Command::Quantize(args) => quantize::run(&args),
        Command::Opt(args) => opt::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Data(args) => data::run(&args),
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

/// Takes what a lowered model says of its own preprocessing. What `lsqc.toml` says of an input holds over it.
fn read_preprocessing(model: &Model, spec: &mut Spec) -> Result<()> {
    let Some((_, text)) = model.metadata.iter().find(|(key, _)| key == PREPROCESSING) else {
        return Ok(());
    };
    let stored: BTreeMap<String, Preprocess> = serde_json::from_str(text)
        .context("the model's metadata describes its preprocessing wrongly")
        .bad_input()?;
    for (name, how) in stored {
        spec.inputs.entry(name).or_insert(how);
    }
    Ok(())
}

/// Brings a model into plain form.
fn simplify(compiler: &mut Compiler, model: &mut Model) -> Result<()> {
    compiler.run(pipelines::SIMPLIFY, model, |_| (), |_| ())
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
