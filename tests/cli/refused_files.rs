//! Models, data and runs that end in one clear error, and leave nothing behind.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{SMALL, command, data, folder, is_refusal, lsqc, names, noise, npz, refuses};

const RUN: &str = "quantize model.onnxtxt --data data.npz --engine tract --threads 1 --steps 2 --batch 8 --test-fraction 0.5";

/// A folder with `model` as text and data for `x [3, 8, 8]`.
fn with(model: &str) -> tempfile::TempDir {
    folder(&[("model.onnxtxt", model.as_bytes()), ("data.npz", &data("x", &[3, 8, 8], 32))])
}

/// The small model with a piece replaced.
fn changed(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from}");
    SMALL.replace(from, to)
}

fn model_refused(model: &str, code: i32, parts: &[&str]) {
    refuses(with(model).path(), RUN, code, parts);
}

#[test]
fn bytes_that_are_no_model() {
    let small = with(SMALL);
    assert!(lsqc(small.path(), "opt model.onnxtxt -o model.onnx").status.success());
    let whole = fs::read(small.path().join("model.onnx")).unwrap();
    for (bytes, part) in [
        (&whole[..whole.len() / 2], "truncated"),
        (&b"this is no model, but a line of text"[..], "model.onnx"),
        (&b""[..], "the file is empty"),
    ] {
        let folder = folder(&[("model.onnx", bytes)]);
        for command in ["quantize model.onnx --engine tract", "opt model.onnx -o out.onnx"] {
            refuses(
                folder.path(),
                command,
                4,
                &["cannot read the model model.onnx", part, "help:"],
            );
        }
    }
}

#[test]
fn broken_graphs() {
    model_refused(
        &changed("Conv (x, w, b)", "Conv (x, nowhere, b)"),
        4,
        &["model.onnxtxt", "nowhere"],
    );
    model_refused(
        &changed("[relu] r = Relu (c)", "[relu] c = Relu (c)"),
        4,
        &["model.onnxtxt", "c"],
    );
    model_refused(&changed("(float[N,4] y)", "()"), 4, &["model.onnxtxt", "output"]);
}

#[test]
fn what_cannot_be_quantized() {
    let relu = "g (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Relu (x) }";
    model_refused(relu, 4, &["model.onnxtxt", "nothing to quantize", "help:"]);
    model_refused(&changed("\"\" : 17", "\"\" : 6"), 4, &["model.onnxtxt", "6", "help:"]);
    model_refused(&changed("\"\" : 17", "\"\" : 99"), 4, &["model.onnxtxt", "99", "help:"]);
}

#[test]
fn weights_that_are_not_finite() {
    model_refused(
        &changed("float[6] b = normal(seed = 2, scale = 0.1)", "float[6] b = fill(nan)"),
        4,
        &["model.onnxtxt", "'b'", "'conv'", "NaN", "help:"],
    );
}

#[test]
fn data_that_does_not_fit() {
    let run = |data: Vec<u8>, parts: &[&str]| {
        let folder = folder(&[("model.onnxtxt", SMALL.as_bytes()), ("data.npz", &data)]);
        refuses(folder.path(), RUN, 4, parts);
    };
    run(data("x", &[3, 7, 7], 32), &["data.npz", "7"]);
    run(data("z", &[3, 8, 8], 32), &["data.npz", "x"]);
    run(data("x", &[3, 8, 8], 0), &["data.npz"]);
    let mut values = noise(32 * 192);
    values[500] = f32::NAN;
    run(npz(&[("x", &[3, 8, 8], values)], 32, 4), &["data.npz", "NaN"]);
    run(npz(&[("x", &[3, 8, 8], noise(32 * 192))], 32, 9), &["data.npz", "label"]);
    run(b"not a zip".to_vec(), &["data.npz"]);
}

#[test]
fn globs_and_engines() {
    let small = with(SMALL);
    fs::write(
        small.path().join("lsqc.toml"),
        "[quantize]\nlayers = { \"/nothing/*\" = \"float\" }\n",
    )
    .unwrap();
    refuses(
        small.path(),
        RUN,
        2,
        &["lsqc.toml", "/nothing/*", "matches no layer", "help:"],
    );

    let small = with(SMALL);
    let line = RUN.replace("--engine tract", "--engine ort");
    let bare = folder(&[]);
    let mut run = command(small.path(), &line);
    run.env_clear().env("PATH", bare.path()).env("HOME", bare.path());
    // A library in the system's own folders is found all the same.
    let output = run.output().unwrap();
    if output.status.code() != Some(0) {
        is_refusal(
            &output,
            &line,
            5,
            &["no ONNX Runtime library was found", "pip install onnxruntime"],
        );
        assert_eq!(names(small.path()), ["data.npz", "model.onnxtxt"]);
    }
    refuses(
        small.path(),
        &format!("{line} --ort-lib data.npz"),
        5,
        &["data.npz", "it does not load", "pip install onnxruntime"],
    );
}

#[test]
fn training_that_diverges_names_a_tensor() {
    let small = with(SMALL);
    let line = format!("{RUN} --lr 1e30").replace("--steps 2", "--steps 20");
    refuses(small.path(), &line, 5, &["'", "help: lower the learning rate (--lr)"]);
}

#[test]
fn a_failed_gate_writes_marked_files() {
    let small = with(SMALL);
    let line = format!("{RUN} --max-drop -150 -o out.onnx");
    let output = lsqc(small.path(), &line);
    is_refusal(&output, &line, 3, &["points of top-1", "--max-drop -150", "help:"]);
    assert_eq!(
        names(small.path()),
        ["data.npz", "model.onnxtxt", "out.onnx", "out.report.json"]
    );
    let report = fs::read_to_string(small.path().join("out.report.json")).unwrap();
    assert!(report.contains("\"failed\""), "{report}");
}

#[cfg(unix)]
#[test]
fn signals_in_mid_training_leave_nothing() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let small = with(SMALL);
        let before = names(small.path());
        let line = RUN.replace("--steps 2", "--steps 100000000");
        let child = command(small.path(), &line).spawn().unwrap();
        // Training is under way long before; a run that were over already would fail the test by its exit code.
        std::thread::sleep(Duration::from_secs(2));
        let id = child.id().to_string();
        assert!(
            Command::new("kill").args(["-s", signal, &id]).status().unwrap().success(),
            "{signal}"
        );
        let sent = Instant::now();
        let output = child.wait_with_output().unwrap();
        is_refusal(&output, &line, code, &["interrupted", "no file was written"]);
        assert!(sent.elapsed() < Duration::from_secs(20), "{signal}");
        assert_eq!(names(small.path()), before, "{signal}");
    }
}

#[test]
fn external_data_stays_in_its_folder() {
    // A TensorProto that lies outside: dims 2, float, external, location ../w.
    let entry = |key: &str, value: &str| field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
    let tensor = [vec![8, 2, 16, 1], field(8, b"w"), entry("location", "../w"), vec![112, 1]].concat();
    let graph = [field(2, b"g"), field(5, &tensor), field(12, &field(1, b"w"))].concat();
    let model = [vec![8, 8], field(7, &graph), field(8, &[16, 17])].concat();
    let outer = folder(&[("w", &[0; 8])]);
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("model.onnx"), model).unwrap();
    let parts = ["initializer 'w'", "../w", "must lie in the model's folder", "help:"];
    refuses(Path::new(&inner), "quantize model.onnx --engine tract", 4, &parts);
}

/// A field of bytes on protobuf's wire, under 128 bytes long.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}
