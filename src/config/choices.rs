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
        /// Only before weighted operators; additions stay float
        Paper = "paper",
    }
}

choice! {
    /// The runtime that the result is spelled for.
    Target {
        /// ONNX Runtime
        #[default]
        Ort = "ort",
    }
}

choice! {
    /// How step sizes start.
    Init {
        /// 2·mean|v| / √Q_P, to be trained
        #[default]
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
