//! What the tests of the command line share: a folder with a model and data, running `lsqc` in it, and what a refusal must look like.
#![allow(dead_code)]

pub mod commands;
pub mod schema;

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A conv net in text, over images [3, 8, 8], for the tests that need any model at all.
pub const SMALL: &str = include_str!("../data/small.onnxtxt");

/// A folder with these files.
pub fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// Runs `lsqc` in `folder`, on tract unless the line says otherwise.
pub fn lsqc(folder: &Path, line: &str) -> Output {
    command(folder, line).output().unwrap()
}

/// The command, not yet run.
pub fn command(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lsqc"));
    command.args(line.split_whitespace()).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The names in a folder, in order.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What a refusal must look like: exit `code`, one error, a cure, all `parts`, nothing on standard output.
pub fn is_refusal(output: &Output, line: &str, code: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}\n{text}");
    let errors = text.lines().filter(|line| line.starts_with("error:")).count();
    assert_eq!(errors, 1, "{line}\n{text}");
    assert!(!text.contains("panicked"), "{line}\n{text}");
    for part in parts {
        assert!(text.contains(part), "{line}: no \"{part}\" in\n{text}");
    }
    assert!(output.stdout.is_empty(), "{line}");
}

/// Runs `line`, and expects a refusal that leaves the folder as it was.
pub fn refuses(folder: &Path, line: &str, code: i32, parts: &[&str]) {
    let before = names(folder);
    is_refusal(&lsqc(folder, line), line, code, parts);
    assert_eq!(names(folder), before, "{line}");
}

/// An npz file: an array of `f32` for each field, and labels 0 … classes − 1 in turn.
pub fn npz(fields: &[(&str, &[usize], Vec<f32>)], samples: usize, classes: usize) -> Vec<u8> {
    archive(fields, samples, Some(classes))
}

/// The same without labels.
pub fn unlabelled(fields: &[(&str, &[usize], Vec<f32>)], samples: usize) -> Vec<u8> {
    archive(fields, samples, None)
}

fn archive(fields: &[(&str, &[usize], Vec<f32>)], samples: usize, classes: Option<usize>) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let mut add = |name: &str, descr: &str, shape: &[usize], bytes: Vec<u8>| {
        let shape: String = shape.iter().map(|extent| format!("{extent},")).collect();
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
        zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(b"\x93NUMPY\x01\x00").unwrap();
        zip.write_all(&u16::try_from(header.len()).unwrap().to_le_bytes()).unwrap();
        zip.write_all(header.as_bytes()).unwrap();
        zip.write_all(&bytes).unwrap();
    };
    for (name, shape, values) in fields {
        let shape: Vec<usize> = std::iter::once(samples).chain(shape.iter().copied()).collect();
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        add(name, "<f4", &shape, bytes);
    }
    if let Some(classes) = classes {
        let labels = (0..samples).flat_map(|sample| i64::try_from(sample % classes).unwrap().to_le_bytes());
        add("label", "<i8", &[samples], labels.collect());
    }
    zip.finish().unwrap().into_inner()
}

/// Numbers that look random, in −1 … 1, the same everywhere.
pub fn noise(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).unwrap()) / 32768.0 - 1.0
    })
    .take(count)
    .collect()
}

/// Data for one input.
pub fn data(input: &str, shape: &[usize], samples: usize) -> Vec<u8> {
    let count = samples * shape.iter().product::<usize>();
    npz(&[(input, shape, noise(count))], samples, 4)
}

/// Is there an OpenVINO to confirm with? It is demanded if LSQC_REQUIRE_OPENVINO is 1.
pub fn has_openvino() -> bool {
    let found = lsqc::engine::OpenVino::find(None);
    let demanded = std::env::var("LSQC_REQUIRE_OPENVINO").is_ok_and(|value| value == "1");
    assert!(!demanded || found.is_ok(), "LSQC_REQUIRE_OPENVINO is 1: {found:?}");
    found.is_ok()
}

/// ONNX Runtime's library, where one is known to the tests.
pub fn ort() -> Option<PathBuf> {
    let found = lsqc::engine::select(lsqc::engine::EngineChoice::Ort, None);
    found.ok().map(|_| PathBuf::new())
}
