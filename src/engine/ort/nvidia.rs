//! NVIDIA's libraries: those of Python's wheels made findable, and the driver asked for its first device.
//!
//! The wheels `nvidia-*`, which `pip install "onnxruntime-gpu[cuda,cudnn]"` brings, put CUDA's libraries into `site-packages/nvidia/*/lib`,
//! where no loader looks. A loader that has opened a library already takes it for every later request of the same name, so they are opened
//! here, each before those that need it, and stay open. That is what `onnxruntime.preload_dlls()` does in Python. Names are private to
//! each library, so that two versions of CUDA side by side do not meet.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::path::{Path, PathBuf};

/// The libraries, each behind those that it needs. cuDNN opens its parts itself.
const LIBRARIES: [&str; 8] = [
    "libcudart.so",
    "libnvrtc.so",
    "libnvJitLink.so",
    "libcublasLt.so",
    "libcublas.so",
    "libcufft.so",
    "libcurand.so",
    "libcudnn.so",
];

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gpu {
    /// As the driver calls it.
    pub name: String,
    /// Its memory in bytes.
    pub memory: u64,
}

/// Opens the libraries of the wheels that lie beside the ONNX Runtime at `library`. One that does not open is left to the provider, whose
/// error names what it lacks.
pub(super) fn preload(library: &Path) {
    for file in in_wheels(library) {
        // SAFETY: opening a library runs its initialisers. The file has the name of a library of CUDA and lies where NVIDIA's wheels
        // install them, beside the ONNX Runtime that was taken; the provider would open it next.
        match unsafe { libloading::Library::new(&file) } {
            Ok(opened) => std::mem::forget(opened),
            Err(error) => tracing::debug!(file = %file.display(), "{error}"),
        }
    }
}

/// The libraries in `site-packages/nvidia/*/lib`, for an ONNX Runtime in `site-packages/onnxruntime/capi`.
fn in_wheels(library: &Path) -> Vec<PathBuf> {
    let Some(packages) = library.ancestors().nth(3) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries(&packages.join("nvidia"))
        .iter()
        .flat_map(|wheel| entries(&wheel.join("lib")))
        .collect();
    files.sort();
    let named = |stem: &'static str| files.iter().filter(move |file| is_version_of(file, stem)).cloned();
    LIBRARIES.iter().copied().flat_map(named).collect()
}

/// Is it `stem` with a version behind it?
fn is_version_of(file: &Path, stem: &str) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_prefix(stem)
        .is_some_and(|version| version.is_empty() || version.starts_with('.'))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// cuDNN, under the names that the provider asks for when the first convolution runs: the first is what the wheels have.
pub(super) const CUDNN: [&str; 2] = if cfg!(windows) {
    ["cudnn64_9.dll", "cudnn64.dll"]
} else {
    ["libcudnn.so.9", "libcudnn.so"]
};

/// Does cuDNN load? The provider starts without it, and fails at the first convolution.
pub(super) fn has_cudnn() -> bool {
    CUDNN.iter().any(|name| {
        // SAFETY: opening a library runs its initialisers; the provider would open it next.
        let opened = unsafe { libloading::Library::new(*name) };
        opened.map(std::mem::forget).is_ok()
    })
}

const DRIVER: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

/// The first GPU that NVIDIA's driver shows to this process, asked in the driver's C interface.
///
/// # Errors
/// If there is no driver, or it shows none.
pub(super) fn first_gpu() -> Result<Gpu, String> {
    // SAFETY: opening a library runs its initialisers; this is the system's driver, which ONNX Runtime's provider has open already.
    let driver = unsafe { libloading::Library::new(DRIVER) }.map_err(|_| format!("there is no NVIDIA driver ({DRIVER})"))?;
    let failed = |what: &str, code: c_int| Err(format!("the NVIDIA driver shows no device ({what} gives error {code})"));
    let (mut device, mut bytes, mut name): (c_int, usize, [c_char; 256]) = (0, 0, [0; 256]);
    // SAFETY: the driver's interface has had these functions with these signatures since CUDA 3.2; each pointer is to a live value of the
    // type that the function writes, and the length of the name is given with it.
    unsafe {
        type Init = unsafe extern "C" fn(c_uint) -> c_int;
        type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
        type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
        type Memory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
        let lacks = |error: libloading::Error| format!("{DRIVER} is no NVIDIA driver: {error}");
        let code = driver.get::<Init>(b"cuInit\0").map_err(lacks)?(0);
        if code != 0 {
            return failed("cuInit", code);
        }
        let code = driver.get::<Get>(b"cuDeviceGet\0").map_err(lacks)?(&raw mut device, super::cuda::DEVICE);
        if code != 0 {
            return failed("cuDeviceGet", code);
        }
        let code = driver.get::<Name>(b"cuDeviceGetName\0").map_err(lacks)?(name.as_mut_ptr(), 255, device);
        if code != 0 {
            return failed("cuDeviceGetName", code);
        }
        let code = driver.get::<Memory>(b"cuDeviceTotalMem_v2\0").map_err(lacks)?(&raw mut bytes, device);
        if code != 0 {
            return failed("cuDeviceTotalMem", code);
        }
    }
    // Threads of the driver may outlive this function.
    std::mem::forget(driver);
    // SAFETY: the driver was given one byte less than there is, and all were zero, so the text ends inside the array.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Ok(Gpu {
        name: name.to_string_lossy().into_owned(),
        memory: bytes as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_wheels_come_in_the_order_of_their_needs() {
        let packages = tempfile::tempdir().expect("a folder");
        let put = |name: &str| {
            let file = packages.path().join(name);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            std::fs::write(&file, b"").expect("written");
            file
        };
        let cudnn = put("nvidia/cudnn/lib/libcudnn.so.9");
        put("nvidia/cudnn/lib/libcudnn_graph.so.9");
        let blas = put("nvidia/cu13/lib/libcublas.so.13");
        let light = put("nvidia/cu13/lib/libcublasLt.so.13");
        let runtime = put("nvidia/cuda_runtime/lib/libcudart.so.12");
        put("nvidia/cuda_runtime/include/libcudart.so.h");
        let library = put("onnxruntime/capi/libonnxruntime.so.1.31.1");
        assert_eq!(in_wheels(&library), [runtime, light, blas, cudnn]);
        assert!(in_wheels(Path::new("libonnxruntime.so")).is_empty());
    }
}
