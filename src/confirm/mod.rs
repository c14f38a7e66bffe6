//! What a runtime makes of a lowered network, against what `inspect` says of it.
//!
//! The network is calibrated on noise and lowered, and the target's own runtime says which of the quantized layers it computes in floats
//! ([`Runtime`]). It trains nothing and needs no data: which ops a runtime computes in integers does not depend on steps.

mod crash;
mod onnx_runtime;
mod openvino;

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use lsqc_passes::ir::Model;
use lsqc_passes::pipelines;
use lsqc_passes::quantize::Sites;

use crate::calibrate::{self, Start};
use crate::compiler::Compiler;
use crate::config::{Init, Quantization};
use crate::data::{Dataset, Synthetic};
use crate::engine::{Engine, LoadOptions, QdqFusion};
use crate::run::{form, model_inputs, set_steps, step_init};
use crate::terminal::Terminal;
pub use onnx_runtime::OnnxRuntime;

/// Samples of noise.
const SAMPLES: usize = 4;

/// A runtime that shows what it makes of a model.
pub trait Runtime {
    /// The runtime and its version.
    fn version(&self) -> String;

    /// Which of `layers`, nodes of the lowered model by name, it computes in floats.
    ///
    /// # Errors
    /// If it refuses the model, or does not show what it makes of it.
    fn shown(&self, lowered: &Model, layers: &[String]) -> Result<Shown>;
}

/// What a runtime shows of layers. Those that are in neither set it computes in integers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Those in floats.
    pub floats: BTreeSet<String>,
    /// Those that it does not show: larger ops have them, or one op stands for equal ones.
    pub hidden: BTreeSet<String>,
}

/// Who confirms.
pub struct Confirming<'a> {
    /// The runtime that is asked.
    pub runtime: &'a dyn Runtime,
    /// The engine that calibrates.
    pub engine: &'a dyn Engine,
    /// Where progress is said.
    pub terminal: &'a Terminal,
}

/// What the runtime shows of the quantized layers and products of activations.
///
/// # Errors
/// If the engine or the runtime refuses the model.
pub fn confirm(
    asked: &Quantization,
    (float, initial, sites): (&Model, &Model, &Sites),
    confirming: &Confirming,
    compiler: &mut Compiler,
) -> Result<Shown> {
    let noise: Arc<dyn Dataset> = Arc::new(Synthetic::new(&model_inputs(float), SAMPLES, 0, 0)?);
    let options = LoadOptions {
        qdq_fusion: QdqFusion::Off,
        ..LoadOptions::plain()
    };
    let init = step_init(Init::Mse);
    let start = Start {
        init,
        target: asked.deployment.target,
        untrained: &BTreeSet::new(),
    };
    let Confirming {
        runtime,
        engine,
        terminal,
    } = *confirming;
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
    let layers = sites.layers.iter().map(|layer| &layer.name);
    let layers = layers.chain(sites.products.iter().map(|product| &product.name));
    runtime.shown(&lowered, &layers.cloned().collect::<Vec<_>>())
}
