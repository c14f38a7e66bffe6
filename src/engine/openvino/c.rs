//! OpenVINO's interface for C as far as lsqc calls it, by `openvino/c/openvino.h` of its releases.

use std::ffi::{c_char, c_int};

/// 0, or the number of an error.
pub(super) type Status = c_int;

/// Objects that are known by their addresses alone.
macro_rules! opaque {
    ($($name:ident)+) => {
        $(
            #[doc = concat!("An object of OpenVINO's: ", stringify!($name), ".")]
            #[derive(Debug)]
            #[repr(C)]
            pub(super) struct $name {
                _private: [u8; 0],
            }
        )+
    };
}

opaque! { Core Model CompiledModel InferRequest Tensor }

/// `ov_version_t`.
#[repr(C)]
pub(super) struct Version {
    /// The number.
    pub build: *const c_char,
    /// Of what.
    pub description: *const c_char,
}

impl Default for Version {
    fn default() -> Version {
        Version {
            build: std::ptr::null(),
            description: std::ptr::null(),
        }
    }
}

/// `ov_profiling_info_t`.
#[repr(C)]
pub(super) struct Profile {
    _status: c_int,
    _real_time: i64,
    _cpu_time: i64,
    /// The op's name.
    pub node_name: *const c_char,
    /// How it is computed.
    pub exec_type: *const c_char,
    /// What it is.
    pub node_type: *const c_char,
}

/// `ov_profiling_info_list_t`.
#[repr(C)]
pub(super) struct Profiles {
    /// The first.
    pub first: *mut Profile,
    /// How many.
    pub size: usize,
}

/// A struct of functions, with the way to find all of them in a library.
macro_rules! functions {
    ($($name:ident: fn($($argument:ty),* $(; $variadic:tt)?) $(-> $result:ty)?;)+) => {
        /// OpenVINO's functions. They are valid as long as the library that they were found in stays open.
        #[derive(Clone, Copy, Debug)]
        pub(super) struct Functions {
            $(
                #[doc = concat!("`ov_", stringify!($name), "`.")]
                pub $name: unsafe extern "C" fn($($argument),* $(, $variadic)?) $(-> $result)?,
            )+
        }

        impl Functions {
            /// Finds all of them; the error is the name of the first one that the library lacks.
            pub(super) fn of(library: &libloading::Library) -> Result<Functions, &'static str> {
                Ok(Functions {
                    $(
                        $name: {
                            const NAME: &str = concat!("ov_", stringify!($name));
                            // SAFETY: a library that has functions of these names is OpenVINO's for C, whose header gives them these
                            // signatures.
                            *unsafe { library.get(NAME) }.map_err(|_| NAME)?
                        },
                    )+
                })
            }
        }
    };
}

/// A function that every version has: what lacks it is no OpenVINO.
pub(super) const OLDEST: &str = "ov_get_openvino_version";

functions! {
    get_openvino_version: fn(*mut Version) -> Status;
    version_free: fn(*mut Version);
    get_error_info: fn(Status) -> *const c_char;
    get_last_err_msg: fn() -> *const c_char;
    core_create: fn(*mut *mut Core) -> Status;
    core_free: fn(*mut Core);
    core_read_model_from_memory_buffer: fn(*const Core, *const c_char, usize, *const Tensor, *mut *mut Model) -> Status;
    model_free: fn(*mut Model);
    core_compile_model: fn(*const Core, *const Model, *const c_char, usize, *mut *mut CompiledModel; ...) -> Status;
    compiled_model_free: fn(*mut CompiledModel);
    compiled_model_create_infer_request: fn(*const CompiledModel, *mut *mut InferRequest) -> Status;
    infer_request_free: fn(*mut InferRequest);
    infer_request_get_profiling_info: fn(*const InferRequest, *mut Profiles) -> Status;
    profiling_info_list_free: fn(*mut Profiles);
}
