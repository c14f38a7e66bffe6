//! Fine-tuning: the loop that feeds batches to the step graph, and what surrounds it.

mod assemble;
mod normalize;
mod roles;
mod train;

pub use assemble::{BnMode, StepGraph, StepPlan, assemble};
pub use normalize::reestimate;
pub use roles::{StepFile, describe};
pub use train::{Trained, TrainPlan, train};
