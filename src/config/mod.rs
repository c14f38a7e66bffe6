//! What a run is asked to do: flags and `lsqc.toml`, merged and validated into one [`Plan`].
//!
//! [`Flags`] is what the command line says, [`file::File`] what `lsqc.toml` says; a flag wins over the file, the file over the default.
//! After [`Plan::new`] nobody looks at a string again.

mod bits;
mod choices;
mod deployment;
pub mod file;
mod flags;
mod inputs;
mod layers;
mod plan;
mod settings;
mod size;
mod weight_only;

pub use bits::{Bits, Signedness};
pub use choices::{
    BatchNorm, EngineChoice, Gradients, Granularity, Init, LossChoice, Oscillations, OutputChoice, Placement, ProgressChoice,
    Require, StorageChoice, Target,
};
pub use deployment::Deployment;
pub use file::OutputRule;
pub use flags::{DataFlags, EngineFlags, Flags, MessageFlags, QuantizeFlags, ShapeFlags};
pub use inputs::{Extent, Extents, InputWishes};
pub use layers::{LayerRule, LayerRules};
pub use plan::{DEPLOY_FILES, EnginePlan, Labels, Length, Loss, Outputs, Plan, Rate, StepOutput};
pub use settings::{Quantization, Settings, check_model, data_spec};
pub use size::Size;
pub use weight_only::WeightOnly;
