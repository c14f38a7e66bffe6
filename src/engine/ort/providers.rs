//! The execution providers of the library that is open, in its own words.

use std::ffi::{CStr, c_char, c_int};

use ort::environment::Environment;

/// The providers that the library was built with, best first; empty if it does not say. The environment shows that a library is open.
pub(super) fn available(_: &Environment) -> Vec<String> {
    let api = ort::api();
    let mut names: *mut *mut c_char = std::ptr::null_mut();
    let mut count: c_int = 0;
    // SAFETY: both are valid for writing. The status is null on success; on failure nothing was written and the list stays empty.
    let status = unsafe { (api.GetAvailableProviders)(&raw mut names, &raw mut count) };
    if !status.0.is_null() {
        // SAFETY: a status that is not null is the caller's to release, once.
        unsafe { (api.ReleaseStatus)(status.0) };
        return Vec::new();
    }
    let length = usize::try_from(count).unwrap_or(0);
    let name = |index: usize| {
        // SAFETY: the list has `count` entries, each a C string that lives until the list is released.
        let text = unsafe { CStr::from_ptr(*names.add(index)) };
        text.to_string_lossy().into_owned()
    };
    let found = if names.is_null() {
        Vec::new()
    } else {
        (0..length).map(name).collect()
    };
    // SAFETY: the list came from the call above, and is released once.
    let status = unsafe { (api.ReleaseAvailableProviders)(names, count) };
    if !status.0.is_null() {
        // SAFETY: as above.
        unsafe { (api.ReleaseStatus)(status.0) };
    }
    found
}
