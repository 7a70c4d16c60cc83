//! What the cache remembers about paths that it holds no descriptor for: failures, folders, and uses so far.
//!
//! It is apart from the open files so that a flood of names that do not exist pushes out other notes and never a hot
//! file. It holds no descriptor and no content.

use std::{num::NonZeroUsize, sync::Arc};

use lru::LruCache;

use super::FileError;
use crate::{
    clock::saturating_millis,
    config::OpenFileCache,
    memory::{Budget, Charge},
    metrics::Holder,
};

/// Longest path whose failure is noted, in bytes: a client chooses names that do not exist, and looking one of them up
/// again costs one system call, so none may cost much memory.
pub(super) const NOTED_PATH_BYTES_MAX: usize = 256;

/// What precedes the path in a key: the root's number.
pub(super) const ROOT_BYTES: usize = 2;

/// Where a file or a note lies: the root's number and the path.
pub(super) type Key = Box<[u8]>;

/// The least recently used notes go first; capacity 0 notes nothing.
#[derive(Debug)]
pub(super) struct Notes {
    notes: LruCache<Key, Noted>,
    entries_max: usize,
    valid_millis: u64,
    inactive_millis: u64,
    keeps_errors: bool,
    budget: Arc<Budget>,
}

/// What a note takes beside its key: itself, its links, its place in the table.
const NOTE_BYTES: usize = size_of::<Noted>() + 32 + 48;

#[derive(Debug)]
struct Noted {
    note: Note,
    /// What of the budget it is.
    _held: Charge,
}

#[derive(Clone, Copy, Debug)]
struct Note {
    what: What,
    /// When it was written; for a count, when it last grew.
    written_millis: u64,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Failed(FileError),
    /// A file that was not used often enough to be kept open.
    Seen {
        uses: u32,
    },
}

impl Notes {
    pub(super) fn new(config: &OpenFileCache, entries_max: usize, budget: &Arc<Budget>) -> Self {
        let mut notes = Notes {
            notes: LruCache::sparse(NonZeroUsize::MIN),
            entries_max: 0,
            valid_millis: 0,
            inactive_millis: 0,
            keeps_errors: false,
            budget: Arc::clone(budget),
        };
        notes.resize(config, entries_max);
        notes
    }

    /// The failure noted for `key`, while it is to be trusted.
    pub(super) fn failure(&mut self, key: &[u8], now_millis: u64) -> Option<FileError> {
        let note = self.notes.get(key)?.note;
        match note.what {
            What::Failed(error) if !self.is_over(&note, now_millis) => Some(error),
            What::Failed(_) => {
                self.notes.pop(key);
                None
            }
            What::Seen { .. } => None,
        }
    }

    /// Notes a failure, unless it is of a kind that passes, its path is long or the configuration wants none. Folders
    /// are noted in any case: asking for one is not an error.
    pub(super) fn note_failure(&mut self, key: &[u8], error: FileError, now_millis: u64) {
        let wanted = error == FileError::IsDirectory || (self.keeps_errors && error.is_lasting());
        if wanted && key.len() <= ROOT_BYTES + NOTED_PATH_BYTES_MAX {
            self.write(key, What::Failed(error), now_millis);
        }
    }

    /// Counts one more use of a file that is not kept open, and returns the uses so far. The count begins anew after
    /// `inactive` without one.
    pub(super) fn count_use(&mut self, key: &[u8], now_millis: u64) -> u32 {
        let before = match self.notes.peek(key) {
            Some(Noted { note: note @ Note { what: What::Seen { uses }, .. }, .. })
                if !self.is_over(note, now_millis) =>
            {
                *uses
            }
            _ => 0,
        };
        let uses = before.saturating_add(1);
        self.write(key, What::Seen { uses }, now_millis);
        uses
    }

    pub(super) fn forget(&mut self, key: &[u8]) {
        self.notes.pop(key);
    }

    /// Drops up to `count` notes that are over, least recently used first.
    pub(super) fn sweep(&mut self, now_millis: u64, count: usize) {
        for _ in 0..count {
            match self.notes.peek_lru() {
                Some((_, noted)) if self.is_over(&noted.note, now_millis) => drop(self.notes.pop_lru()),
                _ => return,
            }
        }
    }

    pub(super) fn resize(&mut self, config: &OpenFileCache, entries_max: usize) {
        self.entries_max = entries_max;
        self.valid_millis = saturating_millis(config.valid);
        self.inactive_millis = saturating_millis(config.inactive);
        self.keeps_errors = config.errors;
        match NonZeroUsize::new(entries_max) {
            Some(capacity) => self.notes.resize(capacity),
            None => self.clear(),
        }
    }

    /// Gives up notes until `percent` of them are left, least recently used first.
    pub(super) fn shrink_to(&mut self, percent: usize) {
        let left = self.notes.len() * percent / 100;
        while self.notes.len() > left {
            self.notes.pop_lru();
        }
    }

    pub(super) fn clear(&mut self) {
        self.notes.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.notes.len()
    }

    fn write(&mut self, key: &[u8], what: What, now_millis: u64) {
        if self.entries_max == 0 {
            return;
        }
        let note = Note { what, written_millis: now_millis };
        match self.notes.get_mut(key) {
            Some(old) => old.note = note,
            None => {
                // Nothing is promised: without memory for a note there is none.
                if let Some(held) = self.budget.charge(Holder::OpenFiles, NOTE_BYTES + key.len()) {
                    self.notes.push(key.into(), Noted { note, _held: held });
                }
            }
        }
    }

    fn is_over(&self, note: &Note, now_millis: u64) -> bool {
        let lifetime_millis = match note.what {
            What::Failed(_) => self.valid_millis,
            What::Seen { .. } => self.inactive_millis,
        };
        now_millis.saturating_sub(note.written_millis) >= lifetime_millis
    }
}
