//! Writes npz files: a zip archive of npy arrays (NumPy's format 1.0, C order), the same bytes for the same arrays.

use std::io::{Cursor, Write};

use anyhow::{Context, Result};
use lsqc_passes::ir::{DType, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// An archive of these arrays under these names, which must do as file names.
///
/// # Errors
/// If an array has a type that NumPy does not have.
pub fn archive<'t>(arrays: impl IntoIterator<Item = (&'t str, &'t Tensor)>) -> Result<Vec<u8>> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    // The format's own beginning of time: an archive of today would differ tomorrow.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .large_file(false);
    for (name, tensor) in arrays {
        archive.start_file(format!("{name}.npy"), options)?;
        archive.write_all(&npy_header(tensor)?)?;
        archive.write_all(tensor.bytes())?;
    }
    Ok(archive.finish()?.into_inner())
}

/// Magic, version 1.0, and the header padded to a multiple of 64 bytes.
fn npy_header(tensor: &Tensor) -> Result<Vec<u8>> {
    const ALIGNMENT: usize = 64;
    const FIXED: usize = 10;
    let kind = match tensor.dtype() {
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::F16 => "<f2",
        DType::I64 => "<i8",
        DType::I32 => "<i4",
        DType::I8 => "|i1",
        DType::U8 => "|u1",
        DType::Bool => "|b1",
        other => anyhow::bail!("an array of type {other} has no place in an npz file"),
    };
    let extents: String = tensor.shape().iter().map(|extent| format!("{extent}, ")).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({extents}), }}");
    let padding = (FIXED + header.len() + 1).next_multiple_of(ALIGNMENT) - FIXED - header.len() - 1;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    let length = u16::try_from(header.len()).context("a shape is absurd")?;
    Ok([b"\x93NUMPY\x01\x00".as_slice(), &length.to_le_bytes(), header.as_bytes()].concat())
}
