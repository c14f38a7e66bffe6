//! What can go wrong with an engine, as one type: the command line maps it to its own exit code.
//!
//! Every message is whole: it names the library, input or node, says what is wrong with it, and what to do where that is known. Causes
//! that come from a runtime are kept in the runtime's words.

use std::path::PathBuf;

/// An engine is missing, or refused or failed to do something.
///
/// Engines return it inside `anyhow::Error`, where `downcast_ref` finds it through any context.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// No ONNX Runtime library was found.
    #[error(
        "no ONNX Runtime library was found; {install} puts one where lsqc looks, `--ort-lib FILE` names one, and \
         `--engine tract` needs none\nlooked in: {}",
        looked_in.join("\n           ")
    )]
    NotFound {
        /// The command that installs what was asked for.
        install: &'static str,
        /// The places, as sentences.
        looked_in: Vec<String>,
    },
    /// A library was found or named, but it is not a usable ONNX Runtime.
    #[error("{} cannot be used as ONNX Runtime: {cause} ({why}); {cure}", path.display())]
    Library {
        /// The file.
        path: PathBuf,
        /// Why this file was tried.
        why: String,
        /// What is wrong with it.
        cause: String,
        /// What the user can do.
        cure: String,
    },
    /// An ONNX Runtime was found or named, but it does not run on CUDA here.
    #[error("the ONNX Runtime at {} does not run on CUDA: {cause} ({why}); {cure}", path.display())]
    Cuda {
        /// The library.
        path: PathBuf,
        /// Why this file was tried.
        why: String,
        /// What is missing, or fails.
        cause: String,
        /// What the user can do.
        cure: String,
    },
    /// No OpenVINO library was found.
    #[error(
        "no OpenVINO library was found; `pip install openvino` puts one where lsqc looks, and `--openvino-lib FILE` names one\nlooked in: {}",
        looked_in.join("\n           ")
    )]
    NoOpenVino {
        /// The places, as sentences.
        looked_in: Vec<String>,
    },
    /// A library was found or named, but it is not a usable OpenVINO.
    #[error("{} cannot be used as OpenVINO: {cause} ({why}); {cure}", path.display())]
    OpenVino {
        /// The file.
        path: PathBuf,
        /// Why this file was tried.
        why: String,
        /// What is wrong with it.
        cause: String,
        /// What the user can do.
        cure: String,
    },
    /// The engine does not take the model.
    #[error("the engine {engine} refuses the model: {cause}")]
    Refused {
        /// The engine's name.
        engine: &'static str,
        /// The reason in the engine's words.
        cause: String,
    },
    /// A feed or a piece of state does not fit the model.
    #[error("{0}")]
    Feed(String),
    /// The engine failed while it ran the model.
    #[error("the engine {engine} failed: {cause}")]
    Failed {
        /// The engine's name.
        engine: &'static str,
        /// The reason in the engine's words.
        cause: String,
    },
}
