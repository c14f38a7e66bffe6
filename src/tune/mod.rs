//! Fine-tuning: the loop that feeds batches to the step graph, and what surrounds it.

mod assemble;
mod emit;
pub mod memory;
mod normalize;
mod roles;
mod train;

pub use assemble::{BnMode, Gradients, StepGraph, StepPlan, assemble};
pub use emit::emit;
pub use normalize::{BATCHES, reestimate};
pub use roles::{StepFile, describe};
pub use train::{TrainPlan, Trained, train};
