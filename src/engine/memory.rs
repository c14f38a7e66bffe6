//! Keeps freed memory in the process.
//!
//! tract asks for every intermediate tensor anew. glibc gives large blocks straight back to the system when they are freed, and the system
//! zeroes them when they are asked for again: in a graph of element-wise operators that is a good part of the time. So glibc is told,
//! once, to keep them. The process then stays as large as it was at its largest. Other allocators are left as they are.

/// Gives freed memory back to the system, so that what is taken afterwards shows.
pub fn release_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: `malloc_trim` takes a number and may be called at any time from any thread.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// Tells the allocator to keep what is freed.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            const LARGE: libc::c_int = 1 << 30;
            /// The most that older versions accept.
            const LESS_LARGE: libc::c_int = 32 << 20;
            // SAFETY: `mallopt` takes two numbers, may be called at any time, and returns 0 for what it does not accept.
            unsafe {
                if libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) == 0 {
                    libc::mallopt(libc::M_MMAP_THRESHOLD, LESS_LARGE);
                }
                libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
            }
        });
    }
}
