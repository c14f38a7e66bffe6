//! Ctrl-C and `SIGTERM`: the first asks the run to stop at its next [`check`], so that nothing half-written stays behind; a second one
//! of the same kind ends the process at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::failure::{Failure, Kind, Signal};

const SIGNALS: [(i32, Signal); 2] = [
    (signal_hook::consts::SIGINT, Signal::Interrupt),
    (signal_hook::consts::SIGTERM, Signal::Terminate),
];

/// The number of the signal that arrived last; 0 while there was none.
fn arrived() -> &'static Arc<AtomicUsize> {
    static ARRIVED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
    ARRIVED.get_or_init(Arc::default)
}

/// Starts listening; once per process.
///
/// # Errors
/// If the system refuses a handler.
pub fn listen() -> anyhow::Result<()> {
    for (number, signal) in SIGNALS {
        let again = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let code = i32::from(Kind::Interrupted(signal).exit_code());
        // Handlers run in the order of registration: the shutdown is armed by the first signal and fires at the second.
        signal_hook::flag::register_conditional_shutdown(number, code, Arc::clone(&again))?;
        signal_hook::flag::register(number, again)?;
        let value = usize::try_from(number)?;
        signal_hook::flag::register_usize(number, Arc::clone(arrived()), value)?;
    }
    Ok(())
}

/// Has a signal asked the run to stop? Cheap: loops call it once per batch.
///
/// # Errors
/// A failure of [`Kind::Interrupted`] if so.
pub fn check() -> anyhow::Result<()> {
    let number = arrived().load(Ordering::Relaxed);
    match SIGNALS.iter().find(|(known, _)| usize::try_from(*known) == Ok(number)) {
        Some((_, signal)) => Err(Failure::new(Kind::Interrupted(*signal), "interrupted; no file was written").into()),
        None => Ok(()),
    }
}
