//! Turns panics of a library into errors, without a trace on the terminal.
//!
//! A panic hook is process-wide, so one is installed once and hands every panic on to the hook before it, except on a thread that is
//! inside [`quietly`] or that belongs to an engine's pool. A hook that someone installs later replaces it; then panics are still caught,
//! but not silent.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `f`; a panic in it becomes an error with the panic's message and place.
///
/// What `f` borrows mutably may be left half-changed by a panic: the caller must drop it or reset it.
///
/// # Errors
/// If `f` panics.
pub fn quietly<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    install_hook();
    let before = QUIET.replace(true);
    PLACE.take();
    let result = catch_unwind(AssertUnwindSafe(f));
    QUIET.set(before);
    result.map_err(|payload| {
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without a message");
        match PLACE.take() {
            Some(place) => format!("{message} (internal error at {place})"),
            None => format!("{message} (internal error)"),
        }
    })
}

/// Silences panics on the calling thread for good: for threads of a pool whose panics are passed on to the thread that waits for it.
pub fn hush_this_thread() {
    install_hook();
    QUIET.set(true);
}

fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            if QUIET.get() {
                PLACE.set(info.location().map(|at| format!("{}:{}", short(at.file()), at.line())));
            } else {
                previous(info);
            }
        }));
    });
}

/// The last three parts of a source path: enough to find it, and the same on every machine.
fn short(file: &str) -> String {
    let parts: Vec<&str> = file.split(['/', '\\']).collect();
    parts
        .iter()
        .skip(parts.len().saturating_sub(3))
        .copied()
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        let error = quietly(|| panic!("seven is {}", 7)).expect_err("it panics");
        assert!(error.starts_with("seven is 7 (internal error at "), "{error}");
        assert!(error.contains("guard.rs"), "{error}");
    }

    #[test]
    fn a_value_passes_through() {
        assert_eq!(quietly(|| 3), Ok(3));
    }
}
