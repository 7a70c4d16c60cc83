//! A global allocator that counts: the system's, with three relaxed additions.
//!
//! The core never installs it. The binary and the shared library do, with `#[global_allocator]`; the figures
//! are read through [`crate::metrics::heap::figures`].

use std::alloc::{GlobalAlloc, Layout, System};

use crate::metrics::heap::COUNTS;

/// The system allocator, counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

// SAFETY: every call is passed to `System` with the arguments it came with, and its answer is returned unchanged;
// counting touches static atomics only, so it neither allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is System's.
        let block = unsafe { System.alloc(layout) };
        count_allocated(block, layout.size());
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`, which is System's.
        let block = unsafe { System.alloc_zeroed(layout) };
        count_allocated(block, layout.size());
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: `block` came from System through this allocator with `layout`, as the caller promises.
        let moved = unsafe { System.realloc(block, layout, new_size) };
        if !moved.is_null() {
            count_freed(layout.size());
            count_allocated(moved, new_size);
        }
        moved
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from System through this allocator with `layout`, as the caller promises.
        unsafe { System.dealloc(block, layout) };
        count_freed(layout.size());
    }
}

#[inline]
fn count_allocated(block: *mut u8, bytes: usize) {
    if !block.is_null() {
        COUNTS.allocated(bytes);
        #[cfg(test)]
        tests::note_allocation(bytes);
    }
}

#[inline]
fn count_freed(bytes: usize) {
    COUNTS.freed(bytes);
    #[cfg(test)]
    tests::note_freed(bytes);
}

#[cfg(test)]
pub(crate) mod tests {
    //! The unit tests run with the allocator installed, so that "no allocation" can be asserted of one thread.

    use std::cell::Cell;

    use super::*;
    use crate::metrics::heap::figures;

    #[global_allocator]
    static ALLOCATOR: CountingAllocator = CountingAllocator;

    thread_local! {
        // Constant and without a destructor: the first access from inside the allocator must not allocate.
        static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
        // Wraps: a thread may free what another has allocated.
        static BYTES: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn note_allocation(bytes: usize) {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        BYTES.with(|held| held.set(held.get().wrapping_add(bytes)));
    }

    pub(super) fn note_freed(bytes: usize) {
        BYTES.with(|held| held.set(held.get().wrapping_sub(bytes)));
    }

    /// Bytes that this thread has allocated, and not freed, when `work` has run.
    pub(crate) fn bytes_kept_by(work: impl FnOnce()) -> usize {
        let before = BYTES.get();
        work();
        BYTES.get().wrapping_sub(before)
    }

    /// Allocations that this thread makes while `work` runs.
    pub(crate) fn allocations_during(work: impl FnOnce()) -> u64 {
        let before = ALLOCATIONS.get();
        work();
        ALLOCATIONS.get() - before
    }

    #[test]
    fn counts_allocations_and_the_peak() {
        let before = figures().unwrap();
        let made = allocations_during(|| drop(std::hint::black_box(vec![1_u8; 64 << 20])));
        let after = figures().unwrap();
        assert_eq!(made, 1);
        assert!(after.allocations > before.allocations);
        assert!(after.peak_bytes >= 64 << 20);
    }

    #[test]
    fn a_reallocation_counts_once_and_keeps_the_sum() {
        let made = allocations_during(|| {
            let mut bytes: Vec<u8> = Vec::with_capacity(16);
            bytes.push(1);
            bytes.reserve_exact(4096);
            std::hint::black_box(&bytes);
        });
        assert_eq!(made, 2);
    }

    #[test]
    fn zeroed_memory_is_zero_and_counted() {
        let made = allocations_during(|| {
            let bytes = std::hint::black_box(vec![0_u8; 4096]);
            assert!(bytes.iter().all(|byte| *byte == 0));
        });
        assert_eq!(made, 1);
    }
}
