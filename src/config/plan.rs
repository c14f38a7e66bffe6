//! The validated plan of one run of `quantize`.
//!
//! A flag wins over `lsqc.toml`, which wins over the default. All that can be refused without reading the model or the data is refused
//! here: numbers out of range, outputs that could not be written at the end, missing files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;

use super::bits::Bits;
use super::choices::{BatchNorm, EngineChoice, Gradients, Init, LossChoice, Oscillations, Require};
use super::deployment::Deployment;
use super::file::{File, OutputRule};
use super::flags::Flags;
use super::inputs::InputWishes;
use super::layers::LayerRules;
use super::settings::{Quantization, Settings, check_model};
use super::size::Size;
use crate::data::Spec;
use crate::failure::Failure;
use crate::output;
use crate::terminal::Manner;

const DEFAULT_EPOCHS: u32 = 3;
pub(super) const DEFAULT_BATCH: usize = 128;
/// The files of a folder of `--emit-step`.
const STEP_FILES: &[&str] = &["step.onnx", "step.json", "state.npz"];
/// The files of a folder of `--deploy`.
pub const DEPLOY_FILES: [&str; 6] = [
    "model.onnx",
    "manifest.json",
    "sample.npz",
    "example.py",
    "runtime.py",
    "requirements.txt",
];
const DEFAULT_PROOF_IMAGES: usize = 256;

/// The learning rate η₀ of the first step.
#[derive(Clone, Copy, Debug)]
pub enum Rate {
    /// Asked for: it stands.
    Asked(f64),
    /// The method's own: it is lowered where training does harm.
    Own(f64),
}

impl Rate {
    /// η₀ of the first attempt.
    #[must_use]
    pub fn start(self) -> f64 {
        match self {
            Rate::Asked(rate) | Rate::Own(rate) => rate,
        }
    }
}

/// What one run does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The float model; it is there.
    pub model: PathBuf,
    /// The `lsqc.toml` that was read, if one was.
    pub config: Option<PathBuf>,
    /// Data, preprocessing and augmentation.
    pub data: Spec,
    /// May noise stand in for data?
    pub require: Require,
    /// Bits of weights and activations where no rule for a layer says otherwise.
    pub bits: Bits,
    /// The runtime that the result is for.
    pub deployment: Deployment,
    /// How step sizes start.
    pub init: Init,
    /// Rules for single layers.
    pub layers: LayerRules,
    /// What is settled about the model's inputs.
    pub inputs: InputWishes,
    /// What is minimised; see [`Plan::loss`].
    pub loss_choice: LossChoice,
    /// How outputs are trained, by name.
    pub output_rules: BTreeMap<String, OutputRule>,
    /// How long training takes.
    pub length: Length,
    /// Samples in a batch, at least 1.
    pub batch: usize,
    /// What a step may be estimated to take; `None`: the batch is halved until it fits half of the machine's memory.
    pub memory: Option<Size>,
    /// The learning rate that was asked for; see [`Plan::rate`].
    pub lr: Option<f64>,
    /// The weight decay that was asked for; `None`: by the weights' bits.
    pub weight_decay: Option<f64>,
    /// Decides every random choice.
    pub seed: u64,
    /// BatchNorm in training; `None`: by the number of samples.
    pub bn: Option<BatchNorm>,
    /// Weights that oscillate in training.
    pub oscillations: Oscillations,
    /// What runs graphs.
    pub engine: EnginePlan,
    /// Samples on which every layer is proven, at least 1.
    pub proof_images: usize,
    /// Points of top-1 that may be lost.
    pub max_drop: Option<f64>,
    /// What is written.
    pub outputs: Outputs,
    /// How much is said.
    pub manner: Manner,
}

/// What runs graphs, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnginePlan {
    /// Which engine.
    pub choice: EngineChoice,
    /// The ONNX Runtime library that was named.
    pub ort_lib: Option<PathBuf>,
    /// Threads; 0: the engine's choice.
    pub threads: usize,
}

/// How long training takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Times through the data.
    Epochs(u32),
    /// Batches.
    Steps(u64),
}

impl Length {
    /// The number of batches, for epochs of `per_epoch` batches.
    #[must_use]
    pub fn steps(self, per_epoch: usize) -> u64 {
        match self {
            Length::Epochs(epochs) => u64::from(epochs).saturating_mul(per_epoch as u64),
            Length::Steps(steps) => steps,
        }
    }

    /// Is nothing trained?
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.steps(1) == 0
    }
}

/// What is minimised, once it is known whether there are labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Cross-entropy.
    Ce,
    /// Distillation.
    Kd,
    /// Their sum.
    Both,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Loss::Ce => "ce",
            Loss::Kd => "kd",
            Loss::Both => "both",
        })
    }
}

/// Files that the run writes; every folder is there and takes files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// The integer model.
    pub model: PathBuf,
    /// The report.
    pub report: PathBuf,
    /// The trained fake-quantized model.
    pub fakequant: Option<PathBuf>,
    /// The training-step graph.
    pub step: Option<StepOutput>,
    /// The hand-over folder; made if it is not there.
    pub deploy: Option<PathBuf>,
}

/// Where the training-step graph goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepOutput {
    /// The folder; made if it is not there.
    pub folder: PathBuf,
    /// With gradients?
    pub gradients: Gradients,
}

impl Plan {
    /// Merges and validates.
    ///
    /// # Errors
    /// Usage for flags, `lsqc.toml` and outputs; bad input for a model or data file that is not there.
    pub fn new(flags: &Flags) -> Result<Plan> {
        check_model(&flags.model)?;
        let settings = Settings::read(&flags.model, flags.data.config.as_deref())?;
        let File { train, gate, output, .. } = settings.file.clone();

        let Quantization {
            bits,
            deployment,
            layers,
            inputs,
            ..
        } = settings.quantization(&flags.quantize)?;
        let length = length(flags, &settings)?;
        let test_fraction = settings.test_fraction(flags.test_fraction)?;
        let number = |name: &str, value: Option<f64>, ok: fn(f64) -> bool, range: &str| match value {
            Some(value) if !ok(value) => Err(Failure::usage(format!("{name} is {value}, but must be {range}"))),
            _ => Ok(value),
        };
        let count = |name: &str, value: usize| match value {
            0 => Err(Failure::usage(format!("{name} is 0, but must be at least 1"))),
            value => Ok(value),
        };
        let outputs = outputs(flags, bits)?;
        let data = settings.data_spec(&flags.data, test_fraction)?;
        let required = flags.require_data || gate.require_data;
        let plan = Plan {
            model: flags.model.clone(),
            data,
            require: if required { Require::Data } else { Require::Nothing },
            bits,
            deployment,
            init: init(flags, &settings, length),
            layers,
            inputs,
            loss_choice: flags.loss.or(train.loss).unwrap_or_default(),
            output_rules: output,
            length,
            batch: settings.batch(flags.batch)?,
            memory: flags.memory.or(train.memory),
            lr: number(
                "the learning rate",
                flags.lr.or(train.lr),
                |v| v > 0.0 && v.is_finite(),
                "above 0",
            )?,
            weight_decay: number(
                "the weight decay",
                flags.weight_decay.or(train.weight_decay),
                |v| v >= 0.0 && v.is_finite(),
                "0 or above",
            )?,
            seed: flags.seed.or(train.seed).unwrap_or(0),
            bn: flags.bn.or(train.bn),
            oscillations: if flags.freeze_oscillating || train.freeze_oscillating {
                Oscillations::Frozen
            } else {
                Oscillations::Left
            },
            engine: settings.engine(&flags.engine),
            proof_images: count(
                "the number of proof images",
                flags.proof_images.or(gate.proof_images).unwrap_or(DEFAULT_PROOF_IMAGES),
            )?,
            max_drop: number(
                "the largest drop",
                flags.max_drop.or(gate.max_drop),
                f64::is_finite,
                "a number of points",
            )?,
            outputs,
            manner: flags.messages.manner(),
            config: settings.path,
        };
        if plan.deployment.weight_only.is_some() && plan.oscillations == Oscillations::Frozen {
            let message = format!(
                "--freeze-oscillating does not go with --bits {bits}: it watches weights with one step, and blocks have many"
            );
            return Err(Failure::usage(message)
                .help("leave it out, on the command line and in lsqc.toml")
                .into());
        }
        if plan.require == Require::Data && plan.data.train.is_none() {
            return Err(crate::data::no_data("data is required, and there is none").into());
        }
        Ok(plan)
    }

    /// The part of it that `inspect` and `bench` share.
    #[must_use]
    pub fn quantization(&self) -> Quantization {
        Quantization {
            model: self.model.clone(),
            config: self.config.clone(),
            bits: self.bits,
            deployment: self.deployment.clone(),
            layers: self.layers.clone(),
            inputs: self.inputs.clone(),
        }
    }

    /// The learning rate: what was asked for, or the method's: 0.01, but 0.001 where weights and activations have 8 bits.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.lr
            .map_or(Rate::Own(if self.bits.are_eight() { 0.001 } else { 0.01 }), Rate::Asked)
    }

    /// What is minimised, now that it is known whether the training data has labels.
    ///
    /// # Errors
    /// Usage, if labels are needed and there are none.
    pub fn loss(&self, labels: Labels) -> Result<Loss> {
        match (self.loss_choice, labels) {
            (LossChoice::Kd, _) | (LossChoice::Auto, Labels::Missing | Labels::Useless) => Ok(Loss::Kd),
            (LossChoice::Ce, Labels::Present) => Ok(Loss::Ce),
            (LossChoice::Both | LossChoice::Auto, Labels::Present) => Ok(Loss::Both),
            (LossChoice::Ce | LossChoice::Both, Labels::Missing) => {
                let message = format!("the loss {} needs labels, and the training data has none", self.loss_choice);
                Err(Failure::usage(message)
                    .help("give labels, or train by distillation: --loss kd")
                    .into())
            }
            (LossChoice::Ce | LossChoice::Both, Labels::Useless) => {
                let message = format!(
                    "the loss {} needs an output [N, classes] that is trained as classes, and the model has none",
                    self.loss_choice
                );
                Err(Failure::usage(message).help("train by distillation: --loss kd").into())
            }
        }
    }
}

/// Does the training data have labels?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Yes.
    Present,
    /// No.
    Missing,
    /// Yes, but no output of the model is `[N, classes]` and trained as classes.
    Useless,
}

fn length(flags: &Flags, settings: &Settings) -> Result<Length> {
    let train = &settings.file.train;
    Ok(match (flags.epochs, flags.steps, train.epochs, train.steps) {
        (Some(_), Some(_), _, _) => return Err(Failure::usage("give --epochs or --steps, not both").into()),
        (Some(epochs), None, _, _) => Length::Epochs(epochs),
        (None, Some(steps), _, _) => Length::Steps(steps),
        (None, None, Some(epochs), _) => Length::Epochs(epochs),
        (None, None, None, Some(steps)) => Length::Steps(steps),
        (None, None, None, None) => Length::Epochs(DEFAULT_EPOCHS),
    })
}

/// Without training steps are best where the error is least: that is implied unless the same or a stronger source says otherwise.
fn init(flags: &Flags, settings: &Settings, length: Length) -> Init {
    let length_by_flag = flags.epochs.is_some() || flags.steps.is_some();
    match (flags.init, settings.file.quantize.init) {
        (Some(init), _) => init,
        (None, Some(init)) if !(length.is_zero() && length_by_flag) => init,
        _ if length.is_zero() => Init::Mse,
        _ => Init::default(),
    }
}

fn outputs(flags: &Flags, bits: Bits) -> Result<Outputs> {
    let stem = flags.model.file_stem().unwrap_or_default().to_string_lossy();
    let model = flags
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{stem}.{bits}.onnx")));
    let outputs = Outputs {
        report: flags.report.clone().unwrap_or_else(|| model.with_extension("report.json")),
        model,
        fakequant: flags.emit_fakequant.clone(),
        deploy: flags.deploy.clone(),
        step: flags.emit_step.clone().map(|folder| StepOutput {
            folder,
            gradients: if flags.emit_gradients {
                Gradients::Emitted
            } else {
                Gradients::Left
            },
        }),
    };
    let files: Vec<&PathBuf> = [&outputs.model, &outputs.report]
        .into_iter()
        .chain(&outputs.fakequant)
        .collect();
    for (position, file) in files.iter().enumerate() {
        output::check_file(file)?;
        if output::is_same_file(file, &flags.model) {
            return Err(Failure::usage(format!("output {} is the model itself", file.display()))
                .help("choose another with -o")
                .into());
        }
        if files.iter().take(position).any(|earlier| output::is_same_file(earlier, file)) {
            return Err(Failure::usage(format!("two outputs have the name {}", file.display()))
                .help("choose another for one")
                .into());
        }
    }
    // The files of a folder have names of their own there.
    let step = outputs.step.as_ref().map(|step| (&step.folder, "--emit-step", STEP_FILES));
    let deploy = outputs.deploy.as_ref().map(|folder| (folder, "--deploy", &DEPLOY_FILES[..]));
    for (folder, flag, names) in [step, deploy].into_iter().flatten() {
        output::check_directory(folder)?;
        let inside = |file: &PathBuf| names.iter().any(|name| output::is_same_file(&folder.join(name), file));
        let inputs = std::iter::once(&flags.model);
        if let Some(file) = files.iter().copied().chain(inputs).find(|file| inside(file)) {
            let message = format!(
                "{} lies in the folder of {flag}, under a name that is taken there",
                file.display()
            );
            return Err(Failure::usage(message).help("choose another folder for one").into());
        }
    }
    Ok(outputs)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
