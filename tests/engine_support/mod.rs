//! What the engine tests share: engines, models, tensors, comparisons.
#![allow(dead_code)] // Each test uses some of it.

use std::path::{Path, PathBuf};

use lsqc::engine::ort::OrtEngine;
use lsqc::engine::tract::TractEngine;
use lsqc::engine::{CpuFallback, Engine, EngineError, LoadOptions, QdqFusion, StateBinding, Tensors};
use lsqc_passes::ir::{DType, Tensor};

/// tract, and ONNX Runtime where the environment has it; demanded if LSQC_REQUIRE_ORT is 1. If LSQC_TEST_CUDA is 1, on CUDA too: it takes a
/// machine with a GPU, where numbers can be compared.
pub fn engines() -> Vec<Box<dyn Engine>> {
    let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(TractEngine)];
    let local = || {
        let lib = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/lib")).ok()?;
        let capi = lib.flatten().map(|entry| entry.path().join("site-packages/onnxruntime/capi"));
        let mut files: Vec<PathBuf> = capi
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.retain(|file| {
            file.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime."))
        });
        files.pop()
    };
    let file = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from).or_else(local);
    match file.as_deref().map(|file| OrtEngine::find(Some(file))) {
        Some(Ok(engine)) => {
            let cuda = std::env::var("LSQC_TEST_CUDA").is_ok_and(|value| value == "1");
            let cuda = cuda.then(|| engine.on_cuda().unwrap_or_else(|error| panic!("{error}")));
            engines.push(Box::new(engine));
            engines.extend(cuda.map(|cuda| Box::new(cuda) as Box<dyn Engine>));
        }
        Some(Err(error)) => panic!("{error}"),
        None if std::env::var("LSQC_REQUIRE_ORT").is_ok_and(|value| value == "1") => {
            panic!("LSQC_REQUIRE_ORT is 1, but neither ORT_DYLIB_PATH nor .venv has an ONNX Runtime")
        }
        None => println!("skipped: no ONNX Runtime"),
    }
    engines
}

/// Load options for one thread and this state, as pairs of `current` and `next`.
pub fn options(state: &[(&str, &str)]) -> LoadOptions {
    LoadOptions {
        threads: 1,
        qdq_fusion: QdqFusion::Default,
        state: state
            .iter()
            .map(|(current, next)| StateBinding {
                current: (*current).to_string(),
                next: (*next).to_string(),
            })
            .collect(),
        cpu_fallback: CpuFallback::Allowed,
        optimized_model: None,
    }
}

/// The bytes of tests/data/engine_NAME.onnx.
pub fn model(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/engine_{name}.onnx"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Named tensors.
pub fn tensors<const N: usize>(named: [(&str, Tensor); N]) -> Tensors {
    named.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect()
}

/// Irregular numbers within ±`scale`.
pub fn wave(shape: &[usize], scale: f32) -> Tensor {
    Tensor::new(
        shape,
        (0..shape.iter().product())
            .map(|at: usize| scale * (at as f32 * 0.73 + 0.1).sin())
            .collect(),
    )
}

/// A float32 tensor.
pub fn single(shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::new(shape, values.iter().map(|&value| value as f32).collect())
}

/// A 2x3 tensor of booleans.
pub fn boolean(values: &[u8]) -> Tensor {
    Tensor::from_bytes(DType::Bool, &[2, 3], values.to_vec().into()).expect("one byte each")
}

/// The numbers of one tensor.
pub fn numbers(of: &Tensors, name: &str) -> Vec<f64> {
    of[name].to_f64().expect("numbers")
}

/// The shape of one tensor.
pub fn shape<'t>(of: &'t Tensors, name: &str) -> &'t [usize] {
    of[name].shape()
}

/// The text of an error that is about a feed.
pub fn feed_error<T>(result: anyhow::Result<T>) -> String {
    let error = result.err().expect("it is refused");
    assert!(matches!(error.downcast_ref(), Some(EngineError::Feed(_))), "{error:?}");
    error.to_string()
}

/// Both have the same tensors within `tolerance`.
pub fn assert_close(found: &Tensors, expected: &Tensors, tolerance: f64) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, tensor) in expected {
        assert_eq!(found[name].shape(), tensor.shape(), "{name}");
        for (found, expected) in numbers(found, name).iter().zip(tensor.to_f64().expect("numbers")) {
            assert_near(*found, expected, tolerance, name);
        }
    }
}

/// `found` is `expected` within `tolerance`, relative above 1.
pub fn assert_near(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!(
        (found - expected).abs() <= tolerance * expected.abs().max(1.0),
        "{what}: {found}, expected {expected}"
    );
}
