//! The stand-ins for CUDA's libraries that build.py made, and the ONNX Runtime that they are for.

use std::path::{Path, PathBuf};

/// Where they are.
pub struct StandIn {
    /// The library of the wheel onnxruntime-gpu.
    pub library: PathBuf,
    /// What build.py filled.
    pub folder: PathBuf,
}

impl StandIn {
    /// Those that the environment names; demanded if LSQC_REQUIRE_CUDA_STAND_IN is 1.
    pub fn at_hand() -> Option<StandIn> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        if let (Some(library), Some(folder)) = (variable("LSQC_CUDA_ORT"), variable("LSQC_CUDA_STAND_IN")) {
            return Some(StandIn { library, folder });
        }
        let demanded = std::env::var("LSQC_REQUIRE_CUDA_STAND_IN").is_ok_and(|value| value == "1");
        assert!(
            !demanded,
            "LSQC_REQUIRE_CUDA_STAND_IN is 1, but LSQC_CUDA_ORT and LSQC_CUDA_STAND_IN are not both set"
        );
        println!("skipped: no stand-ins for CUDA");
        None
    }

    /// Loads them into this process, so that the provider finds them by their names.
    pub fn load(&self) {
        for part in ["toolkit", "driver"] {
            let mut files: Vec<PathBuf> = std::fs::read_dir(self.folder.join(part))
                .expect("build.py made it")
                .map(|entry| entry.expect("it is read").path())
                .collect();
            files.sort();
            for file in files {
                // SAFETY: the libraries are those of build.py; they have no initialisers.
                let library = unsafe { libloading::Library::new(&file) }.expect("it loads");
                std::mem::forget(library);
            }
        }
    }

    /// The library path of a machine with CUDA's libraries, and no driver.
    pub fn toolkit(&self) -> String {
        text(&self.folder.join("toolkit"))
    }

    /// The library path of a machine with all.
    pub fn all(&self) -> String {
        format!("{}:{}", self.toolkit(), text(&self.folder.join("driver")))
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a plain path").to_owned()
}
