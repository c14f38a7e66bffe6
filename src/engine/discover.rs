//! Finds the library of a runtime, ONNX Runtime or OpenVINO, without running anything.
//!
//! In this order: the file that a flag names; an environment variable; the active Python environment (`VIRTUAL_ENV`, `CONDA_PREFIX`, then
//! the prefix of the `python3` on `PATH`, and the user's own packages); the Python environment that lsqc itself is installed in; the
//! system's library path. Python's wheels have the library in a folder of `site-packages`. A file that the user named is the only
//! candidate: if it is bad, that is an error, and no reason to take another.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The environment variable that names a library of ONNX Runtime.
pub const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

/// A library that is looked for.
#[derive(Debug)]
pub struct Wanted {
    /// The flag that names its file.
    pub flag: &'static str,
    /// The environment variable that does.
    pub variable: &'static str,
    /// Where Python's wheel has it, from `site-packages` on.
    pub wheel: &'static str,
    /// What its file is called, without what a system puts around it.
    pub name: &'static str,
}

/// ONNX Runtime's own library, not one of its providers'.
pub static ONNX_RUNTIME: Wanted = Wanted {
    flag: "--ort-lib",
    variable: LIBRARY_VARIABLE,
    wheel: "onnxruntime/capi",
    name: "onnxruntime",
};

/// OpenVINO's library for C, which loads the others that lie beside it.
pub static OPENVINO: Wanted = Wanted {
    flag: "--openvino-lib",
    variable: "OPENVINO_LIB",
    wheel: "openvino/libs",
    name: "openvino_c",
};

/// What a search depends on.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Environment variables.
    pub variables: Vec<(String, OsString)>,
    /// The running executable.
    pub executable: Option<PathBuf>,
    /// Folders of system libraries.
    pub system: Vec<PathBuf>,
}

/// A file that may be the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The file.
    pub path: PathBuf,
    /// How it was found, as part of a sentence.
    pub why: String,
    /// Did the user name this very file?
    pub named: bool,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Files that exist, best first; or the one that the user named, whether it exists or not.
    pub candidates: Vec<Candidate>,
    /// Every place that was looked at, for people.
    pub looked_in: Vec<String>,
}

impl Surroundings {
    /// This process's.
    #[must_use]
    pub fn of_process() -> Surroundings {
        const SYSTEM: [&str; 10] = [
            "/usr/local/lib",
            "/usr/local/lib64",
            "/usr/lib",
            "/usr/lib64",
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib/aarch64-linux-gnu",
            "/opt/homebrew/lib",
            "/opt/onnxruntime/lib",
            "/opt/intel/openvino/runtime/lib/intel64",
            "/opt/intel/openvino/runtime/lib/aarch64",
        ];
        Surroundings {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .collect(),
            executable: std::env::current_exe().ok(),
            system: SYSTEM.iter().map(PathBuf::from).collect(),
        }
    }

    /// The same without an environment variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Surroundings {
        self.variables.retain(|(key, _)| key != name);
        self
    }

    fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value)
    }

    fn folders(&self, variable: &str) -> Vec<PathBuf> {
        self.variable(variable)
            .map(|value| std::env::split_paths(value).filter(|folder| folder.is_absolute()).collect())
            .unwrap_or_default()
    }
}

/// Looks for ONNX Runtime; `ort_lib` is the file that `--ort-lib` names.
#[must_use]
pub fn search(ort_lib: Option<&Path>, around: &Surroundings) -> Search {
    search_for(&ONNX_RUNTIME, ort_lib, around)
}

/// Looks for a library; `file` is the one that its flag names. See the module for the order.
#[must_use]
pub fn search_for(wanted: &'static Wanted, file: Option<&Path>, around: &Surroundings) -> Search {
    let named = |path: &Path, why: String| Search {
        looked_in: vec![format!("{} ({why})", path.display())],
        candidates: vec![Candidate {
            path: path.to_path_buf(),
            why,
            named: true,
        }],
    };
    if let Some(path) = file {
        return named(path, format!("named by {}", wanted.flag));
    }
    if let Some(path) = around.variable(wanted.variable) {
        return named(Path::new(path), format!("named by {}", wanted.variable));
    }
    let mut found = Found {
        wanted,
        search: Search::default(),
        seen: BTreeSet::new(),
    };
    for (variable, what) in [
        ("VIRTUAL_ENV", "the active virtual environment"),
        ("CONDA_PREFIX", "the active conda environment"),
    ] {
        if let Some(prefix) = around.variable(variable) {
            found.python(Path::new(prefix), what);
        }
    }
    for prefix in path_prefixes(around) {
        found.python(&prefix, "the Python on PATH");
    }
    for user in ["HOME", "USERPROFILE"].iter().filter_map(|home| around.variable(home)) {
        found.python(&Path::new(user).join(".local"), "the user's Python packages");
    }
    if let Some(prefix) = around
        .executable
        .as_deref()
        .and_then(|executable| executable.parent()?.parent())
    {
        found.python(prefix, "the Python environment of lsqc itself");
    }
    let linked = ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"]
        .iter()
        .flat_map(|variable| around.folders(variable));
    for folder in linked.chain(around.system.iter().cloned()) {
        found.folder(&folder, "the system's library path");
    }
    found.search
}

/// The prefixes of the first `python3` on PATH: as it stands there (a virtual environment's is a link), and where it leads.
fn path_prefixes(around: &Surroundings) -> Vec<PathBuf> {
    let names = if cfg!(windows) {
        ["python3.exe", "python.exe"]
    } else {
        ["python3", "python"]
    };
    let python = around
        .folders("PATH")
        .into_iter()
        .find_map(|folder| names.iter().map(|name| folder.join(name)).find(|file| file.is_file()));
    let Some(python) = python else { return Vec::new() };
    let real = std::fs::canonicalize(&python).ok();
    // On Windows the executable lies in the prefix or in `Scripts`; elsewhere in `bin`.
    let up = |file: &Path| {
        let folder = file.parent()?;
        let inner = folder.file_name().is_some_and(|name| name == "bin" || name == "Scripts");
        Some(if inner {
            folder.parent()?.to_path_buf()
        } else {
            folder.to_path_buf()
        })
    };
    [Some(python.as_path()), real.as_deref()]
        .into_iter()
        .flatten()
        .filter_map(up)
        .collect()
}

struct Found {
    wanted: &'static Wanted,
    search: Search,
    /// Canonical files and folders, so that each is taken once.
    seen: BTreeSet<PathBuf>,
}

impl Found {
    /// The wheel in the Python environment at `prefix`.
    fn python(&mut self, prefix: &Path, what: &str) {
        self.search
            .looked_in
            .push(format!("{what}: {}", prefix.join("lib/python3*/site-packages").display()));
        let mut homes = vec![prefix.join("Lib")];
        for lib in ["lib", "lib64", "local/lib"] {
            homes.extend(
                sorted(&prefix.join(lib))
                    .into_iter()
                    .filter(|folder| starts_with(folder, "python3")),
            );
        }
        for home in homes {
            for packages in ["site-packages", "dist-packages"] {
                self.files(&home.join(packages).join(self.wanted.wheel), what);
            }
        }
    }

    fn folder(&mut self, folder: &Path, what: &str) {
        self.search.looked_in.push(format!("{what}: {}", folder.display()));
        self.files(folder, what);
    }

    fn files(&mut self, folder: &Path, what: &str) {
        let name = self.wanted.name;
        for path in sorted(folder).into_iter().rev().filter(|path| is_library(path, name)) {
            let Ok(real) = std::fs::canonicalize(&path) else { continue };
            if self.seen.insert(real) {
                self.search.candidates.push(Candidate {
                    path,
                    why: format!("found in {what}"),
                    named: false,
                });
            }
        }
    }
}

/// Is the file called as the library `wanted` is, with a version or without?
fn is_library(path: &Path, wanted: &str) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    if cfg!(windows) {
        return name.eq_ignore_ascii_case(&format!("{wanted}.dll"));
    }
    let Some(rest) = name.strip_prefix("lib").and_then(|name| name.strip_prefix(wanted)) else {
        return false;
    };
    if cfg!(target_os = "macos") {
        return rest.starts_with('.') && rest.ends_with(".dylib");
    }
    rest == ".so" || rest.starts_with(".so.")
}

fn starts_with(path: &Path, prefix: &str) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

/// What is in a folder, in a fixed order; nothing if it cannot be read.
fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    paths
}
