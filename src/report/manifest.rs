//! What a hand-over folder says of its model: `manifest.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{File, Metrics, Requires, Tool};

part! {
    /// `manifest.json` of a hand-over folder.
    Manifest {
        /// The version of this shape; 1.
        schema_version: u32,
        /// The program that made the folder.
        tool: Tool,
        /// The runtime that the model is for: ort, openvino, tensorrt or portable.
        target: String,
        /// What loads the model.
        requires: Requires,
        /// The model.
        model: File,
        /// The float model that it was made of.
        float_model: File,
        /// What a caller feeds, in order.
        inputs: Vec<ManifestPort>,
        /// What the model gives, in order.
        outputs: Vec<ManifestPort>,
        /// How raw values become each input: (x * scale - mean) / std, and what images are brought to before; by input, as in lsqc.toml.
        preprocessing: BTreeMap<String, Value>,
        /// Bits of weights and activations where no rule for a layer says otherwise, such as w3a3.
        bits: String,
        /// Where quantizers stand at residual additions: q8, shared, shortcut or paper; none where weights alone are quantized.
        placement: String,
        /// Each quantized layer.
        layers: Vec<ManifestLayer>,
        /// How well the models did on the test data; null where it could not be measured.
        metrics: Option<Metrics>,
        /// The engine that the results in the sample were computed with.
        engine: String,
        /// The sample: the file with the first test sample and what the model gave for it.
        sample: File,
    }
}

part! {
    /// An input or output of the model.
    ManifestPort {
        /// Its name in the model.
        name: String,
        /// The array in the sample that has it.
        array: String,
        /// Its shape in the sample.
        shape: Vec<u64>,
    }
}

part! {
    /// A quantized layer.
    ManifestLayer {
        /// The name of the node in the float model.
        name: String,
        /// The operator.
        op: String,
        /// Bits of its weight.
        weight_bits: u8,
        /// Bits of its input; null where it stays in floats.
        activation_bits: Option<u8>,
        /// Weights along the input axis that share a step; null where steps are not of blocks.
        block: Option<u64>,
        /// The step of its weight, or one for each output channel, before BatchNormalization was folded into it; none where steps are of blocks, whose
        /// steps are in the model.
        weight_steps: Vec<f64>,
        /// The step of its input; null where it stays in floats.
        activation_step: Option<f64>,
        /// Whether levels of its input may be negative.
        activation_signed: bool,
    }
}
