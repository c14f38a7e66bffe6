//! `lsqc quantize`: the whole chain, from a float model to a proven integer one.

use anyhow::Result;
use clap::Args;

use crate::config::{Flags, Plan};

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
    let plan = Plan::new(&args.flags)?;
    anyhow::bail!(
        "quantize is not wired yet: {} would become {}",
        plan.model.display(),
        plan.outputs.model.display()
    )
}
