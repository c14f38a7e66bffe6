//! The commands beside `quantize`: what they print, against their schemas, and their refusals. `inspect` has a file of its own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::common::commands::{QUICK, changed, held_to, json, quick, small, text};
use crate::common::{command, folder, is_refusal, lsqc, names, noise, npz, refuses};
use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const FIXTURES: [&str; 2] = ["fashion-resnet20", "fashion-mobilenet"];

#[test]
fn a_model_agrees_with_itself() {
    let small = small();
    let line = "eval model.onnxtxt --against model.onnxtxt --engine tract --data";
    let with = json(small.path(), &format!("{line} data.npz"));
    assert_eq!(with["samples"], 32);
    assert_eq!(with["model"]["metric"], with["against"]["metric"]);
    assert_eq!((&with["drop"]["lost"], &with["drop"]["points"]), (&0.into(), &0.0.into()));
    let agreement = &with["agreement"];
    assert_eq!(
        (&agreement["same_top1"], &agreement["largest_difference"]),
        (&32.into(), &0.0.into())
    );

    let without = json(small.path(), &format!("{line} bare.npz"));
    assert!(without["model"]["metric"].is_null() && without["drop"].is_null(), "{without}");
    assert_eq!(without["agreement"]["same_top1"], 32);
    let text = text(&lsqc(small.path(), &format!("{line} bare.npz")));
    assert!(text.contains("same first class on 32 of 32 samples"), "{text}");
}

#[test]
fn differences_are_found_in_every_output() {
    /// Both differences are exact but for a rounding at values of about 1.
    const ROUNDING: f64 = 1e-6;
    let two = [("(float[N,4] y)", "(float[N,4] y, float[N,6] f)")];
    let other = [
        two[0],
        (
            "float[4,6] v = normal(seed = 3, scale = 0.5)>",
            "float[4,6] v = normal(seed = 3, scale = 0.5), float[4] vb = {0.5, 0, 0, 0}, float k = {-0.75}>",
        ),
        ("Flatten (p)", "Flatten (p)\n  f2 = Add (f, k)"),
        ("Gemm <transB = 1> (f, v)", "Gemm <transB = 1> (f, v, vb)"),
        ("float[N,6] f)", "float[N,6] f2)"),
    ];
    let small = small();
    fs::write(small.path().join("a.onnxtxt"), changed(&two)).unwrap();
    fs::write(small.path().join("b.onnxtxt"), changed(&other)).unwrap();
    let found = json(
        small.path(),
        "eval a.onnxtxt --against b.onnxtxt --data bare.npz --engine tract",
    );
    let outputs = found["agreement"]["outputs"].as_array().unwrap();
    let names: Vec<_> = outputs
        .iter()
        .map(|output| (output["name"].as_str().unwrap(), output["against"].as_str().unwrap()))
        .collect();
    assert_eq!(names, [("y", "y"), ("f", "f2")]);
    let differences: Vec<f64> = outputs
        .iter()
        .map(|output| output["largest_difference"].as_f64().unwrap())
        .collect();
    for (found, expected) in differences.iter().zip([0.5, 0.75]) {
        assert!((found - expected).abs() < ROUNDING, "{differences:?}");
    }
    let largest = found["agreement"]["largest_difference"].as_f64().unwrap();
    assert!((largest - 0.75).abs() < ROUNDING, "{largest}");
}

/// The drop is that of the two models' own answers, whichever way round.
#[test]
fn the_drop_is_paired() {
    let small = small();
    let other = changed(&[("v = normal(seed = 3", "v = normal(seed = 6")]);
    fs::write(small.path().join("other.onnxtxt"), other).unwrap();
    let eval = |a: &str, b: &str| {
        json(
            small.path(),
            &format!("eval {a} --against {b} --data data.npz --engine tract"),
        )
    };
    let (there, back) = (eval("model.onnxtxt", "other.onnxtxt"), eval("other.onnxtxt", "model.onnxtxt"));
    assert_eq!(there["drop"]["lost"], back["drop"]["gained"]);
    assert_ne!(there["drop"]["lost"], there["drop"]["gained"]);
    let top1 = |value: &Value, model: &str| value[model]["metric"]["top1"].as_f64().unwrap();
    let points = 100.0 * (top1(&there, "model") - top1(&there, "against"));
    // Both are quotients of whole numbers by 32.
    assert_eq!(there["drop"]["points"].as_f64().unwrap(), points);
}

#[test]
fn each_model_reads_its_own_preprocessing() {
    let small = small();
    fs::write(small.path().join("lsqc.toml"), "[input.x]\nscale = 0.5\n").unwrap();
    quick(small.path(), "");
    let line = "eval model.onnxtxt --against out.onnx --data data.npz --engine tract";
    let right = json(small.path(), line);
    let read = |value: &Value| {
        (
            value["model"]["preprocessing"].clone(),
            value["against"]["preprocessing"].clone(),
        )
    };
    assert_eq!(read(&right), ("settings".into(), "model".into()));

    // Without lsqc.toml the lowered model is fed as before, and the float one as the data is.
    fs::remove_file(small.path().join("lsqc.toml")).unwrap();
    let left = json(small.path(), line);
    assert_eq!(read(&left), (Value::Null, "model".into()));
    assert_eq!(left["against"]["metric"], right["against"]["metric"]);
    assert_ne!(left["model"]["metric"], right["model"]["metric"]);

    fs::write(small.path().join("lsqc.toml"), "[input.x]\nscale = 3\n").unwrap();
    let output = lsqc(small.path(), line);
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && warnings.contains("out.onnx says of itself how 'x' is prepared"),
        "{warnings}"
    );
}

#[test]
fn eval_refuses() {
    let small = small();
    let write = |name: &str, pieces: &[(&str, &str)]| fs::write(small.path().join(name), changed(pieces)).unwrap();
    write(
        "five.onnxtxt",
        &[("float[N,4] y", "float[N,5] y"), ("float[4,6] v", "float[5,6] v")],
    );
    write("renamed.onnxtxt", &[("8,8] x)", "8,8] z)"), ("Conv (x,", "Conv (z,")]);
    write("wide.onnxtxt", &[("float[N,3,8,8]", "float[N,3,9,9]")]);
    write("more.onnxtxt", &[("(float[N,4] y)", "(float[N,4] y, float[N,6] f)")]);
    let eval = |other: &str| format!("eval model.onnxtxt --against {other} --data data.npz --engine tract");
    let dir = small.path();
    refuses(
        dir,
        &eval("five.onnxtxt"),
        4,
        &["outputs differ", "model.onnxtxt has 'y'", "five.onnxtxt has 'y'", "help:"],
    );
    refuses(dir, &eval("more.onnxtxt"), 4, &["outputs differ", "'f'"]);
    refuses(dir, &eval("renamed.onnxtxt"), 4, &["inputs differ", "'x'", "'z'"]);
    refuses(dir, &eval("wide.onnxtxt"), 4, &["inputs differ", "8", "9"]);
    refuses(dir, &eval("none.onnxtxt"), 4, &["model none.onnxtxt is not there"]);
    refuses(
        dir,
        "eval model.onnxtxt --against model.onnxtxt",
        2,
        &["no data to measure on"],
    );
    refuses(
        dir,
        "eval model.onnxtxt --data bare.npz --engine tract",
        4,
        &["no labels", "--against"],
    );
    refuses(dir, "eval model.onnxtxt --data data.npz -q -v", 2, &["--quiet", "--verbose"]);
}

#[test]
fn engines_with_nothing_around() {
    let bare = folder(&[]);
    let run = |more: &str| {
        let mut run = command(bare.path(), &format!("engines {more} --json"));
        run.env_clear().env("PATH", bare.path()).env("HOME", bare.path());
        let value: Value = serde_json::from_str(&text(&run.output().unwrap())).unwrap();
        held_to(&value, "engines");
        value
    };
    let found = run("");
    let names: Vec<&str> = found["engines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|engine| engine["name"].as_str().unwrap())
        .collect();
    assert_eq!(names[..2], ["tract", "ort"]);
    assert_eq!(found["engines"][0]["found"], true);
    // A library in the system's own folders is found all the same.
    if found["engines"][1]["found"] == false {
        assert_eq!(found["auto"], "tract");
        assert!(
            found["engines"][1]["cure"]
                .as_str()
                .unwrap()
                .contains("pip install onnxruntime")
        );
    }
    let named = run("--ort-lib nowhere.so");
    assert!(named["auto"].is_null());
    let missing = named["engines"][1]["missing"].as_str().unwrap();
    assert!(
        missing.contains("nowhere.so") && missing.contains("named by --ort-lib"),
        "{missing}"
    );
    let shown = text(&lsqc(bare.path(), "engines --ort-lib nowhere.so"));
    assert!(
        shown.contains("ort       not found") && shown.contains("auto would fail"),
        "{shown}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn engines_names_every_candidate() {
    const CAPI: &str = "lib/python3.12/site-packages/onnxruntime/capi";
    let bare = folder(&[]);
    let fake = |prefix: &str| {
        let capi = bare.path().join(prefix).join(CAPI);
        fs::create_dir_all(&capi).unwrap();
        fs::write(capi.join("libonnxruntime.so.1.30.0"), "no library").unwrap();
        capi
    };
    let (first, second) = (fake("venv"), fake("home/.local"));
    let mut run = command(bare.path(), "engines --json");
    run.env_clear().env("PATH", bare.path()).env("HOME", bare.path().join("home"));
    run.env("VIRTUAL_ENV", bare.path().join("venv"));
    let found: Value = serde_json::from_str(&text(&run.output().unwrap())).unwrap();
    let ort = &found["engines"][1];
    if ort["found"] == false {
        assert!(ort["missing"].as_str().unwrap().contains(first.to_str().unwrap()), "{ort}");
    }
    let others = ort["others"].to_string();
    assert!(others.contains(second.to_str().unwrap()), "{ort}");

    // One that is named hides the others from a run, not from this command.
    run.args(["--ort-lib", "named.so"]);
    let found: Value = serde_json::from_str(&text(&run.output().unwrap())).unwrap();
    let others = found["engines"][1]["others"].to_string();
    for file in [&first, &second] {
        assert!(others.contains(file.to_str().unwrap()), "{others}");
    }
}

#[test]
fn engines_asks_the_library() {
    if crate::common::ort().is_none() {
        println!("skipped: no ONNX Runtime");
        return;
    }
    let folder = folder(&[]);
    let found = json(folder.path(), "engines");
    let ort = &found["engines"][1];
    let providers = ort["providers"].as_array().unwrap();
    assert!(providers.contains(&"CPUExecutionProvider".into()), "{ort}");
    assert!(ort["path"].is_string() && ort["version"].as_str().unwrap().starts_with("ONNX Runtime 1."));
    assert_eq!(found["auto"], "ort");
}

#[test]
fn bench_times_in_turn() {
    let small = small();
    fs::copy(small.path().join("model.onnxtxt"), small.path().join("other.onnxtxt")).unwrap();
    let line = "bench model.onnxtxt --bits 3 --batch 4 --rounds 3 --threads 1 --engine tract --against other.onnxtxt";
    let found = json(small.path(), line);
    assert_eq!(
        (&found["rounds"], &found["batch"], &found["threads"], &found["data"]),
        (&3.into(), &4.into(), &1.into(), &"synthetic".into())
    );
    assert_eq!((&found["bits"], &found["loss"]), (&"w3a3".into(), &"both".into()));
    assert!(found["engines"][0]["memory_estimate"].as_u64().unwrap() > 0);
    let rows = found["engines"][0]["rows"].as_array().unwrap();
    let whats: Vec<&str> = rows.iter().map(|row| row["what"].as_str().unwrap()).collect();
    assert_eq!(whats, ["float_inference", "training_step", "against_inference"]);
    assert_eq!(rows[0]["ratio"], 1.0);
    for row in rows {
        let [least, median, most] = ["least", "seconds", "most"].map(|key| row[key].as_f64().unwrap());
        assert!(0.0 < least && least <= median && median <= most, "{row}");
    }
    let output = lsqc(small.path(), line);
    let (shown, said) = (text(&output), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(
        shown.contains("batch 4, 1 thread on") && shown.contains("noise for data"),
        "{shown}"
    );
    assert!(!said.contains("warning"), "{said}");
}

#[test]
fn bench_refuses() {
    let small = small();
    let dir = small.path();
    let wide = changed(&[("float[N,3,8,8]", "float[N,3,9,9]")]);
    fs::write(dir.join("wide.onnxtxt"), wide).unwrap();
    let fixed = changed(&[("float[N,3,8,8]", "float[2,3,8,8]"), ("float[N,4]", "float[2,4]")]);
    fs::write(dir.join("fixed.onnxtxt"), fixed).unwrap();
    let bench = |more: &str| format!("bench model.onnxtxt --engine tract {more}");
    refuses(dir, "bench none.onnx", 4, &["model none.onnx is not there", "help:"]);
    refuses(dir, &bench("--rounds 0"), 2, &["rounds is 0"]);
    refuses(dir, &bench("--batch 0"), 2, &["batch is 0"]);
    refuses(dir, &bench("--against none.onnx"), 4, &["none.onnx is not there"]);
    refuses(
        dir,
        &bench("--against wide.onnxtxt"),
        4,
        &["inputs differ", "wide.onnxtxt", "help:"],
    );
    refuses(
        dir,
        &bench("--against fixed.onnxtxt --batch 4"),
        4,
        &["fixed batch of 2", "help: give --batch 2"],
    );
    refuses(dir, &bench("--data none.npz"), 4, &["there is no data file none.npz"]);
}

#[test]
fn memory_is_estimated_measured_and_limited() {
    let small = small();
    let output = lsqc(small.path(), QUICK);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("a training step takes about") && said.contains("(batch 8)"),
        "{said}"
    );
    let report = quick(small.path(), "");
    let estimate = report["training"]["memory_estimate"].as_u64().unwrap();
    assert!(estimate > 0);
    if cfg!(target_os = "linux") {
        assert!(report["timing"].as_object().unwrap().contains_key("memory_peak"));
    }

    // The cure is one: what it names is taken, and one sample more is not.
    let (dir, limit) = (small.path(), estimate / 2);
    fs::remove_file(dir.join("out.onnx")).unwrap();
    fs::remove_file(dir.join("out.report.json")).unwrap();
    let line = format!("{QUICK} --memory {limit}");
    let output = lsqc(dir, &line);
    is_refusal(
        &output,
        &line,
        2,
        &["a training step takes about", "(batch 8)", "--memory", "help: --batch "],
    );
    assert_eq!(names(dir), ["bare.npz", "data.npz", "model.onnxtxt"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let words = text.split("help: --batch ").nth(1).unwrap();
    let fits: usize = words.split_whitespace().next().unwrap().parse().unwrap();
    assert!((1..8).contains(&fits), "{text}");
    let with = |batch: usize| line.replace("--batch 8", &format!("--batch {batch}"));
    let report = {
        assert!(lsqc(dir, &with(fits)).status.success());
        fs::read_to_string(dir.join("out.report.json")).unwrap()
    };
    let report: Value = serde_json::from_str(&report).unwrap();
    assert!(report["training"]["memory_estimate"].as_u64().unwrap() <= limit);
    assert_eq!(lsqc(dir, &with(fits + 1)).status.code(), Some(2));

    refuses(dir, &format!("{QUICK} --memory 1kB"), 2, &["even --batch 1 takes about"]);
    refuses(
        dir,
        &format!("{QUICK} --memory lots"),
        2,
        &["--memory", "\"lots\" is no size of memory"],
    );
    fs::write(dir.join("lsqc.toml"), "[train]\nmemory = \"1kB\"\n").unwrap();
    refuses(dir, QUICK, 2, &["more than the 1.0 kB"]);
    fs::write(dir.join("lsqc.toml"), "[train]\nmemory = \"x\"\n").unwrap();
    refuses(dir, QUICK, 2, &["lsqc.toml, line 2", "no size of memory"]);
}

#[test]
fn gates() {
    let small = small();
    let line = format!("{QUICK} --max-drop -150");
    let output = lsqc(small.path(), &line);
    is_refusal(
        &output,
        &line,
        3,
        &["points of top-1 (95 %: ", "were lost, more than --max-drop -150"],
    );
    assert_eq!(quick(small.path(), "--max-drop 150")["gate"]["outcome"], "passed");
    let bare = QUICK.replace("data.npz", "bare.npz");
    let output = lsqc(small.path(), &format!("{bare} --max-drop 1 -q"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("warning: --max-drop was not measured: the test data has no labels\n"),
        "{said}"
    );
    refuses(
        small.path(),
        &format!("{QUICK} --max-drop NaN"),
        2,
        &["the largest drop is NaN"],
    );
}

#[test]
fn messages() {
    let small = small();
    let said = |line: &str| {
        let output = lsqc(small.path(), line);
        assert!(output.status.success(), "{line}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(said(&format!("{QUICK} -q")), "");
    let verbose = said(&format!("{QUICK} -v"));
    for part in [
        "ms  place-quantizers",
        "ms  legalize",
        "data: data.npz (",
        "samples to measure on",
        "train 2/2",
    ] {
        assert!(verbose.contains(part), "{part}\n{verbose}");
    }
    let lines = said(&format!("{QUICK} --progress lines"));
    assert!(lines.contains("train 2/2") && !lines.contains("place-quantizers"), "{lines}");
    let none = said(&format!("{QUICK} --progress none"));
    assert!(!none.contains("train 2/2") && none.contains("wrote out.onnx"), "{none}");
    let (eval, bench) = (
        "eval model.onnxtxt --data data.npz --engine tract",
        "bench model.onnxtxt --engine tract --batch 2 --rounds 1",
    );
    for line in [
        eval,
        bench,
        "inspect model.onnxtxt",
        "opt model.onnxtxt -p infer-types --emit text",
    ] {
        assert_eq!(said(&format!("{line} -q")), "", "{line}");
        assert!(said(&format!("{line} -v")).len() > said(line).len(), "{line}");
        refuses(
            small.path(),
            &format!("{line} --progress dots"),
            2,
            &["--progress", "dots", "auto, bar, lines, none"],
        );
    }
}

#[test]
fn completions_and_help() {
    let folder = folder(&[]);
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = text(&lsqc(folder.path(), &format!("completions {shell}")));
        assert!(script.contains("quantize") && script.contains("max-drop"), "{shell}");
    }
    refuses(folder.path(), "completions tcsh", 2, &["tcsh", "bash"]);
    refuses(folder.path(), "completions", 2, &["<SHELL>"]);
    for name in ["quantize", "eval", "inspect", "bench", "engines", "opt", "completions"] {
        let help = text(&lsqc(folder.path(), &format!("{name} --help")));
        assert!(help.contains("Examples:") && help.contains(&format!("lsqc {name}")), "{help}");
    }
}

/// A bash that reads the script completes commands and flags.
#[test]
fn bash_completes() {
    let folder = folder(&[]);
    fs::write(
        folder.path().join("lsqc.bash"),
        text(&lsqc(folder.path(), "completions bash")),
    )
    .unwrap();
    let script = "source ./lsqc.bash; COMP_WORDS=(lsqc ins); COMP_CWORD=1; _lsqc lsqc ins lsqc; echo \"${COMPREPLY[@]}\"";
    let Ok(output) = Command::new("bash").args(["-c", script]).current_dir(folder.path()).output() else {
        println!("skipped: no bash");
        return;
    };
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "inspect", "{output:?}");
}

#[test]
fn on_the_fixtures() {
    for fixture in FIXTURES {
        let model = PathBuf::from(ROOT).join("fixtures").join(fixture).join("model.onnx");
        let model = model.display();
        let folder = folder(&[]);
        let found = json(folder.path(), &format!("inspect {model} --bits 3"));
        let layers = found["layers"].as_array().unwrap();
        assert!(layers.len() > 20 && layers.iter().all(|layer| layer["gradient"]["reaches"] == true));
        assert_eq!(found["multiply_adds"]["share"], 1.0);
        let norms = found["batch_norms"].as_array().unwrap();
        assert!(norms.len() > 20 && norms.iter().all(|norm| norm["folds_into"].is_string()));

        let same = json(folder.path(), &format!("eval {model} --against {model}"));
        assert_eq!(
            (&same["samples"], &same["agreement"]["same_top1"]),
            (&2000.into(), &2000.into())
        );
        assert!(same["model"]["metric"]["top1"].as_f64().unwrap() > 0.9, "{same}");

        let timed = json(folder.path(), &format!("bench {model} --bits 3 --batch 2 --rounds 1"));
        assert_eq!(timed["data"], "real");
        assert!(
            timed["engines"]
                .as_array()
                .unwrap()
                .iter()
                .all(|engine| engine["rows"].as_array().unwrap().len() == 2)
        );
        assert!(names(folder.path()).is_empty());
    }
}

/// Labels that are wrong are refused here as elsewhere.
#[test]
fn eval_checks_labels() {
    let small = small();
    fs::write(
        small.path().join("nine.npz"),
        npz(&[("x", &[3, 8, 8], noise(32 * 192))], 32, 9),
    )
    .unwrap();
    refuses(
        small.path(),
        "eval model.onnxtxt --against model.onnxtxt --data nine.npz --engine tract",
        4,
        &["nine.npz", "label"],
    );
}
