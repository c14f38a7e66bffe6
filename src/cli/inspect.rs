//! `lsqc inspect`: what `quantize` would do with a model, and what not and why.

use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgAction, Args};

use super::details;
use crate::compiler::Compiler;
use crate::config::{MessageFlags, QuantizeFlags, Settings, check_model};
use crate::inspect::inspect;
use crate::report;
use crate::terminal::{self, Terminal};

const EXAMPLES: &str = "\
Examples:
  lsqc inspect model.onnx --bits 3
      layers with their bits and multiply-adds, what stays in floats and why, which BatchNorms fold
  lsqc inspect model.onnx --bits w4a8 --placement paper --json
      the same as JSON (docs/inspect.schema.json)";

/// The flags of `lsqc inspect`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct InspectArgs {
    /// The model, an ONNX file
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// What is quantized, and to how many bits.
    #[command(flatten)]
    pub quantize: QuantizeFlags,
    /// Settings [default: lsqc.toml beside the model, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON
    #[arg(long, action = ArgAction::SetTrue)]
    pub json: bool,
    /// How much is said.
    #[command(flatten)]
    pub messages: MessageFlags,
}

/// Runs it.
///
/// # Errors
/// Whatever stops the run; see [`crate::failure::Kind`].
pub fn run(args: &InspectArgs) -> Result<()> {
    check_model(&args.model)?;
    let settings = Settings::read(&args.model, args.config.as_deref())?;
    let terminal = Terminal::new(args.messages.manner());
    let mut compiler = Compiler {
        file: Some(args.model.clone()),
        ..Compiler::default()
    };
    let (loss, _) = settings.training();
    let inspection = inspect(&settings.quantization(&args.quantize)?, loss, &mut compiler)?;
    details(&compiler, &terminal);
    for warning in &inspection.warnings {
        terminal.warn(warning);
    }
    let text = if args.json {
        report::to_json(&inspection)?
    } else {
        inspection.render()
    };
    Ok(terminal::print(&text)?)
}
