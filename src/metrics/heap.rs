//! How much heap the process's Rust code holds, as counted by `memory::heap::CountingAllocator`.
//!
//! Only figures live here. The allocator that feeds them is installed by the binary and by the shared
//! library; in a program that did not install it [`figures`] answers `None`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Heap figures at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapFigures {
    /// Bytes asked for and not yet freed, without the allocator's own overhead.
    pub bytes: u64,
    /// The largest value `bytes` had.
    pub peak_bytes: u64,
    /// Allocations ever made; a reallocation is one.
    pub allocations: u64,
}

/// The figures now; `None` when no counting allocator is installed.
pub fn figures() -> Option<HeapFigures> {
    COUNTS.figures()
}

/// What the global allocator counts into.
pub(crate) static COUNTS: Counts = Counts::new();

/// The counters behind [`figures`]. Any thread writes them, which costs a locked addition or two an allocation:
/// dear for a program that allocates per request, and this one does not.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Counts {
    bytes: AtomicU64,
    peak_bytes: AtomicU64,
    allocations: AtomicU64,
}

impl Counts {
    pub(crate) const fn new() -> Self {
        Counts { bytes: AtomicU64::new(0), peak_bytes: AtomicU64::new(0), allocations: AtomicU64::new(0) }
    }

    /// One allocation of `bytes`.
    #[inline]
    pub(crate) fn allocated(&self, bytes: usize) {
        let bytes = bytes as u64;
        let now = self.bytes.fetch_add(bytes, Relaxed).wrapping_add(bytes);
        self.allocations.fetch_add(1, Relaxed);
        if now > self.peak_bytes.load(Relaxed) {
            self.peak_bytes.fetch_max(now, Relaxed);
        }
    }

    /// One deallocation of `bytes`, which were counted by [`Counts::allocated`].
    #[inline]
    pub(crate) fn freed(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes as u64, Relaxed);
    }

    /// `None` until the first allocation: no Rust program gets as far as asking without one.
    fn figures(&self) -> Option<HeapFigures> {
        let allocations = self.allocations.load(Relaxed);
        (allocations > 0).then(|| HeapFigures {
            bytes: self.bytes.load(Relaxed),
            peak_bytes: self.peak_bytes.load(Relaxed),
            allocations,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_bytes_peak_and_allocations() {
        let counts = Counts::new();
        assert_eq!(counts.figures(), None);
        counts.allocated(100);
        counts.allocated(50);
        counts.freed(100);
        counts.allocated(10);
        assert_eq!(counts.figures(), Some(HeapFigures { bytes: 60, peak_bytes: 150, allocations: 3 }));
    }
}
