//! The command line of `quantize`, and the parts of it that other commands share.
//!
//! Nothing has a default here: what is absent is asked of `lsqc.toml`, then of [`super::Plan`].

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::bits::Bits;
use super::choices::{BatchNorm, EngineChoice, Init, LossChoice, Placement, ProgressChoice, StorageChoice, Target};
use super::inputs::{Extents, Finite, Named};
use super::size::Size;
use crate::terminal::{Manner, Surface, Verbosity};

/// Where data comes from.
#[derive(Args, Clone, Debug, Default)]
pub struct DataFlags {
    /// Data to train on: a folder of PNG or JPEG files, a .npz or .npy file, a pair IMAGES,LABELS (idx or npy), or a folder with those
    #[arg(long, value_name = "FILE|DIR", help_heading = "Data")]
    pub data: Option<String>,
    /// Data to measure on [default: the folder's test files, or a part of --data]
    #[arg(long, value_name = "FILE|DIR", help_heading = "Data")]
    pub test: Option<String>,
    /// Settings [default: lsqc.toml beside the model, if it is there]
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub config: Option<PathBuf>,
}

/// What runs graphs.
#[derive(Args, Clone, Debug, Default)]
pub struct EngineFlags {
    /// What runs the graphs [default: auto]
    #[arg(long, value_enum, value_name = "ENGINE", help_heading = "Engine")]
    pub engine: Option<EngineChoice>,
    /// The ONNX Runtime library to use [default: ORT_DYLIB_PATH, the Python environment's, the system's]
    #[arg(long, value_name = "FILE", help_heading = "Engine")]
    pub ort_lib: Option<PathBuf>,
    /// Threads for the engine [default: one per core]
    #[arg(long, value_name = "N", help_heading = "Engine")]
    pub threads: Option<usize>,
}

/// How much is said while a command runs, all on standard error.
#[derive(Args, Clone, Debug, Default)]
pub struct MessageFlags {
    /// How progress is shown [default: auto]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Messages")]
    pub progress: Option<ProgressChoice>,
    /// Also say details: passes with their times, what they declined, where data came from, what the runtime logs
    #[arg(long, short, action = ArgAction::SetTrue, help_heading = "Messages", conflicts_with = "quiet")]
    pub verbose: bool,
    /// Say nothing but the result, warnings and errors
    #[arg(long, short, action = ArgAction::SetTrue, help_heading = "Messages")]
    pub quiet: bool,
}

impl MessageFlags {
    /// What they ask of the terminal.
    #[must_use]
    pub fn manner(&self) -> Manner {
        Manner {
            verbosity: match (self.quiet, self.verbose) {
                (true, _) => Verbosity::Quiet,
                (false, true) => Verbosity::Verbose,
                (false, false) => Verbosity::Normal,
            },
            progress: match self.progress.unwrap_or_default() {
                ProgressChoice::Auto => Surface::Auto,
                ProgressChoice::Bar => Surface::Bar,
                ProgressChoice::Lines => Surface::Lines,
                ProgressChoice::None => Surface::Nothing,
            },
        }
    }
}

/// What is settled about the model's inputs.
#[derive(Args, Clone, Debug, Default)]
pub struct ShapeFlags {
    /// Give an input a shape, such as image=1x3x224x224 or image=Nx3x224x224, where N stays open; may be repeated
    #[arg(long, value_name = "NAME=DIMS", help_heading = "Model")]
    pub shape: Vec<Named<Extents>>,
    /// Give a named axis of the inputs a size, such as batch=8; may be repeated
    #[arg(long, value_name = "NAME=SIZE", help_heading = "Model")]
    pub axis: Vec<Named<NonZeroUsize>>,
    /// Make an input a constant of which every element is this, such as sr=16000; may be repeated
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Model")]
    pub fix_input: Vec<Named<Finite>>,
}

/// What is quantized, and to how many bits.
#[derive(Args, Clone, Debug, Default)]
pub struct QuantizeFlags {
    /// What is settled about the model's inputs.
    #[command(flatten)]
    pub shapes: ShapeFlags,
    /// Bits of weights and activations, 2 to 8: 3, or w3a4 for each apart, or w4 for weights alone (2, 3, 4 or 8, in blocks); w3a4u and w3a4s also say whether activations have levels below
    /// 0, which else the graph and the data say [default: 8]
    #[arg(long, short, value_name = "BITS", help_heading = "Quantization", allow_hyphen_values = true)]
    pub bits: Option<Bits>,
    /// The runtime that the result is for: it decides where quantizers stand and how the file is written [default: ort]
    #[arg(long, value_enum, value_name = "TARGET", help_heading = "Quantization")]
    pub target: Option<Target>,
    /// Where quantizers stand at residual additions [default: the target's: q8, or shortcut for openvino and tensorrt]
    #[arg(long, value_enum, value_name = "PLACEMENT", help_heading = "Quantization")]
    pub placement: Option<Placement>,
    /// Give weights a step for each output channel
    #[arg(long, action = ArgAction::SetTrue, help_heading = "Quantization")]
    pub per_channel: bool,
    /// Weights along the input axis that share a step, where weights alone are quantized: a power of two [default: 32, or 64 for tensorrt]
    #[arg(long, value_name = "N", help_heading = "Quantization", allow_negative_numbers = true)]
    pub block: Option<i64>,
    /// What weights are stored in [default: auto]
    #[arg(long, value_enum, value_name = "STORAGE", help_heading = "Quantization")]
    pub storage: Option<StorageChoice>,
    /// The oldest version of the runtime that must load the file, such as 1.23
    #[arg(long, value_name = "VERSION", help_heading = "Quantization")]
    pub runtime_min: Option<String>,
    /// The least operator set of the file [default: 13, or what the model and the storage need]
    #[arg(long, value_name = "N", help_heading = "Quantization")]
    pub opset: Option<i64>,
    /// Keep sums of two products within 16 bits, for x86 processors without VNNI: layers with 8-bit inputs take 7-bit weights
    #[arg(long, action = ArgAction::SetTrue, help_heading = "Quantization")]
    pub no_vnni: bool,
}

/// What `lsqc quantize` is told.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// The float model, an ONNX file
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,

    /// What is quantized, and to how many bits.
    #[command(flatten)]
    pub quantize: QuantizeFlags,
    /// How step sizes start [default: auto; mse with --epochs 0]
    #[arg(long, value_enum, value_name = "INIT", help_heading = "Quantization")]
    pub init: Option<Init>,

    /// Where data comes from.
    #[command(flatten)]
    pub data: DataFlags,
    /// The part of the data that is measured on where no test data is given, between 0 and 1 [default: 0.1]
    #[arg(long, value_name = "FRACTION", help_heading = "Data", allow_negative_numbers = true)]
    pub test_fraction: Option<f64>,
    /// Refuse to run on noise where there is no data
    #[arg(long, action = ArgAction::SetTrue, help_heading = "Data")]
    pub require_data: bool,

    /// What training minimises [default: auto]
    #[arg(long, value_enum, value_name = "LOSS", help_heading = "Training")]
    pub loss: Option<LossChoice>,
    /// Times to go through the data; 0 calibrates only [default: 3]
    #[arg(long, value_name = "N", help_heading = "Training", conflicts_with = "steps")]
    pub epochs: Option<u32>,
    /// Batches to train on, instead of --epochs
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub steps: Option<u64>,
    /// Samples in a batch [default: 128]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub batch: Option<usize>,
    /// Refuse a training step that is estimated to take more memory, such as 4GB or 512MB [default: halve the batch until it fits half of
    /// the machine's memory]
    #[arg(long, value_name = "SIZE", help_heading = "Training")]
    pub memory: Option<Size>,
    /// The learning rate at the start; it decays along a cosine [default: 0.01; 0.001 for w8a8]
    #[arg(long, value_name = "LR", help_heading = "Training", allow_negative_numbers = true)]
    pub lr: Option<f64>,
    /// Weight decay [default: by the weights' bits]
    #[arg(long, value_name = "DECAY", help_heading = "Training", allow_negative_numbers = true)]
    pub weight_decay: Option<f64>,
    /// Decides every random choice [default: 0]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub seed: Option<u64>,
    /// BatchNorm in training [default: batch; frozen with fewer than 256 samples]
    #[arg(long, value_enum, value_name = "BN", help_heading = "Training")]
    pub bn: Option<BatchNorm>,
    /// Freeze weights of 4 bits or less that oscillate between levels in training
    #[arg(long, action = ArgAction::SetTrue, help_heading = "Training")]
    pub freeze_oscillating: bool,

    /// What runs graphs.
    #[command(flatten)]
    pub engine: EngineFlags,

    /// Images on which every layer is proven [default: 256]
    #[arg(long, value_name = "N", help_heading = "Checks")]
    pub proof_images: Option<usize>,
    /// Fail (exit code 3) if more points of top-1 are lost
    #[arg(long, value_name = "POINTS", help_heading = "Checks", allow_negative_numbers = true)]
    pub max_drop: Option<f64>,

    /// The integer model [default: <model>.w<W>a<A>.onnx in the current folder]
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// The report, as JSON [default: beside the integer model, .report.json]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub report: Option<PathBuf>,
    /// Also write the trained fake-quantized model
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub emit_fakequant: Option<PathBuf>,
    /// Also write the training-step graph and step.json, which says what its inputs and outputs are
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub emit_step: Option<PathBuf>,
    /// Also write a folder for those who deploy the model: the model, a manifest, a sample and a runnable example for its runtime
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub deploy: Option<PathBuf>,
    /// The training-step graph also gives gradients
    #[arg(long, action = ArgAction::SetTrue, help_heading = "Output", requires = "emit_step")]
    pub emit_gradients: bool,
    /// How much is said.
    #[command(flatten)]
    pub messages: MessageFlags,
}
