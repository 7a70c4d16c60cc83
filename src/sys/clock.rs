//! The kernel's monotonic clock as a number, for who compares it with what another process has read.

use std::mem::MaybeUninit;

/// Microseconds since an arbitrary moment (clock_gettime(2), `CLOCK_MONOTONIC`).
pub fn monotonic_micros() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the kernel writes one timespec, which lives for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()) };
    // SAFETY: zeroed before, so it is valid whether the call wrote to it or not.
    let time = unsafe { time.assume_init() };
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(time.tv_sec).saturating_mul(1_000_000).saturating_add(part(time.tv_nsec) / 1000)
}
