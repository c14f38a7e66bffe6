//! Learning rates that do harm: one that was asked for stands, the method's own is lowered.

use std::fs;
use std::path::Path;

use crate::common::commands::{held_to, text};
use crate::common::{folder, lsqc, noise, refuses, unlabelled};
use serde_json::Value;
use tempfile::TempDir;

/// Two layers with weights of a deviation of `scale`, and so results of its square. Their loss is measured in the variance of these, and a
/// step of a given rate is the further beside the weights, the smaller they are.
fn mlp(scale: &str) -> TempDir {
    let model = format!(
        "<ir_version: 8, opset_import: [\"\" : 17]>
        mlp (float[N,64] x) => (float[N,4] y)
        <float[64,128] a = normal(seed = 1, scale = {scale}), float[4,128] c = normal(seed = 3, scale = {scale})>
        {{ [up] t = MatMul (x, a)  [clamp] r = Relu (t)  [head] y = Gemm <transB = 1> (r, c) }}"
    );
    folder(&[
        ("model.onnxtxt", model.as_bytes()),
        ("data.npz", &unlabelled(&[("x", &[64], noise(64 * 64))], 64)),
    ])
}

const TRAIN: &str = "quantize model.onnxtxt --bits 8 --data data.npz --engine tract --threads 1 --steps 24 --batch 8 --test-fraction 0.5 \
                     --proof-images 4 -o out.onnx";

/// The report of a run.
fn report(folder: &Path, more: &str) -> Value {
    text(&lsqc(folder, &format!("{TRAIN} {more}")));
    let report: Value = serde_json::from_str(&fs::read_to_string(folder.join("out.report.json")).unwrap()).unwrap();
    held_to(&report, "report");
    report
}

fn warnings(report: &Value) -> String {
    report["warnings"].to_string()
}

#[test]
fn a_rate_that_was_asked_for_stands() {
    let mlp = mlp("0.1");
    let cure = "help: lower the learning rate (--lr), or check the data's preprocessing";
    let diverged = ["training diverged: '", "' is not finite after step 24", cure];
    refuses(mlp.path(), &format!("{TRAIN} --lr 1e6"), 5, &diverged);
    let vanished = ["the quantizer step '", "' has vanished after step 24: it fell to ", cure];
    refuses(mlp.path(), &format!("{TRAIN} --lr 30"), 5, &vanished);

    let worse = report(mlp.path(), "--lr 0.1");
    assert_eq!(worse["settings"]["learning_rate"], 0.1);
    let said = warnings(&worse);
    assert!(
        said.contains("training made the loss worse, from ") && said.contains("calibrate only (--epochs 0)"),
        "{said}"
    );
}

#[test]
fn the_methods_own_rate_is_lowered_until_training_helps() {
    let usual = report(mlp("0.1").path(), "");
    assert_eq!(usual["settings"]["learning_rate"], 0.001);
    assert!(!warnings(&usual).contains("learning rate"), "{}", warnings(&usual));

    let lowered = report(mlp("0.01").path(), "");
    assert_eq!(lowered["settings"]["learning_rate"], 0.0001);
    assert_eq!(lowered["settings"]["steps"], 24);
    let said = warnings(&lowered);
    assert!(
        said.contains("at a learning rate of 0.001: it begins again at 0.0001"),
        "{said}"
    );
}

#[test]
fn a_network_that_no_rate_helps_stays_as_it_was_calibrated() {
    let mlp = mlp("0.0001");
    let report = report(mlp.path(), "");
    let said = warnings(&report);
    assert!(
        said.contains("at a learning rate of 0.000001, too: the network stays as it was calibrated"),
        "{said}"
    );
    assert_eq!(report["settings"]["steps"], 0);
    assert!(report["training"].is_null() && report["settings"]["loss"].is_null());
    for layer in report["layers"].as_array().unwrap() {
        assert_eq!(layer["weights"]["first_step"], layer["weights"]["last_step"], "{layer}");
    }
}
