//! Which statistics BatchNormalization has in training and after it: those of the data's batches, or the model's own.
//!
//! The paper trains on batches' statistics. Data of another kind than the model was trained on has others, and a network that was right with
//! its own starts from far away: so it keeps them, where the quantized network is sound with them and is not with those of the data. At few
//! bits it is sound with neither, and training on the data's statistics adapts to them.

use anyhow::Result;
use lsqc_passes::ir::Model;
use lsqc_passes::lower::Form;
use lsqc_passes::pipelines;
use lsqc_passes::train::OutputKind;

use super::step::StepWish;
use super::{compared, set_constants};
use crate::compiler::Compiler;
use crate::data::{self, Augment, TrainOptions};
use crate::metric::{self, Measured};
use crate::tune::{self, Chosen, Loop};

/// Batches that the data's statistics are taken over, and the most samples in one: enough to tell, whatever a training step may hold.
const BATCHES: u64 = 8;
const LARGEST_BATCH: usize = 32;
/// Samples that outputs are compared on.
const SAMPLES: usize = 64;
/// A network is sound whose outputs have ten times the power of their noise, in dB: the float model's answers can be told by them. Statistics of
/// a few batches of the right data leave that of 8 bits far above, those of other data far below.
const SOUND_DB: f64 = 10.0;
/// How much nearer outputs must be with the model's own statistics: with the others their noise has twice the power.
const MARGIN_DB: f64 = 3.0;

/// What is compared.
pub(super) struct Candidates<'a> {
    /// The float network.
    pub float: &'a Model,
    /// The quantized one, its steps set.
    pub quantized: &'a Model,
    /// The network's outputs.
    pub outputs: &'a [Chosen],
    /// How it is lowered.
    pub form: Form,
    /// How it would be trained.
    pub wanted: &'a StepWish<'a>,
    /// Decides the batches.
    pub seed: u64,
}

/// What the user should know where the network had better keep its own statistics.
///
/// # Errors
/// If a pass or the engine fails.
pub(super) fn unlike(of: &Candidates, compiler: &mut Compiler, with: Loop) -> Result<Option<String>> {
    let options = TrainOptions {
        batch: of.wanted.batch.min(LARGEST_BATCH),
        seed: of.seed,
        augment: Augment::default(),
    };
    let shapes = of.wanted.plan(options.batch)?.shapes;
    let found = tune::reestimate(
        compiler,
        of.quantized,
        (&shapes, of.wanted.dialect.clone()),
        (options, BATCHES),
        with,
    )?;
    if found.values.is_empty() {
        return Ok(None);
    }
    let mut renewed = of.quantized.clone();
    set_constants(&mut renewed, &found.values);
    let mut networks = vec![of.float.clone()];
    for mut network in [of.quantized.clone(), renewed] {
        compiler.run(pipelines::FINISH, &mut network, |cx| cx.set(of.form), |_| ())?;
        compiler.run(pipelines::SPELL, &mut network, |_| (), |_| ())?;
        networks.push(network);
    }
    let few = data::few(with.data, SAMPLES);
    let sides: Vec<Measured> = networks
        .iter()
        .map(|model| Measured {
            model,
            data: &few,
            options: with.options,
        })
        .collect();
    let compared = compared(of.outputs, sides.len());
    let seen = metric::compare(&sides, &compared, (None, &[(0, 1), (0, 2)]), with.engine, with.terminal)?;
    // Of several outputs the one that tells them apart best.
    let ratios = |pair: usize| {
        let outputs = seen.pairs.get(pair).map(Vec::as_slice).unwrap_or_default();
        outputs.iter().map(|output| output.report().snr_db)
    };
    let trained = of.outputs.iter().map(|output| output.loss.kind != OutputKind::Ignored);
    let (own, new) = trained
        .zip(ratios(0).zip(ratios(1)))
        .filter_map(|(trained, (own, new))| own.zip(new).filter(|_| trained))
        .max_by(|(a, b), (c, d)| (a - b).total_cmp(&(c - d)))
        .unwrap_or_default();
    let ruins = own >= SOUND_DB && new < SOUND_DB && own - new > MARGIN_DB;
    Ok(ruins.then(|| {
        format!(
            "the training data has other BatchNorm statistics than the model: with them its outputs are {new:.1} dB from the float model's, \
             with its own {own:.1} dB. BatchNorm stays frozen; check the data's preprocessing, or ask for --bn batch"
        )
    }))
}
