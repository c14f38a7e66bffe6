//! What is known of the values and ops of a graph.

mod infer_types;
mod sign;
mod weighted;

pub use infer_types::{INFER_TYPES, Inferred, infer};
pub use sign::surely_non_negative;
pub use weighted::{Fold, Weighted, fold_of, scale_slices, stored, weighted};
