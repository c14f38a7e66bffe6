//! `lsqc engines`: which engines are there, and what helps the others.

use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgAction, Args};

use crate::engine::discover::Candidate;
use crate::engine::inventory::{Entry, State, inventory};
use crate::report::{self, EngineEntry, Engines, OtherLibrary, Tool};
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  lsqc engines
      each engine: its version, where it is, why that one; what is missing, and what helps
  lsqc engines --ort-lib /opt/onnxruntime/lib/libonnxruntime.so --json
      the same of a library that is named, as JSON (docs/engines.schema.json)";

/// The flags of `lsqc engines`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct EnginesArgs {
    /// The ONNX Runtime library to look at [default: ORT_DYLIB_PATH, the Python environment's, the system's]
    #[arg(long, value_name = "FILE")]
    pub ort_lib: Option<PathBuf>,
    /// Print JSON
    #[arg(long, action = ArgAction::SetTrue)]
    pub json: bool,
}

/// Runs it. What is missing is no failure.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(args: &EnginesArgs) -> Result<()> {
    let found = inventory(args.ort_lib.as_deref());
    let engines = Engines {
        schema_version: report::SCHEMA_VERSION,
        tool: Tool::this(),
        auto: found.auto.map(|selected| selected.engine.name().to_owned()),
        engines: found.engines.into_iter().map(entry).collect(),
        looked_in: found.looked_in,
    };
    let text = if args.json {
        report::to_json(&engines)?
    } else {
        engines.render()
    };
    Ok(terminal::print(&text)?)
}

fn entry(entry: Entry) -> EngineEntry {
    let other = |candidate: Candidate| OtherLibrary {
        path: candidate.path.display().to_string(),
        reason: candidate.why,
    };
    let base = EngineEntry {
        name: entry.name.to_owned(),
        found: false,
        version: None,
        path: None,
        reason: String::new(),
        providers: Vec::new(),
        missing: None,
        cure: None,
        others: entry.others.into_iter().map(other).collect(),
    };
    match entry.state {
        State::Found {
            version,
            path,
            reason,
            providers,
        } => EngineEntry {
            found: true,
            version: Some(version),
            path: path.map(|path| path.display().to_string()),
            reason,
            providers,
            ..base
        },
        State::Missing { missing, cure } => EngineEntry {
            reason: "it cannot be used here".to_owned(),
            missing: Some(missing),
            cure: Some(cure),
            ..base
        },
    }
}
