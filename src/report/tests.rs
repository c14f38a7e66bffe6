//! The report against its schema and its description.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::*;

#[path = "../../tests/common/schema.rs"]
mod checker;
pub(super) use checker::problems;

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
        steps: 1,
        block: None,
        first_step: 0.01,
        last_step: 0.02,
        clipped: Some(0.001),
        mean_squared_error: Some(1e-4),
    };
    let oscillating = Oscillating {
        weights: 54,
        share: 0.0125,
        frozen: 0.25,
    };
    let metric = Metric::of(&[Outcome { rank: 0, loss: 0.25 }, Outcome { rank: 3, loss: 2.0 }]);
    let agreement = Agreement {
        samples: 2,
        same_top1: Some(2),
        largest_difference: Some(1e-6),
    };
    let fidelity = Fidelity {
        cosine: Some(0.998),
        snr_db: Some(21.5),
        relative_error: Some(0.07),
        largest_difference: Some(0.5),
        same_positions: Some(1.0),
        same_samples: Some(1.0),
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
            activation_bits: Some(3),
            block: None,
            placement: "q8".to_owned(),
            target: "ort".to_owned(),
            per_channel: false,
            storage: "int8".to_owned(),
            no_vnni: false,
            init: "lsq".to_owned(),
            loss: Some("both".to_owned()),
            steps: 10,
            batch: 4,
            learning_rate: 0.01,
            weight_decay: None,
            batch_norm: "batch".to_owned(),
            freeze_oscillating: true,
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
            oscillating: Some(oscillating.clone()),
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
            memory_estimate: Some(1_000_000),
            oscillating: Some(oscillating),
        }),
        metrics: Some(Metrics {
            float: metric,
            fake_quantized: metric,
            lowered: metric,
            drop: paired_drop(1, 0, 2),
            float_lowered: agreement,
            fake_quantized_lowered: agreement,
            outputs: vec![ModelOutput {
                name: "logits".to_owned(),
                kind: OutputKind::Classes,
                reason: "the data has labels".to_owned(),
                weight: Some(1.0),
                fake_quantized: fidelity.clone(),
                lowered: fidelity,
            }],
        }),
        proof: Proof {
            images: 2,
            layers: vec![LayerProof {
                name: "/conv".to_owned(),
                compared: 100,
                mismatches: 0,
                ties: 1,
            }],
            blocks: vec![],
            outputs: None,
            remarks: vec![],
        },
        sizes: Sizes {
            float_model: 999,
            lowered_model: 12_345,
            float_weights: 800,
            stored_weights: 200,
            block_steps: 0,
            packed_weights: 75,
        },
        requires: Requires {
            runtime: "ONNX Runtime".to_owned(),
            version: Some("1.7".to_owned()),
            opset: 13,
            ir_version: 7,
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
            memory_peak: Some(1_200_000),
        },
    }
}

fn docs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

/// Each schema that is committed: its file, what it describes, and the page that names every field.
fn schemas() -> [(&'static str, Value, &'static str); 7] {
    [
        (
            "manifest.schema.json",
            schemars::schema_for!(Manifest).to_value(),
            "report.md",
        ),
        ("report.schema.json", schemars::schema_for!(Report).to_value(), "report.md"),
        (
            "eval.schema.json",
            schemars::schema_for!(Evaluation).to_value(),
            "commands.md",
        ),
        (
            "inspect.schema.json",
            schemars::schema_for!(Inspection).to_value(),
            "commands.md",
        ),
        ("check.schema.json", schemars::schema_for!(Checked).to_value(), "commands.md"),
        ("bench.schema.json", schemars::schema_for!(Bench).to_value(), "commands.md"),
        (
            "engines.schema.json",
            schemars::schema_for!(Engines).to_value(),
            "commands.md",
        ),
    ]
}

/// The committed schemas are the structs' own; `UPDATE_DOCS=1 cargo test` writes them again.
#[test]
fn schemas_are_committed() {
    for (file, schema, _) in schemas() {
        let current = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(docs(file), &current).unwrap();
        }
        let committed = std::fs::read_to_string(docs(file)).unwrap();
        assert!(
            committed == current,
            "docs/{file} is not that of the structs: UPDATE_DOCS=1 cargo test report"
        );
    }
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

/// Every field of every part is named in the page that describes it.
#[test]
fn every_field_is_described() {
    for (file, schema, page) in schemas() {
        let text = std::fs::read_to_string(docs(page)).unwrap();
        let mut missing = BTreeSet::new();
        let inner = schema["$defs"].as_object().into_iter().flat_map(|parts| parts.values());
        for name in inner
            .chain([&schema])
            .filter_map(|part| part["properties"].as_object())
            .flat_map(|properties| properties.keys())
        {
            if !text.contains(&format!("`{name}`")) {
                missing.insert(name.clone());
            }
        }
        assert!(missing.is_empty(), "docs/{page} does not describe {missing:?} of {file}");
    }
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
        "frozen: 25.00 % of 54 weights of few bits, 1.25 % still oscillate",
        "top-1 50.00 %",
        "lost: 50.00 points",
        "0 mismatches and 1 ties in 100 levels on 2 images",
        "999 B → 12.3 kB",
        "memory: a training step, estimated 1.00 MB, measured 1.20 MB",
        "gate: FAILED",
        "warning: beware",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

/// Where weights alone are quantized the proof speaks of weights and results, and of no levels.
#[test]
fn table_shows_weights_alone() {
    let mut report = sample();
    report.settings.activation_bits = None;
    report.settings.block = Some(32);
    report.layers[0].activations.clear();
    report.proof.layers.clear();
    report.proof.blocks = vec![BlockLayerProof {
        name: "/conv".to_owned(),
        weights: 54,
        different: 0,
        results: 8,
        beyond: 0,
        largest: Some(0.125),
    }];
    report.proof.outputs = Some(OutputProof {
        largest: 2e-7,
        allowed: 1e-3,
    });
    let text = render(&report);
    for part in [
        "weights equal",
        "0 of 54 weights differ; 0 of 8 results beyond the rounding of floats; outputs within 2.0e-7 (1e-3 allowed) on 2 images",
        "fake = lowered",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("levels") && !text.contains("integer"), "{text}");
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(docs("report.schema.json")).unwrap()).unwrap();
    let value: Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!(problems(&value, &committed, &committed, "$"), Vec::<String>::new());
    report.proof.blocks[0].beyond = 3;
    assert_eq!(report.proof.mismatches(), 3);
    assert!(render(&report).contains("3 WRONG"));
}
