//! Models with several outputs: how each is trained, what the report says of it, what `lsqc.toml` may say, and the refusals.

use std::fs;

use crate::common::commands::{QUICK, json, quick, text};
use crate::common::{data, folder, lsqc, noise, refuses, unlabelled};
use serde_json::Value;
use tempfile::TempDir;

/// Classes, values, probabilities and integers.
const MODEL: &str = "<ir_version: 8, opset_import: [\"\" : 17]>
    heads (float[N,6] x) => (float[N,4] y, float[N,3] box, float[N,3] p, int64[N] best)
    <float[6,8] w = normal(seed = 1, scale = 0.5), float[8,4] v = normal(seed = 2, scale = 1), float[8,3] u = normal(seed = 3, scale = 0.5),
     float[8,3] q = normal(seed = 4, scale = 0.5)>
    {
      h0 = MatMul (x, w)
      h = Relu (h0)
      y0 = MatMul (h, v)
      y = Softmax <axis = 1> (y0)
      b = MatMul (h, u)
      box = Tanh (b)
      p0 = MatMul (h, q)
      p = Sigmoid (p0)
      best = ArgMax <axis = 1, keepdims = 0> (y0)
    }";

const INTEGERS: &str = "<ir_version: 8, opset_import: [\"\" : 17]>
    g (float[N,6] x) => (int64[N] best) <float[6,4] w = normal(seed = 1, scale = 0.5)>
    { y = MatMul (x, w)  best = ArgMax <axis = 1, keepdims = 0> (y) }";

fn with(model: &str, toml: &str) -> TempDir {
    folder(&[
        ("model.onnxtxt", model.as_bytes()),
        ("data.npz", &data("x", &[6], 48)),
        ("bare.npz", &unlabelled(&[("x", &[6], noise(48 * 6))], 48)),
        ("lsqc.toml", toml.as_bytes()),
    ])
}

fn kinds(report: &Value) -> Vec<(&str, &str, &Value)> {
    let outputs = report["metrics"]["outputs"].as_array().unwrap();
    outputs
        .iter()
        .map(|output| {
            (
                output["name"].as_str().unwrap(),
                output["kind"].as_str().unwrap(),
                &output["weight"],
            )
        })
        .collect()
}

#[test]
fn every_output_is_trained_by_its_kind_and_measured() {
    let folder = with(MODEL, "");
    let report = quick(folder.path(), "");
    let one = Value::from(1.0);
    assert_eq!(
        kinds(&report),
        [
            ("y", "classes", &one),
            ("box", "values", &one),
            ("p", "probabilities", &one),
            ("best", "ignored", &Value::Null)
        ]
    );
    assert_eq!(report["settings"]["loss"], "both");
    let outputs = &report["metrics"]["outputs"];
    assert_eq!(outputs[0]["reason"], "the data has labels");
    assert_eq!(outputs[2]["reason"], "it ends in Sigmoid -> p (Sigmoid)");
    for at in 0..3 {
        let near = &outputs[at]["lowered"];
        // 8 bits at both edges leave little of the noise that fewer would.
        assert!(near["cosine"].as_f64().unwrap() > 0.99, "{near}");
        assert!(near["snr_db"].as_f64().unwrap() > 15.0, "{near}");
        assert!(near["relative_error"].as_f64().unwrap() < 0.2, "{near}");
    }
    assert!(outputs[0]["lowered"]["same_positions"].as_f64().unwrap() > 0.8);
    assert!(outputs[1]["lowered"]["same_positions"].is_null());
    // The arg-max of the scores is the same number as an output of its own.
    assert_eq!(
        outputs[3]["lowered"]["same_positions"],
        outputs[0]["lowered"]["same_positions"]
    );
    assert!(outputs[3]["lowered"]["cosine"].is_null());
    assert!(report["metrics"]["lowered"]["top1"].as_f64().is_some());
}

#[test]
fn settings_overrule_the_choice() {
    let folder = with(
        MODEL,
        "[output.y]\nkind = \"values\"\n[output.box]\nkind = \"ignored\"\n[output.p]\nweight = 2.5\n",
    );
    let report = quick(folder.path(), "");
    assert_eq!(
        kinds(&report),
        [
            ("y", "values", &Value::from(1.0)),
            ("box", "ignored", &Value::Null),
            ("p", "probabilities", &Value::from(2.5)),
            ("best", "ignored", &Value::Null)
        ]
    );
    assert_eq!(report["metrics"]["outputs"][0]["reason"], "lsqc.toml says so");
    // Labels are of classes, and none is trained as such.
    assert_eq!(report["settings"]["loss"], "kd");
    let line = format!("{QUICK} --loss ce");
    refuses(
        folder.path(),
        &line,
        2,
        &[
            "the loss ce needs an output [N, classes] that is trained as classes",
            "--loss kd",
        ],
    );
}

#[test]
fn integers_alone_are_calibrated_and_not_trained() {
    let folder = with(INTEGERS, "");
    refuses(
        folder.path(),
        QUICK,
        4,
        &[
            "the model has no output to train on ('best': its type is int64: no gradient passes it)",
            "--epochs 0",
        ],
    );
    let line = QUICK.replace("--steps 2", "--epochs 0");
    text(&lsqc(folder.path(), &line));
    let report: Value = serde_json::from_str(&fs::read_to_string(folder.path().join("out.report.json")).unwrap()).unwrap();
    assert_eq!(kinds(&report), [("best", "ignored", &Value::Null)]);
    assert!(report["metrics"]["outputs"][0]["lowered"]["same_samples"].as_f64().unwrap() > 0.5);
    assert!(report["metrics"]["float_lowered"]["same_top1"].is_null());
    let shown = text(&lsqc(
        folder.path(),
        "eval model.onnxtxt --against out.onnx --data data.npz --engine tract",
    ));
    assert!(shown.contains("'best': same at "), "{shown}");
    refuses(
        folder.path(),
        "eval model.onnxtxt --data data.npz --engine tract",
        4,
        &["the model has no output [N, classes] of scores", "--against"],
    );
}

#[test]
fn rules_that_cannot_be() {
    for (toml, parts) in [
        (
            "[output.boxes]\nkind = \"values\"",
            [
                "[output.boxes]: the model has no output named \"boxes\"",
                "its outputs are: y, box, p, best",
            ],
        ),
        (
            "[output.best]\nkind = \"classes\"",
            [
                "[output.best]: its type is int64, and only outputs of type float are trained on",
                "ignored",
            ],
        ),
        (
            "[output.box]\nkind = \"box\"",
            [
                "unknown variant `box`",
                "`classes`, `probabilities`, `values`, `cosine`, `ignored`",
            ],
        ),
        (
            "[output.box]\nweight = 0",
            ["[output.box]: weight is 0, but must be above 0", "kind = \"ignored\""],
        ),
    ] {
        refuses(with(MODEL, toml).path(), QUICK, 2, &parts);
    }
}

/// What is left of sequences, position by position and whole; and directions are found.
#[test]
fn sequences_and_directions() {
    let model = "<ir_version: 8, opset_import: [\"\" : 17]>
        g (float[N,6] x) => (float[N,3,4] s, float[N,8] d)
        <float[6,8] w = normal(seed = 1, scale = 0.5), float[8,12] v = normal(seed = 2, scale = 2), int64[3] shape = {0, 3, 4}>
        {
          h = MatMul (x, w)
          t = MatMul (h, v)
          u = Reshape (t, shape)
          s = LogSoftmax <axis = -1> (u)
          d = LpNormalization <axis = 1, p = 2> (h)
        }";
    let folder = with(model, "");
    // Labels would be about d.
    fs::copy(folder.path().join("bare.npz"), folder.path().join("data.npz")).unwrap();
    let report = quick(folder.path(), "");
    assert_eq!(
        kinds(&report),
        [("s", "classes", &Value::from(1.0)), ("d", "cosine", &Value::from(1.0))]
    );
    let near = &report["metrics"]["outputs"][0]["lowered"];
    let (positions, samples) = (
        near["same_positions"].as_f64().unwrap(),
        near["same_samples"].as_f64().unwrap(),
    );
    assert!(0.8 < positions && samples <= positions, "{near}");
    let found = json(
        folder.path(),
        "eval model.onnxtxt --against out.onnx --data bare.npz --engine tract",
    );
    let fidelity = &found["agreement"]["outputs"][0]["fidelity"];
    assert!(fidelity["same_positions"].as_f64().unwrap() > 0.8, "{fidelity}");
    assert!(found["agreement"]["outputs"][1]["fidelity"]["snr_db"].as_f64().unwrap() > 15.0);
}
