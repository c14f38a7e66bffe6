//! Engines run ONNX graphs. They take and give ONNX bytes and tensors only.
//!
//! An [`Engine`] loads a model into a [`Session`]. A session either maps feeds to outputs ([`Session::run`]) or, where the load options bind
//! outputs to the inputs that they are the next value of, keeps that state on the engine's device and steps it ([`Session::step`]).

pub mod discover;
mod error;
mod guard;
pub mod inventory;
mod kernels;
mod memory;
pub mod openvino;
pub mod ort;
mod select;
mod signature;
pub mod tract;

use std::collections::BTreeMap;

use anyhow::Result;
use lsqc_passes::ir::Tensor;

pub use error::EngineError;
pub(crate) use guard::quietly;
pub use memory::release_freed_memory;
pub use openvino::OpenVino;
pub use select::{EngineChoice, Selected, select, select_among};
pub use tract::TractEngine;

/// Tensors by the name of the graph input or output.
pub type Tensors = BTreeMap<String, Tensor>;

/// One piece of state: the output `next` of a step is the input `current` of the following one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateBinding {
    /// The graph input.
    pub current: String,
    /// The graph output of the same type and shape.
    pub next: String,
}

/// May the engine fuse QuantizeLinear and DequantizeLinear with their neighbours into integer operators?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QdqFusion {
    /// As a user's runtime would: the engine's default.
    Default,
    /// Never: each operator computes what ONNX says of it alone.
    Off,
}

/// May an engine run on the CPU what its device has no kernel for? Engines that run on the CPU have no other device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuFallback {
    /// It may, and copies tensors there and back.
    Allowed,
    /// It refuses such a model.
    Refused,
}

/// How a model is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Threads inside one operator; 0: the engine's choice.
    pub threads: usize,
    /// Whether quantized operators may be fused.
    pub qdq_fusion: QdqFusion,
    /// State that [`Session::step`] carries from one call to the next; empty for a pure function.
    pub state: Vec<StateBinding>,
    /// Whether single nodes may leave the engine's device.
    pub cpu_fallback: CpuFallback,
    /// Where the engine writes the graph as it optimised it, if it can.
    pub optimized_model: Option<std::path::PathBuf>,
}

/// A runtime for ONNX graphs.
pub trait Engine: Send + Sync {
    /// The name that `--engine` takes.
    fn name(&self) -> &'static str;

    /// The runtime and its version.
    fn version(&self) -> String;

    /// The same, and where it came from if it is a library that was found.
    fn describe(&self) -> String {
        self.version()
    }

    /// The ops of the domain `lsqc` that it computes itself.
    fn native_ops(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// The channels to a block that its `com.microsoft.nchwc` operators may take, largest first; which of them they do take, the CPU decides.
    fn channel_blocks(&self) -> &'static [usize] {
        &[]
    }

    /// Does it know int4 and int2, and weights in blocks?
    fn packed_types(&self) -> bool {
        true
    }

    /// May two layers share the levels of a weight in a model that it computes in integers?
    fn shares_weights(&self) -> bool {
        true
    }

    /// The bytes of its device's memory, where that is not the machine's.
    fn device_bytes(&self) -> Option<u64> {
        None
    }

    /// Loads a serialised `ModelProto`.
    ///
    /// # Errors
    /// If the engine refuses the model; the error says why in the engine's words.
    fn load(&self, model: &[u8], options: &LoadOptions) -> Result<Box<dyn Session>>;

    /// Loads a serialised `ModelProto` that says of its large tensors that they are in a file, which need not be there: `tensors` has them.
    ///
    /// # Errors
    /// As [`Engine::load`], and if the engine takes no such model.
    fn load_apart(&self, _model: &[u8], _tensors: &Tensors, _options: &LoadOptions) -> Result<Box<dyn Session>> {
        Err(EngineError::Refused {
            engine: self.name(),
            cause: "it is over 2 GB; ONNX Runtime takes such models (--engine ort)".to_owned(),
        }
        .into())
    }
}

/// A loaded model.
pub trait Session {
    /// Runs the model once; `feeds` has every input, the result every output. Any bound state is ignored: all inputs are feeds.
    ///
    /// # Errors
    /// If a feed is missing or does not fit, or the engine fails.
    fn run(&mut self, feeds: &Tensors) -> Result<Tensors>;

    /// Runs one step from the session's state; `feeds` has the inputs that are not state, the result the outputs that are not.
    ///
    /// # Errors
    /// As [`Session::run`], and if the state was never set.
    fn step(&mut self, feeds: &Tensors) -> Result<Tensors>;

    /// The present state, by the names of the inputs.
    ///
    /// # Errors
    /// If the state was never set or cannot be copied from the device.
    fn state(&self) -> Result<Tensors>;

    /// Replaces the state; `state` has a tensor for each binding's `current`.
    ///
    /// # Errors
    /// If one is missing or does not fit.
    fn set_state(&mut self, state: &Tensors) -> Result<()>;
}
