//! From a quantized network to one graph that takes a training step: loss, gradients, update.

mod attach_loss;
mod attach_optimizer;
mod choose_parameters;
mod differentiate;
mod freeze_oscillating;
mod heads;
mod output_losses;
mod use_batch_statistics;

use std::collections::{BTreeMap, BTreeSet};

pub use attach_loss::ATTACH_LOSS;
pub use attach_optimizer::ATTACH_OPTIMIZER;
pub use choose_parameters::CHOOSE_PARAMETERS;
pub use differentiate::DIFFERENTIATE;
pub use freeze_oscillating::{FREEZE_OSCILLATING, MAX_BITS, MOMENTUM};
pub use heads::{Certainty, Head, OutputKind, head};
pub use use_batch_statistics::USE_BATCH_STATISTICS;

use crate::ir::{Graph, Model, Role};

/// The names of the values whose gradient is an output of the graph.
#[must_use]
pub fn with_gradient(graph: &Graph) -> BTreeSet<&str> {
    let outputs = graph.outputs().iter();
    outputs
        .filter_map(|&output| match graph[output].role {
            Role::Gradient(of) => Some(graph[of].name()),
            _ => None,
        })
        .collect()
}

/// Names of the step graph's own inputs and outputs.
pub mod names {
    /// Class labels, int64 `[N]`.
    pub const LABEL: &str = "label";
    /// The learning rate, float scalar.
    pub const LEARNING_RATE: &str = "learning_rate";
    /// The frequency of oscillations above which a weight is frozen, float scalar.
    pub const FREEZE_THRESHOLD: &str = "freeze_threshold";
    /// The loss, float scalar.
    pub const LOSS: &str = "loss";
    /// Where the teacher's values live.
    pub const TEACHER: &str = "teacher/";
    /// Prefix of the value that an input has after the step.
    pub const NEXT: &str = "next/";
    /// Prefix of the momentum of a parameter.
    pub const MOMENTUM: &str = "momentum/";
    /// Prefix of a gradient.
    pub const GRADIENT: &str = "grad/";
    /// Prefix of a batch's mean and biased variance.
    pub const BATCH_STATISTIC: &str = "batch/";
}

/// What the network is trained towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Loss {
    /// Cross-entropy with the labels.
    CrossEntropy,
    /// Every output towards the teacher's, each by the loss of its kind.
    Distillation,
    /// Both, 1 : 1.
    #[default]
    Both,
}

/// What `attach-loss` is asked for.
#[derive(Clone, Default)]
pub struct LossPlan {
    /// The loss.
    pub loss: Loss,
    /// The float network, with inputs and outputs named as the student's; needed to distil.
    pub teacher: Option<Model>,
    /// How each output is trained, by its name. One that is not named is taken as the graph shows it, with weight 1 and variance 1.
    pub outputs: BTreeMap<String, OutputLoss>,
}

/// How one output is trained towards the teacher's.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputLoss {
    /// What it is taken as.
    pub kind: OutputKind,
    /// Its share of the loss, beside those of the other outputs; above 0.
    pub weight: f32,
    /// The teacher's variance, for values.
    pub variance: Variance,
}

impl OutputLoss {
    /// Taken as this, with weight 1 and variance 1.
    #[must_use]
    pub fn of(kind: OutputKind) -> OutputLoss {
        OutputLoss {
            kind,
            weight: 1.0,
            variance: Variance::default(),
        }
    }
}

/// The variance of an output of the teacher.
#[derive(Clone, Debug, PartialEq)]
pub struct Variance {
    /// The axis that it varies along; none where it is one number.
    pub axis: Option<usize>,
    /// One number, or one for each channel of the axis; above 0.
    pub values: Vec<f32>,
}

impl Default for Variance {
    fn default() -> Variance {
        Variance {
            axis: None,
            values: vec![1.0],
        }
    }
}

/// What `freeze-oscillating` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Oscillations {
    /// Nothing: weights may oscillate.
    #[default]
    Left,
    /// To watch weights, and to freeze those that oscillate.
    Frozen,
}

/// What `attach-optimizer` is asked for: SGD with momentum, v ← μ·v + ∂ + λ·p, p ← p − η·v.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptimizerPlan {
    /// Momentum μ.
    pub momentum: f32,
    /// Weight decay λ, by the name of the parameter; none for those not named.
    pub weight_decay: BTreeMap<String, f32>,
    /// The least value of a parameter, by name.
    pub floors: BTreeMap<String, Vec<f32>>,
}
