//! Opens a file as OpenVINO's library for C, and asks it.

use std::ffi::{CStr, c_char};
use std::path::Path;
use std::ptr::NonNull;

use super::c::{self, Functions, Profile, Profiles, Status};

/// What is wrong with a file, and what helps.
type Unusable = (String, &'static str);

const INSTALL: &str = "`pip install --upgrade openvino` gives a good one";

/// The library, started.
#[derive(Debug)]
pub(super) struct Library {
    pub version: String,
    functions: Functions,
    core: Object<c::Core>,
}

/// What OpenVINO says of an op.
pub(super) struct Measurement {
    pub name: String,
    /// What it is.
    pub kind: String,
    /// How it is computed.
    pub how: String,
}

/// A model that is ready to run.
pub(super) struct Compiled<'a> {
    library: &'a Library,
    model: Object<c::CompiledModel>,
}

impl Library {
    /// Opens the library at `path`. It stays open as long as the process.
    ///
    /// # Errors
    /// What is wrong with it, and what helps.
    pub(super) fn open(path: &Path) -> Result<Library, Unusable> {
        let unusable = |cause: String| (cause, INSTALL);
        // Absolute, so that the loader looks nowhere else.
        let file = std::fs::canonicalize(path).map_err(|error| unusable(error.to_string()))?;
        // SAFETY: opening a library runs its initialisers. The user named this file, or it lies where OpenVINO is installed under the name
        // of its library; running it is what was asked for.
        let library = unsafe { libloading::Library::new(&file) }
            .map_err(|error| unusable(format!("it does not load: {}", detail(&error))))?;
        let functions = Functions::of(&library).map_err(|lacking| {
            unusable(match lacking {
                c::OLDEST => format!("it has no `{lacking}`: it is another library"),
                _ => format!("it has no `{lacking}`: lsqc needs a newer OpenVINO"),
            })
        })?;
        // The functions stay valid, and so do its threads, which do not survive being unloaded.
        std::mem::forget(library);
        let version = version(&functions).map_err(unusable)?;
        let create = |core| {
            // SAFETY: the place is one to be filled in.
            unsafe { (functions.core_create)(core) }
        };
        let core =
            made(&functions, create, functions.core_free).map_err(|cause| unusable(format!("it does not start: {cause}")))?;
        Ok(Library {
            version,
            functions,
            core,
        })
    }

    /// Compiles a serialised `ModelProto` for the CPU.
    ///
    /// # Errors
    /// OpenVINO's own words.
    pub(super) fn compile(&self, model: &[u8]) -> Result<Compiled<'_>, String> {
        let functions = &self.functions;
        let (bytes, no_weights) = (model.as_ptr().cast::<c_char>(), std::ptr::null());
        let read = |read| {
            // SAFETY: there are as many bytes as is said; they are only read.
            unsafe { (functions.core_read_model_from_memory_buffer)(self.core.get(), bytes, model.len(), no_weights, read) }
        };
        let read = self.made(read, functions.model_free)?;
        let measuring = [c"PERF_COUNT".as_ptr(), c"YES".as_ptr()];
        let compile = |compiled| {
            let [key, value] = measuring;
            // SAFETY: core and model are alive, and the texts end in 0. Of what varies there is as much as is said: a key and its value.
            unsafe { (functions.core_compile_model)(self.core.get(), read.get(), c"CPU".as_ptr(), 2, compiled, key, value) }
        };
        let model = self.made(compile, functions.compiled_model_free)?;
        Ok(Compiled { library: self, model })
    }

    /// What `make` puts where it is told to; `free` is its end.
    fn made<T>(&self, make: impl FnOnce(*mut *mut T) -> Status, free: Free<T>) -> Result<Object<T>, String> {
        made(&self.functions, make, free)
    }
}

impl Compiled<'_> {
    /// The list of measurements, nothing having been run.
    ///
    /// # Errors
    /// OpenVINO's own words.
    pub(super) fn measurements(&self) -> Result<Vec<Measurement>, String> {
        let functions = &self.library.functions;
        let create = |request| {
            // SAFETY: the compiled model is alive.
            unsafe { (functions.compiled_model_create_infer_request)(self.model.get(), request) }
        };
        let request = self.library.made(create, functions.infer_request_free)?;
        let mut profiles = Profiles {
            first: std::ptr::null_mut(),
            size: 0,
        };
        // SAFETY: the request is alive, and the list is one to be filled in.
        done(functions, unsafe {
            (functions.infer_request_get_profiling_info)(request.get(), &raw mut profiles)
        })?;
        let listed: &[Profile] = if profiles.first.is_null() {
            &[]
        } else {
            // SAFETY: the list has that many profiles, which stay until it is freed below.
            unsafe { std::slice::from_raw_parts(profiles.first, profiles.size) }
        };
        let measurements = listed
            .iter()
            .map(|profile| {
                // SAFETY: the profile's texts stay as long as the list.
                let [name, kind, how] =
                    [profile.node_name, profile.node_type, profile.exec_type].map(|text| unsafe { said(text) });
                Measurement { name, kind, how }
            })
            .collect();
        // SAFETY: OpenVINO filled the list in, and nothing of it is used from here on.
        unsafe { (functions.profiling_info_list_free)(&raw mut profiles) };
        Ok(measurements)
    }
}

/// What frees an object.
type Free<T> = unsafe extern "C" fn(*mut T);

/// An object that OpenVINO made, and that is freed with this.
#[derive(Debug)]
struct Object<T> {
    pointer: NonNull<T>,
    free: Free<T>,
}

impl<T> Object<T> {
    fn get(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Object<T> {
    fn drop(&mut self) {
        // SAFETY: it was made by OpenVINO, whose function for such objects this is, and it is freed once, here.
        unsafe { (self.free)(self.pointer.as_ptr()) };
    }
}

/// What `make` puts where it is told to; `free` must be OpenVINO's function for such objects.
fn made<T>(functions: &Functions, make: impl FnOnce(*mut *mut T) -> Status, free: Free<T>) -> Result<Object<T>, String> {
    let mut pointer = std::ptr::null_mut();
    done(functions, make(&raw mut pointer))?;
    let pointer = NonNull::new(pointer).ok_or("it made nothing")?;
    Ok(Object { pointer, free })
}

/// An error in OpenVINO's own words, where the status is one.
fn done(functions: &Functions, status: Status) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: both functions take no pointers, and give a text that ends in 0, or null. The first one's is a copy that is left to the end of
    // the process, which an error brings; the second one's is static.
    let (last, general) = unsafe { (said((functions.get_last_err_msg)()), said((functions.get_error_info)(status))) };
    Err(if last.trim().is_empty() {
        general
    } else {
        last.trim().to_owned()
    })
}

fn version(functions: &Functions) -> Result<String, String> {
    let mut version = c::Version::default();
    // SAFETY: the version is one to be filled in.
    done(functions, unsafe { (functions.get_openvino_version)(&raw mut version) })?;
    // SAFETY: its text stays until it is freed.
    let build = unsafe { said(version.build) };
    // SAFETY: OpenVINO filled it in, and nothing of it is used from here on.
    unsafe { (functions.version_free)(&raw mut version) };
    // As `2026.4.0-12345-releases/2026/4`.
    Ok(build.split('-').next().unwrap_or_default().to_owned())
}

/// A copy of a text, which is empty where there is none.
///
/// # Safety
/// The text must end in 0, or be null.
unsafe fn said(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// `dlopen`'s own words where there are some.
fn detail(error: &libloading::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}
