//! What `lsqc data` says about the samples that a model would be given, in the form of its `--json`.
//!
//! It is described by docs/data.schema.json, which a test holds against these structs.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{DataOrigin, File, TestSet};

/// The version of the shape of [`DataReport`].
pub const DATA_SCHEMA_VERSION: u32 = 1;

/// The samples of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DataReport {
    /// The version of this shape; 1.
    pub schema_version: u32,
    /// Where samples come from.
    pub origin: DataOrigin,
    /// The files that were read, in that order; one entry for all images of a folder.
    pub files: Vec<File>,
    /// Samples to calibrate and train on.
    pub train_samples: u64,
    /// Samples to measure on.
    pub test_samples: u64,
    /// Where test samples come from.
    pub test_set: TestSet,
    /// The model's inputs.
    pub inputs: Vec<InputSummary>,
    /// Classes with a sample or a name, in order; null, where training data has no labels.
    pub classes: Option<Vec<ClassCount>>,
    /// Whether the values below `inputs` and the sheet are augmented.
    pub augmented: bool,
    /// The labels of the first training samples, those of the sheet; null, where there are none.
    pub first_labels: Option<Vec<i64>>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// The values of one input, as the model gets them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InputSummary {
    /// The input's name.
    pub name: String,
    /// Its element type, as ONNX calls it.
    #[serde(rename = "type")]
    pub dtype: String,
    /// The shape of one sample.
    pub shape: Vec<u64>,
    /// Training samples that the numbers below are of, evenly spread.
    pub samples: u64,
    /// The least value.
    pub min: Option<f64>,
    /// The greatest value.
    pub max: Option<f64>,
    /// The mean.
    pub mean: Option<f64>,
    /// The standard deviation.
    pub std: Option<f64>,
}

/// How many samples a class has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClassCount {
    /// Its number.
    pub class: i64,
    /// Its folder's name, where images lie in folders.
    pub name: Option<String>,
    /// Training samples.
    pub train: u64,
    /// Test samples.
    pub test: u64,
}

impl DataReport {
    /// As indented JSON with a newline at the end.
    ///
    /// # Errors
    /// If a number is not finite: it should have been `None`.
    pub fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).context("cannot write the samples' summary as JSON")?;
        Ok(text + "\n")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::super::tests::problems;
    use super::*;

    /// The committed schema is the structs' own; `UPDATE_DOCS=1 cargo test` writes it again. What is written fits it, and other things do not.
    #[test]
    fn schema_is_committed_and_fits() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/data.schema.json");
        let schema = schemars::schema_for!(DataReport).to_value();
        let current = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &current).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap() == current,
            "docs/data.schema.json is not that of the structs: UPDATE_DOCS=1 cargo test report"
        );

        let summary = DataReport {
            schema_version: DATA_SCHEMA_VERSION,
            origin: DataOrigin::Real,
            files: vec![File {
                name: "images".to_owned(),
                bytes: 1,
                sha256: "0".repeat(64),
            }],
            train_samples: 2,
            test_samples: 1,
            test_set: TestSet::Split,
            inputs: vec![InputSummary {
                name: "x".to_owned(),
                dtype: "float32".to_owned(),
                shape: vec![3, 2, 2],
                samples: 2,
                min: Some(-1.0),
                max: Some(1.0),
                mean: Some(0.0),
                std: None,
            }],
            classes: Some(vec![ClassCount {
                class: 0,
                name: None,
                train: 2,
                test: 1,
            }]),
            augmented: false,
            first_labels: Some(vec![0, 0]),
            warnings: Vec::new(),
        };
        let mut value: Value = serde_json::from_str(&summary.to_json().unwrap()).unwrap();
        assert_eq!(problems(&value, &schema, &schema, "$"), Vec::<String>::new());
        value["inputs"][0]["shape"] = "none".into();
        assert!(problems(&value, &schema, &schema, "$").join("\n").contains("shape"));
    }
}
