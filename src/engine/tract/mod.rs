//! The embedded engine: tract, compiled in. It needs nothing installed and runs every step graph that `legalize` spells for it.
//!
//! A graph with symbolic extents is specialised for the concrete shapes of its feeds, once per set of shapes: tract's plans are faster
//! that way, and what a plan computes does not depend on how far tract can reason about symbols. State goes from a step's outputs to the
//! next step's inputs as shared tensors, without a copy. tract fuses no QuantizeLinear or DequantizeLinear with a Conv, so
//! [`QdqFusion`](super::QdqFusion) has nothing to switch; it writes no optimised model.
//!
//! Refused: operators that tract does not know, by name; operators of other domains than ONNX's, which tract would take for ONNX's of
//! the same name; models with functions of their own. tract's panics become errors.

mod convert;
mod operators;
mod session;

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use lsqc_passes::ir::{DType, LSQC_DOMAIN};
use tract_linalg::multithread::Executor;
use tract_onnx::Onnx;
use tract_onnx::pb::{self, ModelProto, tensor_shape_proto::dimension, type_proto};
use tract_onnx::prelude::Framework;

use super::guard::{hush_this_thread, quietly};
use super::kernels::NATIVE;
use super::memory::keep_freed_memory;
use super::signature::{Port, Signature};
use super::{Engine, EngineError, LoadOptions, Session};
use session::TractSession;

const NAME: &str = "tract";
/// The version that Cargo.toml pins.
const VERSION: &str = "0.23.9";

/// The engine; it has no state of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct TractEngine;

impl Engine for TractEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn packed_types(&self) -> bool {
        false
    }

    fn version(&self) -> String {
        format!("tract {VERSION} (embedded)")
    }

    fn native_ops(&self) -> Vec<&'static str> {
        NATIVE.iter().map(|op| op.name).collect()
    }

    fn load(&self, model: &[u8], options: &LoadOptions) -> Result<Box<dyn Session>> {
        keep_freed_memory();
        let refuse = |cause: String| EngineError::Refused { engine: NAME, cause };
        let session =
            quietly(|| build(model, options))
                .map_err(refuse)?
                .map_err(|error| match error.downcast::<EngineError>() {
                    Ok(error) => error,
                    Err(error) => refuse(format!("{error:#}")),
                })?;
        Ok(Box::new(session))
    }
}

fn build(model: &[u8], options: &LoadOptions) -> Result<TractSession> {
    let mut framework = tract_onnx::onnx()
        .with_ignore_output_shapes(true)
        .with_ignore_value_info(true);
    operators::register(&mut framework);
    let proto = framework.proto_model_for_read(&mut std::io::Cursor::new(model))?;
    refuse_unknown(&framework, &proto)?;
    let signature = signature(&proto).context("the model has no graph")?;
    let map = signature.bind(&options.state)?;
    let graph = framework.model_for_proto_model(&proto)?;
    let mut session = TractSession::new(graph, signature, map, executor(options.threads)?);
    session.prepare_if_static()?;
    Ok(session)
}

/// Threads for tract's matrix products and long element-wise loops.
fn executor(threads: usize) -> Result<Executor> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n,
    };
    if threads == 1 {
        return Ok(Executor::SingleThread);
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|at| format!("tract-{at}"))
        .start_handler(|_| hush_this_thread())
        .build()
        .context("starting tract's threads")?;
    Ok(Executor::MultiThread(Arc::new(pool)))
}

/// Names every operator that tract lacks at once, rather than the first that its analysis meets.
fn refuse_unknown(framework: &Onnx, proto: &ModelProto) -> Result<()> {
    let mut unknown = BTreeSet::new();
    let mut graphs: Vec<&pb::GraphProto> = proto.graph.iter().collect();
    while let Some(graph) = graphs.pop() {
        for node in &graph.node {
            let standard = matches!(node.domain.as_str(), "" | "ai.onnx");
            let native = NATIVE.iter().any(|op| op.name == node.op_type);
            if native && node.domain == LSQC_DOMAIN {
                continue;
            }
            if !standard || native || !framework.op_register.0.contains_key(&node.op_type) {
                let domain = if standard {
                    String::new()
                } else {
                    format!("{}.", node.domain)
                };
                unknown.insert(format!("{domain}{}", node.op_type));
            }
            graphs.extend(node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()));
            graphs.extend(node.attribute.iter().flat_map(|attribute| &attribute.graphs));
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let unknown: Vec<String> = unknown.into_iter().collect();
    let cause = format!(
        "it has no operator {}; ONNX Runtime (--engine ort) may have",
        unknown.join(", ")
    );
    Err(EngineError::Refused { engine: NAME, cause }.into())
}

fn signature(proto: &ModelProto) -> Option<Signature> {
    let graph = proto.graph.as_ref()?;
    let initialised: BTreeSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let fed = graph.input.iter().filter(|input| !initialised.contains(input.name.as_str()));
    Some(Signature {
        inputs: fed.map(port).collect(),
        outputs: graph.output.iter().map(port).collect(),
    })
}

fn port(info: &pb::ValueInfoProto) -> Port {
    let tensor = info
        .r#type
        .as_ref()
        .and_then(|of| of.value.as_ref())
        .map(|type_proto::Value::TensorType(tensor)| tensor);
    let extent = |dim: &pb::tensor_shape_proto::Dimension| match dim.value {
        Some(dimension::Value::DimValue(extent)) => usize::try_from(extent).ok(),
        _ => None,
    };
    Port {
        name: info.name.clone(),
        dtype: tensor.and_then(|tensor| DType::from_code(tensor.elem_type)),
        dims: tensor
            .and_then(|tensor| tensor.shape.as_ref())
            .map(|shape| shape.dim.iter().map(extent).collect()),
    }
}
