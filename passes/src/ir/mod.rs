//! The intermediate representation: one graph of nodes and values, and the constants it carries.

mod dtype;
mod tensor;

pub use dtype::{DType, Element};
pub use tensor::{Tensor, TensorError};
