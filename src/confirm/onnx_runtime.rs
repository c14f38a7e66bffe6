//! ONNX Runtime writes the graph that it would run. A product that still stands there under a layer's name runs in floats.

use std::sync::Arc;

use anyhow::{Context, Result};
use lsqc_passes::ir::Model;

use super::{Runtime, Shown};
use crate::compiler::load;
use crate::engine::{Engine, LoadOptions, QdqFusion};
use crate::failure::Failure;
use crate::model_file;

/// Products in floats, as ONNX Runtime calls them in an optimised graph.
const FLOAT_PRODUCTS: [&str; 7] = [
    "Conv",
    "FusedConv",
    "ConvTranspose",
    "Gemm",
    "FusedGemm",
    "MatMul",
    "FusedMatMul",
];

/// An engine that is ONNX Runtime.
pub struct OnnxRuntime(pub Arc<dyn Engine>);

impl Runtime for OnnxRuntime {
    fn version(&self) -> String {
        self.0.version()
    }

    fn shown(&self, lowered: &Model, layers: &[String]) -> Result<Shown> {
        let engine = self.0.as_ref();
        let folder = tempfile::tempdir().context("no temporary folder could be made")?;
        let path = folder.path().join("optimised.onnx");
        let options = LoadOptions {
            qdq_fusion: QdqFusion::Default,
            optimized_model: Some(path.clone()),
            ..LoadOptions::plain()
        };
        load(engine, lowered, &options)?;
        if !path.is_file() {
            return Err(
                Failure::usage(format!("the engine {} does not show what it makes of a model", engine.name()))
                    .help("give ONNX Runtime: --engine ort")
                    .into(),
            );
        }
        let optimised = model_file::read(&path)?.model;
        let products = optimised
            .graph
            .nodes()
            .filter(|(_, node)| FLOAT_PRODUCTS.contains(&node.op.name.as_ref()));
        let names: Vec<String> = products.map(|(_, node)| node.name.to_string()).collect();
        // A fused op has the name of its product behind a word.
        let in_floats = |layer: &&String| {
            names
                .iter()
                .any(|name| name == *layer || name.ends_with(&format!(" {layer}")))
        };
        Ok(Shown {
            floats: layers.iter().filter(in_floats).cloned().collect(),
            ..Shown::default()
        })
    }
}
