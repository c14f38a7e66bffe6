//! The compiler inside `lsqc`: everything that changes a graph. No I/O, no clock, no randomness without a seed.
#![forbid(unsafe_code)]

pub mod analyze;
pub mod check;
pub mod ir;
pub mod legalize;
pub mod lower;
pub mod onnx;
pub mod ops;
pub mod pass;
pub mod pipelines;
pub mod quantize;
pub mod simplify;
pub mod target;
pub mod text;
pub mod train;
