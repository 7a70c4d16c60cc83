//! Anonymous memory of our own, apart from the host's heap: what is returned goes back to the kernel at once
//! and fragments nothing. Never a file: mapped files are handed to the kernel only, and that is not done here.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    ptr::{self, NonNull},
    slice,
};

/// Private, writable, zeroed pages; unmapped when dropped. At least one byte.
pub struct Mapping {
    address: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// Maps `bytes` zeroed bytes (mmap(2)). Pages become resident when they are first touched.
    ///
    /// `None` when `bytes` is 0 or the kernel refuses (`ENOMEM`: overcommit, `RLIMIT_AS`, number of mappings).
    pub fn anonymous(bytes: usize) -> Option<Mapping> {
        if bytes == 0 || bytes > isize::MAX as usize {
            return None;
        }
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
        let address = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return None;
        }
        Some(Mapping { address: NonNull::new(address.cast())?, bytes })
    }

    /// Where the first byte is.
    pub(super) fn address(&self) -> NonNull<u8> {
        self.address
    }

    /// Makes it `bytes` long, the new part zeroed (mremap(2)): pages move, their content is not copied. False, and
    /// nothing changed, when `bytes` is less than there is, or the kernel refuses.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        if bytes < self.bytes || bytes > isize::MAX as usize {
            return false;
        }
        // SAFETY: the range is the one `anonymous` or `grow` mapped, and `&mut self` shows that nobody borrows from it;
        // when it moves, the old addresses are gone with the old value of `address`.
        let address =
            unsafe { libc::mremap(self.address.as_ptr().cast(), self.bytes, bytes, libc::MREMAP_MAYMOVE) };
        let Some(moved) = NonNull::new(address.cast()).filter(|_| address != libc::MAP_FAILED) else {
            return false;
        };
        self.address = moved;
        self.bytes = bytes;
        true
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `anonymous` or `grow` mapped `bytes` readable, initialised bytes here, and they stay until drop.
        unsafe { slice::from_raw_parts(self.address.as_ptr(), self.bytes) }
    }
}

impl DerefMut for Mapping {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the pages are writable, private, and borrowed through `&mut self` alone.
        unsafe { slice::from_raw_parts_mut(self.address.as_ptr(), self.bytes) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the one `anonymous` or `grow` mapped, and no borrow of it outlives `self`.
        let result = unsafe { libc::munmap(self.address.as_ptr().cast(), self.bytes) };
        debug_assert_eq!(result, 0, "munmap of a mapping that we made");
    }
}

// SAFETY: the pages belong to this value alone and are not tied to the thread that mapped them.
unsafe impl Send for Mapping {}

// SAFETY: a shared reference gives read access only.
unsafe impl Sync for Mapping {}

impl fmt::Debug for Mapping {
    /// The size; never the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("bytes", &self.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_zeroed_writable_bytes() {
        let mut mapping = Mapping::anonymous(65536).unwrap();
        assert_eq!(mapping.len(), 65536);
        assert!(mapping.iter().all(|byte| *byte == 0));
        mapping[65535] = 7;
        assert_eq!(mapping[65535], 7);
    }

    #[test]
    fn grows_and_keeps_its_content() {
        let mut mapping = Mapping::anonymous(4096).unwrap();
        mapping[4095] = 7;
        assert!(mapping.grow(64 << 20));
        assert_eq!((mapping.len(), mapping[4095]), (64 << 20, 7));
        assert!(mapping[4096..].iter().all(|byte| *byte == 0));
        mapping[(64 << 20) - 1] = 8;
        assert!(!mapping.grow(4096));
        assert!(!mapping.grow(isize::MAX as usize));
        assert!(!mapping.grow(usize::MAX));
        assert_eq!((mapping.len(), mapping[4095], mapping[(64 << 20) - 1]), (64 << 20, 7, 8));
    }

    #[test]
    fn refuses_nothing_and_too_much() {
        assert!(Mapping::anonymous(0).is_none());
        assert!(Mapping::anonymous(isize::MAX as usize).is_none());
        assert!(Mapping::anonymous(usize::MAX).is_none());
    }
}
