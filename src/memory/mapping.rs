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
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `anonymous` mapped `bytes` readable, zero-initialised bytes here, and they stay until drop.
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
        // SAFETY: the range is the one `anonymous` mapped, and no borrow of it outlives `self`.
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
    fn refuses_nothing_and_too_much() {
        assert!(Mapping::anonymous(0).is_none());
        assert!(Mapping::anonymous(isize::MAX as usize).is_none());
        assert!(Mapping::anonymous(usize::MAX).is_none());
    }
}
