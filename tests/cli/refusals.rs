//! What a user meets on the command line when something is wrong: exit code, one clear error, nothing left behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A folder with a file that stands for a model (what is refused here is refused before it is read) and an `lsqc.toml`.
fn folder(toml: Option<&str>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.onnx"), "").unwrap();
    if let Some(toml) = toml {
        fs::write(folder.path().join("lsqc.toml"), toml).unwrap();
    }
    folder
}

fn lsqc(folder: &Path, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lsqc"))
        .args(line.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs `line`, and expects exit `code`, one error, all `parts` in it, and no new file.
fn refuses(folder: &TempDir, line: &str, code: i32, parts: &[&str]) {
    let before = names(folder.path());
    let output = lsqc(folder.path(), line);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{line}\n{text}");
    assert_eq!(
        text.lines().filter(|line| line.starts_with("error:")).count(),
        1,
        "{line}\n{text}"
    );
    for part in parts {
        assert!(text.contains(part), "{line}: no \"{part}\" in\n{text}");
    }
    assert!(output.stdout.is_empty(), "{line}");
    assert_eq!(names(folder.path()), before, "{line}");
}

#[test]
fn bits() {
    let folder = folder(None);
    refuses(&folder, "quantize model.onnx --bits 1", 2, &["--bits", "1 bits", "2 to 8"]);
    refuses(&folder, "quantize model.onnx --bits 9", 2, &["--bits", "9 bits", "2 to 8"]);
    refuses(&folder, "quantize model.onnx --bits w3a9", 2, &["9 bits", "2 to 8"]);
    refuses(&folder, "quantize model.onnx --bits x", 2, &["\"x\" is no bit width", "w3a4"]);
    refuses(&folder, "quantize model.onnx --bits -3", 2, &["\"-3\" is no bit width"]);
}

#[test]
fn flags() {
    let folder = folder(None);
    refuses(&folder, "quantize model.onnx --bitz 3", 2, &["--bitz", "--bits"]);
    refuses(&folder, "quantize", 2, &["<MODEL>"]);
    refuses(&folder, "quantise model.onnx", 2, &["quantize"]);
    refuses(
        &folder,
        "quantize model.onnx --epochs 1 --steps 2",
        2,
        &["--epochs", "--steps"],
    );
    refuses(&folder, "quantize model.onnx --emit-gradients", 2, &["--emit-step"]);
    refuses(&folder, "quantize model.onnx --placement q9", 2, &["q9", "shared", "paper"]);
    refuses(&folder, "quantize model.onnx --batch 0", 2, &["batch is 0", "at least 1"]);
    refuses(
        &folder,
        "quantize model.onnx --test-fraction 1.5",
        2,
        &["test fraction is 1.5", "between 0 and 1"],
    );
    refuses(&folder, "opt", 2, &["<MODEL>"]);
}

#[test]
fn models() {
    let folder = folder(None);
    for command in ["quantize", "opt", "eval"] {
        refuses(
            &folder,
            &format!("{command} none.onnx"),
            4,
            &["model none.onnx is not there", "help:"],
        );
        refuses(&folder, &format!("{command} ."), 4, &["is a folder, not a model"]);
    }
}

#[test]
fn outputs() {
    let folder = folder(None);
    refuses(
        &folder,
        "quantize model.onnx -o none/x.onnx",
        2,
        &["none/x.onnx", "there is no folder none", "mkdir -p none"],
    );
    refuses(
        &folder,
        "quantize model.onnx --report none/x.json",
        2,
        &["none/x.json", "there is no folder none"],
    );
    refuses(
        &folder,
        "quantize model.onnx --emit-fakequant none/x.onnx",
        2,
        &["there is no folder none"],
    );
    refuses(
        &folder,
        "quantize model.onnx --emit-step none/step",
        2,
        &["there is no folder none"],
    );
    refuses(
        &folder,
        "quantize model.onnx --emit-step . -o step.onnx",
        2,
        &["step.onnx", "lies in the folder of --emit-step"],
    );
    refuses(&folder, "quantize model.onnx -o .", 2, &["is a folder, not a file"]);
    refuses(&folder, "quantize model.onnx -o ./model.onnx", 2, &["is the model itself"]);
    refuses(
        &folder,
        "quantize model.onnx -o x --report ./x",
        2,
        &["two outputs have the name"],
    );
    refuses(&folder, "opt model.onnx -o none/x.onnx", 2, &["there is no folder none"]);
    refuses(&folder, "opt model.onnx --dump-ir none/ir", 2, &["there is no folder none"]);
}

#[test]
fn settings() {
    for (toml, parts) in [
        (
            "[train]\nepochs = 3\nlearning_rate = 1\n",
            &["lsqc.toml, line 3", "unknown field `learning_rate`"][..],
        ),
        (
            "[train]\nepohcs = 3\n",
            &["lsqc.toml, line 2", "unknown field `epohcs`", "did you mean `epochs`?"],
        ),
        (
            "[quantise]\nbits = 3\n",
            &["lsqc.toml, line 1", "unknown field `quantise`", "did you mean `quantize`?"],
        ),
        ("[train\n", &["lsqc.toml, line 1"]),
        ("[train]\nepochs = \"three\"\n", &["lsqc.toml, line 2", "invalid type"]),
        ("[quantize]\nbits = \"w9a3\"\n", &["lsqc.toml, line 2", "9 bits", "2 to 8"]),
        (
            "[quantize]\nlayers = { \"/fc\" = \"flat\" }\n",
            &["lsqc.toml, line 2", "\"flat\" is no bit width", "float"],
        ),
        ("[input.x]\nstd = 0\n", &["lsqc.toml", "[input.x]", "std is 0"]),
        ("[train]\nepochs = 1\nsteps = 1\n", &["lsqc.toml", "both epochs and steps"]),
    ] {
        refuses(&folder(Some(toml)), "quantize model.onnx", 2, parts);
    }
    refuses(
        &folder(None),
        "quantize model.onnx --config none.toml",
        2,
        &["none.toml", "because:"],
    );
    refuses(
        &folder(Some("[train]\nsteps = -1\n")),
        "eval model.onnx",
        2,
        &["lsqc.toml, line 2"],
    );
}

#[test]
fn data() {
    let folder = folder(None);
    refuses(
        &folder,
        "quantize model.onnx --data none.npz",
        4,
        &["there is no data file none.npz", "help:"],
    );
    refuses(
        &folder,
        "quantize model.onnx --data a.gz,b.gz",
        4,
        &["there is no data file a.gz"],
    );
    refuses(
        &folder,
        "quantize model.onnx --data .",
        4,
        &["holds no data", "train.npz", "train-images-idx3-ubyte"],
    );
    refuses(
        &folder,
        "quantize model.onnx --require-data",
        2,
        &["data is required", "--data"],
    );
    refuses(&folder, "eval model.onnx", 2, &["there is no data to measure on", "--data"]);
    let toml = "[data]\ntrain = { images = \"i.gz\", labels = \"l.gz\" }\n";
    refuses(
        &self::folder(Some(toml)),
        "quantize model.onnx",
        4,
        &["there is no data file", "i.gz"],
    );
}

#[test]
fn help_has_examples() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["quantize", "opt", "eval"] {
        let output = lsqc(folder.path(), &format!("{command} --help"));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("Examples:"), "{text}");
    }
    let text = String::from_utf8(lsqc(folder.path(), "--help").stdout).unwrap();
    assert!(text.contains("Exit codes") && text.contains("quantize"), "{text}");
    assert_eq!(lsqc(folder.path(), "").status.code(), Some(2));
}

#[test]
fn what_a_target_does_not_have() {
    let plain = folder(None);
    let cases: &[(&str, &[&str])] = &[
        ("--target cuda", &["cuda", "tensorrt", "openvino"]),
        (
            "--target tensorrt --placement q8",
            &["\"q8\" is not for TensorRT", "leave it out", "shortcut, paper"],
        ),
        (
            "--target tensorrt --bits w8a8u",
            &[
                "w8a8u",
                "TensorRT has no unsigned levels of more than 7 bits",
                "w8a8s",
                "w8a7u",
            ],
        ),
        (
            "--bits 2 --storage packed --opset 21",
            &["int2", "needs operator set 25, not 21", "--opset 25", "--storage int4"],
        ),
        (
            "--bits 4 --storage packed --opset 13",
            &["int4", "operator set 21, not 13", "--opset 21", "--storage int8"],
        ),
        (
            "--bits 4 --storage packed --runtime-min 1.16",
            &[
                "int4",
                "ONNX Runtime 1.16 does not load",
                "--runtime-min 1.23",
                "--storage auto",
            ],
        ),
        ("--bits 8 --storage packed", &["4 bits and less", "no layer has so few"]),
        (
            "--bits 4 --storage packed --target openvino",
            &["OpenVINO is not known to run weights of int4", "leave --storage out"],
        ),
        ("--runtime-min new", &["--runtime-min", "\"new\" is no version", "1.23"]),
        ("--opset 12", &["operator set is 12", "13 to 25"]),
        ("--opset 26", &["operator set is 26", "13 to 25"]),
    ];
    for (flags, parts) in cases {
        refuses(&plain, &format!("quantize model.onnx {flags}"), 2, parts);
    }
    let ruled = folder(Some(
        "[quantize]\ntarget = \"tensorrt\"\nbits = 4\nlayers = { \"/fc/*\" = \"w8a8u\" }\n",
    ));
    refuses(
        &ruled,
        "quantize model.onnx",
        2,
        &["the layers \"/fc/*\" are to take w8a8u", "TensorRT has no unsigned levels"],
    );
}

#[test]
fn a_hand_over_folder_that_would_overwrite() {
    let folder = folder(None);
    refuses(
        &folder,
        "quantize model.onnx --deploy .",
        2,
        &["model.onnx", "--deploy", "choose another folder"],
    );
    refuses(&folder, "quantize model.onnx --deploy out -o out/model.onnx", 2, &["out"]);
    refuses(&folder, "quantize model.onnx --deploy model.onnx", 2, &["model.onnx"]);
}

#[test]
fn confirming_without_a_runtime_to_ask() {
    let folder = folder(None);
    for (target, title) in [("tensorrt", "TensorRT"), ("portable", "any runtime")] {
        let line = format!("inspect model.onnx --target {target} --confirm");
        let parts = ["--confirm asks ONNX Runtime and OpenVINO", title, "leave --confirm out"];
        refuses(&folder, &line, 2, &parts);
    }
    for flag in ["--ort-lib", "--openvino-lib"] {
        refuses(&folder, &format!("inspect model.onnx {flag} x.so"), 2, &["--confirm"]);
    }
    refuses(
        &folder,
        "inspect model.onnx --confirm --openvino-lib x.so",
        2,
        &["--openvino-lib x.so", "ONNX Runtime", "--target openvino"],
    );
    let line = "inspect model.onnx --target openvino --confirm --openvino-lib";
    for (file, cause) in [("x.so", "x.so"), ("model.onnx", "it does not load")] {
        let parts = [file, "cannot be used as OpenVINO", cause, "pip install"];
        refuses(&folder, &format!("{line} {file}"), 5, &parts);
    }
}
