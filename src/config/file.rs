//! `lsqc.toml`: its keys, and errors that name the file, the line, the key and the nearest known one.
//!
//! Paths in it are relative to its own folder.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::bits::Bits;
use super::choices::{BatchNorm, EngineChoice, Init, LossChoice, OutputChoice, Placement, StorageChoice, Target};
use super::inputs::Extents;
use super::layers::LayerRules;
use super::size::Size;
use crate::data::Preprocess;
use crate::failure::{Classify, Failure};

/// The name under which settings are found beside a model.
pub const FILE_NAME: &str = "lsqc.toml";

/// Everything that `lsqc.toml` may say.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// Where data is.
    pub data: DataTable,
    /// What is settled about the model's inputs.
    pub model: ModelTable,
    /// Preprocessing by the name of the model's input.
    pub input: BTreeMap<String, Preprocess>,
    /// How outputs are trained, by the name of the model's output.
    pub output: BTreeMap<String, OutputRule>,
    /// What is done to training images.
    pub augment: AugmentTable,
    /// How it is quantized.
    pub quantize: QuantizeTable,
    /// How it is trained.
    pub train: TrainTable,
    /// What must hold.
    pub gate: GateTable,
}

/// `[model]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelTable {
    /// The shapes of inputs.
    pub shapes: BTreeMap<String, Extents>,
    /// The sizes of named axes.
    pub axes: BTreeMap<String, NonZeroUsize>,
    /// Inputs that are constants, and what every element is.
    pub fixed: BTreeMap<String, f64>,
}

/// `[data]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataTable {
    /// What is trained on.
    pub train: Option<Location>,
    /// What is measured on.
    pub test: Option<Location>,
    /// The part of `train` that is measured on without `test`.
    pub test_fraction: Option<f64>,
}

/// A set of samples: `"file or folder"`, or `{ images = "…", labels = "…" }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file, a folder, or `IMAGES,LABELS`.
    Text(String),
    /// idx or npy files.
    Pair(PairTable),
}

/// `{ images = "…", labels = "…" }`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairTable {
    /// The idx or npy file of images.
    pub images: PathBuf,
    /// The idx or npy file of labels, if there are any.
    pub labels: Option<PathBuf>,
}

/// `[output.NAME]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputRule {
    /// What it is taken as; `None`: chosen by the graph and the data.
    pub kind: Option<OutputChoice>,
    /// Its share of the loss beside those of the other outputs; 1 where nothing is said.
    pub weight: Option<f64>,
}

/// `[augment]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentTable {
    /// Are images mirrored?
    pub mirror: bool,
    /// Pixels of border before the crop.
    pub crop_pad: usize,
}

/// `[quantize]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuantizeTable {
    /// Bits of weights and activations.
    pub bits: Option<Bits>,
    /// Where quantizers stand.
    pub placement: Option<Placement>,
    /// The runtime that the result is for.
    pub target: Option<Target>,
    /// Have weights a step for each output channel?
    pub per_channel: bool,
    /// Weights that share a step, where weights alone are quantized.
    pub block: Option<i64>,
    /// What weights are stored in.
    pub storage: Option<StorageChoice>,
    /// The oldest version of the runtime that must load the file.
    pub runtime_min: Option<String>,
    /// The least operator set of the file.
    pub opset: Option<i64>,
    /// Must sums of two products stay within 16 bits?
    pub no_vnni: bool,
    /// How step sizes start.
    pub init: Option<Init>,
    /// Rules for single layers.
    pub layers: LayerRules,
}

/// `[train]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainTable {
    /// What is minimised.
    pub loss: Option<LossChoice>,
    /// Times through the data.
    pub epochs: Option<u32>,
    /// Batches, instead of epochs.
    pub steps: Option<u64>,
    /// Samples in a batch.
    pub batch: Option<usize>,
    /// The memory that a step may be estimated to take.
    pub memory: Option<Size>,
    /// The learning rate.
    pub lr: Option<f64>,
    /// Weight decay.
    pub weight_decay: Option<f64>,
    /// The seed.
    pub seed: Option<u64>,
    /// BatchNorm in training.
    pub bn: Option<BatchNorm>,
    /// Are weights that oscillate frozen?
    pub freeze_oscillating: bool,
    /// What runs graphs.
    pub engine: Option<EngineChoice>,
    /// The ONNX Runtime library.
    pub ort_lib: Option<PathBuf>,
    /// Threads.
    pub threads: Option<usize>,
}

/// `[gate]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateTable {
    /// Points of top-1 that may be lost.
    pub max_drop: Option<f64>,
    /// Images on which every layer is proven.
    pub proof_images: Option<usize>,
    /// Is noise refused?
    pub require_data: bool,
}

impl<'de> Deserialize<'de> for Location {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Location, D::Error> {
        struct LocationVisitor;

        impl<'de> Visitor<'de> for LocationVisitor {
            type Value = Location;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a path, or { images = \"…\", labels = \"…\" }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Location, E> {
                Ok(Location::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Location, A::Error> {
                PairTable::deserialize(MapAccessDeserializer::new(map)).map(Location::Pair)
            }
        }

        deserializer.deserialize_any(LocationVisitor)
    }
}

/// Reads and parses `path`.
///
/// # Errors
/// A usage failure that names the file and the line.
pub fn read(path: &Path) -> Result<File> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read settings {}", path.display()))
        .usage()?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<File> {
    toml::from_str(text).map_err(|error| {
        let place = match error.span() {
            Some(span) => format!("{}, line {}", path.display(), line_of(text, span.start)),
            None => path.display().to_string(),
        };
        let message = error.message().trim().replace('\n', "; ");
        let failure = Failure::usage(format!("{place}: {message}"));
        match nearest(&message) {
            Some(known) => failure.help(format!("did you mean `{known}`?")).into(),
            None => failure.into(),
        }
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

/// The known word that is most like the unknown one, from serde's "unknown field `a`, expected one of `b`, `c`".
fn nearest(message: &str) -> Option<&str> {
    /// Below this, two words are not alike.
    const LIKENESS: f64 = 0.5;
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    quoted
        .map(|known| (strsim::normalized_damerau_levenshtein(unknown, known), known))
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        crate::failure::render(&parse(text, Path::new("lsqc.toml")).unwrap_err())
    }

    #[test]
    fn every_key() {
        let file = parse(include_str!("every_key.toml"), Path::new("lsqc.toml")).unwrap();
        assert!(matches!(file.data.train, Some(Location::Pair(_))));
        assert_eq!(file.output["boxes"].kind, Some(OutputChoice::Values));
        assert_eq!(file.quantize.bits, Some(Bits::new(3, 3).unwrap()));
        assert_eq!(file.model.axes.len() + file.model.shapes.len() + file.model.fixed.len(), 3);
        assert_eq!(file.quantize.layers.iter().count(), 2);
        assert_eq!(file.train.steps, Some(500));
        assert!(file.train.freeze_oscillating);
        assert_eq!(file.gate.max_drop, Some(1.0));
    }

    #[test]
    fn unknown_keys() {
        let text = message("[train]\nepochs = 3\nbathc = 2\n");
        assert!(text.starts_with("error: lsqc.toml, line 3: unknown field `bathc`"), "{text}");
        assert!(text.contains("help: did you mean `batch`?"), "{text}");
        assert!(message("[trian]\n").contains("line 1: unknown field `trian`"));
        let text = message("[data]\ntrain = { image = \"a\" }");
        assert!(
            text.contains("line 2: unknown field `image`") && text.contains("did you mean `images`?"),
            "{text}"
        );
        assert!(!message("[train]\nxyzzy = 2").contains("did you mean"));
    }

    #[test]
    fn broken() {
        assert!(message("[train\n").contains("lsqc.toml, line 1: "));
        assert!(message("[train]\nbatch = \"x\"").contains("line 2: invalid type"));
        assert!(message("[quantize]\nbits = 9").contains("line 2: 9 bits: weights and activations take 2 to 8"));
        assert!(message("[quantize]\nplacement = \"q9\"").contains("did you mean `q8`?"));
        assert!(message("[data]\ntrain = 3").contains("expected a path"));
        assert!(message("[input.x]\nlayout = \"CHWN\"").contains("NCHW"));
        let text = message("[output.x]\nkind = \"value\"");
        assert!(
            text.contains("`classes`, `probabilities`, `values`, `cosine`, `ignored`"),
            "{text}"
        );
        assert!(text.contains("did you mean `values`?"), "{text}");
    }
}
