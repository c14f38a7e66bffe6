//! ONNX Runtime, loaded from a library file at run time; its CPU and CUDA providers.
//!
//! Settings, for all sessions: no memory patterns (half the memory, no slower), threads stop spinning between runs, deterministic
//! kernels, errors only in the log, and the log goes to `tracing`. Stepping sessions are optimised to the EXTENDED level (ALL adds
//! nothing to a step graph), others to the runtime's default. [`QdqFusion::Off`] disables its Q/DQ fusion.
//!
//! On x86 without VNNI the runtime adds products of u8 and s8 in 16 bits, which saturates. There [`QdqFusion::Default`] asks for its
//! precise, slower kernels: [`needs_quant_precision`] says whether.
//!
//! On CUDA ([`OrtEngine::on_cuda`]) every node that the provider has a kernel for runs on the device, the rest on the CPU unless
//! [`CpuFallback::Refused`]; `cuda.rs` has its settings. State stays in the device's memory from step to step.
//!
//! The library is process-wide: the first one that is opened stays, and another one is refused. Tensors of strings and of the types that
//! [`Element`](lsqc_passes::ir::Element) lacks are refused as feeds and results.

mod convert;
mod cuda;
mod library;
mod nvidia;
mod operators;
mod providers;
mod session;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{Outlet, ValueType};

use super::discover::{Surroundings, search};
use super::guard::quietly;
use super::signature::{Port, Signature};
use super::{CpuFallback, Engine, EngineError, LoadOptions, QdqFusion, Session, Tensors};
pub use cuda::INSTALL as CUDA_INSTALL;
use library::Library;
use nvidia::Gpu;
pub use session::{OrtSession, StatePlace};

/// ONNX Runtime on one device.
#[derive(Clone, Debug)]
pub struct OrtEngine {
    library: Library,
    device: Device,
}

/// Where nodes run and state lies.
#[derive(Clone, Debug)]
enum Device {
    Cpu,
    Cuda(Gpu),
}

impl Device {
    /// The engine's name.
    fn engine(&self) -> &'static str {
        match self {
            Device::Cpu => "ort",
            Device::Cuda(_) => "ort-cuda",
        }
    }
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
                Ok(library) => {
                    let device = Device::Cpu;
                    return Ok(OrtEngine { library, device });
                }
                Err(error) if candidate.named => return Err(error),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| EngineError::NotFound {
            install: "`pip install onnxruntime`",
            looked_in: found.looked_in.clone(),
        }))
    }

    /// As [`OrtEngine::find_among`], on CUDA: takes the first usable library that has the CUDA provider beside it.
    ///
    /// # Errors
    /// As [`OrtEngine::find_among`]; [`EngineError::Cuda`] if none has the provider, or it does not start.
    pub fn find_cuda_among(found: &super::discover::Search) -> Result<OrtEngine, EngineError> {
        let Some(first) = found.candidates.first() else {
            return Err(EngineError::NotFound {
                install: cuda::INSTALL,
                looked_in: found.looked_in.clone(),
            });
        };
        let mut with_provider = found.clone();
        // One that the user named is opened in any case: its own fault comes first.
        with_provider
            .candidates
            .retain(|candidate| candidate.named || cuda::is_beside(&candidate.path));
        if with_provider.candidates.is_empty() {
            return Err(cuda::lacking(&first.path, &first.why));
        }
        OrtEngine::find_among(&with_provider)?.on_cuda()
    }

    /// The same library on CUDA.
    ///
    /// # Errors
    /// [`EngineError::Cuda`], if the provider is missing or does not start.
    pub fn on_cuda(&self) -> Result<OrtEngine, EngineError> {
        let gpu = cuda::start(&self.library)?;
        Ok(OrtEngine {
            library: self.library.clone(),
            device: Device::Cuda(gpu),
        })
    }

    /// The same library on the CPU.
    #[must_use]
    pub fn on_cpu(&self) -> OrtEngine {
        OrtEngine {
            library: self.library.clone(),
            device: Device::Cpu,
        }
    }

    /// Does the library at `path` come with the CUDA provider? It is not opened.
    #[must_use]
    pub fn comes_with_cuda(path: &Path) -> bool {
        cuda::is_beside(path)
    }

    /// Does the library come with the CUDA provider? Whether it starts is another matter.
    #[must_use]
    pub fn has_cuda_provider(&self) -> bool {
        cuda::is_beside(&self.library.path)
    }

    /// The library's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.library.path
    }

    /// The execution providers that the library was built with, in its own words and order.
    #[must_use]
    pub fn providers(&self) -> Vec<String> {
        providers::available(&self.library.environment)
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
        self.device.engine()
    }

    fn shares_weights(&self) -> bool {
        !needs_quant_precision()
    }

    fn version(&self) -> String {
        let version = &self.library.version;
        match &self.device {
            Device::Cpu => format!("ONNX Runtime {version} (CPU)"),
            Device::Cuda(gpu) => format!("ONNX Runtime {version} (CUDA, {})", gpu.name),
        }
    }

    fn describe(&self) -> String {
        format!("{} from {}", self.version(), self.library.path.display())
    }

    fn native_ops(&self) -> Vec<&'static str> {
        match &self.device {
            Device::Cpu => super::kernels::NATIVE.iter().map(|op| op.name).collect(),
            Device::Cuda(_) => Vec::new(),
        }
    }

    fn channel_blocks(&self) -> &'static [usize] {
        match &self.device {
            // AVX-512, and everything else.
            Device::Cpu => &[16, 8],
            Device::Cuda(_) => &[],
        }
    }

    fn device_bytes(&self) -> Option<u64> {
        match &self.device {
            Device::Cpu => None,
            Device::Cuda(gpu) => Some(gpu.memory),
        }
    }

    fn load(&self, model: &[u8], options: &LoadOptions) -> Result<Box<dyn Session>> {
        Ok(Box::new(self.session(model, options)?))
    }

    fn load_apart(&self, model: &[u8], tensors: &Tensors, options: &LoadOptions) -> Result<Box<dyn Session>> {
        Ok(Box::new(self.guarded(model, tensors, options)?))
    }
}

impl OrtEngine {
    /// As [`Engine::load`], as the session that it is.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn session(&self, model: &[u8], options: &LoadOptions) -> Result<OrtSession, EngineError> {
        self.guarded(model, &Tensors::new(), options)
    }

    fn guarded(&self, model: &[u8], tensors: &Tensors, options: &LoadOptions) -> Result<OrtSession, EngineError> {
        let engine = self.device.engine();
        let refuse = |cause: String| EngineError::Refused { engine, cause };
        quietly(|| self.build(model, tensors, options))
            .map_err(refuse)?
            .map_err(|error| match error.downcast::<EngineError>() {
                Ok(error) => error,
                Err(error) => refuse(format!("{error:#}")),
            })
    }

    fn build(&self, model: &[u8], tensors: &Tensors, options: &LoadOptions) -> Result<OrtSession> {
        // The runtime enters our domain into a map of the process when a session starts: it asks whether it is there, and then adds it, so
        // that two sessions at a time may both add it, which it refuses.
        static STARTING: Mutex<()> = Mutex::new(());
        let one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut builder = self.configure(options)?;
        for (name, tensor) in tensors {
            let value = convert::initializer(tensor)?;
            builder = builder.with_external_initializer(name, value).map_err(plain)?;
        }
        let session = builder.commit_from_memory(model)?;
        drop(one_at_a_time);
        let signature = Signature {
            inputs: session.inputs().iter().map(port).collect::<Result<_>>()?,
            outputs: session.outputs().iter().map(port).collect::<Result<_>>()?,
        };
        let map = signature.bind(&options.state)?;
        Ok(OrtSession::new(session, signature, map, &self.device))
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
        // Where it turns int4 weights before a product into its own op, activations stay in float32: by default it rounds them to int8.
        let builder = builder
            .with_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
            .map_err(plain)?;
        let mut builder = builder.with_config_entry("session.force_spinning_stop", "1").map_err(plain)?;
        if options.threads > 0 {
            builder = builder.with_intra_threads(options.threads).map_err(plain)?;
        }
        match options.qdq_fusion {
            QdqFusion::Off => builder = builder.with_quant_qdq(false).map_err(plain)?,
            QdqFusion::Default if needs_quant_precision() => builder = builder.with_precise_qmm().map_err(plain)?,
            QdqFusion::Default => {}
        }
        if matches!(self.device, Device::Cpu) {
            builder = builder.with_operators(operators::domain()?).map_err(plain)?;
        } else {
            builder = builder.with_execution_providers([cuda::provider()]).map_err(plain)?;
            if options.cpu_fallback == CpuFallback::Refused {
                builder = builder.with_disable_cpu_fallback().map_err(plain)?;
            }
        }
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
