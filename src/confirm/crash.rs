//! A library that crashes takes the process with it. Here it does so with a word, and as where an engine fails.

/// Runs `ask`, in which a library may crash; `message` is what is said then, errors and help as everywhere.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn with_a_word<R>(message: &'static str, ask: impl FnOnce() -> R) -> R {
    use std::mem::MaybeUninit;
    use std::sync::Mutex;
    use std::sync::atomic::Ordering::SeqCst;

    // The message is the process's, and so are handlers.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    linux::MESSAGE.store(message.as_ptr().cast_mut(), SeqCst);
    linux::LENGTH.store(message.len(), SeqCst);
    let before = linux::SIGNALS.map(|signal| {
        let mut before = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: an action of zeros is one without flags and with an empty mask; its handler is a function of the signature that it must have,
        // which calls nothing that a handler may not call. The place for the action before is one to be filled in.
        unsafe {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            action.sa_sigaction = linux::end as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_ONSTACK;
            libc::sigaction(signal, &raw const action, before.as_mut_ptr());
            before.assume_init()
        }
    });
    let result = ask();
    for (signal, before) in linux::SIGNALS.iter().zip(&before) {
        // SAFETY: the action is the one that was there.
        unsafe { libc::sigaction(*signal, before, std::ptr::null_mut()) };
    }
    result
}

/// Runs `ask`; a crash is the system's to tell.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn with_a_word<R>(_: &'static str, ask: impl FnOnce() -> R) -> R {
    ask()
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod linux {
    use std::sync::atomic::Ordering::SeqCst;
    use std::sync::atomic::{AtomicPtr, AtomicUsize};

    use crate::failure::Kind;

    /// What ends a process that went wrong.
    pub(super) const SIGNALS: [libc::c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT];

    /// The message's bytes, which are static.
    pub(super) static MESSAGE: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
    /// How many.
    pub(super) static LENGTH: AtomicUsize = AtomicUsize::new(0);

    pub(super) extern "C" fn end(_: libc::c_int) {
        // SAFETY: both functions may be called in a handler; the bytes are static, and as many as is said.
        unsafe {
            libc::write(libc::STDERR_FILENO, MESSAGE.load(SeqCst).cast(), LENGTH.load(SeqCst));
            libc::_exit(Kind::Engine.exit_code().into());
        }
    }
}
