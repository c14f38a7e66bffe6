//! What the report says about layers.

use serde::{Deserialize, Serialize};

use super::run::Oscillating;

/// One quantized tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TensorReport {
    /// Bits, 2 to 8.
    pub bits: u8,
    /// Whether levels may be negative.
    pub signed: bool,
    /// Why: proven by the graph, seen in calibration, or chosen.
    pub signed_reason: String,
    /// How many steps it has: 1, one for each output channel, or one for each block.
    pub steps: u64,
    /// Elements along the input axis that share a step; null where steps are not of blocks.
    pub block: Option<u64>,
    /// The step size before training; of several, the median.
    pub first_step: f64,
    /// The step size in the result; of several, the median.
    pub last_step: f64,
    /// The share of values beyond the last level, 0 to 1; of activations on the test data.
    pub clipped: Option<f64>,
    /// The mean of (v − v̂)², in the tensor's own unit squared.
    pub mean_squared_error: Option<f64>,
}

/// One quantized layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Layer {
    /// The name of the node in the input model.
    pub name: String,
    /// The operator, such as Conv or Add.
    pub op: String,
    /// Its weights; null for layers without.
    pub weights: Option<TensorReport>,
    /// Its input activations: one, or the two operands of a product of activations.
    pub activations: Vec<TensorReport>,
    /// What its weights did in training; null where they were not watched for oscillations.
    pub oscillating: Option<Oscillating>,
}

/// A site that stays float.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Site {
    /// The name of the node.
    pub name: String,
    /// The operator.
    pub op: String,
    /// Why it is not quantized.
    pub reason: String,
}

/// What a pass had to say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Note {
    /// The pass.
    pub pass: String,
    /// The node that it is about; null for the whole graph.
    pub node: Option<String>,
    /// What it said.
    pub message: String,
}

/// The proof of one layer: the levels of the integer model against those of the fake-quantized one, from the same integer inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LayerProof {
    /// The layer.
    pub name: String,
    /// Levels that were compared.
    pub compared: u64,
    /// Levels that differ and are no ties; the run fails unless 0.
    pub mismatches: u64,
    /// Levels that differ by one where the exact value is a half within the bound of single precision.
    pub ties: u64,
}

/// The proof of a layer whose weight alone is quantized: its product is computed in floats, so there are no levels to compare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BlockLayerProof {
    /// The layer.
    pub name: String,
    /// Weights that were compared: what the file's bytes stand for, against the fake-quantized ones.
    pub weights: u64,
    /// Weights that are not the same bits; the run fails unless 0.
    pub different: u64,
    /// Results that were compared, from the same inputs.
    pub results: u64,
    /// Results that differ by more than single-precision sums in another order can; the run fails unless 0.
    pub beyond: u64,
    /// The largest difference of a result, in parts of that bound.
    pub largest: Option<f64>,
}

/// The outputs of a network whose weights alone are quantized, against those of the fake-quantized one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OutputProof {
    /// The largest difference, in parts of the output's largest value.
    pub largest: f64,
    /// What it may be.
    pub allowed: f64,
}

/// The proof of all layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Proof {
    /// Samples on which it ran.
    pub images: u64,
    /// The layers, in the order of the graph.
    pub layers: Vec<LayerProof>,
    /// The layers whose weights alone are quantized, in the order of the graph.
    pub blocks: Vec<BlockLayerProof>,
    /// The outputs, where weights alone are quantized; else null.
    pub outputs: Option<OutputProof>,
    /// What was set or is peculiar to this engine, such as a way around 16-bit sums.
    pub remarks: Vec<String>,
}

impl Proof {
    /// Levels that differ and are no ties, in all layers; where weights alone are quantized, weights that differ and results beyond their bound.
    #[must_use]
    pub fn mismatches(&self) -> u64 {
        let of_blocks = self.blocks.iter().map(|layer| layer.different + layer.beyond);
        self.layers.iter().map(|layer| layer.mismatches).chain(of_blocks).sum()
    }
}
