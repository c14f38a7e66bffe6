//! The proof of a run: by levels where activations are quantized, else by weights and results. One that does not hold ends the run.

use std::sync::Arc;

use anyhow::Result;
use lsqc_passes::ir::Graph;
use lsqc_passes::lower::BlockSite;

use crate::compiler::Compiler;
use crate::data::Dataset;
use crate::engine::{Engine, LoadOptions};
use crate::failure::{Failure, Kind};
use crate::terminal::Terminal;
use crate::verify::{self, Pair, Proof};
use crate::verify_blocks::{self, BlockPair, BlockProof};

/// On what it runs.
pub(super) struct On<'a> {
    pub(super) data: &'a Arc<dyn Dataset>,
    pub(super) samples: usize,
    pub(super) engine: &'a dyn Engine,
    pub(super) options: &'a LoadOptions,
    pub(super) terminal: &'a Terminal,
}

/// Proves the lowered graph of `pair`; `blocks` is where weights alone are quantized, and `initial` names layers as before training.
///
/// # Errors
/// Proof, if it does not hold; else what the engine says.
pub(super) fn prove(
    compiler: &mut Compiler,
    pair: &Pair,
    blocks: &[BlockSite],
    initial: &Graph,
    on: &On,
) -> Result<(Proof, Option<BlockProof>)> {
    if blocks.is_empty() {
        let proof = verify::prove(compiler, pair, on.data, on.samples, on.engine, on.options, on.terminal)?;
        let broken = proof.broken().map(|broken| {
            format!(
                "at '{}' {} of {} levels differ",
                verify::layer_of(initial, &broken.value),
                broken.mismatches,
                broken.levels
            )
        });
        return held(broken).map(|()| (proof, None));
    }
    let pair = BlockPair {
        fake: pair.fake,
        lowered: pair.lowered,
        sites: blocks,
    };
    let proof = verify_blocks::prove(compiler, &pair, on.data, on.samples, on.engine, on.options, on.terminal)?;
    held(proof.broken())?;
    let none = Proof {
        samples: proof.samples,
        ..Proof::default()
    };
    Ok((none, Some(proof)))
}

fn held(broken: Option<String>) -> Result<()> {
    let Some(broken) = broken else { return Ok(()) };
    Err(
        Failure::new(Kind::Proof, format!("the lowered graph is not the trained one: {broken}"))
            .help("this is a defect of lsqc or of the engine: please report it with the model")
            .into(),
    )
}
