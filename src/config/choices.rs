//! The settings that are one of a few words, on the command line, in `lsqc.toml` and in the report alike.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Declares a choice whose words are the same for clap, serde and `Display`.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[value(name = $word)] #[serde(rename = $word)] $variant,)*
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($name::$variant => $word,)* })
            }
        }
    };
}

choice! {
    /// Where quantizers stand at residual additions.
    Placement {
        /// 8 bits at the addition, requantized before the convolution
        #[default]
        Q8 = "q8",
        /// The shortcut adds the convolution's input as it is quantized already
        Shared = "shared",
        /// Of an addition the shortcut alone is quantized
        Shortcut = "shortcut",
        /// Only before weighted operators; additions stay float
        Paper = "paper",
    }
}

choice! {
    /// The runtime that the result is for.
    Target {
        /// ONNX Runtime on the CPU
        #[default]
        Ort = "ort",
        /// OpenVINO on the CPU
        Openvino = "openvino",
        /// TensorRT
        Tensorrt = "tensorrt",
        /// Any runtime with operator set 13
        Portable = "portable",
    }
}

choice! {
    /// What weights are stored in.
    StorageChoice {
        /// Packed at 4 bits and less where --runtime-min allows it, else bytes
        #[default]
        Auto = "auto",
        /// A byte each
        Int8 = "int8",
        /// int4 at 4 bits and less
        Int4 = "int4",
        /// int2 at 2 bits, int4 at 3 and 4
        Int2 = "int2",
        /// In the fewest bits that hold them: int2 where there are layers of 2 bits, else int4
        Packed = "packed",
    }
}

choice! {
    /// How step sizes start.
    Init {
        /// lsq up to 4 bits, mse above
        #[default]
        Auto = "auto",
        /// 2·mean|v| / √Q_P, to be trained
        Lsq = "lsq",
        /// The step of least squared error, good without training
        Mse = "mse",
    }
}

choice! {
    /// What training minimises.
    LossChoice {
        /// Both with labels, kd without
        #[default]
        Auto = "auto",
        /// Cross-entropy with the labels
        Ce = "ce",
        /// Distillation from the float model
        Kd = "kd",
        /// The sum of the two
        Both = "both",
    }
}

choice! {
    /// What an output of the model is taken as.
    OutputChoice {
        /// Scores of classes: the divergence of their distributions
        Classes = "classes",
        /// Probabilities, each by itself: the divergence of each
        Probabilities = "probabilities",
        /// Numbers: squared error over the float model's variance
        #[default]
        Values = "values",
        /// Directions: one minus the cosine of rows
        Cosine = "cosine",
        /// Nothing to train on
        Ignored = "ignored",
    }
}

choice! {
    /// BatchNorm in training.
    BatchNorm {
        /// Statistics of the batch, re-estimated at the end
        #[default]
        Batch = "batch",
        /// The model's own statistics, unchanged
        Frozen = "frozen",
    }
}

choice! {
    /// What runs graphs.
    EngineChoice {
        /// ONNX Runtime if it is found, on CUDA if that works, else tract
        #[default]
        Auto = "auto",
        /// The embedded engine
        Tract = "tract",
        /// ONNX Runtime on the CPU
        Ort = "ort",
        /// ONNX Runtime on an NVIDIA GPU
        OrtCuda = "ort-cuda",
    }
}

choice! {
    /// How progress is shown.
    ProgressChoice {
        /// A bar on a terminal, lines elsewhere
        #[default]
        Auto = "auto",
        /// A bar; it needs a terminal
        Bar = "bar",
        /// A plain line now and then
        Lines = "lines",
        /// Not at all
        None = "none",
    }
}

/// May a run go on without data?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Require {
    /// Noise stands in, with a warning.
    #[default]
    Nothing,
    /// No.
    Data,
}

/// What becomes of weights that oscillate between levels in training?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oscillations {
    /// They go on.
    #[default]
    Left,
    /// They are frozen, and counted.
    Frozen,
}

/// Does the step graph give gradients too?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gradients {
    /// No.
    #[default]
    Left,
    /// Of every parameter and step, and each quantizer's input before rounding.
    Emitted,
}

/// How many steps has a weight?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// One.
    #[default]
    PerTensor,
    /// One for each output channel.
    PerChannel,
}
