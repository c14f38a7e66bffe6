//! What the tests of the commands beside `quantize` share: the small model with its data, and JSON that is held to its schema.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use super::schema::problems;
use super::{SMALL, data, folder, lsqc, noise, unlabelled};

/// A folder with the small model, its data with labels, and the same without.
pub fn small() -> TempDir {
    folder(&[
        ("model.onnxtxt", SMALL.as_bytes()),
        ("data.npz", &data("x", &[3, 8, 8], 32)),
        ("bare.npz", &unlabelled(&[("x", &[3, 8, 8], noise(32 * 192))], 32)),
    ])
}

/// The small model with pieces replaced.
pub fn changed(pieces: &[(&str, &str)]) -> String {
    pieces.iter().fold(SMALL.to_owned(), |model, (from, to)| {
        assert!(model.contains(from), "{from}");
        model.replace(from, to)
    })
}

pub fn text(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command prints as JSON, held to its schema.
pub fn json(folder: &Path, line: &str) -> Value {
    let value: Value = serde_json::from_str(&text(&lsqc(folder, &format!("{line} --json")))).unwrap();
    let name = line.split_whitespace().next().unwrap();
    held_to(&value, name);
    value
}

pub fn held_to(value: &Value, name: &str) {
    let schema = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/{name}.schema.json"))).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(problems(value, &schema, &schema, "$"), Vec::<String>::new());
}

/// A run of `quantize` that is over soon.
pub const QUICK: &str = "quantize model.onnxtxt --data data.npz --engine tract --threads 1 --steps 2 --batch 8 --test-fraction 0.5 \
                     --proof-images 4 -o out.onnx";

pub fn quick(folder: &Path, more: &str) -> Value {
    text(&lsqc(folder, &format!("{QUICK} {more}")));
    let report = fs::read_to_string(folder.join("out.report.json")).unwrap();
    serde_json::from_str(&report).unwrap()
}
