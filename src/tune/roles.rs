//! `step.json`: the part that every input and output of a step graph plays, so that any ONNX runtime can run it.

use std::collections::BTreeMap;

use lsqc_passes::ir::{Graph, Model, Role, ValueId};
use serde::Serialize;

/// The description of a step graph.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepFile {
    /// The version of this description.
    pub schema_version: u32,
    /// The inputs, in the graph's order.
    pub inputs: Vec<Port>,
    /// The outputs, in the graph's order.
    pub outputs: Vec<Port>,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// The part it plays: `batch`, `label`, `parameter`, `step`, `momentum`, `running_mean`, `running_variance`, `learning_rate`,
    /// `last_code`, `last_direction`, `frequency`, `mean_code`, `frozen`, `freeze_threshold`; `loss`, `next`, `gradient`, `code`.
    pub role: &'static str,
    /// The input that it belongs to, for `momentum`, `next`, `gradient` and what is kept of oscillations; the step, for `code`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// The element type, in ONNX's words.
    pub dtype: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// The initial value's entry in `state.npz`, for state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial: Option<String>,
}

/// Describes a step graph; `state` has the entry of `state.npz` for each input that is state.
#[must_use]
pub fn describe(model: &Model, state: &BTreeMap<String, String>) -> StepFile {
    let graph = &model.graph;
    let port = |&value: &ValueId| {
        let (role, of) = role_of(graph, value);
        Port {
            name: graph[value].name().to_owned(),
            role,
            of: of.map(|of| graph[of].name().to_owned()),
            dtype: graph[value].ty.as_ref().map_or_else(String::new, |ty| ty.dtype.to_string()),
            shape: graph[value].shape().unwrap_or_default(),
            initial: state.get(graph[value].name()).cloned(),
        }
    };
    StepFile {
        schema_version: 1,
        inputs: graph.inputs().iter().map(port).collect(),
        outputs: graph.outputs().iter().map(port).collect(),
    }
}

fn role_of(graph: &Graph, value: ValueId) -> (&'static str, Option<ValueId>) {
    match graph[value].role {
        Role::Plain | Role::Batch => ("batch", None),
        Role::Label => ("label", None),
        Role::Parameter => ("parameter", None),
        Role::Step => ("step", None),
        Role::Momentum(of) => ("momentum", Some(of)),
        Role::RunningMean => ("running_mean", None),
        Role::RunningVariance => ("running_variance", None),
        Role::LearningRate => ("learning_rate", None),
        Role::Oscillation(kept, of) => (kept.word(), Some(of)),
        Role::FreezeThreshold => ("freeze_threshold", None),
        Role::Loss => ("loss", None),
        Role::Next(of) => ("next", Some(of)),
        Role::Gradient(of) => ("gradient", Some(of)),
        Role::Code(of) => ("code", Some(of)),
    }
}
