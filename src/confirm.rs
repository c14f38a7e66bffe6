//! What a runtime makes of a lowered network: its own optimised graph, against what `inspect` says of it.
//!
//! The network is calibrated on noise and lowered, and ONNX Runtime writes the graph that it would run. A product that still stands there
//! under a layer's name runs in floats.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use lsqc_passes::ir::Model;
use lsqc_passes::pipelines;
use lsqc_passes::quantize::Sites;

use crate::calibrate::{self, Start};
use crate::compiler::{Compiler, load};
use crate::config::{Init, Quantization};
use crate::data::{Dataset, Synthetic};
use crate::engine::{Engine, LoadOptions, QdqFusion};
use crate::failure::Failure;
use crate::model_file;
use crate::run::{form, model_inputs, set_steps, step_init};
use crate::terminal::Terminal;

/// Samples of noise: which ops are fused does not depend on steps.
const SAMPLES: usize = 4;
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

/// The quantized layers that `engine`, an ONNX Runtime, computes in floats.
///
/// # Errors
/// If the engine refuses the model, or is none that shows its graph.
pub fn float_layers(
    asked: &Quantization,
    (float, initial, sites): (&Model, &Model, &Sites),
    engine: &dyn Engine,
    compiler: &mut Compiler,
    terminal: &Terminal,
) -> Result<BTreeSet<String>> {
    let noise: Arc<dyn Dataset> = Arc::new(Synthetic::new(&model_inputs(float), SAMPLES, 0, 0)?);
    let options = LoadOptions {
        qdq_fusion: QdqFusion::Off,
        ..LoadOptions::plain()
    };
    let init = step_init(Init::Mse);
    let start = Start {
        init,
        widest_unsigned: asked.deployment.target.widest_unsigned,
        untrained: &std::collections::BTreeSet::new(),
    };
    let calibration = calibrate::calibrate(float, sites, &noise, engine, &options, start, terminal)?;
    let mut lowered = initial.clone();
    set_steps(compiler, &mut lowered, &calibration, init)?;
    let form = form(asked);
    compiler.run(pipelines::FINISH, &mut lowered, |cx| cx.set(form), |_| ())?;
    for id in lowered.graph.node_list() {
        let label = lowered.graph[id].label(&lowered.graph).into_owned();
        lowered.graph[id].name = label;
    }
    compiler.run(pipelines::LOWER, &mut lowered, |cx| cx.set(form), |_| ())?;

    let folder = tempfile::tempdir().context("no temporary folder could be made")?;
    let path = folder.path().join("optimised.onnx");
    let shown = LoadOptions {
        qdq_fusion: QdqFusion::Default,
        optimized_model: Some(path.clone()),
        ..options
    };
    load(engine, &lowered, &shown)?;
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
    let products = sites.products.iter().map(|product| product.name.clone());
    let layers = sites.layers.iter().map(|layer| layer.name.clone()).chain(products);
    // A fused op has the name of its product behind a word.
    Ok(layers
        .filter(|layer| names.iter().any(|name| name == layer || name.ends_with(&format!(" {layer}"))))
        .collect())
}
