//! Opens a file as ONNX Runtime, after making sure that it is one and new enough: the binding would panic on some that are not.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::sys::{OrtApi, OrtApiBase};

use crate::engine::EngineError;
use crate::engine::guard::quietly;

/// The oldest API that has everything that the binding calls; ONNX Runtime 1.N has the APIs 1 to N.
const API: u32 = ort::MINOR_VERSION;

/// The library of the process.
#[derive(Clone, Debug)]
pub(super) struct Library {
    pub(super) path: PathBuf,
    pub(super) why: String,
    pub(super) version: String,
    pub(super) environment: Environment,
}

static OPENED: Mutex<Option<Library>> = Mutex::new(None);

impl Library {
    /// Opens the library at `path`; `why` says how it was found.
    ///
    /// # Errors
    /// [`EngineError::Library`], naming what is wrong and what helps.
    pub(super) fn open(path: &Path, why: &str) -> Result<Library, EngineError> {
        let fail = |(cause, cure): (String, &str)| EngineError::Library {
            path: path.to_path_buf(),
            why: why.to_string(),
            cause,
            cure: cure.to_string(),
        };
        // Absolute, so that the binding does not look for it beside the executable.
        let file = std::fs::canonicalize(path).map_err(|error| fail((error.to_string(), INSTALL)))?;
        let mut opened = OPENED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(library) = &*opened {
            if library.path == file {
                return Ok(library.clone());
            }
            let cause = format!("this process already uses {}", library.path.display());
            return Err(fail((cause, "one run uses one library")));
        }
        let version = probe(&file).map_err(fail)?;
        let environment = quietly(|| environment(&file))
            .and_then(|made| made)
            .map_err(|cause| fail((format!("it does not start: {cause}"), INSTALL)))?;
        let library = Library {
            path: file,
            why: why.to_string(),
            version,
            environment,
        };
        *opened = Some(library.clone());
        Ok(library)
    }
}

const INSTALL: &str = "`pip install onnxruntime` gives a good one, or use `--engine tract`";

/// The version of the library at `file`.
fn probe(file: &Path) -> Result<String, (String, &'static str)> {
    // SAFETY: opening a library runs its initialisers. The user named this file, or it lies where ONNX Runtime is installed under
    // ONNX Runtime's name; running it is what was asked for.
    let library =
        unsafe { libloading::Library::new(file) }.map_err(|error| (format!("it does not load: {}", detail(&error)), INSTALL))?;
    // SAFETY: `OrtGetApiBase` has had this signature in every version of ONNX Runtime.
    let base = unsafe { library.get::<unsafe extern "C" fn() -> *const OrtApiBase>(b"OrtGetApiBase\0") }
        .map_err(|_| ("it has no `OrtGetApiBase`: it is another library".to_string(), INSTALL))?;
    // SAFETY: as above. The table is static in the library, which stays open until the end of this function.
    let base = unsafe { base().as_ref() }.ok_or_else(|| ("`OrtGetApiBase` returns nothing".to_string(), INSTALL))?;
    // SAFETY: the function takes nothing and returns a static C string, or null, which is refused.
    let version = unsafe {
        let text = (base.GetVersionString)();
        if text.is_null() { None } else { Some(CStr::from_ptr(text)) }
    };
    let version = version
        .and_then(|text| text.to_str().ok())
        .ok_or_else(|| ("it gives no version".to_string(), INSTALL))?
        .to_string();
    let old = || {
        (
            format!("it is version {version}, and lsqc needs 1.{API} or newer"),
            "`pip install --upgrade onnxruntime`, or use `--engine tract`",
        )
    };
    // Asked first, because an old version writes to stderr when it lacks an API.
    if !at_least(&version, API) {
        return Err(old());
    }
    // SAFETY: the function takes a number and returns a static table, or null if it has no such API.
    let api: *const OrtApi = unsafe { (base.GetApi)(API) };
    if api.is_null() {
        return Err(old());
    }
    // Its threads and statics need not survive being unloaded and loaded again.
    std::mem::forget(library);
    Ok(version)
}

fn at_least(version: &str, minor: u32) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (1, minor)
}

/// `dlopen`'s own words where there are some.
fn detail(error: &libloading::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

fn environment(file: &Path) -> Result<Environment, String> {
    let builder = ort::init_from(file).map_err(|error| error.to_string())?;
    let log = |level: LogLevel, category: &str, _id: &str, place: &str, message: &str| {
        if level >= LogLevel::Error {
            tracing::debug!(target: "onnxruntime", category, place, "{message}");
        }
    };
    builder
        .with_name("lsqc")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(at_least("1.22.0", 22));
        assert!(at_least("1.100.3", 22));
        assert!(at_least("2.0.0", 22));
        assert!(!at_least("1.9.9", 22));
        assert!(!at_least("nonsense", 22));
    }
}
