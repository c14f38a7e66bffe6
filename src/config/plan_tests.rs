//! Tests of merging and validation.

use std::fs;
use std::path::Path;

use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::failure::{Kind, kind_of, render};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

/// A folder with a model, an `lsqc.toml` and two data files.
fn folder(toml: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [("model.onnx", ""), ("lsqc.toml", toml), ("a.npz", ""), ("b.npz", "")] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn plan(folder: &TempDir, line: &str) -> Result<Plan> {
    let at = |word: &str| word.replace('@', &folder.path().display().to_string());
    let words = ["lsqc", "@/model.onnx", "-o", "@/out.onnx"]
        .into_iter()
        .chain(line.split_whitespace())
        .map(at);
    Plan::new(&Line::try_parse_from(words).unwrap().flags)
}

fn refused(folder: &TempDir, line: &str) -> (u8, String) {
    let error = plan(folder, line).unwrap_err();
    (kind_of(&error).exit_code(), render(&error))
}

#[test]
fn defaults() {
    let plan = plan(&folder(""), "").unwrap();
    assert_eq!(
        (plan.bits.to_string().as_str(), plan.batch, plan.seed, plan.proof_images),
        ("w8a8", 128, 0, 256)
    );
    assert_eq!(
        (plan.length, plan.init, plan.loss_choice),
        (Length::Epochs(3), Init::Auto, LossChoice::Auto)
    );
    assert_eq!((plan.rate().start(), plan.data.test_fraction), (0.001, 0.1));
    assert!(plan.outputs.report.ends_with("out.report.json"));
}

#[test]
fn default_names() {
    let line = Line::try_parse_from(["lsqc", "some/where/net.v2.onnx", "--bits", "w3a4"]).unwrap();
    let outputs = outputs(&line.flags, "w3a4".parse().unwrap()).unwrap();
    assert_eq!(outputs.model, Path::new("net.v2.w3a4.onnx"));
    assert_eq!(outputs.report, Path::new("net.v2.w3a4.report.json"));
}

#[test]
fn flags_win_over_the_file() {
    let folder = folder(
        "[quantize]\nbits = 3\n[train]\nbatch = 64\nlr = 0.5\nsteps = 10\nort_lib = \"lib.so\"\n[data]\ntrain = \"a.npz\"\ntest = \"b.npz\"",
    );
    let from_file = plan(&folder, "").unwrap();
    assert_eq!(
        (from_file.bits.to_string().as_str(), from_file.batch, from_file.rate().start()),
        ("w3a3", 64, 0.5)
    );
    assert_eq!(from_file.length, Length::Steps(10));
    assert_eq!(from_file.engine.ort_lib, Some(folder.path().join("lib.so")));
    assert!(from_file.data.train.is_some() && from_file.data.test.is_some());
    let from_flags = plan(
        &folder,
        "--bits w2a4 --batch 8 --lr 0.1 --epochs 1 --data @/b.npz --ort-lib x.so",
    )
    .unwrap();
    assert_eq!(
        (
            from_flags.bits.to_string().as_str(),
            from_flags.batch,
            from_flags.rate().start()
        ),
        ("w2a4", 8, 0.1)
    );
    assert_eq!((from_flags.length, from_flags.length.steps(7)), (Length::Epochs(1), 7));
    assert_eq!(from_flags.engine.ort_lib, Some(PathBuf::from("x.so")));
    assert_eq!(from_flags.data.test, None);
}

#[test]
fn oscillating_weights_are_frozen_where_either_says_so() {
    let oscillations = |toml: &str, line: &str| plan(&folder(toml), line).unwrap().oscillations;
    assert_eq!(oscillations("", ""), Oscillations::Left);
    assert_eq!(oscillations("", "--freeze-oscillating"), Oscillations::Frozen);
    assert_eq!(oscillations("[train]\nfreeze_oscillating = true", ""), Oscillations::Frozen);
    assert_eq!(oscillations("[train]\nfreeze_oscillating = false", ""), Oscillations::Left);
}

#[test]
fn calibration_only_implies_mse() {
    let init = |toml: &str, line: &str| plan(&folder(toml), line).unwrap().init;
    assert_eq!(init("", "--epochs 0"), Init::Mse);
    assert_eq!(init("[quantize]\ninit = \"lsq\"", "--steps 0"), Init::Mse);
    assert_eq!(init("[quantize]\ninit = \"lsq\"\n[train]\nepochs = 0", ""), Init::Lsq);
    assert_eq!(init("", "--epochs 0 --init lsq"), Init::Lsq);
    assert_eq!(init("", "--bits w8a4"), Init::Auto);
    assert_eq!(init("[quantize]\ninit = \"lsq\"", "--bits 8"), Init::Lsq);
    assert_eq!(init("[quantize]\ninit = \"mse\"", ""), Init::Mse);
}

#[test]
fn loss_needs_labels() {
    let loss = |line: &str, labels| plan(&folder(""), line).unwrap().loss(labels);
    assert_eq!(loss("", Labels::Present).unwrap(), Loss::Both);
    assert_eq!(loss("", Labels::Missing).unwrap(), Loss::Kd);
    assert_eq!(loss("--loss ce", Labels::Present).unwrap(), Loss::Ce);
    assert!(
        loss("--loss ce", Labels::Missing)
            .unwrap_err()
            .to_string()
            .contains("needs labels")
    );
}

#[test]
fn numbers_out_of_range() {
    for (line, part) in [
        ("--test-fraction 1", "test fraction is 1"),
        ("--test-fraction -0.5", "between 0 and 1"),
        ("--batch 0", "batch is 0"),
        ("--lr 0", "learning rate is 0"),
        ("--lr -1", "learning rate is -1"),
        ("--weight-decay -1", "weight decay is -1"),
        ("--max-drop nan", "largest drop is NaN"),
        ("--proof-images 0", "proof images is 0"),
    ] {
        let (code, text) = refused(&folder(""), line);
        assert!(code == 2 && text.contains(part), "{line}: {code} {text}");
    }
}

#[test]
fn broken_settings() {
    for (toml, part) in [
        ("[train]\nepochs = 1\nsteps = 1", "both epochs and steps"),
        ("[input.x]\nstd = 0", "[input.x]: std is 0"),
        ("[input.x]\nmean = []", "mean is an empty list"),
        ("[input.x]\nmean = \"a\"", "a number, or a list of numbers"),
        ("[input.x]\nmaen = 0.5", "did you mean `mean`?"),
    ] {
        let (code, text) = refused(&folder(toml), "");
        assert!(
            code == 2 && text.contains(part) && text.contains("lsqc.toml"),
            "{toml}: {code} {text}"
        );
    }
    assert_eq!(refused(&folder(""), "--config @/none.toml").0, 2);
}

#[test]
fn missing_files_and_outputs() {
    for (line, code, part) in [
        ("--data @/none.npz", 4, "there is no data file"),
        ("--require-data", 2, "data is required"),
        ("--report @/none/r.json", 2, "there is no folder"),
        ("--emit-step @/none/step", 2, "there is no folder"),
        ("--emit-step @/a.npz", 2, "is a file"),
        ("--report @", 2, "is a folder"),
        ("--report @/out.onnx", 2, "two outputs have the name"),
        ("--emit-fakequant @/model.onnx", 2, "is the model itself"),
    ] {
        let (found, text) = refused(&folder(""), line);
        assert!(code == found && text.contains(part), "{line}: {found} {text}");
    }
    let line = Line::try_parse_from(["lsqc", "nowhere.onnx"]).unwrap();
    assert_eq!(kind_of(&Plan::new(&line.flags).unwrap_err()), Kind::BadInput);
}
