//! The compiler inside `lsqc`: everything that changes a graph. No I/O, no clock, no randomness without a seed.
#![forbid(unsafe_code)]

pub mod ir;
pub mod onnx;
pub mod text;
