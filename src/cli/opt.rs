//! `lsqc opt`: single passes over a model, for looking and for tests.

use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgAction, Args, ValueEnum};

use crate::config::check_model;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  lsqc opt --list
      the passes, a line each
  lsqc opt model.onnx -o same.onnx
      reads and writes: the result is an equal message
  lsqc opt model.onnx -p fold-constants,remove-dead-code --emit text
      prints the graph after two passes
  lsqc opt model.onnx -p fold-constants --dump-ir ir/ --time-passes";

/// How the model is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// ONNX, as a file
    #[default]
    Onnx,
    /// ONNX's textual syntax
    Text,
}

/// The flags of `lsqc opt`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct OptArgs {
    /// The model, an ONNX file
    #[arg(value_name = "MODEL", required_unless_present = "list")]
    pub model: Option<PathBuf>,
    /// Where the result goes [text without it goes to standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Passes to run, in this order
    #[arg(long, short, value_name = "PASS,PASS", value_delimiter = ',')]
    pub passes: Vec<String>,
    /// How the result is written [default: by the output's name, else onnx]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub emit: Option<Emit>,
    /// Write the graph after every pass into this folder
    #[arg(long, value_name = "DIR")]
    pub dump_ir: Option<PathBuf>,
    /// Say how long every pass takes
    #[arg(long, action = ArgAction::SetTrue)]
    pub time_passes: bool,
    /// List the passes
    #[arg(long, action = ArgAction::SetTrue)]
    pub list: bool,
}

impl OptArgs {
    /// Refuses what can be refused before the model is read.
    ///
    /// # Errors
    /// Usage, or bad input if the model is not there.
    pub fn check(&self) -> Result<()> {
        if let Some(model) = &self.model {
            check_model(model)?;
        }
        self.output.as_deref().map_or(Ok(()), output::check_file)?;
        self.dump_ir.as_deref().map_or(Ok(()), output::check_directory)
    }
}

/// Runs it.
///
/// # Errors
/// Whatever stops the run; see [`crate::failure::Kind`].
pub fn run(args: &OptArgs) -> Result<()> {
    args.check()?;
    anyhow::bail!("opt is not wired yet")
}
