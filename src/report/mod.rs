//! What a run says about its result, and what other commands find out: plain structs, written as JSON and shown as text.
//!
//! The JSON of a run is described in docs/report.md and docs/report.schema.json, that of other commands in docs/commands.md and a schema
//! for each; all are checked against these structs. `schema_version` changes
//! when a field changes its meaning or goes; new fields do not change it. Two runs with the same input, seed, engine and threads write
//! the same report but for `timing`: no paths, no dates elsewhere. Numbers that could not be had are `null`.

#[macro_use]
mod macros;

mod bench;
mod check;
mod data;
mod engines;
mod eval;
mod inspect;
mod layer;
mod manifest;
mod outputs;
mod run;
mod stats;
mod table;

pub use bench::{Bench, BenchRow, EngineBench, Measured};
pub use check::{CheckFinding, Checked};
pub use data::{ClassCount, DATA_SCHEMA_VERSION, DataReport, InputSummary};
pub use engines::{EngineEntry, Engines, OtherLibrary};
pub use eval::{Evaluated, Evaluation, OutputAgreement, OutputDifference, PreprocessingSource};
pub use inspect::{
    BatchNormFold, Confirmation, Extent, GradientReach, InspectedLayer, InspectedProduct, Inspection, JoinLayer, MultiplyAdds,
    OpCount, Port, QuantizedAlready, Unquantized,
};
pub use layer::{BlockLayerProof, Layer, LayerProof, Note, OutputProof, Proof, Site, TensorReport};
pub use manifest::{Manifest, ManifestLayer, ManifestPort};
pub use outputs::{Fidelity, ModelOutput, OutputKind};
pub use run::{
    Data, DataOrigin, Engine, File, Gate, GateOutcome, LossPoint, Oscillating, Output, OutputRole, Phase, Requires, Settings,
    Sizes, Status, TestSet, Timing, Tool, Training,
};
pub use stats::{Agreement, Drop, Metric, Metrics, Outcome, drop_of, paired_drop, wilson};
pub use table::render;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The version of the report's shape.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything about one run of `lsqc quantize`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// The version of this report's shape; 1.
    pub schema_version: u32,
    /// The program that wrote it.
    pub tool: Tool,
    /// Whether all gates were passed.
    pub status: Status,
    /// What the result should not be trusted for, and other warnings of the run.
    pub warnings: Vec<String>,
    /// The float model.
    pub input: File,
    /// The files that were written beside this report.
    pub outputs: Vec<Output>,
    /// The data that was calibrated, trained and measured on.
    pub data: Data,
    /// What was asked for, with every default filled in.
    pub settings: Settings,
    /// What ran the graphs.
    pub engine: Engine,
    /// The quantized layers, in the order of the graph.
    pub layers: Vec<Layer>,
    /// The sites that stay float, each with the reason.
    pub not_quantized: Vec<Site>,
    /// What passes declined or had to say.
    pub notes: Vec<Note>,
    /// How training went; null where nothing was trained.
    pub training: Option<Training>,
    /// How well the models do on the test data; null where it has no labels and nothing could be compared.
    pub metrics: Option<Metrics>,
    /// That the integer model is the fake-quantized one, layer by layer.
    pub proof: Proof,
    /// Sizes of files, and of what is in them.
    pub sizes: Sizes,
    /// What loads the integer model.
    pub requires: Requires,
    /// What had to hold.
    pub gate: Option<Gate>,
    /// How long it took: the only part that differs between repeated runs.
    pub timing: Timing,
}

impl Report {
    /// The report as indented JSON with a newline at the end.
    ///
    /// # Errors
    /// If a number is not finite: it should have been `None`.
    pub fn to_json(&self) -> Result<String> {
        to_json(self)
    }
}

/// What a command found out, as indented JSON with a newline at the end.
///
/// # Errors
/// If a number is not finite: it should have been `None`.
pub fn to_json(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value).context("cannot write the result as JSON")?;
    Ok(text + "\n")
}

/// The text that `write` writes.
fn written(write: impl FnOnce(&mut String) -> std::fmt::Result) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text);
    text
}

#[cfg(test)]
mod tests;
