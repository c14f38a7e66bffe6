//! Where lsqc looks for ONNX Runtime, and what it says of a library that it cannot use.
#![cfg(target_os = "linux")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use lsqc::engine::discover::{OPENVINO, Surroundings, search, search_for};
use lsqc::engine::{EngineChoice, EngineError, OpenVino, select, select_among};

const NAME: &str = "libonnxruntime.so.1.30.0";
const CAPI: &str = "lib/python3.12/site-packages/onnxruntime/capi";

#[test]
fn places_are_tried_in_order() {
    let root = tempfile::tempdir().expect("a folder");
    let root = root.path();
    let around = Surroundings {
        variables: vec![
            ("VIRTUAL_ENV".into(), root.join("venv").into()),
            ("CONDA_PREFIX".into(), root.join("conda").into()),
            ("PATH".into(), joined(&[root.join("empty/bin"), root.join("path/bin")])),
            ("HOME".into(), root.join("home").into()),
            ("LD_LIBRARY_PATH".into(), root.join("linked").into()),
        ],
        executable: Some(root.join("own/bin/lsqc")),
        system: vec![root.join("system")],
    };
    touch(&root.join("real/bin/python3.11"));
    touch(&root.join("path/bin/placeholder"));
    std::os::unix::fs::symlink(root.join("real/bin/python3.11"), root.join("path/bin/python3")).expect("a link");
    let expected = [
        (
            root.join("venv").join(CAPI).join(NAME),
            "found in the active virtual environment",
        ),
        (
            root.join("conda").join(CAPI).join(NAME),
            "found in the active conda environment",
        ),
        (root.join("path").join(CAPI).join(NAME), "found in the Python on PATH"),
        (
            root.join("real/lib/python3/dist-packages/onnxruntime/capi").join(NAME),
            "found in the Python on PATH",
        ),
        (
            root.join("home/.local").join(CAPI).join(NAME),
            "found in the user's Python packages",
        ),
        (
            root.join("own").join(CAPI).join(NAME),
            "found in the Python environment of lsqc itself",
        ),
        (root.join("linked/libonnxruntime.so"), "found in the system's library path"),
        (root.join("system/libonnxruntime.so.1"), "found in the system's library path"),
    ];
    for (path, _) in &expected {
        touch(path);
        touch(&path.with_file_name("libonnxruntime_providers_shared.so"));
    }
    let found = search(None, &around);
    let pairs: Vec<(PathBuf, &str)> = found.candidates.iter().map(|c| (c.path.clone(), c.why.as_str())).collect();
    assert_eq!(pairs, expected);
    assert!(found.candidates.iter().all(|candidate| !candidate.named));
    assert!(
        found
            .looked_in
            .iter()
            .any(|place| place.contains("venv/lib/python3*/site-packages")),
        "{:?}",
        found.looked_in
    );
}

#[test]
fn a_named_file_is_the_only_candidate() {
    let mut around = Surroundings {
        variables: vec![("ORT_DYLIB_PATH".into(), "/by/variable.so".into())],
        ..Surroundings::default()
    };
    let by_flag = search(Some(Path::new("/by/flag.so")), &around);
    assert_eq!(by_flag.candidates.len(), 1);
    assert_eq!(by_flag.candidates[0].why, "named by --ort-lib");
    let by_variable = search(None, &around);
    assert_eq!(by_variable.candidates.len(), 1);
    assert_eq!(by_variable.candidates[0].path, Path::new("/by/variable.so"));
    around.variables[0].1 = OsString::new();
    assert!(search(None, &around).candidates.is_empty(), "an empty variable names nothing");
}

#[test]
fn nothing_found_means_tract_or_one_error() {
    let nothing = || search(None, &Surroundings::default());
    let selected = select_among(EngineChoice::Auto, nothing).expect("tract is always there");
    assert_eq!(selected.engine.name(), "tract");
    assert!(selected.reason.contains("no ONNX Runtime was found"), "{}", selected.reason);
    let error = select_among(EngineChoice::Ort, nothing).expect_err("there is none");
    assert!(matches!(error.downcast_ref(), Some(EngineError::NotFound { .. })));
    assert!(error.to_string().contains("pip install onnxruntime"), "{error}");
    assert_eq!(
        select_among(EngineChoice::Tract, || unreachable!("no search is needed"))
            .expect("tract")
            .engine
            .name(),
        "tract"
    );
}

#[test]
fn a_bad_library_is_one_clear_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let garbage = folder.join("libonnxruntime.so.0");
    std::fs::write(&garbage, b"not a library").expect("written");
    let cases = [
        (
            folder.join("missing.so"),
            "No such file or directory",
            "pip install onnxruntime",
        ),
        (garbage, "it does not load: ", "pip install onnxruntime"),
        (
            compile(folder, "other", "int answer(void) { return 42; }"),
            "it has no `OrtGetApiBase`",
            "pip install onnxruntime",
        ),
        (
            compile(folder, "null", "void *OrtGetApiBase(void) { return 0; }"),
            "`OrtGetApiBase` returns nothing",
            "pip install onnxruntime",
        ),
        (
            stand_in(folder, "old", "1.16.0"),
            "it is version 1.16.0, and lsqc needs 1.22 or newer",
            "pip install --upgrade onnxruntime",
        ),
        (
            stand_in(folder, "hollow", "1.99.0"),
            "it is version 1.99.0, and lsqc needs 1.22 or newer",
            "pip install --upgrade onnxruntime",
        ),
    ];
    for (path, cause, cure) in &cases {
        // The user named the file, so another engine in its place would be a surprise.
        for choice in [EngineChoice::Ort, EngineChoice::Auto] {
            let error = select(choice, Some(path)).expect_err("it is not usable");
            assert!(matches!(error.downcast_ref(), Some(EngineError::Library { .. })), "{error:?}");
            let text = error.to_string();
            for part in [path.to_str().expect("plain"), cause, cure, "named by --ort-lib"] {
                assert!(text.contains(part), "{text:?} has no {part:?}");
            }
        }
    }
}

#[test]
fn a_bad_library_that_was_only_found_leaves_tract() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = stand_in(folder.path(), "onnxruntime", "1.16.0");
    let around = Surroundings {
        system: vec![folder.path().to_path_buf()],
        ..Surroundings::default()
    };
    let selected = select_among(EngineChoice::Auto, || search(None, &around)).expect("tract");
    assert_eq!(selected.engine.name(), "tract");
    assert!(
        selected.reason.contains(old.to_str().expect("plain")) && selected.reason.contains("1.16.0"),
        "{}",
        selected.reason
    );
    let error = select_among(EngineChoice::Ort, || search(None, &around)).expect_err("too old");
    assert!(matches!(error.downcast_ref(), Some(EngineError::Library { .. })));
}

#[test]
fn for_cuda_a_library_with_its_provider_is_taken() {
    let install = "`pip install \"onnxruntime-gpu[cuda,cudnn]\"`";
    let nothing = || search(None, &Surroundings::default());
    let error = select_among(EngineChoice::OrtCuda, nothing).expect_err("there is none");
    assert!(
        matches!(error.downcast_ref(), Some(EngineError::NotFound { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains(install), "{error}");

    let folder = tempfile::tempdir().expect("a folder");
    let [plain, with_provider] = ["plain", "with_provider"].map(|name| folder.path().join(name));
    for folder in [&plain, &with_provider] {
        std::fs::create_dir(folder).expect("made");
        stand_in(folder, "onnxruntime", "1.16.0");
    }
    let around = Surroundings {
        system: vec![plain, with_provider.clone()],
        ..Surroundings::default()
    };
    let error = select_among(EngineChoice::OrtCuda, || search(None, &around)).expect_err("neither has it");
    assert!(matches!(error.downcast_ref(), Some(EngineError::Cuda { .. })), "{error:?}");
    for part in ["plain", "has no CUDA provider", "found in the system's library path", install] {
        assert!(error.to_string().contains(part), "{error}");
    }
    touch(&with_provider.join("libonnxruntime_providers_cuda.so"));
    let error = select_among(EngineChoice::OrtCuda, || search(None, &around)).expect_err("it is too old");
    assert!(
        matches!(error.downcast_ref(), Some(EngineError::Library { path, .. }) if path.starts_with(&with_provider)),
        "{error:?}"
    );
}

#[test]
fn openvino_is_looked_for_in_the_same_places() {
    let root = tempfile::tempdir().expect("a folder");
    let root = root.path();
    let around = Surroundings {
        variables: vec![("VIRTUAL_ENV".into(), root.join("venv").into())],
        executable: Some(root.join("own/bin/lsqc")),
        system: vec![root.join("system")],
    };
    let nothing = OpenVino::find_among(search_for(&OPENVINO, None, &around)).expect_err("there is none");
    assert!(matches!(nothing, EngineError::NoOpenVino { .. }));
    for part in [
        "pip install openvino",
        "--openvino-lib FILE",
        "venv/lib/python3*/site-packages",
    ] {
        assert!(nothing.to_string().contains(part), "{nothing}");
    }
    let wheel = root.join("venv/lib/python3.12/site-packages/openvino/libs");
    let expected = [
        wheel.join("libopenvino_c.so.2640"),
        root.join("own/lib/python3.9/site-packages/openvino/libs/libopenvino_c.so.2500"),
        root.join("system/libopenvino_c.so"),
    ];
    expected.iter().for_each(|path| touch(path));
    touch(&wheel.join("libopenvino.so.2640"));
    let paths = |file: Option<&Path>, around: &Surroundings| -> Vec<PathBuf> {
        let found = search_for(&OPENVINO, file, around).candidates;
        found.into_iter().map(|candidate| candidate.path).collect()
    };
    assert_eq!(paths(None, &around), expected);
    let mut named = around;
    named.variables.push(("OPENVINO_LIB".into(), "/by/variable.so".into()));
    assert_eq!(paths(None, &named), [Path::new("/by/variable.so")]);
    assert_eq!(paths(Some(Path::new("/by/flag.so")), &named), [Path::new("/by/flag.so")]);
}

#[test]
fn a_bad_openvino_is_one_clear_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    // A library of OpenVINO's with its first function, which fails where there is another.
    let version = "int ov_get_openvino_version(void *version) { return -1; }";
    let cases = [
        (folder.join("missing.so"), "No such file or directory"),
        (
            compile(folder, "another", "int answer(void) { return 42; }"),
            "it is another library",
        ),
        (compile(folder, "old", version), "lsqc needs a newer OpenVINO"),
    ];
    for (path, cause) in &cases {
        let error = OpenVino::find(Some(path)).expect_err("it is not usable");
        assert!(matches!(error, EngineError::OpenVino { .. }), "{error:?}");
        let text = error.to_string();
        for part in [
            path.to_str().expect("plain"),
            cause,
            "pip install --upgrade openvino",
            "named by --openvino-lib",
        ] {
            assert!(text.contains(part), "{text:?} has no {part:?}");
        }
    }
}

#[test]
fn engines_are_named_as_the_flag_names_them() {
    for (text, choice) in [
        ("auto", EngineChoice::Auto),
        ("tract", EngineChoice::Tract),
        ("ort", EngineChoice::Ort),
        ("ort-cuda", EngineChoice::OrtCuda),
    ] {
        assert_eq!(text.parse(), Ok(choice));
    }
    assert_eq!(
        "cuda".parse::<EngineChoice>(),
        Err("`cuda` is not an engine; there are auto, tract, ort and ort-cuda".to_string())
    );
}

/// A library with ONNX Runtime's entry point and nothing behind it.
fn stand_in(folder: &Path, name: &str, version: &str) -> PathBuf {
    let source = format!(
        "static const void *api(unsigned v) {{ (void)v; return 0; }}\n\
         static const char *version(void) {{ return \"{version}\"; }}\n\
         static const struct {{ const void *(*api)(unsigned); const char *(*version)(void); }} base = {{ api, version }};\n\
         const void *OrtGetApiBase(void) {{ return &base; }}\n"
    );
    compile(folder, name, &source)
}

fn compile(folder: &Path, name: &str, source: &str) -> PathBuf {
    let file = folder.join(format!("{name}.c"));
    let library = folder.join(format!("lib{name}.so"));
    std::fs::write(&file, source).expect("written");
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &file])
        .output()
        .expect("a C compiler is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

fn touch(path: &Path) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, b"").expect("written");
}

fn joined(folders: &[PathBuf]) -> OsString {
    std::env::join_paths(folders).expect("plain paths")
}
