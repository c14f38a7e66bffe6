//! ONNX Runtime's CUDA provider: whether it starts, and how it is set.
//!
//! It starts in these steps, each with its own error: the library was built with it and has its file beside; what it needs of CUDA, and
//! cuDNN, loads; the driver shows a device; a number goes to the device and comes back.
//!
//! Settings: the first device; no TF32, which would round the operands of products to 10 bits, so that sums are float32's as on the CPU;
//! convolution algorithms by cuDNN's heuristics, which always choose alike, where its search by timing may choose another one in every
//! run; and a memory arena that grows by what is asked for, not by doubling.

use std::path::{Path, PathBuf};

use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProvider, ExecutionProviderDispatch};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::value::Tensor;

use super::library::Library;
use super::nvidia::{CUDNN, Gpu, first_gpu, has_cudnn, preload};
use crate::engine::EngineError;
use crate::engine::guard::quietly;

/// The number of the device. `CUDA_VISIBLE_DEVICES` says which one that is.
pub(super) const DEVICE: i32 = 0;

/// What brings the provider and all that it needs.
pub(super) const INSTALL: &str = "`pip install \"onnxruntime-gpu[cuda,cudnn]\"`";

/// The provider, as every session takes it.
pub(super) fn provider() -> ExecutionProviderDispatch {
    CUDA::default()
        .with_device_id(DEVICE)
        .with_tf32(false)
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        .build()
        .error_on_failure()
}

/// The device's memory, for a session's buffers.
pub(super) fn allocator(session: &Session) -> ort::Result<Allocator> {
    let info = MemoryInfo::new(AllocationDevice::CUDA, DEVICE, AllocatorType::Device, MemoryType::Default)?;
    Allocator::new(session, info)
}

/// Does the library at `path` have the provider's file beside it, where it looks for it?
pub(super) fn is_beside(path: &Path) -> bool {
    provider_file(path).is_file()
}

fn provider_file(path: &Path) -> PathBuf {
    path.with_file_name(if cfg!(windows) {
        "onnxruntime_providers_cuda.dll"
    } else {
        "libonnxruntime_providers_cuda.so"
    })
}

/// A library without the provider, found or named at `path`.
pub(super) fn lacking(path: &Path, why: &str) -> EngineError {
    EngineError::Cuda {
        path: path.to_path_buf(),
        why: why.to_string(),
        cause: "it was built for the CPU and has no CUDA provider".to_string(),
        cure: format!("{INSTALL} gives one that has it, after `pip uninstall onnxruntime`, which takes the same folder"),
    }
}

/// Starts the provider of `library`; gives the device.
///
/// # Errors
/// [`EngineError::Cuda`], with what is missing and where to get it.
pub(super) fn start(library: &Library) -> Result<Gpu, EngineError> {
    if !is_beside(&library.path) || !CUDA::is_available().unwrap_or(false) {
        return Err(lacking(&library.path, &library.why));
    }
    let fail = |(cause, cure): (String, String)| EngineError::Cuda {
        path: library.path.clone(),
        why: library.why.clone(),
        cause,
        cure,
    };
    preload(&library.path);
    quietly(|| register(library))
        .and_then(|registered| registered.map_err(|error| error.to_string()))
        .map_err(|error| fail(does_not_load(&error)))?;
    if !has_cudnn() {
        return Err(fail(not_found(CUDNN[0])));
    }
    let gpu = first_gpu().map_err(|cause| fail((cause, NO_DEVICE.to_string())))?;
    quietly(there_and_back)
        .and_then(|done| done.map_err(|error| error.to_string()))
        .and_then(|same| same.then_some(()).ok_or_else(|| "a number came back changed".to_string()))
        .map_err(|error| {
            let cause = format!("the device {} does not work: {}", gpu.name, shortened(&error));
            fail((cause, NO_DEVICE.to_string()))
        })?;
    Ok(gpu)
}

const NO_DEVICE: &str = "`nvidia-smi` lists what the driver shows, CUDA_VISIBLE_DEVICES may hide it, and the driver must be as new as CUDA; `--engine ort` \
     uses the CPU";

fn register(library: &Library) -> ort::Result<()> {
    Session::builder(&library.environment)?
        .with_execution_providers([provider()])
        .map(|_| ())
        .map_err(|error| ort::Error::new(error.to_string()))
}

/// Copies a number to the device and back; is it the same?
fn there_and_back() -> ort::Result<bool> {
    const NUMBER: f32 = 1.25;
    let here = Tensor::from_array(([1], vec![NUMBER]))?;
    let there = here.to(AllocationDevice::CUDA, DEVICE)?;
    let back = there.to(AllocationDevice::CPU, 0)?;
    Ok(back.extract_tensor().1 == [NUMBER])
}

/// Cause and cure for what ONNX Runtime says when the provider's library does not load.
fn does_not_load(error: &str) -> (String, String) {
    let Some(missing) = missing_library(error) else {
        let cure = if error.contains("CUDA failure") {
            NO_DEVICE.to_string()
        } else {
            format!("{INSTALL} installs it with what it needs; `--engine ort` uses the CPU")
        };
        return (format!("its CUDA provider does not start: {}", shortened(error)), cure);
    };
    not_found(missing)
}

/// Cause and cure for a library that the provider needs.
fn not_found(missing: &str) -> (String, String) {
    let cure = if missing.starts_with("libcuda.so") {
        "it is part of NVIDIA's driver, which the machine needs besides a GPU; `--engine ort` uses the CPU".to_string()
    } else {
        format!(
            "{INSTALL} puts it where lsqc looks: site-packages/nvidia/*/lib of the same environment, then the system's library path; \
             `--engine ort` uses the CPU"
        )
    };
    (format!("its CUDA provider does not load, since {missing} is not found"), cure)
}

/// The file that the loader names: `libcudart.so.13: cannot open shared object file: …`.
fn missing_library(error: &str) -> Option<&str> {
    let (before, _) = error.split_once(": cannot open shared object file")?;
    before.rsplit([' ', ':']).next().filter(|name| name.contains(".so"))
}

/// ONNX Runtime's message without the place in its sources and what it repeats of itself.
fn shortened(error: &str) -> String {
    const MOST: usize = 300;
    let line = error.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let text = line.find("CUDA failure").and_then(|at| line.get(at..)).unwrap_or(line);
    let text = text.split(" ; ").next().unwrap_or_default();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_library_is_named() {
        let said = "/onnxruntime_src/provider_bridge_ort.cc:2195 onnxruntime::Provider& Get() [ONNXRuntimeError] : 1 : FAIL : Failed to \
                    load library /x/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file: No \
                    such file or directory";
        assert_eq!(missing_library(said), Some("libcublasLt.so.13"));
        assert_eq!(missing_library("something else"), None);
        let (cause, cure) = does_not_load("error: libcuda.so.1: cannot open shared object file");
        assert_eq!(cause, "its CUDA provider does not load, since libcuda.so.1 is not found");
        assert!(cure.contains("driver"), "{cure}");
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let long = "é".repeat(1000);
        assert_eq!(shortened(&long).chars().count(), 301);
        assert_eq!(
            shortened("x.cc:1 F() CUDA failure 100: no CUDA-capable device is detected ; GPU=0 ; hostname=h"),
            "CUDA failure 100: no CUDA-capable device is detected"
        );
    }
}
