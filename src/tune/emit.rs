//! Writes a step graph for others: `step.onnx`, `step.json` (the roles) and `state.npz` (the state before the first step).
//!
//! npz: a zip archive of npy arrays (format 1.0, C order). Names of tensors are no file names, so the arrays are numbered and `step.json`
//! says which is which.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lsqc_passes::ir::{DType, Tensor};
use lsqc_passes::onnx::OwnOps;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::assemble::StepGraph;
use super::roles::describe;
use crate::compiler::serialize;
use crate::engine::Tensors;
use crate::output::Staged;

/// Stages the files of a step graph in `folder`; gives each path with its content.
///
/// # Errors
/// Usage, if the folder cannot be written to.
pub fn emit(graph: &StepGraph, folder: &Path, staged: &mut Staged) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let entries: BTreeMap<String, String> = graph
        .state
        .keys()
        .enumerate()
        .map(|(number, name)| (name.clone(), format!("state_{number}")))
        .collect();
    let json = serde_json::to_string_pretty(&describe(&graph.model, &entries))? + "\n";
    let files = vec![
        (folder.join("step.onnx"), serialize(&graph.model, OwnOps::Refuse)?),
        (folder.join("step.json"), json.into_bytes()),
        (folder.join("state.npz"), npz(&graph.state, &entries)?),
    ];
    staged.directory(folder);
    for (path, bytes) in &files {
        staged.file(path, bytes)?;
    }
    Ok(files)
}

fn npz(state: &Tensors, entries: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    // The format's own beginning of time: an archive of today would differ tomorrow.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .large_file(false);
    for (name, entry) in entries {
        let tensor = state.get(name).with_context(|| format!("'{name}' has no state"))?;
        archive.start_file(format!("{entry}.npy"), options)?;
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
        DType::I64 => "<i8",
        DType::I32 => "<i4",
        other => anyhow::bail!("state of type {other} has no place in an npz file"),
    };
    let extents: String = tensor.shape().iter().map(|extent| format!("{extent}, ")).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({extents}), }}");
    let padding = (FIXED + header.len() + 1).next_multiple_of(ALIGNMENT) - FIXED - header.len() - 1;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    let length = u16::try_from(header.len()).context("a shape is absurd")?;
    Ok([b"\x93NUMPY\x01\x00".as_slice(), &length.to_le_bytes(), header.as_bytes()].concat())
}
