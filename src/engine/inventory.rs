//! Which engines there are on this machine, and what the others lack.
//!
//! Every candidate library is listed, but a process opens only one: of the others only the path is known. To add an engine: one more
//! entry in [`inventory`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::discover::{Candidate, LIBRARY_VARIABLE, Search, Surroundings, search};
use super::ort::{CUDA_INSTALL, OrtEngine};
use super::tract::TractEngine;
use super::{Engine, EngineChoice, EngineError, Selected, select_among};

/// What was found.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// The engines, the embedded one first.
    pub engines: Vec<Entry>,
    /// What `--engine auto` takes; `None` where it fails.
    pub auto: Option<Selected>,
    /// Where a library was looked for.
    pub looked_in: Vec<String>,
}

/// One engine.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name that `--engine` takes.
    pub name: &'static str,
    /// What it is, or what it lacks.
    pub state: State,
    /// Libraries that were found and are not used.
    pub others: Vec<Candidate>,
}

/// Can an engine be used?
#[derive(Clone, Debug)]
pub enum State {
    /// Yes.
    Found {
        /// The runtime and its version.
        version: String,
        /// The library, where there is one.
        path: Option<PathBuf>,
        /// Why this one.
        reason: String,
        /// The library's execution providers.
        providers: Vec<String>,
    },
    /// No.
    Missing {
        /// What is missing.
        missing: String,
        /// What helps.
        cure: String,
    },
}

const NO_LIBRARY: &str = "no ONNX Runtime library was found";

/// Looks for every engine; `ort_lib` is the file that `--ort-lib` names.
#[must_use]
pub fn inventory(ort_lib: Option<&Path>) -> Inventory {
    let around = Surroundings::of_process();
    let found = search(ort_lib, &around);
    // A library that is named hides the others from a run, but not from those who ask what there is.
    let mut all = found.candidates.clone();
    all.extend(search(None, &around.without(LIBRARY_VARIABLE)).candidates);
    let ort = ort(&found, &all);
    let cuda = cuda(&found, &all);
    Inventory {
        engines: vec![tract(), ort, cuda],
        auto: select_among(EngineChoice::Auto, || found.clone()).ok(),
        looked_in: found.looked_in,
    }
}

fn tract() -> Entry {
    Entry {
        name: TractEngine.name(),
        state: State::Found {
            version: TractEngine.version(),
            path: None,
            reason: "it is embedded in lsqc".to_owned(),
            providers: Vec::new(),
        },
        others: Vec::new(),
    }
}

fn ort(found: &Search, all: &[Candidate]) -> Entry {
    const NAME: &str = "ort";
    match OrtEngine::find_among(found) {
        Ok(engine) => Entry {
            name: NAME,
            state: State::Found {
                version: engine.version(),
                path: Some(engine.path().to_owned()),
                reason: engine.why().to_owned(),
                providers: engine.providers(),
            },
            others: others(all, Some(engine.path())),
        },
        Err(error) => Entry {
            name: NAME,
            state: missing(error),
            others: others(all, found.candidates.first().map(|first| first.path.as_path())),
        },
    }
}

fn missing(error: EngineError) -> State {
    match error {
        EngineError::Library { path, why, cause, cure } => State::Missing {
            missing: format!("{} ({why}) cannot be used as ONNX Runtime: {cause}", path.display()),
            cure,
        },
        EngineError::Cuda { path, why, cause, cure } => State::Missing {
            missing: format!("the ONNX Runtime at {} ({why}) does not run on CUDA: {cause}", path.display()),
            cure,
        },
        EngineError::NotFound { .. } => State::Missing {
            missing: NO_LIBRARY.to_owned(),
            cure: "`pip install onnxruntime` in the active Python environment, or name a library with --ort-lib FILE".to_owned(),
        },
        other => State::Missing {
            missing: other.to_string(),
            cure: "`--engine tract` needs nothing".to_owned(),
        },
    }
}

/// The candidates but the one that is told of, each once.
fn others(all: &[Candidate], told: Option<&Path>) -> Vec<Candidate> {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut seen: BTreeSet<PathBuf> = told.map(real).into_iter().collect();
    let mut others = all.to_vec();
    others.retain(|candidate| seen.insert(real(&candidate.path)));
    others
}

/// ONNX Runtime on a GPU, by the library that is open.
fn cuda(found: &Search, all: &[Candidate]) -> Entry {
    let state = match OrtEngine::find_among(found).and_then(|engine| engine.on_cuda()) {
        Ok(engine) => State::Found {
            version: engine.version(),
            path: Some(engine.path().to_owned()),
            reason: format!("{}, and CUDA works", engine.why()),
            providers: engine.providers(),
        },
        Err(EngineError::NotFound { .. }) => State::Missing {
            missing: NO_LIBRARY.to_owned(),
            cure: format!("{CUDA_INSTALL} in the active Python environment"),
        },
        Err(error) => missing(error),
    };
    let with_cuda = |candidate: &&Candidate| OrtEngine::comes_with_cuda(&candidate.path);
    let state = match (state, all.iter().find(with_cuda)) {
        // Another one that was found may have what this one lacks.
        (State::Missing { missing, .. }, Some(other)) if !found.candidates.first().is_some_and(|first| with_cuda(&first)) => {
            State::Missing {
                missing,
                cure: format!("`--ort-lib {}` names a library that comes with CUDA", other.path.display()),
            }
        }
        (state, _) => state,
    };
    Entry {
        name: "ort-cuda",
        state,
        others: Vec::new(),
    }
}
