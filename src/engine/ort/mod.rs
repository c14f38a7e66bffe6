//! ONNX Runtime, loaded from a library file at run time; its CPU provider.
//!
//! Settings, for all sessions: no memory patterns (half the memory, no slower), threads stop spinning between runs, deterministic
//! kernels, errors only in the log, and the log goes to `tracing`. Stepping sessions are optimised to the EXTENDED level (ALL adds
//! nothing to a step graph), others to the runtime's default. [`QdqFusion::Off`] disables its Q/DQ fusion.
//!
//! On x86 without VNNI the runtime adds products of u8 and s8 in 16 bits, which saturates. There [`QdqFusion::Default`] asks for its
//! precise, slower kernels: [`needs_quant_precision`] says whether.
//!
//! The library is process-wide: the first one that is opened stays, and another one is refused. Tensors of strings and of the types that
//! [`Element`](lsqc_passes::ir::Element) lacks are refused as feeds and results.

mod convert;
mod library;
mod operators;
mod session;

use std::path::Path;

use anyhow::{Context, Result};
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{Outlet, ValueType};

use super::discover::{Surroundings, search};
use super::guard::quietly;
use super::signature::{Port, Signature};
use super::{Engine, EngineError, LoadOptions, QdqFusion, Session};
use library::Library;
use session::OrtSession;

const NAME: &str = "ort";

/// ONNX Runtime with its CPU provider.
#[derive(Clone, Debug)]
pub struct OrtEngine {
    library: Library,
}

impl OrtEngine {
    /// Finds a library as [`search`] does and opens the first that is usable; one that the user named is the only one tried.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is none; [`EngineError::Library`] if none is usable: the named one's, or the first one's.
    pub fn find(ort_lib: Option<&Path>) -> Result<OrtEngine, EngineError> {
        OrtEngine::find_among(&search(ort_lib, &Surroundings::of_process()))
    }

    /// As [`OrtEngine::find`], from a search that was made.
    ///
    /// # Errors
    /// As [`OrtEngine::find`].
    pub fn find_among(found: &super::discover::Search) -> Result<OrtEngine, EngineError> {
        let mut first = None;
        for candidate in &found.candidates {
            match Library::open(&candidate.path, &candidate.why) {
                Ok(library) => return Ok(OrtEngine { library }),
                Err(error) if candidate.named => return Err(error),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| EngineError::NotFound {
            looked_in: found.looked_in.clone(),
        }))
    }

    /// How the library was found, as part of a sentence.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.library.why
    }
}

/// Is the runtime asked for precise quantized kernels, because this CPU's fast ones saturate?
#[must_use]
pub fn needs_quant_precision() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        !(std::is_x86_feature_detected!("avx512vnni") || std::is_x86_feature_detected!("avxvnni"))
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

impl Engine for OrtEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        format!("ONNX Runtime {} (CPU)", self.library.version)
    }

    fn describe(&self) -> String {
        format!("{} from {}", self.version(), self.library.path.display())
    }

    fn native_ops(&self) -> Vec<&'static str> {
        super::kernels::NATIVE.iter().map(|op| op.name).collect()
    }

    fn load(&self, model: &[u8], options: &LoadOptions) -> Result<Box<dyn Session>> {
        let refuse = |cause: String| EngineError::Refused { engine: NAME, cause };
        let session =
            quietly(|| self.build(model, options))
                .map_err(refuse)?
                .map_err(|error| match error.downcast::<EngineError>() {
                    Ok(error) => error,
                    Err(error) => refuse(format!("{error:#}")),
                })?;
        Ok(Box::new(session))
    }
}

impl OrtEngine {
    fn build(&self, model: &[u8], options: &LoadOptions) -> Result<OrtSession> {
        let session = self.configure(options)?.commit_from_memory(model)?;
        let signature = Signature {
            inputs: session.inputs().iter().map(port).collect::<Result<_>>()?,
            outputs: session.outputs().iter().map(port).collect::<Result<_>>()?,
        };
        let map = signature.bind(&options.state)?;
        Ok(OrtSession::new(session, signature, map))
    }

    fn configure(&self, options: &LoadOptions) -> Result<SessionBuilder> {
        let level = if options.state.is_empty() {
            GraphOptimizationLevel::All
        } else {
            GraphOptimizationLevel::Level2
        };
        let builder = ort::session::Session::builder(&self.library.environment)?;
        let builder = builder.with_log_level(LogLevel::Error).map_err(plain)?;
        let builder = builder.with_optimization_level(level).map_err(plain)?;
        let builder = builder.with_memory_pattern(false).map_err(plain)?;
        let builder = builder.with_deterministic_compute(true).map_err(plain)?;
        let mut builder = builder.with_config_entry("session.force_spinning_stop", "1").map_err(plain)?;
        if options.threads > 0 {
            builder = builder.with_intra_threads(options.threads).map_err(plain)?;
        }
        match options.qdq_fusion {
            QdqFusion::Off => builder = builder.with_quant_qdq(false).map_err(plain)?,
            QdqFusion::Default if needs_quant_precision() => builder = builder.with_precise_qmm().map_err(plain)?,
            QdqFusion::Default => {}
        }
        builder = builder.with_operators(operators::domain()?).map_err(plain)?;
        if let Some(path) = &options.optimized_model {
            builder = builder.with_optimized_model_path(path).map_err(plain)?;
        }
        Ok(builder)
    }
}

/// An error without the builder that it hands back.
fn plain(error: ort::Error<SessionBuilder>) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

fn port(outlet: &Outlet) -> Result<Port> {
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        anyhow::bail!("`{}` is not a tensor", outlet.name());
    };
    let dtype =
        convert::dtype(*ty).with_context(|| format!("`{}` has the type {ty}, which lsqc cannot feed or read", outlet.name()))?;
    Ok(Port {
        name: outlet.name().to_string(),
        dtype: Some(dtype),
        dims: Some(shape.iter().map(|&extent| usize::try_from(extent).ok()).collect()),
    })
}
