//! One shard's open files: found by root and path, kept while they are used, looked at again after a while.
//!
//! It performs no lookup and reads no clock: the shard asks [`FileCache::find`], opens what is missing or stale (`open`,
//! here or on the blocking pool) and hands the result to [`FileCache::store`]. A file in use is never closed under its
//! reader: the cache only lets go of its own reference.

use std::{num::NonZeroUsize, rc::Rc, sync::Arc};

use lru::LruCache;

use super::{
    CONTENT_FILE_BYTES, FileError, OpenFile, Opened,
    notes::{Key, Notes, ROOT_BYTES},
};
use crate::{
    clock::saturating_millis,
    config::{OpenFileCache, ResponseCache},
    memory::{Budget, Level},
    metrics::Holder,
    sys::open::PATH_BYTES_MAX,
};

/// Uses before the bytes of a small file are kept: what is asked for once is not worth the memory.
const CONTENT_USES_MIN: u32 = 2;

/// What an entry takes beside its file and its key: the counts of the reference, its links in the list, its place in a
/// table that is at least three eighths full.
const ENTRY_BYTES: usize = 16 + size_of::<Entry>() + 32 + 48;

/// Entries that one sweep drops at most, of files and of notes each: closing them costs a shard's turn up to about
/// 50 microseconds.
const SWEEP_ENTRIES_MAX: usize = 64;

/// Entries that one eviction of contents looks at: about 0.2 ms when none of them is in a CPU cache.
const CONTENT_WALK_ENTRIES_MAX: usize = 4096;

/// How long no contents are evicted after an eviction that did not free enough, so that walks in vain are rare.
const CONTENT_WALK_PAUSE_MILLIS: u64 = 1000;

/// What the cache knows about a path.
#[derive(Debug)]
pub enum Found {
    /// Open and trusted: send it.
    Hit(Rc<OpenFile>),
    /// Looked for within `valid`, and not to be had.
    Failed(FileError),
    /// Open, but look again and store what is found: `valid` has passed, or the file is used so often that its bytes
    /// are worth reading. When looking would block, this file may be sent meanwhile.
    Stale(Rc<OpenFile>),
    /// Nothing: look, and store what is found.
    Missing,
}

/// How many bytes of contents one shard keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentBounds {
    /// No more than this is kept.
    pub high_bytes: usize,
    /// What is left after an eviction.
    pub low_bytes: usize,
    /// The largest file whose content is kept, at most [`CONTENT_FILE_BYTES`].
    pub file_bytes_max: usize,
}

impl ContentBounds {
    /// One shard's part of the static category.
    pub fn share(cache: &ResponseCache, shards: usize) -> Self {
        let bytes = cache.static_bytes / shards.max(1);
        // In hundredths first: the product could overflow.
        let percent =
            |percent: u8| bytes / 100 * usize::from(percent) + bytes % 100 * usize::from(percent) / 100;
        let high_bytes = percent(cache.high_percent);
        ContentBounds {
            high_bytes,
            low_bytes: percent(cache.low_percent),
            file_bytes_max: CONTENT_FILE_BYTES.min(cache.object_bytes_max).min(high_bytes),
        }
    }
}

/// An LRU cache of open files, and beside it a smaller one of failures, folders and first uses.
///
/// # Bounds
/// Files: `entries`, the least recently used is let go for a new one. Notes: a quarter of `entries` more. Contents:
/// the high mark of [`ContentBounds`]; past that, the least recently used files lose theirs down to the low mark. Files evicted
/// while in use, and contents in responses, belong to the responses and are bounded by the number of connections.
#[derive(Debug)]
pub struct FileCache {
    files: LruCache<Key, Entry>,
    notes: Notes,
    /// The key of the current call, put together in place so that finding allocates nothing.
    key: Vec<u8>,
    /// 0: the cache is off.
    entries_max: usize,
    min_uses: u32,
    inactive_millis: u64,
    valid_millis: u64,
    content_bytes: usize,
    contents: ContentBounds,
    /// No eviction of contents before this moment.
    content_walk_from_millis: u64,
    hits: u64,
    misses: u64,
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct Entry {
    file: Rc<OpenFile>,
    used_millis: u64,
    validated_millis: u64,
    uses: u32,
    /// Its bytes were read once since it became hot; not again before `valid` has passed.
    content_tried: bool,
}

// With its key and its two links an entry of the LRU list is 64 bytes, so a hit touches one cache line of it.
const _: () = assert!(size_of::<Entry>() <= 32);

impl FileCache {
    /// An empty cache. `entries` and `contents` are this shard's shares; `config.entries` is not looked at.
    /// With 0 entries nothing is kept and each path is [`Found::Missing`].
    pub fn new(
        config: &OpenFileCache,
        entries: usize,
        contents: ContentBounds,
        budget: &Arc<Budget>,
    ) -> Self {
        let mut cache = FileCache {
            files: LruCache::sparse(NonZeroUsize::MIN),
            notes: Notes::new(config, 0, budget),
            key: Vec::with_capacity(ROOT_BYTES + PATH_BYTES_MAX),
            entries_max: 0,
            min_uses: 1,
            inactive_millis: 0,
            valid_millis: 0,
            content_bytes: 0,
            contents,
            content_walk_from_millis: 0,
            hits: 0,
            misses: 0,
            budget: Arc::clone(budget),
        };
        cache.resize(config, entries, contents, 0);
        cache
    }

    /// What is known about `path` below the root number `root`, counted as one use. Allocates nothing.
    pub fn find(&mut self, root: u16, path: &[u8], now_millis: u64) -> Found {
        let found = self.look(root, path, now_millis);
        match found {
            Found::Hit(_) | Found::Failed(_) => self.hits += 1,
            Found::Stale(_) | Found::Missing => self.misses += 1,
        }
        found
    }

    /// How large a file's bytes should be read when it is opened after `found`: none at its first use.
    pub fn content_bytes_wanted(&self, found: &Found) -> usize {
        match found {
            Found::Stale(_) => self.contents.file_bytes_max,
            Found::Hit(_) | Found::Failed(_) | Found::Missing => 0,
        }
    }

    /// Keeps what was found after [`Found::Missing`] or [`Found::Stale`], and gives what to answer with.
    ///
    /// A file is kept from its `min_uses`-th use on. When the same version (device, inode, size, modification time) is
    /// kept already, that one is trusted anew and the new descriptor closed; when bytes were read that the kept one
    /// lacks, or that differ (two writes within one tick of the file system's clock), the new one takes its place.
    ///
    /// # Errors
    /// What `opened` says; it is noted when it is lasting, and the kept file is let go. When descriptors or kernel
    /// memory ran out, a kept file is still given, since refusing it would help nobody. [`Opened::WouldBlock`] is
    /// `Io(EAGAIN)` and changes nothing: ask the blocking pool first.
    pub fn store(
        &mut self,
        root: u16,
        path: &[u8],
        opened: Opened,
        now_millis: u64,
    ) -> Result<Rc<OpenFile>, FileError> {
        let error = match opened {
            Opened::File(file) => return self.store_file(root, path, file, now_millis),
            Opened::Directory => FileError::IsDirectory,
            Opened::Failed(error) => error,
            Opened::WouldBlock => return Err(FileError::Io(libc::EAGAIN)),
        };
        if self.entries_max == 0 || !write_key(&mut self.key, root, path) {
            return Err(error);
        }
        if error == FileError::Exhausted {
            return self.files.get(&self.key[..]).map(|entry| Rc::clone(&entry.file)).ok_or(error);
        }
        if let Some(entry) = self.files.pop(&self.key[..]) {
            self.content_bytes -= entry.content_bytes();
        }
        self.notes.note_failure(&self.key, error, now_millis);
        Err(error)
    }

    /// Lets go of files that were not used for `inactive`, and of notes that are over: least recently used first, 64 of
    /// each a call at most.
    pub fn sweep(&mut self, now_millis: u64) {
        for _ in 0..SWEEP_ENTRIES_MAX {
            match self.files.peek_lru() {
                Some((_, entry)) if now_millis.saturating_sub(entry.used_millis) >= self.inactive_millis => {
                    self.drop_oldest();
                }
                _ => break,
            }
        }
        self.notes.sweep(now_millis, SWEEP_ENTRIES_MAX);
    }

    /// Takes new bounds and times; what is too much is let go at once, least recently used first. When roots change
    /// their numbers, [`FileCache::clear`] it too.
    pub fn resize(
        &mut self,
        config: &OpenFileCache,
        entries: usize,
        contents: ContentBounds,
        now_millis: u64,
    ) {
        self.entries_max = entries;
        self.min_uses = config.min_uses.max(1);
        self.inactive_millis = saturating_millis(config.inactive);
        self.valid_millis = saturating_millis(config.valid);
        self.contents = contents;
        self.content_walk_from_millis = now_millis;
        while self.files.len() > entries {
            self.drop_oldest();
        }
        if let Some(capacity) = NonZeroUsize::new(entries) {
            self.files.resize(capacity);
        }
        self.notes.resize(config, entries.div_ceil(4));
        if self.content_bytes > self.contents.high_bytes {
            self.drop_contents(usize::MAX, self.contents.low_bytes);
        }
    }

    /// Gives up files and contents until `percent` of each are left, least recently used first: memory is short.
    pub fn shrink_to(&mut self, percent: usize) {
        let (entries, content_bytes) = (part(self.files.len(), percent), part(self.content_bytes, percent));
        while self.files.len() > entries {
            self.drop_oldest();
        }
        self.drop_contents(usize::MAX, content_bytes);
        self.notes.shrink_to(percent);
    }

    /// Gives up all contents; files stay open.
    pub fn clear_contents(&mut self) {
        self.drop_contents(usize::MAX, 0);
    }

    /// Lets go of everything but the counters.
    pub fn clear(&mut self) {
        self.files.clear();
        self.notes.clear();
        self.content_bytes = 0;
    }

    /// Files kept open.
    pub fn entries(&self) -> usize {
        self.files.len()
    }

    /// Failures, folders and first uses remembered.
    pub fn notes(&self) -> usize {
        self.notes.len()
    }

    /// Bytes of small files kept in memory.
    pub fn content_bytes(&self) -> usize {
        self.content_bytes
    }

    /// Finds that were answered without looking, failures included.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// Finds that had to look: missing and stale.
    pub fn misses(&self) -> u64 {
        self.misses
    }

    fn look(&mut self, root: u16, path: &[u8], now_millis: u64) -> Found {
        if self.entries_max == 0 || !write_key(&mut self.key, root, path) {
            return Found::Missing;
        }
        if let Some(entry) = self.files.get_mut(&self.key[..]) {
            entry.used_millis = now_millis;
            entry.uses = entry.uses.saturating_add(1);
            let file = Rc::clone(&entry.file);
            let trusted = now_millis.saturating_sub(entry.validated_millis) < self.valid_millis;
            let wants_content = entry.uses >= CONTENT_USES_MIN
                && !entry.content_tried
                && file.content().is_none()
                && file.size() <= self.contents.file_bytes_max as u64;
            return if trusted && !wants_content { Found::Hit(file) } else { Found::Stale(file) };
        }
        self.notes.failure(&self.key, now_millis).map_or(Found::Missing, Found::Failed)
    }

    fn store_file(
        &mut self,
        root: u16,
        path: &[u8],
        mut file: OpenFile,
        now_millis: u64,
    ) -> Result<Rc<OpenFile>, FileError> {
        if self.entries_max == 0 || !write_key(&mut self.key, root, path) {
            return self.hold(file, 0);
        }
        if let Some(entry) = self.files.get_mut(&self.key[..]) {
            entry.used_millis = now_millis;
            entry.validated_millis = now_millis;
            entry.content_tried |= entry.uses >= CONTENT_USES_MIN;
            let nothing_new = file.content().is_none() || file.content() == entry.file.content();
            if entry.file.stat().same_version(file.stat()) && nothing_new {
                return Ok(Rc::clone(&entry.file));
            }
        }
        if self.budget.level() >= Level::High && !self.files.contains(&self.key[..]) {
            return self.hold(file, 0);
        }
        // From here on the new file takes the place of an old one, or a new place.
        let (key, uses, content_tried) = match self.files.pop_entry(&self.key[..]) {
            Some((key, old)) => {
                self.content_bytes -= old.content_bytes();
                (key, old.uses, old.content_tried)
            }
            None => {
                // The note has a failure that is over, or counts the uses before this one.
                let uses = if self.min_uses > 1 { self.notes.count_use(&self.key, now_millis) } else { 1 };
                if uses < self.min_uses {
                    return self.hold(file, 0);
                }
                self.notes.forget(&self.key);
                (self.key.as_slice().into(), uses, file.content().is_some() && uses >= CONTENT_USES_MIN)
            }
        };
        self.admit_content(&mut file, uses, now_millis);
        if self.files.len() >= self.entries_max {
            self.drop_oldest();
        }
        let file = self.hold(file, ENTRY_BYTES + key.len())?;
        let entry = Entry {
            file: Rc::clone(&file),
            used_millis: now_millis,
            validated_millis: now_millis,
            uses,
            content_tried,
        };
        self.files.put(key, entry);
        Ok(file)
    }

    /// A file that is in use from now on counts for what it takes, `more` bytes around it included.
    fn hold(&self, mut file: OpenFile, more: usize) -> Result<Rc<OpenFile>, FileError> {
        let held = self.budget.charge(Holder::OpenFiles, file.held_bytes() + more);
        file.hold(held.ok_or(FileError::Exhausted)?);
        Ok(Rc::new(file))
    }

    /// Counts the content of a file that is about to be kept, or drops it when it is not hot or there is no room.
    fn admit_content(&mut self, file: &mut OpenFile, uses: u32, now_millis: u64) {
        let Some(length) = file.content().map(|content| content.len()) else { return };
        if uses >= CONTENT_USES_MIN
            && self.budget.level() < Level::High
            && self.make_room(length, now_millis)
            && let Some(held) = self.budget.charge(Holder::ResponseCache, length)
        {
            file.hold_content(held);
            self.content_bytes += length;
        } else {
            file.drop_content();
        }
    }

    /// Whether `length` bytes more may be kept, after evicting when that takes them past the high mark.
    fn make_room(&mut self, length: usize, now_millis: u64) -> bool {
        let fits = |cache: &Self| cache.content_bytes.saturating_add(length) <= cache.contents.high_bytes;
        if !fits(self) && length <= self.contents.high_bytes && now_millis >= self.content_walk_from_millis {
            self.drop_contents(CONTENT_WALK_ENTRIES_MAX, self.contents.low_bytes);
            if self.content_bytes > self.contents.low_bytes {
                self.content_walk_from_millis = now_millis.saturating_add(CONTENT_WALK_PAUSE_MILLIS);
            }
        }
        fits(self)
    }

    /// Drops contents down to `bytes`, from the least recently used of at most `entries` entries on; descriptors
    /// stay. A content in use is passed over: letting go of it would free nothing, and its file is hot.
    fn drop_contents(&mut self, entries: usize, bytes: usize) {
        for (_, entry) in self.files.iter_mut().rev().take(entries) {
            if self.content_bytes <= bytes {
                return;
            }
            if let Some(file) = Rc::get_mut(&mut entry.file) {
                self.content_bytes -= file.drop_content();
            }
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, entry)) = self.files.pop_lru() {
            self.content_bytes -= entry.content_bytes();
        }
    }
}

impl Entry {
    fn content_bytes(&self) -> usize {
        self.file.content().map_or(0, |content| content.len())
    }
}

fn part(count: usize, percent: usize) -> usize {
    count / 100 * percent + count % 100 * percent / 100
}

/// Puts the key together. Returns whether it is one: no file has a longer path.
fn write_key(key: &mut Vec<u8>, root: u16, path: &[u8]) -> bool {
    key.clear();
    if path.len() > PATH_BYTES_MAX {
        return false;
    }
    key.extend_from_slice(&root.to_ne_bytes());
    key.extend_from_slice(path);
    true
}

#[cfg(test)]
mod tests;
