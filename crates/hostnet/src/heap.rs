//! Memory the process does not use any more.

/// Has the C library give memory back to the host as soon as it is free.
///
/// It would keep what a big answer took once for another one, which may never come. To be called before
/// there is a second thread. Where the C library is not GNU's, nothing is to be told.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        // Each thread that ever ran would have a heap of its own, and leave holes in it.
        (nix::libc::M_ARENA_MAX, 1),
        // Once said, these do not grow with what is freed.
        (nix::libc::M_MMAP_THRESHOLD, 128 << 10),
        (nix::libc::M_TRIM_THRESHOLD, 128 << 10),
    ] {
        #[expect(unsafe_code, reason = "the C library has no other way to be told")]
        // SAFETY: it takes two numbers, and reads and writes nothing but the settings of the heap.
        let _ = unsafe { nix::libc::mallopt(parameter, value) };
    }
}

/// Has the C library make fewer heaps than it would: a thread that frees little of what it took, as who
/// accepts thousands of connections does, leaves holes in each. One for every two processors is enough for
/// them not to wait for each other much. To be called before there is a second thread.
pub fn share() {
    #[cfg(target_env = "gnu")]
    {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let heaps = i32::try_from(processors.div_ceil(2)).unwrap_or(i32::MAX);
        #[expect(unsafe_code, reason = "the C library has no other way to be told")]
        // SAFETY: it takes two numbers, and reads and writes nothing but the settings of the heap.
        let _ = unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, heaps) };
    }
}

/// Gives back now what is free between what is not. Others wait for memory meanwhile, for milliseconds.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "the C library has no other way to be told")]
        // SAFETY: what it gives back is free, and nobody's; it takes the lock of the heap to see to that.
        let _ = unsafe { nix::libc::malloc_trim(0) };
    }
}
