//! Where pool buffers lie: pieces of anonymous mappings of our own, never the host's heap. A piece that nobody needs
//! gives its pages back to the kernel (`MADV_DONTNEED`), and a mapping with no piece in use is unmapped, so that
//! memory is gone when it is counted as gone.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    slice,
    sync::Arc,
};

use super::{Mapping, Tier};

/// Pieces of a region: as many as bits in its map.
const BLOCKS: usize = u64::BITS as usize;

/// The regions of one tier. Whoever shares it between threads locks it.
#[derive(Debug)]
pub(super) struct Regions {
    tier: Tier,
    regions: Vec<Vacancies>,
}

/// A region, and which of its pieces have no pages.
#[derive(Debug)]
struct Vacancies {
    region: Arc<Region>,
    vacant: u64,
}

/// 64 pieces of one tier. Unmapped when the last piece, and the list of regions, has let go of it.
#[derive(Debug)]
struct Region {
    /// Never read or written as a whole: each block owns its part.
    pages: Mapping,
}

/// One piece, zeroed when it was made.
pub(super) struct Block {
    region: Arc<Region>,
    index: u32,
    tier: Tier,
}

impl Regions {
    /// None yet.
    pub(super) const fn new(tier: Tier) -> Self {
        Regions { tier, regions: Vec::new() }
    }

    /// A piece that reads as zeros, of the region that was made first and has one. `None` when the kernel refuses
    /// another mapping (`ENOMEM`).
    pub(super) fn take(&mut self) -> Option<Block> {
        let place = match self.regions.iter().position(|region| region.vacant != 0) {
            Some(place) => place,
            None => {
                self.regions.try_reserve(1).ok()?;
                let region = Arc::new(Region::map(BLOCKS * self.tier.bytes())?);
                self.regions.push(Vacancies { region, vacant: u64::MAX });
                self.regions.len() - 1
            }
        };
        let entry = self.regions.get_mut(place)?;
        let index = entry.vacant.trailing_zeros();
        entry.vacant &= !(1 << index);
        Some(Block { region: Arc::clone(&entry.region), index, tier: self.tier })
    }

    /// Takes a piece back whose pages are gone already ([`Block::discard`]).
    pub(super) fn give_back(&mut self, vacated: Vacated) {
        let Block { region, index, .. } = vacated.0;
        let Some(place) = self.regions.iter().position(|entry| Arc::ptr_eq(&entry.region, &region)) else {
            return;
        };
        let entry = &mut self.regions[place];
        entry.vacant |= 1 << index;
        if entry.vacant == u64::MAX {
            self.regions.remove(place);
        }
    }

    /// Regions that are mapped.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.regions.len()
    }
}

/// A piece without pages.
pub(super) struct Vacated(Block);

impl Block {
    /// Gives the pages back to the kernel.
    pub(super) fn discard(self) -> Vacated {
        // SAFETY: the piece lies in the region and is ours alone; private anonymous pages read as zeros afterwards
        // (madvise(2)).
        let result =
            unsafe { libc::madvise(self.address().as_ptr().cast(), self.tier.bytes(), libc::MADV_DONTNEED) };
        debug_assert_eq!(result, 0, "madvise of pages that we mapped");
        Vacated(self)
    }

    fn address(&self) -> NonNull<u8> {
        // SAFETY: the index is below `BLOCKS`, and the region has that many pieces of this size.
        unsafe { self.region.pages.address().add(self.index as usize * self.tier.bytes()) }
    }
}

impl Deref for Block {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the piece is readable and initialised (anonymous pages are zeros), stays mapped as long as `region` is
        // held, and no other block has this index.
        unsafe { slice::from_raw_parts(self.address().as_ptr(), self.tier.bytes()) }
    }
}

impl DerefMut for Block {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the pages are writable and borrowed through `&mut self` alone.
        unsafe { slice::from_raw_parts_mut(self.address().as_ptr(), self.tier.bytes()) }
    }
}

impl fmt::Debug for Block {
    /// The size; never the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("tier", &self.tier).field("index", &self.index).finish()
    }
}

impl Region {
    fn map(bytes: usize) -> Option<Region> {
        let pages = Mapping::anonymous(bytes)?;
        // Huge pages would make the first buffer cost 2 MB. Where the kernel has none, it says so, and that is fine.
        // SAFETY: the range was mapped above.
        let _ = unsafe { libc::madvise(pages.address().as_ptr().cast(), bytes, libc::MADV_NOHUGEPAGE) };
        Some(Region { pages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the page at the start of a block is in memory (mincore(2)).
    fn is_resident(block: &Block) -> bool {
        let mut page = 0_u8;
        // SAFETY: one page is asked about, for which one byte is written.
        let result = unsafe { libc::mincore(block.address().as_ptr().cast(), 4096, &raw mut page) };
        assert_eq!(result, 0);
        page & 1 == 1
    }

    #[test]
    fn blocks_are_zeroed_apart_and_in_one_mapping_until_it_is_full() {
        let mut regions = Regions::new(Tier::Small);
        let mut blocks: Vec<Block> = (0..BLOCKS).map(|_| regions.take().unwrap()).collect();
        for (index, block) in blocks.iter_mut().enumerate() {
            assert!(block.len() == 4096 && block.iter().all(|byte| *byte == 0));
            block.fill(index as u8 + 1);
        }
        for (index, block) in blocks.iter().enumerate() {
            assert!(block.iter().all(|byte| *byte == index as u8 + 1));
        }
        assert_eq!(regions.count(), 1);
        blocks.push(regions.take().unwrap());
        assert_eq!(regions.count(), 2);
    }

    #[test]
    fn a_discarded_block_holds_no_page_and_comes_back_zeroed() {
        let mut regions = Regions::new(Tier::Small);
        let _other = regions.take().unwrap();
        let mut block = regions.take().unwrap();
        block.fill(7);
        assert!(is_resident(&block));
        regions.give_back(block.discard());
        let block = regions.take().unwrap();
        assert!(!is_resident(&block));
        assert!(block.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_region_is_unmapped_with_its_last_block() {
        for tier in Tier::ALL {
            let mut regions = Regions::new(tier);
            let blocks: Vec<Block> = (0..=BLOCKS).map(|_| regions.take().unwrap()).collect();
            assert_eq!(regions.count(), 2);
            for block in blocks {
                regions.give_back(block.discard());
            }
            assert_eq!(regions.count(), 0);
        }
    }

    #[test]
    fn a_block_outlives_the_list() {
        let mut regions = Regions::new(Tier::Medium);
        let mut block = regions.take().unwrap();
        drop(regions);
        block[16383] = 1;
        assert_eq!(block[16383], 1);
    }
}
