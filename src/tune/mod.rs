//! Fine-tuning: the loop that feeds batches to the step graph, and what surrounds it.

mod assemble;
mod dialect;
mod emit;
pub mod memory;
mod normalize;
mod oscillations;
mod outputs;
mod roles;
mod train;

use std::sync::Arc;

use crate::data::Dataset;
use crate::engine::{Engine, LoadOptions};
use crate::terminal::Terminal;

pub use assemble::{BnMode, Gradients, StepGraph, StepPlan, assemble, unreached};
pub use dialect::dialect;
pub use emit::emit;
pub use normalize::{STATISTICS_BATCHES, reestimate};
pub use oscillations::{Oscillation, freeze_threshold, oscillations};
pub use outputs::{
    Chosen, check as check_outputs, choose as choose_outputs, class_axis, losses as losses_of, refuse_none as refuse_no_output,
};
pub use roles::{StepFile, describe};
pub use train::{Stepper, TrainPlan, Trained, train};

/// What every loop over batches runs with.
#[derive(Clone, Copy)]
pub struct Loop<'a> {
    /// Where batches come from.
    pub data: &'a Arc<dyn Dataset>,
    /// What runs the graph.
    pub engine: &'a dyn Engine,
    /// How it is loaded.
    pub options: &'a LoadOptions,
    /// Where progress is shown.
    pub terminal: &'a Terminal,
}
