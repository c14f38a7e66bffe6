//! `lsqc eval`: top-1, top-5 and loss of any classifier on labelled data.

use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgAction, Args};

use crate::config::{DataFlags, EngineFlags, check_model, data_spec};

const EXAMPLES: &str = "\
Examples:
  lsqc eval model.onnx --data data/
      measures on the folder's test files
  lsqc eval model.w3a3.onnx --data test.npz --json
      preprocessing is read from the model, where lsqc wrote it";

/// The flags of `lsqc eval`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct EvalArgs {
    /// The model, an ONNX file
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Where data comes from.
    #[command(flatten)]
    pub data: DataFlags,
    /// What runs graphs.
    #[command(flatten)]
    pub engine: EngineFlags,
    /// Samples in a batch
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub batch: usize,
    /// Print JSON
    #[arg(long, action = ArgAction::SetTrue)]
    pub json: bool,
    /// Say nothing but the result, warnings and errors
    #[arg(long, short, action = ArgAction::SetTrue)]
    pub quiet: bool,
}

/// Runs it.
///
/// # Errors
/// Whatever stops the run; see [`crate::failure::Kind`].
pub fn run(args: &EvalArgs) -> Result<()> {
    check_model(&args.model)?;
    let (settings, spec) = data_spec(&args.model, &args.data)?;
    if spec.train.is_none() && spec.test.is_none() {
        return Err(crate::data::no_data("there is no data to measure on").into());
    }
    let engine = settings.engine(&args.engine);
    anyhow::bail!("eval is not wired yet: {} on {}", args.model.display(), engine.choice)
}
