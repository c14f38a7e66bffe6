//! `lsqc check`: exit codes, what it prints, and its refusals.

use std::fs;
use std::path::Path;

use crate::common::commands::{held_to, quick, small, text};
use crate::common::{lsqc, names, refuses};
use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A folder with the small model, and files that other tools wrote.
fn folder() -> tempfile::TempDir {
    let folder = small();
    for name in ["ort_uint8", "ort_for_tensorrt"] {
        let file = format!("{name}.onnx");
        fs::copy(
            Path::new(ROOT).join("fixtures/checked").join(&file),
            folder.path().join(&file),
        )
        .unwrap();
    }
    folder
}

/// What a check that finds something prints as JSON.
fn broken(folder: &Path, line: &str) -> Value {
    let output = lsqc(folder, &format!("check {line} --json"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert_eq!(
        errors.lines().filter(|line| line.starts_with("error:")).count(),
        1,
        "{errors}"
    );
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    held_to(&value, "check");
    value
}

#[test]
fn right_files_end_with_0() {
    let folder = folder();
    let dir = folder.path();
    for (file, target) in [("ort_uint8.onnx", "ort"), ("ort_for_tensorrt.onnx", "tensorrt")] {
        let before = names(dir);
        let shown = text(&lsqc(dir, &format!("check {file} --target {target}")));
        assert!(
            shown.starts_with(&format!("{file}: all ")) && shown.ends_with("hold\n"),
            "{shown}"
        );
        assert_eq!(names(dir), before);
        let output = lsqc(dir, &format!("check {file} --target {target} --json"));
        let value: Value = serde_json::from_str(&text(&output)).unwrap();
        held_to(&value, "check");
        assert_eq!(
            (&value["findings"], &value["target"]),
            (&Value::Array(vec![]), &Value::from(target))
        );
        assert!(value["rules"].as_array().unwrap().len() > 10);
    }
}

#[test]
fn what_quantize_writes_passes() {
    let folder = folder();
    for target in ["ort", "openvino", "tensorrt", "portable"] {
        quick(folder.path(), &format!("--bits 4 --target {target}"));
        text(&lsqc(folder.path(), &format!("check out.onnx --target {target}")));
    }
}

#[test]
fn wrong_files_end_with_3() {
    let folder = folder();
    let dir = folder.path();
    let value = broken(dir, "ort_uint8.onnx --target tensorrt");
    let findings = value["findings"].as_array().unwrap();
    let of = |rule: &str| findings.iter().find(|finding| finding["rule"] == rule).unwrap();
    assert_eq!(of("signed-types")["node"], "x_QuantizeLinear");
    assert_eq!(of("bias-float")["op"], "DequantizeLinear");
    let output = lsqc(dir, "check ort_uint8.onnx --target tensorrt");
    assert_eq!(output.status.code(), Some(3));
    let shown = String::from_utf8(output.stdout).unwrap();
    for part in [
        "x_QuantizeLinear (QuantizeLinear): levels of uint8\n  rule tensorrt/signed-types: ",
        "\n  cure: ",
        "rules of tensorrt broken",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("ort_uint8.onnx is not as TensorRT needs it"), "{errors}");

    let float = broken(dir, "model.onnxtxt --target portable");
    assert_eq!(float["findings"][0]["rule"], "quantized");
    assert!(float["findings"][0]["node"].is_null());
    let old = broken(dir, "ort_uint8.onnx --target ort --runtime 1.6");
    assert_eq!(
        (&old["findings"][0]["rule"], &old["runtime"]),
        (&Value::from("runtime"), &Value::from("1.6"))
    );
    text(&lsqc(dir, "check ort_uint8.onnx --target ort --runtime 1.7.2"));
}

#[test]
fn check_refuses() {
    let folder = folder();
    let dir = folder.path();
    refuses(
        dir,
        "check none.onnx --target ort",
        4,
        &["model none.onnx is not there", "help:"],
    );
    refuses(dir, "check data.npz --target ort", 4, &["data.npz", "help:"]);
    refuses(
        dir,
        "check ort_uint8.onnx --target ort --runtime new",
        2,
        &["--runtime", "no version"],
    );
    refuses(
        dir,
        "check ort_uint8.onnx --target tensorrt --runtime 10.0",
        2,
        &["--runtime", "does not know what versions of TensorRT load", "help:"],
    );
    for line in [
        "check ort_uint8.onnx",
        "check ort_uint8.onnx --target tflite",
        "check --target ort",
    ] {
        let output = lsqc(dir, line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(output.stdout.is_empty(), "{line}");
    }
}
