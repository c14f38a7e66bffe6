//! What is known of the values of a graph.

mod infer_types;

pub use infer_types::{INFER_TYPES, Inferred, infer};
