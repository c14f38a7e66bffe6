//! The report against its schema and its description.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::*;

fn sample() -> Report {
    let file = |name: &str| File {
        name: name.to_owned(),
        bytes: 1_234_567,
        sha256: "0".repeat(64),
    };
    let tensor = |signed| TensorReport {
        bits: 3,
        signed,
        signed_reason: "it follows a Relu".to_owned(),
        first_step: 0.01,
        last_step: 0.02,
        clipped: Some(0.001),
        mean_squared_error: Some(1e-4),
    };
    let metric = Metric::of(&[Outcome { rank: 0, loss: 0.25 }, Outcome { rank: 3, loss: 2.0 }]);
    let agreement = Agreement {
        samples: 2,
        same_top1: 2,
        largest_difference: Some(1e-6),
    };
    Report {
        schema_version: SCHEMA_VERSION,
        tool: Tool::this(),
        status: Status::GateFailed,
        warnings: vec!["beware".to_owned()],
        input: file("model.onnx"),
        outputs: vec![Output {
            role: OutputRole::FakeQuantized,
            file: file("fq.onnx"),
        }],
        data: Data {
            origin: DataOrigin::Real,
            files: vec![file("train.npz")],
            train_samples: 8,
            test_samples: 2,
            test_set: TestSet::Split,
            labels: true,
        },
        settings: Settings {
            weight_bits: 3,
            activation_bits: 3,
            placement: "q8".to_owned(),
            target: "ort".to_owned(),
            init: "lsq".to_owned(),
            loss: Some("both".to_owned()),
            steps: 10,
            batch: 4,
            learning_rate: 0.01,
            weight_decay: None,
            batch_norm: "batch".to_owned(),
            seed: 0,
            threads: 0,
        },
        engine: Engine {
            name: "tract".to_owned(),
            description: "tract 0.23".to_owned(),
            reason: "no ONNX Runtime was found".to_owned(),
        },
        layers: vec![Layer {
            name: "/conv".to_owned(),
            op: "Conv".to_owned(),
            weights: Some(tensor(true)),
            activations: vec![tensor(false)],
        }],
        not_quantized: vec![Site {
            name: "/softmax".to_owned(),
            op: "Softmax".to_owned(),
            reason: "stays float".to_owned(),
        }],
        notes: vec![Note {
            pass: "place-quantizers".to_owned(),
            node: None,
            message: "?".to_owned(),
        }],
        training: Some(Training {
            steps: 10,
            epochs: 1,
            losses: vec![LossPoint { step: 0, loss: 1.5 }],
            batch_norm_batches: 100,
        }),
        metrics: Some(Metrics {
            float: metric,
            fake_quantized: metric,
            lowered: metric,
            drop: paired_drop(1, 0, 2),
            float_lowered: agreement,
            fake_quantized_lowered: agreement,
        }),
        proof: Proof {
            images: 2,
            layers: vec![LayerProof {
                name: "/conv".to_owned(),
                compared: 100,
                mismatches: 0,
                ties: 1,
            }],
            remarks: vec![],
        },
        sizes: Sizes {
            float_model: 999,
            lowered_model: 12_345,
            float_weights: 800,
            stored_weights: 200,
            packed_weights: 75,
        },
        gate: Some(Gate {
            max_drop: 1.0,
            drop: Some(50.0),
            interval: Some([-20.0, 100.0]),
            outcome: GateOutcome::Failed,
        }),
        timing: Timing {
            seconds: 1.5,
            phases: vec![Phase {
                name: "train".to_owned(),
                seconds: 1.0,
            }],
            steps_per_second: Some(10.0),
        },
    }
}

fn docs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

fn schema() -> Value {
    schemars::schema_for!(Report).to_value()
}

/// The committed schema is the structs' own; `UPDATE_DOCS=1 cargo test` writes it again.
#[test]
fn schema_is_committed() {
    let current = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(docs("report.schema.json"), &current).unwrap();
    }
    let committed = std::fs::read_to_string(docs("report.schema.json")).unwrap();
    assert!(
        committed == current,
        "docs/report.schema.json is not that of the structs: UPDATE_DOCS=1 cargo test report"
    );
}

#[test]
fn sample_fits_the_schema() {
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(docs("report.schema.json")).unwrap()).unwrap();
    let mut value: Value = serde_json::from_str(&sample().to_json().unwrap()).unwrap();
    assert_eq!(problems(&value, &committed, &committed, "$"), Vec::<String>::new());
    value["layers"][0]["weights"]["bits"] = "three".into();
    value["surprise"] = 1.into();
    value.as_object_mut().unwrap().remove("proof");
    let found = problems(&value, &committed, &committed, "$").join("\n");
    assert!(
        found.contains("bits") && found.contains("surprise") && found.contains("proof"),
        "{found}"
    );
}

/// Every field of every part has its row in docs/report.md.
#[test]
fn every_field_is_described() {
    let text = std::fs::read_to_string(docs("report.md")).unwrap();
    let schema = schema();
    let mut missing = BTreeSet::new();
    let parts = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    for name in parts
        .filter_map(|part| part["properties"].as_object())
        .flat_map(|properties| properties.keys())
    {
        if !text.contains(&format!("`{name}`")) {
            missing.insert(name.clone());
        }
    }
    assert!(missing.is_empty(), "docs/report.md does not describe {missing:?}");
}

#[test]
fn round_trip() {
    let report = sample();
    assert_eq!(serde_json::from_str::<Report>(&report.to_json().unwrap()).unwrap(), report);
}

#[test]
fn table_shows_what_matters() {
    let text = render(&sample());
    for part in [
        "/conv",
        "w3a3",
        "equal, 1 ties",
        "float: /softmax (Softmax): stays float",
        "top-1 50.00 %",
        "lost: 50.00 points",
        "0 mismatches and 1 ties in 100 levels on 2 images",
        "999 B → 12.3 kB",
        "gate: FAILED",
        "warning: beware",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

/// What in `value` does not fit `schema`: the part of JSON Schema that the generated schema uses.
pub(super) fn problems(value: &Value, schema: &Value, root: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(target) = schema["$ref"].as_str() {
        found.extend(problems(
            value,
            root.pointer(target.trim_start_matches('#')).unwrap(),
            root,
            at,
        ));
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(options) = schema[key].as_array() {
            let tried: Vec<Vec<String>> = options.iter().map(|option| problems(value, option, root, at)).collect();
            if tried.iter().all(|problems| !problems.is_empty()) {
                found.extend(tried.into_iter().next().unwrap());
            }
        }
    }
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => panic!("{kind}"),
    };
    let fits = match &schema["type"] {
        Value::String(kind) => is(kind),
        Value::Array(kinds) => kinds.iter().any(|kind| is(kind.as_str().unwrap())),
        _ => true,
    };
    let listed = schema["enum"].as_array().is_none_or(|words| words.contains(value));
    if !fits || !listed || schema.get("const").is_some_and(|constant| constant != value) {
        found.push(format!("{at} is {value}"));
    }
    if let (Some(fields), Some(properties)) = (value.as_object(), schema["properties"].as_object()) {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                found.push(format!("{at} lacks {name}"));
            }
        }
        for (name, field) in fields {
            match properties.get(name) {
                Some(property) => found.extend(problems(field, property, root, &format!("{at}.{name}"))),
                None => found.push(format!("{at} has {name}")),
            }
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        if schema["items"].is_object() {
            found.extend(problems(item, &schema["items"], root, &format!("{at}[{index}]")));
        }
    }
    found
}
