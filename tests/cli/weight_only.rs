//! Weights alone on the command line: what a run writes and reports, and every refusal.

use std::fs;
use std::path::Path;

use crate::common::commands::{held_to, json, text};
use crate::common::{SMALL, data, folder, lsqc, refuses};
use lsqc::model_file;
use lsqc_passes::ir::DType;
use serde_json::Value;
use tempfile::TempDir;

/// Products of rank 2, one with a bias behind it, and a Gemm with its own.
const MLP: &str = "<ir_version: 8, opset_import: [\"\" : 17]>
    mlp (float[N,64] x) => (float[N,4] y)
    <float[64,128] a = normal(seed = 1, scale = 0.1), float[128] ab = normal(seed = 2, scale = 0.1), float[4,128] c = normal(seed = 3, scale = 0.1),
     float[4] cb = normal(seed = 4)>
    { [up] t = MatMul (x, a)  [bias] u = Add (t, ab)  [clamp] r = Relu (u)  [head] y = Gemm <transB = 1> (r, c, cb) }";

const QUICK: &str = "quantize mlp.onnxtxt --data data.npz --engine tract --threads 1 --steps 2 --batch 8 --test-fraction 0.5 --proof-images 4 \
                     -o out.onnx";

fn mlp() -> TempDir {
    folder(&[
        ("mlp.onnxtxt", MLP.as_bytes()),
        ("small.onnxtxt", SMALL.as_bytes()),
        ("data.npz", &data("x", &[64], 32)),
    ])
}

fn quick(folder: &Path, more: &str) -> Value {
    text(&lsqc(folder, &format!("{QUICK} {more}")));
    let report: Value = serde_json::from_str(&fs::read_to_string(folder.join("out.report.json")).unwrap()).unwrap();
    held_to(&report, "report");
    report
}

#[test]
fn every_number_of_bits_for_both_targets() {
    let mlp = mlp();
    let dir = mlp.path();
    for (target, bits, block, stored, version) in [
        ("ort", 2, 32, 2, Some("1.24")),
        ("ort", 3, 32, 4, Some("1.17")),
        ("ort", 4, 32, 4, Some("1.17")),
        ("ort", 8, 32, 8, Some("1.23")),
        ("tensorrt", 2, 64, 4, None),
        ("tensorrt", 4, 64, 4, None),
    ] {
        let report = quick(dir, &format!("--bits w{bits} --target {target}"));
        let settings = &report["settings"];
        assert_eq!(
            (&settings["weight_bits"], &settings["activation_bits"], &settings["block"]),
            (&Value::from(bits), &Value::Null, &Value::from(block))
        );
        assert_eq!(
            (settings["placement"].as_str(), settings["storage"].as_str()),
            (Some("none"), Some(format!("int{stored}").as_str()))
        );
        let layers = report["layers"].as_array().unwrap();
        let shown: Vec<_> = layers
            .iter()
            .map(|layer| {
                let weights = &layer["weights"];
                assert!(layer["activations"].as_array().unwrap().is_empty());
                assert_eq!(
                    (&weights["bits"], &weights["block"]),
                    (&Value::from(bits), &Value::from(block))
                );
                (layer["name"].as_str().unwrap(), weights["steps"].as_u64().unwrap())
            })
            .collect();
        let steps = [64 / block * 128, 128 / block * 4];
        assert_eq!(shown, [("up", steps[0]), ("head", steps[1])]);
        assert_eq!(report["requires"]["version"].as_str(), version);
        let weights = 64 * 128 + 4 * 128;
        assert_eq!(report["sizes"]["stored_weights"], weights * stored / 8);
        assert_eq!(report["sizes"]["packed_weights"], weights * bits / 8);
        assert_eq!(report["sizes"]["block_steps"], 4 * (steps[0] + steps[1]));
        let proof = &report["proof"];
        assert!(proof["layers"].as_array().unwrap().is_empty());
        for layer in proof["blocks"].as_array().unwrap() {
            assert_eq!((&layer["different"], &layer["beyond"]), (&Value::from(0), &Value::from(0)));
            assert!(layer["weights"].as_u64().unwrap() > 0 && layer["results"].as_u64().unwrap() > 0);
        }
        assert!(proof["outputs"]["largest"].as_f64().unwrap() <= proof["outputs"]["allowed"].as_f64().unwrap());

        let model = model_file::read(&dir.join("out.onnx")).unwrap().model;
        let ops: Vec<String> = model.graph.nodes().map(|(_, node)| node.op.to_string()).collect();
        let (expected, opset): (&[&str], _) = if target == "ort" {
            (
                &["com.microsoft.MatMulNBits", "Add", "Relu", "com.microsoft.MatMulNBits", "Add"],
                17,
            )
        } else {
            (&["DequantizeLinear", "MatMul", "Add", "Relu", "DequantizeLinear", "Gemm"], 21)
        };
        assert_eq!(ops, expected);
        assert_eq!(model.opset(), opset);
        let int4 = model
            .graph
            .values()
            .filter(|(_, value)| value.constant().is_some_and(|tensor| tensor.dtype() == DType::I4));
        assert_eq!(int4.count(), if target == "ort" { 0 } else { 2 });
        text(&lsqc(dir, &format!("check out.onnx --target {target}")));
    }
}

/// The hand-over folder, a second run with the same bytes, and what other commands make of the file.
#[test]
fn the_file_in_other_commands() {
    let mlp = mlp();
    let dir = mlp.path();
    quick(dir, "--bits w4 --block 64 --deploy handover");
    let first = fs::read(dir.join("out.onnx")).unwrap();
    let manifest: Value = serde_json::from_str(&fs::read_to_string(dir.join("handover/manifest.json")).unwrap()).unwrap();
    held_to(&manifest, "manifest");
    assert_eq!(
        (&manifest["bits"], &manifest["layers"][0]["block"]),
        (&Value::from("w4"), &Value::from(64))
    );
    assert!(manifest["layers"][0]["activation_bits"].is_null());
    quick(dir, "--bits w4 --block 64");
    assert!(fs::read(dir.join("out.onnx")).unwrap() == first, "the same bytes");
    let eval = json(
        dir,
        "eval mlp.onnxtxt --against out.onnx --data data.npz --engine tract --threads 1",
    );
    assert_eq!(eval["schema_version"], 1);
    let seen = json(dir, "inspect out.onnx");
    assert_eq!(seen["quantized_already"]["bits"], "w4");
    let version = text(&lsqc(dir, "check out.onnx --target ort --runtime 1.17"));
    assert!(version.ends_with("hold\n"), "{version}");
    let older = lsqc(dir, "check out.onnx --target ort --runtime 1.16");
    assert_eq!(older.status.code(), Some(3));
}

#[test]
fn rules_for_layers() {
    let mlp = mlp();
    let dir = mlp.path();
    fs::write(
        dir.join("lsqc.toml"),
        "[quantize]\nbits = \"w2\"\nblock = 16\nlayers = { head = \"w8\" }\n",
    )
    .unwrap();
    let report = quick(dir, "");
    let bits: Vec<_> = report["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["weights"]["bits"].as_u64().unwrap())
        .collect();
    assert_eq!(bits, [2, 8]);
    assert_eq!(report["settings"]["block"], 16);
    // Each kind of weight needs its version; the newest counts.
    assert_eq!(report["requires"]["version"], "1.24");
    fs::write(
        dir.join("lsqc.toml"),
        "[quantize]\nbits = \"w4\"\nlayers = { up = \"float\" }\n",
    )
    .unwrap();
    let report = quick(dir, "");
    assert_eq!(report["layers"].as_array().unwrap().len(), 1);
    assert_eq!(report["not_quantized"][0]["reason"], "the configuration says so");
}

#[test]
fn inspect_says_which_layers_it_would_be() {
    let mlp = mlp();
    let dir = mlp.path();
    let found = json(dir, "inspect mlp.onnxtxt --bits w4 --block 64");
    let layers = found["layers"].as_array().unwrap();
    let shown: Vec<_> = layers
        .iter()
        .map(|layer| {
            (
                layer["name"].as_str().unwrap(),
                layer["weight_bits"].as_u64(),
                layer["block"].as_u64(),
                layer["integers"].as_bool(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("up", Some(4), Some(64), Some(false)),
            ("head", Some(4), Some(64), Some(false))
        ]
    );
    assert!(
        layers
            .iter()
            .all(|layer| layer["activation_bits"].is_null() && layer["gradient"]["reaches"] == true)
    );
    assert!(found["refusal"].is_null());
    let said = text(&lsqc(dir, "inspect mlp.onnxtxt --bits w4"));
    assert!(
        said.contains("quantized for ort, w4: weights alone, 32 of them to a step:"),
        "{said}"
    );
    // A convolution before a Gemm: the one stays, with the reason.
    let found = json(dir, "inspect small.onnxtxt --bits w4");
    assert_eq!(found["layers"].as_array().unwrap().len(), 1);
    let reason = found["not_quantized"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("blocks are of MatMul and Gemm"), "{reason}");
}

#[test]
fn refusals() {
    let mlp = mlp();
    let dir = mlp.path();
    let cases: &[(&str, &[&str])] = &[
        (
            "--bits 4 --block 32",
            &["--block 32", "weights alone are quantized", "--bits w4"],
        ),
        (
            "--bits w4 --target openvino",
            &["OpenVINO", "--target ort or tensorrt", "such as 4"],
        ),
        (
            "--bits w4 --target portable",
            &["any runtime with operator set 13", "--target ort or tensorrt"],
        ),
        (
            "--bits w5",
            &["no weights of 5 bits", "w2, w3, w4, w8", "or 5 for weights and activations"],
        ),
        ("--bits w8 --target tensorrt", &["no weights of 8 bits", "w2, w3, w4"]),
        ("--bits w4 --block 24", &["the block is 24", "16, 32, 64, 128, 256"]),
        ("--bits w4 --block 0", &["the block is 0"]),
        ("--bits w4 --block -16", &["the block is -16"]),
        ("--bits w4 --block 512", &["the block is 512", "16, 32, 64, 128, 256"]),
        (
            "--bits w4 --block 32 --target tensorrt",
            &["the block is 32", "TensorRT has blocks of 64, 128"],
        ),
        (
            "--bits w4 --per-channel",
            &["--per-channel does not go with --bits w4", "a step of its own"],
        ),
        ("--bits w4 --no-vnni", &["--no-vnni does not go with", "sums of integers"]),
        ("--bits w4 --placement paper", &["--placement does not go with", "none are"]),
        (
            "--bits w4 --storage packed",
            &["--storage packed does not go with", "leave it out"],
        ),
        (
            "--bits w4 --freeze-oscillating",
            &["--freeze-oscillating does not go with", "blocks have many"],
        ),
        (
            "--bits w8 --runtime-min 1.20",
            &[
                "ONNX Runtime 1.20 does not compute weights of w8",
                "--runtime-min 1.23",
                "w3, w4",
            ],
        ),
        (
            "--bits w4 --runtime-min 1.16",
            &["1.16 does not compute", "--runtime-min 1.17 or later"],
        ),
        (
            "--bits w4 --target tensorrt --opset 17",
            &["operator set 21", "not 17", "--opset 21"],
        ),
        ("--bits w9", &["9 bits", "2 to 8"]),
    ];
    for (flags, parts) in cases {
        refuses(dir, &format!("{QUICK} {flags}"), 2, parts);
        // `inspect` takes the flags that are about the quantization.
        if !flags.contains("--freeze") {
            refuses(dir, &format!("inspect mlp.onnxtxt {flags}"), 2, parts);
        }
    }
    refuses(
        dir,
        "inspect mlp.onnxtxt --bits w4 --confirm",
        2,
        &["--confirm", "weights alone", "leave --confirm out"],
    );
}

#[test]
fn refusals_of_models_and_rules() {
    let convs = "<ir_version: 8, opset_import: [\"\" : 17]>
        g (float[N,1,8,8] x) => (float[N,1,6,6] y) <float[1,1,3,3] k = normal(seed = 1)> { [stem] y = Conv (x, k) }";
    let odd = MLP
        .replace("float[N,64] x", "float[N,40] x")
        .replace("float[64,128] a", "float[40,128] a")
        .replace(
            "[head] y = Gemm <transB = 1> (r, c, cb)",
            "[half] h = Slice (r, zero, hundred, one)  [head] y = Gemm <transB = 1> (h, d, cb)",
        );
    let odd = odd.replace(
        "float[4] cb",
        "float[4,100] d = normal(seed = 5), int64[1] zero = {0}, int64[1] hundred = {100}, int64[1] one = {1}, float[4] cb",
    );
    let folder = folder(&[
        ("convs.onnxtxt", convs.as_bytes()),
        ("odd.onnxtxt", odd.as_bytes()),
        ("small.onnxtxt", SMALL.as_bytes()),
        ("images.npz", &data("x", &[1, 8, 8], 8)),
        ("colour.npz", &data("x", &[3, 8, 8], 8)),
        ("rows.npz", &data("x", &[40], 8)),
    ]);
    let dir = folder.path();
    let run = |model: &str, data: &str, more: &str| {
        format!("quantize {model}.onnxtxt --data {data}.npz --engine tract --threads 1 --steps 1 --batch 2 -o out.onnx {more}")
    };
    refuses(
        dir,
        &run("convs", "images", "--bits w4"),
        2,
        &[
            "convs.onnxtxt",
            "stem (Conv)",
            "no runtime has them for convolutions",
            "--bits 4 quantizes weights and activations",
        ],
    );
    // `inspect` shows such a model, with the refusal.
    let seen = json(dir, "inspect convs.onnxtxt --bits w4");
    assert!(
        seen["refusal"].as_str().unwrap().contains("there is none that takes blocks"),
        "{seen}"
    );
    refuses(
        dir,
        &run("odd", "rows", "--bits w4 --target tensorrt"),
        2,
        &["up (MatMul)", "it sums over 40", "no multiple of the block of 64"],
    );
    for (rules, bits, code, parts) in [
        (
            "conv = \"w4\"",
            "w4",
            2,
            &["the pattern \"conv\"", "'conv' is a Conv", "take the pattern out"][..],
        ),
        (
            "fc = \"w4a4\"",
            "w4",
            2,
            &["the layers \"fc\" are to take w4a4 and the others w4", "write \"w4\""],
        ),
        (
            "fc = \"w4\"",
            "3",
            2,
            &["the layers \"fc\" are to take w4 and the others w3a3", "write \"w4a8\""],
        ),
        ("fc = \"w6\"", "w4", 2, &["no weights of 6 bits"]),
        ("nothing = \"w4\"", "w4", 2, &["the pattern \"nothing\"", "matches no layer"]),
    ] {
        fs::write(dir.join("lsqc.toml"), format!("[quantize]\nlayers = {{ {rules} }}\n")).unwrap();
        refuses(dir, &run("small", "colour", &format!("--bits {bits}")), code, parts);
    }
    for (line, part) in [
        ("per_channel = true", "--per-channel"),
        ("no_vnni = true", "--no-vnni"),
        ("placement = \"q8\"", "--placement"),
    ] {
        fs::write(dir.join("lsqc.toml"), format!("[quantize]\nbits = \"w4\"\n{line}\n")).unwrap();
        refuses(dir, &run("small", "colour", ""), 2, &[part, "lsqc.toml"]);
    }
    fs::write(dir.join("lsqc.toml"), "[quantize]\nbits = 4\nblock = 32\n").unwrap();
    refuses(dir, &run("small", "colour", ""), 2, &["--block 32"]);
}
