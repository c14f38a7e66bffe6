//! OpenVINO, loaded from a library file at run time, to be asked what it makes of a model. It computes nothing for lsqc.
//!
//! Its library for C cannot list the ops of the graph that it would run, but it measures them on request, and the list of measurements has
//! each op's name, kind and precision, also before anything was run. So a model is compiled for the CPU with that request, and the list read.

mod c;
mod library;

use std::path::Path;

use super::EngineError;
use super::discover::{OPENVINO, Search, Surroundings, search_for};
use library::{Library, Measurement};

/// An OpenVINO library.
#[derive(Debug)]
pub struct OpenVino {
    library: Library,
}

/// An op of the graph that OpenVINO runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Its name: that of a node of the model that it was made from, or one that has it as a part; or one of OpenVINO's own.
    pub name: String,
    /// What it is, in OpenVINO's words, as `Convolution`.
    pub kind: String,
    /// The type of its first operand in lower case, as `f32`. OpenVINO says `i8` of bytes without a sign too.
    pub precision: String,
    /// The names of ops that it computes along with itself, on its own result.
    pub fused: Vec<String>,
}

/// What OpenVINO says of how an op is computed that another one computes along.
const FUSED: &str = "undef";

/// The ops of a list of measurements. How an op is computed is the implementation's name and, behind the last underline, the precision; what is
/// fused into an op follows it.
fn ops(measurements: Vec<Measurement>) -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    for Measurement { name, kind, how } in measurements {
        match ops.last_mut() {
            Some(op) if how == FUSED => op.fused.push(name),
            _ => ops.push(Op {
                name,
                kind,
                precision: how.rsplit('_').next().unwrap_or_default().to_ascii_lowercase(),
                fused: Vec::new(),
            }),
        }
    }
    ops
}

impl OpenVino {
    /// Finds a library, `file` being the one that `--openvino-lib` names, and opens the first that is usable; one that the user named is the
    /// only one tried.
    ///
    /// # Errors
    /// [`EngineError::NoOpenVino`] if there is none; [`EngineError::OpenVino`] if none is usable: the named one's, or the first one's.
    pub fn find(file: Option<&Path>) -> Result<OpenVino, EngineError> {
        OpenVino::find_among(search_for(&OPENVINO, file, &Surroundings::of_process()))
    }

    /// As [`OpenVino::find`], from a search that was made.
    ///
    /// # Errors
    /// As [`OpenVino::find`].
    pub fn find_among(found: Search) -> Result<OpenVino, EngineError> {
        let mut first = None;
        for candidate in &found.candidates {
            match Library::open(&candidate.path) {
                Ok(library) => return Ok(OpenVino { library }),
                Err((cause, cure)) => {
                    first.get_or_insert(EngineError::OpenVino {
                        path: candidate.path.clone(),
                        why: candidate.why.clone(),
                        cause,
                        cure: cure.to_owned(),
                    });
                }
            }
        }
        let looked_in = found.looked_in;
        Err(first.unwrap_or(EngineError::NoOpenVino { looked_in }))
    }

    /// The runtime and its version.
    #[must_use]
    pub fn version(&self) -> String {
        format!("OpenVINO {} (CPU)", self.library.version)
    }

    /// The ops that OpenVINO computes a serialised `ModelProto` by, on the CPU. The shapes of its inputs should be numbers: else some ops are
    /// chosen when it runs.
    ///
    /// # Errors
    /// [`EngineError::Refused`] if OpenVINO does not take the model, [`EngineError::Failed`] if it does not measure it.
    pub fn ops(&self, model: &[u8]) -> Result<Vec<Op>, EngineError> {
        let engine = "openvino";
        let compiled = self.library.compile(model);
        let compiled = compiled.map_err(|cause| EngineError::Refused { engine, cause })?;
        let measurements = compiled.measurements();
        measurements.map(ops).map_err(|cause| EngineError::Failed { engine, cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(name: &str, how: &str) -> Measurement {
        Measurement {
            name: name.to_owned(),
            kind: String::new(),
            how: how.to_owned(),
        }
    }

    #[test]
    fn the_precision_is_the_last_word() {
        let how = ["jit_avx2_1x1_I8", "brgemm_avx512_f32", "unknown", ""];
        let found = ops(how.map(|how| measurement("", how)).into());
        let precisions: Vec<&str> = found.iter().map(|op| op.precision.as_str()).collect();
        assert_eq!(precisions, ["i8", "f32", "unknown", ""]);
    }

    #[test]
    fn what_is_fused_follows() {
        let list = [
            ("a", FUSED),
            ("b", "ref_f32"),
            ("c", FUSED),
            ("d", FUSED),
            ("e", "ref_f32"),
            ("f", FUSED),
        ];
        let found = ops(list.map(|(name, how)| measurement(name, how)).into());
        let found: Vec<(&str, Vec<&str>)> = found
            .iter()
            .map(|op| (op.name.as_str(), op.fused.iter().map(String::as_str).collect()))
            .collect();
        assert_eq!(found, [("a", vec![]), ("b", vec!["c", "d"]), ("e", vec!["f"])]);
    }
}
