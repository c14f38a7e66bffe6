//! Which engine a run uses.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Result;

use super::discover::{Search, Surroundings, search};
use super::ort::{OrtEngine, needs_quant_precision};
use super::tract::TractEngine;
use super::{Engine, EngineError};

/// What `--engine` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// ONNX Runtime if a usable library is found, on CUDA if that works; else tract.
    #[default]
    Auto,
    /// The same, but never on CUDA.
    AutoCpu,
    /// The embedded engine.
    Tract,
    /// ONNX Runtime on the CPU, or an error.
    Ort,
    /// ONNX Runtime on CUDA, or an error.
    OrtCuda,
}

impl FromStr for EngineChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<EngineChoice, String> {
        match text {
            "auto" => Ok(EngineChoice::Auto),
            "tract" => Ok(EngineChoice::Tract),
            "ort" => Ok(EngineChoice::Ort),
            "ort-cuda" => Ok(EngineChoice::OrtCuda),
            _ => Err(format!("`{text}` is not an engine; there are auto, tract, ort and ort-cuda")),
        }
    }
}

/// An engine, and why it was taken.
#[derive(Clone)]
pub struct Selected {
    /// The engine: calibration, training.
    pub engine: Arc<dyn Engine>,
    /// The engine of the proof and of measurement. It is the same, but for CUDA: the integer model is made for ONNX Runtime's CPU provider,
    /// and CUDA's computes it in floats.
    pub judge: Arc<dyn Engine>,
    /// Why, as a sentence for the user.
    pub reason: String,
}

impl Selected {
    /// Does the engine run fused quantized operators with its precise kernels because this CPU's fast ones saturate? The report says so.
    #[must_use]
    pub fn quant_precision(&self) -> bool {
        self.judge.name() == "ort" && needs_quant_precision()
    }
}

impl std::fmt::Debug for Selected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Selected")
            .field("engine", &self.engine.describe())
            .field("reason", &self.reason)
            .finish()
    }
}

/// Takes an engine; `ort_lib` is the file that `--ort-lib` names.
///
/// # Errors
/// If ONNX Runtime is demanded and no usable library is found, or if a library that the user named (by the flag or by the environment) is
/// not usable: a slower engine in its place would be a surprise.
pub fn select(choice: EngineChoice, ort_lib: Option<&Path>) -> Result<Selected> {
    select_among(choice, || search(ort_lib, &Surroundings::of_process()))
}

/// As [`select`], from a search that is made only if it is needed.
///
/// # Errors
/// As [`select`].
pub fn select_among(choice: EngineChoice, search: impl FnOnce() -> Search) -> Result<Selected> {
    if choice == EngineChoice::Tract {
        return Ok(tract("--engine tract asks for it".to_string()));
    }
    let found = search();
    if choice == EngineChoice::OrtCuda {
        let engine = OrtEngine::find_cuda_among(&found)?;
        let reason = format!("--engine ort-cuda asks for it, and ONNX Runtime was {}", engine.why());
        return Ok(cuda(engine, reason));
    }
    match OrtEngine::find_among(&found) {
        Ok(engine) if choice == EngineChoice::Auto && engine.has_cuda_provider() => Ok(match engine.on_cuda() {
            Ok(on_cuda) => {
                let reason = format!("ONNX Runtime was {}, and CUDA works", engine.why());
                cuda(on_cuda, reason)
            }
            Err(error) => {
                let reason = format!("ONNX Runtime was {}; not on CUDA: {error}", engine.why());
                cpu(engine, reason)
            }
        }),
        Ok(engine) => {
            let reason = format!("ONNX Runtime was {}", engine.why());
            Ok(cpu(engine, reason))
        }
        Err(error) if choice == EngineChoice::Ort || found.candidates.iter().any(|candidate| candidate.named) => {
            Err(error.into())
        }
        Err(EngineError::NotFound { .. }) => Ok(tract(
            "no ONNX Runtime was found; it is several times faster (`pip install onnxruntime`)".to_string(),
        )),
        Err(error) => Ok(tract(format!("no usable ONNX Runtime was found: {error}"))),
    }
}

fn tract(reason: String) -> Selected {
    one(Arc::new(TractEngine), reason)
}

fn cpu(engine: OrtEngine, reason: String) -> Selected {
    one(Arc::new(engine), reason)
}

fn cuda(engine: OrtEngine, reason: String) -> Selected {
    Selected {
        judge: Arc::new(engine.on_cpu()),
        engine: Arc::new(engine),
        reason,
    }
}

fn one(engine: Arc<dyn Engine>, reason: String) -> Selected {
    Selected {
        judge: Arc::clone(&engine),
        engine,
        reason,
    }
}
