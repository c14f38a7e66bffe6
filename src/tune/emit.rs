//! Writes a step graph for others: `step.onnx`, `step.json` (the roles) and `state.npz` (the state before the first step).
//!
//! Names of tensors are no file names, so the arrays are numbered and `step.json` says which is which.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lsqc_passes::onnx::OwnOps;

use super::assemble::StepGraph;
use super::roles::describe;
use crate::compiler::serialize;
use crate::npz;
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
    let arrays = entries.iter().map(|(name, entry)| {
        let tensor = graph.state.get(name).with_context(|| format!("'{name}' has no state"))?;
        Ok((entry.as_str(), tensor))
    });
    let arrays = arrays.collect::<Result<Vec<_>>>()?;
    let json = serde_json::to_string_pretty(&describe(&graph.model, &entries))? + "\n";
    let files = vec![
        (folder.join("step.onnx"), serialize(&graph.model, OwnOps::Refuse)?),
        (folder.join("step.json"), json.into_bytes()),
        (folder.join("state.npz"), npz::archive(arrays)?),
    ];
    staged.directory(folder);
    for (path, bytes) in &files {
        staged.file(path, bytes)?;
    }
    Ok(files)
}
