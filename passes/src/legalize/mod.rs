//! Spells the ops of lsqc's own domain in standard ONNX ops, which every engine runs; and the standard normalizations that not every engine
//! takes as they stand.
//!
//! Each op is one small function; where an op has several good spellings, the choice is a condition on shapes next to it. The spelled graph
//! computes the same numbers up to float rounding, and holds no op of the domain `lsqc` but those that the engine computes itself
//! ([`Dialect`]).

mod batch_norm;
mod blocked;
mod conv_gradients;
mod fake_quantize;
mod group_norm;
mod pool_gradients;
mod taps;

use std::collections::HashMap;

use crate::ir::{DType, Graph, LSQC_DOMAIN, Model, NodeId, ValueId};
use crate::ops::build::Build;
use crate::pass::{Changed, Pass, PassCx, PassError};

/// The pass.
pub static LEGALIZE: Pass = Pass {
    name: "legalize",
    about: "spell quantizers and backward ops in standard ONNX ops",
    needs: "types are fixed, where backward ops are left",
    gives: "no op of the domain lsqc",
    run,
};

/// Should every quantizer's integer code v̄ be an output too?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Codes {
    /// No.
    #[default]
    Hidden,
    /// Yes, named `code/<quantized value>`.
    Outputs,
}

/// What an engine has beyond standard ops; by default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// Ops of the domain `lsqc` that the engine computes itself: on floats, convolutions in two dimensions, quantizers without blocks.
    pub native: Vec<&'static str>,
    /// The channels to a block of its `com.microsoft.nchwc` operators, where it has them.
    pub channel_block: Option<usize>,
}

impl Dialect {
    fn computes(&self, graph: &Graph, id: NodeId) -> bool {
        let node = &graph[id];
        let ty = node.input(0).and_then(|operand| graph[operand].ty.as_ref());
        let fits = ty.is_some_and(|ty| ty.dtype == DType::F32 && (node.op.name != "ConvGradWeight" || ty.rank() == Some(4)));
        // The kernels of quantizers have one step, or one for each index of an axis.
        let fits = fits && node.int("block_size").is_none();
        node.op.domain == LSQC_DOMAIN && fits && self.native.iter().any(|name| node.op.name == *name)
    }
}

/// A quantized value, its step, its bits and whether it is signed.
type QuantizedKey = (ValueId, ValueId, (u32, bool));

/// What is spelled once and used by a forward op and by its backward op.
#[derive(Default)]
pub(crate) struct Shared {
    /// v / s and v̄, by quantized value, step and bits with sign.
    quantized: HashMap<QuantizedKey, (ValueId, ValueId)>,
    /// x − μ, by x and μ.
    centred: HashMap<(ValueId, ValueId), ValueId>,
    /// 1/√(σ² + ε), by σ².
    inverse: HashMap<ValueId, ValueId>,
}

fn run(model: &mut Model, cx: &mut PassCx) -> Result<Changed, PassError> {
    let codes: Codes = cx.get();
    let dialect: Dialect = cx.get();
    let graph = &mut model.graph;
    let mut shared = Shared::default();
    let (mut changed, mut blocked) = (false, false);
    for id in graph.node_list() {
        let shows_code = codes == Codes::Outputs && graph[id].op.is_lsqc("FakeQuantize");
        if dialect.computes(graph, id) && !shows_code {
            continue;
        }
        let results = match in_blocks(graph, id, dialect.channel_block).map_err(|why| PassError::at(graph, id, why))? {
            Some(result) => {
                blocked = true;
                vec![result]
            }
            None if graph[id].op.domain != LSQC_DOMAIN && !is_trained_norm(graph, id) && !is_group_norm(graph, id) => continue,
            None => spell(graph, id, &mut shared, codes).map_err(|why| PassError::at(graph, id, why))?,
        };
        let old = graph[id].outputs().to_vec();
        let mut names = Vec::new();
        for (old, new) in old.into_iter().zip(results) {
            if let Some(old) = old {
                names.push((graph[old].name().to_owned(), new));
                take_over(graph, old, new);
            }
        }
        graph.remove_node(id);
        for (name, new) in names {
            // The name is free now, unless it went over with an output.
            if graph.find(&name).is_none() && graph[new].producer().is_some() && !graph.outputs().contains(&new) {
                graph.rename(new, &name);
            }
        }
        changed = true;
    }
    if blocked {
        model.set_opset(blocked::DOMAIN, 1);
    }
    Ok(Changed::from(changed))
}

/// A convolution in blocks of channels, where the engine has them and the convolution fits.
fn in_blocks(graph: &mut Graph, id: NodeId, block: Option<usize>) -> Result<Option<ValueId>, String> {
    let Some(block) = block else { return Ok(None) };
    let node = graph[id].clone();
    let prefix = node.label(graph).into_owned();
    let mut build = Build::new(graph, &prefix);
    if node.op.is("Conv") {
        blocked::conv(&mut build, &node, block)
    } else if node.op.is_lsqc("ConvGradInput") {
        blocked::input_gradient(&mut build, &node, block)
    } else {
        Ok(None)
    }
}

/// Is the node a BatchNormalization by constant statistics whose γ and β are trained? Not every engine takes one.
fn is_trained_norm(graph: &Graph, id: NodeId) -> bool {
    let node = &graph[id];
    let trained = |index: usize| node.input(index).is_some_and(|value| graph[value].constant().is_none());
    node.op.is("BatchNormalization") && (1..5).any(trained) && node.outputs().len() == 1
}

/// Is the node a GroupNormalization of floats whose shapes are fixed?
fn is_group_norm(graph: &Graph, id: NodeId) -> bool {
    let node = &graph[id];
    let is_fixed = |index: usize| {
        let value = node.input(index).map(|value| &graph[value]);
        value.is_some_and(|value| value.shape().is_some() && value.ty.as_ref().is_some_and(|ty| ty.dtype == DType::F32))
    };
    node.op.is("GroupNormalization") && (0..3).all(is_fixed)
}

fn spell(graph: &mut Graph, id: NodeId, shared: &mut Shared, codes: Codes) -> Result<Vec<ValueId>, String> {
    let node = graph[id].clone();
    let prefix = node.label(graph).into_owned();
    let mut build = Build::new(graph, &prefix);
    match node.op.name.as_ref() {
        "FakeQuantize" => fake_quantize::forward(&mut build, &node, shared, codes),
        "FakeQuantizeGrad" => fake_quantize::backward(&mut build, &node, shared),
        "StopGradient" => Ok(vec![operand(&node, 0)?]),
        "GroupNormalization" => group_norm::forward(&mut build, &node),
        "BatchNormalization" => batch_norm::frozen(&mut build, &node),
        "BatchNormalizationTrain" => batch_norm::forward(&mut build, &node, shared),
        "BatchNormalizationGrad" => batch_norm::backward(&mut build, &node, shared),
        "ConvGradInput" => conv_gradients::input(&mut build, &node),
        "ConvGradWeight" => conv_gradients::weight(&mut build, &node),
        "MaxPoolGrad" => pool_gradients::max(&mut build, &node),
        "AveragePoolGrad" => pool_gradients::average(&mut build, &node),
        _ => Err("lsqc has no spelling for this op".to_owned()),
    }
}

/// Lets `new` stand for `old`, with its name and role: names and roles are what the step graph's users hold on to.
fn take_over(graph: &mut Graph, old: ValueId, new: ValueId) {
    let role = std::mem::take(&mut graph[old].role);
    let ty = graph[old].ty.clone();
    graph.replace(old, new);
    // Where an Identity carries an output's name, it is the output now.
    let name = graph[old].name().to_owned();
    let holder = graph
        .outputs()
        .iter()
        .copied()
        .find(|&output| graph[output].name() == name && output != old)
        .unwrap_or(new);
    graph[holder].role = role;
    if graph[holder].ty.is_none() {
        graph[holder].ty = ty;
    }
}

/// Operand `index` of a node of the domain `lsqc`.
fn operand(node: &crate::ir::Node, index: usize) -> Result<ValueId, String> {
    node.input(index).ok_or_else(|| format!("operand {index} is missing"))
}
