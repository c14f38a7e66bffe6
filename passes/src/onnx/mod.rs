//! ONNX files in and out: the only place that knows protobuf.
//!
//! [`read()`] turns the bytes of a `ModelProto` into a [`Model`], [`write()`] turns it back. Between them nothing is lost: reading and then
//! writing gives an equal message (presence of fields and order of lists included) for every model whose tensors are in the file itself
//! and whose nodes are in order. What the IR has words for is taken out of each message; the rest of the message stays encoded in the
//! [`Remainder`](crate::ir::Remainder) beside it, and writing fills the IR's part in again. A field that is there but empty counts as
//! rest, so that its presence survives.
//!
//! Tensors are slices of the file (which may be a memory map); tensors outside the file are asked of an [`ExternalData`]; they are
//! written into the file. Training information stays in the model's remainder. A node that calls a function of the model is a node with an
//! unknown op.
//!
//! [`read()`] refuses, naming what is at fault: bytes that are no model, names that nothing defines or two things define, cycles, a model
//! without output, tensors whose dimensions and data disagree, and element types that the schema does not know. It warns of fields
//! that the schema does not know (they are lost), of nodes out of order (they are sorted), and of opsets outside [`OPSETS`].

mod attribute;
mod error;
mod function;
mod infos;
mod order;
#[doc(hidden)]
#[allow(missing_docs, clippy::all)]
#[rustfmt::skip]
pub mod proto;
mod read;
mod scan;
#[rustfmt::skip]
mod schema;
mod sparse;
mod tensor;
mod write;

use std::ops::RangeInclusive;

use bytes::Bytes;

pub use error::{ReadError, Warning, WriteError};
pub use read::read;
pub use write::{ExternalFile, OwnOps, WriteOptions, Written, write};

use crate::ir::Model;

/// The versions of the default operator set that lsqc knows. Others can be read and written, not computed with.
pub const OPSETS: RangeInclusive<i64> = 7..=25;

/// Checks that the model's default operator set is one that lsqc knows: before anything depends on what its ops mean.
///
/// # Errors
/// If it is not; the error names the range.
pub fn check_opset(model: &Model) -> Result<(), ReadError> {
    let version = model.opset();
    if OPSETS.contains(&version) {
        Ok(())
    } else {
        Err(ReadError::Opset { version })
    }
}

/// Where tensors outside the model's own file come from.
pub trait ExternalData {
    /// `length` bytes (all to the end where it is `None`) from `offset` on of the file `location`, a path relative to the model's folder.
    ///
    /// # Errors
    /// Why they cannot be had, naming the file.
    fn bytes(&self, location: &str, offset: u64, length: Option<u64>) -> Result<Bytes, String>;
}

/// For models that stand alone: refuses every location.
#[derive(Clone, Copy, Debug)]
pub struct NoExternalData;

impl ExternalData for NoExternalData {
    fn bytes(&self, location: &str, _offset: u64, _length: Option<u64>) -> Result<Bytes, String> {
        Err(format!("the model was given without a folder to look for '{location}' in"))
    }
}
