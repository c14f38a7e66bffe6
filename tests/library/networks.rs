//! Small networks of many shapes through the whole chain: each ends with a proven file, at 3 and 8 bits, on every engine at hand.
//!
//! The proof is the run's own: a single level that differs ends it with exit code 6.

use std::fs;

use crate::common::{data, folder, lsqc, names, ort};

fn goes_through(text: &str, input: &str, shape: &[usize]) {
    let data = data(input, shape, 48);
    for engine in ["tract", "ort"] {
        if engine == "ort" && ort().is_none() {
            continue;
        }
        for (bits, placement) in [("3", "q8"), ("8 --bn batch", "shared"), ("w2a4 --bn batch", "paper")] {
            let folder = folder(&[("model.onnxtxt", text.as_bytes()), ("data.npz", &data)]);
            let line = format!(
                "quantize model.onnxtxt --data data.npz --test-fraction 0.5 --bits {bits} --placement {placement} \
                 --engine {engine} --threads 1 --steps 2 --batch 8 -o out.onnx"
            );
            let output = lsqc(folder.path(), &line);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{line}\n{said}");
            assert_eq!(
                names(folder.path()),
                ["data.npz", "model.onnxtxt", "out.onnx", "out.report.json"],
                "{line}"
            );
            assert!(fs::metadata(folder.path().join("out.onnx")).unwrap().len() > 0);
        }
    }
}

#[test]
fn conv_net() {
    goes_through(crate::common::SMALL, "x", &[3, 8, 8]);
}

#[test]
fn negative_and_dead_gammas_depthwise_grouped_dilated() {
    goes_through(include_str!("../data/gammas.onnxtxt"), "x", &[3, 8, 8]);
}

#[test]
fn normalization_before_conv_and_ops_without_an_entry() {
    goes_through(include_str!("../data/preact.onnxtxt"), "x", &[3, 8, 8]);
}

#[test]
fn channels_last_with_a_shared_weight() {
    goes_through(include_str!("../data/channels_last.onnxtxt"), "x", &[9, 9, 3]);
}

#[test]
fn only_the_input_is_quantized() {
    let text = "g (float[N,6] x) => (float[N,4] y) <float[6,4] w = normal(seed = 1, scale = 0.3)> { y = MatMul (x, w) }";
    goes_through(text, "x", &[6]);
}

/// Both products of attention run in integers, and their levels are proven like those of layers.
#[test]
fn attention() {
    let text = include_str!("../data/attention.onnxtxt");
    let data = crate::common::unlabelled(&[("x", &[5, 8], crate::common::noise(48 * 40))], 48);
    for engine in ["tract", "ort"] {
        if engine == "ort" && ort().is_none() {
            continue;
        }
        for (bits, target) in [
            ("8", "ort"),
            ("4", "ort"),
            ("4", "tensorrt"),
            ("4", "openvino"),
            ("4", "portable"),
        ] {
            let folder = folder(&[("model.onnxtxt", text.as_bytes()), ("data.npz", &data)]);
            let line = format!(
                "quantize model.onnxtxt --data data.npz --test-fraction 0.5 --bits {bits} --target {target} \
                 --engine {engine} --threads 1 --steps 2 --batch 8 -o out.onnx"
            );
            let output = lsqc(folder.path(), &line);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{line}\n{said}");
            let report = fs::read_to_string(folder.path().join("out.report.json")).unwrap();
            let report: serde_json::Value = serde_json::from_str(&report).unwrap();
            // What takes the scores up to the next quantizer is one layer of the proof, with its softmax.
            for (name, layer, signs) in [("scores", "softmax", [true, true]), ("mix", "mix", [false, true])] {
                let layers = report["layers"].as_array().unwrap();
                let product = layers.iter().find(|layer| layer["name"] == name).unwrap();
                let operands = product["activations"].as_array().unwrap();
                let found: Vec<(u64, bool)> = operands
                    .iter()
                    .map(|operand| (operand["bits"].as_u64().unwrap(), operand["signed"].as_bool().unwrap()))
                    .collect();
                assert_eq!(found, signs.map(|signed| (bits.parse().unwrap(), signed)), "{line}: {name}");
                let proven = report["proof"]["layers"].as_array().unwrap();
                let proven = proven.iter().find(|proven| proven["name"] == layer).unwrap();
                assert!(
                    proven["compared"].as_u64().unwrap() > 0 && proven["mismatches"] == 0,
                    "{proven}"
                );
            }
            let output = &report["metrics"]["outputs"][0];
            assert_eq!(
                (&output["name"], &output["kind"]),
                (&"y".into(), &"classes".into()),
                "{output}"
            );
            assert!(output["lowered"]["same_positions"].as_f64().unwrap() > 0.0, "{output}");
            let checked = lsqc(folder.path(), &format!("check out.onnx --target {target}"));
            assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stdout));
        }
    }
}

/// Filters of 1e-20 and biases of ordinary size, as exporters leave them where a BatchNormalization with a dead γ was folded.
#[test]
fn dead_filters_with_a_step_of_their_own() {
    let text = "g (float[N,2,4,4] x) => (float[N,4] y)
        <float[3,2,1,1] w = {0.5, -0.25, 1e-20, -3e-20, 0, 1e-41}, float[3] b = {0.1, -5.885239, 2.5}, float[4,3,1,1] v = normal(seed = 1, scale = 0.3)>
        { c = Conv (x, w, b) r = Relu (c) d = Conv (r, v) p = GlobalAveragePool (d) y = Flatten <axis = 1> (p) }";
    let data = data("x", &[2, 4, 4], 48);
    let folder = folder(&[("model.onnxtxt", text.as_bytes()), ("data.npz", &data)]);
    for steps in [0, 3] {
        let line = format!(
            "quantize model.onnxtxt --data data.npz --test-fraction 0.5 --bits 8 --per-channel --engine tract --threads 1 --steps {steps} --batch 8 \
             -o out.onnx "
        );
        let output = lsqc(folder.path(), &line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line}\n{said}");
    }
}

/// Filters a hundred and a thousand times as small as their neighbours: one step at 8 bits leaves them with a level or none.
#[test]
fn filters_that_are_too_unlike_for_one_step_are_named() {
    let text = "g (float[N,2,4,4] x) => (float[N,4] y)
        <float[4,2,1,1] w = {0.9, -0.8, 0.003, -0.004, 0.0009, 0.0004, 0.7, 0.6}, float[4,4,1,1] v = normal(seed = 1, scale = 0.3)>
        { c = Conv (x, w) r = Relu (c) d = Conv (r, v) p = GlobalAveragePool (d) y = Flatten <axis = 1> (p) }";
    let data = data("x", &[2, 4, 4], 48);
    let warning = "in 1 of 2 layers one weight step is too coarse for many output channels ('Conv -> c': 2 of 4): --per-channel gives each a \
                   step of its own";
    // The first and the last layer have 8 bits unless a rule says otherwise.
    let few = "[quantize]\nlayers = { \"*\" = \"w3a3\" }\n";
    for (flags, rules, warned) in [
        ("--bits 8", "", true),
        ("--bits 8 --per-channel", "", false),
        ("--bits 3", few, false),
    ] {
        let folder = folder(&[
            ("model.onnxtxt", text.as_bytes()),
            ("data.npz", &data),
            ("lsqc.toml", rules.as_bytes()),
        ]);
        let line = format!(
            "quantize model.onnxtxt --data data.npz --test-fraction 0.5 --engine tract --threads 1 --epochs 0 --batch 8 -o out.onnx {flags}"
        );
        let output = lsqc(folder.path(), &line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line}\n{said}");
        assert_eq!(said.contains(warning), warned, "{line}\n{said}");
    }
}
