//! Files that are used so often that their pages stay mapped: the memory profile's `MmapCache`, one a shard.
//!
//! A response holds its mapping by reference count. Mapping and unmapping are left to the threads for blocking work,
//! because both may wait: for the disk, and for whoever else changes the process's memory. Until a file is mapped, and
//! whenever it cannot be, it is sent from its descriptor. Nothing here can read a mapping (`sys::mapped`).

use std::{
    num::NonZeroUsize,
    ops::Range,
    os::fd::AsFd as _,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use lru::LruCache;

use super::OpenFile;
use crate::{
    memory::{Budget, Charge, Level},
    metrics::Holder,
    runtime::{Offload, Wait},
    sys::{
        mapped::FileMapping,
        open::{self, FileStat, Residency},
    },
};

/// Uses of a file before it is mapped: mapping and unmapping cost about as much as some sends from the descriptor.
const USES_MIN: u32 = 8;

/// Files remembered over all shards, mapped or not, the least recently used is forgotten for another. The kernel allows a
/// process 65,530 mappings, and most of those are the host's.
const FILES_MAX: usize = 8192;

/// How long a mapping is not used before another file may have its place: less, and a set of files larger than the limit
/// would be mapped and unmapped in turns.
const PLACE_MILLIS: u64 = 10_000;

/// How long a mapping is kept without being used. The space of a file that was removed is free only after this.
const INACTIVE_MILLIS: u64 = 60_000;

/// How long the pages of a mapping in use are trusted to be in memory. Pages in use are the last that the kernel gives
/// up, and asking costs three calls.
const RESIDENT_MILLIS: u64 = 1000;

/// Files that one sweep forgets at most.
const SWEEP_FILES_MAX: usize = 64;

/// Mappings of one shard.
///
/// # Bounds
/// `file_bytes_max` a file; `total_bytes_max` of pages together, mappings that only responses hold included: beyond it a
/// file takes the place of others that were not used for ten seconds, or is not mapped. 8,192 files over all shards.
#[derive(Debug)]
pub struct MmapCache {
    files: LruCache<Version, Entry>,
    /// 0: off.
    file_bytes_max: u64,
    total_bytes_max: usize,
    mapped_bytes: Arc<AtomicUsize>,
    budget: Arc<Budget>,
    offload: Rc<Offload>,
}

/// One state of one file: another version is another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Version {
    dev: u64,
    ino: u64,
    size: u64,
    mtime_ns: i128,
}

#[derive(Debug)]
struct Entry {
    state: State,
    used_millis: u64,
    /// When its pages were last found in memory.
    resident_millis: u64,
}

#[derive(Debug)]
enum State {
    /// Used so often, and not mapped.
    Seen(u32),
    /// A thread maps it.
    Populating(Wait<Option<Region>>),
    Mapped(Rc<Mapped>),
    /// The kernel does not map it.
    Refused,
}

/// Pages, and their share of the limit. Fields are dropped in this order.
#[derive(Debug)]
struct Region {
    mapping: FileMapping,
    _part: Part,
}

/// A part of the limit, and of the budget; given back when dropped.
#[derive(Debug)]
struct Part {
    of: Arc<AtomicUsize>,
    held: Charge,
}

/// A mapping in use. The last holder has it unmapped by a thread for blocking work.
#[derive(Debug)]
struct Mapped {
    region: Option<Region>,
    offload: Rc<Offload>,
}

/// Bytes of a mapped file that are to be sent.
#[derive(Debug)]
pub struct MappedSlice {
    file: Rc<OpenFile>,
    mapped: Rc<Mapped>,
    offset: usize,
    length: usize,
}

impl MmapCache {
    /// An empty cache for one of `shards` shards. `total_bytes_max` is this shard's share.
    pub fn new(
        file_bytes_max: u64,
        total_bytes_max: usize,
        shards: usize,
        budget: &Arc<Budget>,
        offload: Rc<Offload>,
    ) -> Self {
        let files = NonZeroUsize::new(FILES_MAX / shards.max(1)).unwrap_or(NonZeroUsize::MIN);
        MmapCache {
            files: LruCache::sparse(files),
            file_bytes_max,
            total_bytes_max,
            mapped_bytes: Arc::default(),
            budget: Arc::clone(budget),
            offload,
        }
    }

    /// `length` bytes of `file` from `offset`, if the file is mapped, was not changed since it was opened, and is in
    /// memory. Counts as a use; the one that makes the file hot has it mapped for later ones. Never waits, and allocates
    /// nothing for a file that is mapped.
    pub fn slice(
        &mut self,
        file: &Rc<OpenFile>,
        offset: u64,
        length: u64,
        now_millis: u64,
    ) -> Option<MappedSlice> {
        if file.size() > self.file_bytes_max || length == 0 {
            return None;
        }
        let version = Version::of(file.stat());
        let Some(entry) = self.files.get_mut(&version) else {
            let entry = Entry { state: State::Seen(1), used_millis: now_millis, resident_millis: 0 };
            self.files.put(version, entry);
            return None;
        };
        entry.used_millis = now_millis;
        let mapped = match &mut entry.state {
            State::Mapped(mapped) => Rc::clone(mapped),
            State::Refused => return None,
            State::Seen(uses) if *uses < USES_MIN => {
                *uses += 1;
                return None;
            }
            State::Seen(_) => {
                self.populate(file, version, now_millis);
                return None;
            }
            State::Populating(wait) => {
                let region = wait.take()?;
                entry.state = match region.flatten() {
                    Some(region) => State::Mapped(Mapped::new(region, &self.offload)),
                    None => State::Refused,
                };
                return None;
            }
        };
        if !is_unchanged(file) {
            self.files.pop(&version);
            return None;
        }
        if now_millis.saturating_sub(entry.resident_millis) >= RESIDENT_MILLIS {
            if open::resident(file.fd(), 0, file.size()) == Residency::Cold {
                return None;
            }
            entry.resident_millis = now_millis;
        }
        let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
        Some(MappedSlice { file: Rc::clone(file), mapped, offset, length })
    }

    /// Forgets files that were not used for a minute, 64 a call at most.
    pub fn sweep(&mut self, now_millis: u64) {
        for _ in 0..SWEEP_FILES_MAX {
            match self.files.peek_lru() {
                Some((_, entry)) if now_millis.saturating_sub(entry.used_millis) >= INACTIVE_MILLIS => {
                    self.files.pop_lru();
                }
                _ => return,
            }
        }
    }

    /// Takes new limits. What is beyond them is let go at once, least recently used first.
    pub fn resize(&mut self, file_bytes_max: u64, total_bytes_max: usize) {
        (self.file_bytes_max, self.total_bytes_max) = (file_bytes_max, total_bytes_max);
        let too_large: Vec<Version> = self
            .files
            .iter()
            .map(|(version, _)| *version)
            .filter(|file| file.size > file_bytes_max)
            .collect();
        for version in too_large {
            self.files.pop(&version);
        }
        self.let_go_to(self.held_bytes(), total_bytes_max);
    }

    /// Lets go of mappings until `percent` of their bytes are left, least recently used first: memory is short.
    pub fn shrink_to(&mut self, percent: usize) {
        let held_bytes = self.held_bytes();
        self.let_go_to(held_bytes, held_bytes / 100 * percent);
    }

    /// Bytes of pages that this cache holds. Unmapping takes a moment, and responses may hold what was let go.
    fn held_bytes(&self) -> usize {
        self.files.iter().map(|(version, entry)| entry.pages_bytes(version)).sum()
    }

    fn let_go_to(&mut self, mut held_bytes: usize, bytes_max: usize) {
        while held_bytes > bytes_max
            && let Some((version, entry)) = self.files.pop_lru()
        {
            held_bytes -= entry.pages_bytes(&version);
        }
    }

    /// Bytes of pages that are mapped, or about to be.
    pub fn mapped_bytes(&self) -> usize {
        self.mapped_bytes.load(Ordering::Relaxed)
    }

    /// Whether no file is remembered.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Has a file mapped, unless there is no room.
    fn populate(&mut self, file: &OpenFile, version: Version, now_millis: u64) {
        if self.budget.level() >= Level::High {
            return;
        }
        let Some(part) = self.reserve(version.pages_bytes(), now_millis) else { return };
        // Out of descriptors or of room in the queue: the next use tries again.
        let Ok(source) = file.fd().try_clone_to_owned() else { return };
        let bytes = usize::try_from(version.size).unwrap_or(usize::MAX);
        let populate = move || {
            let mapping = FileMapping::populated(source.as_fd(), bytes).ok()?;
            Some(Region { mapping, _part: part })
        };
        if let Ok(wait) = self.offload.run(populate)
            && let Some(entry) = self.files.peek_mut(&version)
        {
            entry.state = State::Populating(wait);
        }
    }

    /// A part of the limit, after files that were not used of late have given theirs up, and of the budget.
    fn reserve(&mut self, bytes: usize, now_millis: u64) -> Option<Part> {
        if bytes > self.total_bytes_max {
            return None;
        }
        while self.mapped_bytes() > self.total_bytes_max - bytes {
            let (_, oldest) = self.files.peek_lru()?;
            if now_millis.saturating_sub(oldest.used_millis) < PLACE_MILLIS {
                return None;
            }
            self.files.pop_lru();
        }
        let held = self.budget.charge(Holder::MappedFiles, bytes)?;
        self.mapped_bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(Part { of: Arc::clone(&self.mapped_bytes), held })
    }
}

impl Version {
    fn of(stat: &FileStat) -> Self {
        Version { dev: stat.dev, ino: stat.ino, size: stat.size, mtime_ns: stat.mtime_ns }
    }

    /// What a mapping of it counts: whole pages.
    fn pages_bytes(&self) -> usize {
        let bytes = usize::try_from(self.size).unwrap_or(usize::MAX);
        bytes.checked_next_multiple_of(open::page_bytes()).unwrap_or(usize::MAX)
    }
}

impl Entry {
    fn pages_bytes(&self, version: &Version) -> usize {
        match self.state {
            State::Populating(_) | State::Mapped(_) => version.pages_bytes(),
            State::Seen(_) | State::Refused => 0,
        }
    }
}

impl Drop for Entry {
    /// A mapping that was made and never looked for is unmapped like any other.
    fn drop(&mut self) {
        if let State::Populating(wait) = &self.state
            && let Some(Some(Some(region))) = wait.take()
        {
            drop(Mapped::new(region, wait.offload()));
        }
    }
}

impl Mapped {
    fn new(region: Region, offload: &Rc<Offload>) -> Rc<Self> {
        Rc::new(Mapped { region: Some(region), offload: Rc::clone(offload) })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let region = self.region.take();
        // A full queue drops the job and with it the pages, here and now: late for the shard is better than never.
        let _ = self.offload.run(move || drop(region));
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.of.fetch_sub(self.held.bytes(), Ordering::Relaxed);
    }
}

impl MappedSlice {
    /// Bytes left to send.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether everything was sent.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Forgets the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.length);
        self.offset += count;
        self.length -= count;
    }

    /// The pages, and which part of them is to be sent.
    pub fn piece(&self) -> Option<(&FileMapping, Range<usize>)> {
        let region = self.mapped.region.as_ref()?;
        Some((&region.mapping, self.offset..self.offset + self.length))
    }

    /// Whether the file is still what it was when it was opened. What was sent while it changed may be part old and part
    /// new, or end in zeros where it became shorter within a page: the response must not pass for a whole one.
    pub fn is_intact(&self) -> bool {
        is_unchanged(&self.file)
    }
}

fn is_unchanged(file: &OpenFile) -> bool {
    open::stat(file.fd()).is_ok_and(|stat| stat.same_version(file.stat()))
}

#[cfg(test)]
mod tests;
