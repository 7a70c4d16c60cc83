//! The cache against real files and a clock that the test moves.

use super::*;
use crate::{
    config::sizes::OPEN_FILE_BYTES,
    files::{How, Negotiated, Root, open::open},
    memory::{budget::tests::plenty, heap::tests::bytes_kept_by},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::fd::AsRawFd as _,
    path::Path,
    time::Duration,
};

const CONFIG: OpenFileCache = OpenFileCache {
    entries: 0,
    min_uses: 1,
    inactive: Duration::from_secs(60),
    valid: Duration::from_secs(5),
    errors: true,
};
const VALID: u64 = 5_000;
const INACTIVE: u64 = 60_000;

const RESPONSES: ResponseCache = ResponseCache {
    size_bytes: 0,
    static_bytes: 0,
    proxy_bytes: 0,
    object_bytes_max: 8 << 20,
    high_percent: 90,
    low_percent: 70,
};

/// The usual bounds of so many bytes.
fn contents(bytes: usize) -> ContentBounds {
    ContentBounds::share(&ResponseCache { static_bytes: bytes, ..RESPONSES }, 1)
}

/// A folder, its cache, and the way that a shard uses both.
struct Site {
    folder: tempfile::TempDir,
    root: Root,
    cache: FileCache,
}

impl Site {
    fn new(config: &OpenFileCache, entries: usize, content_bytes_max: usize) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(3, folder.path()).unwrap();
        Site {
            folder,
            root,
            cache: FileCache::new(config, entries, contents(content_bytes_max), plenty().budget()),
        }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.folder.path().join(name), content).unwrap();
    }

    /// Puts another file in the place of `name`, as deployments do.
    fn replace(&self, name: &str, content: &str) {
        self.write("new", content);
        fs::rename(self.folder.path().join("new"), self.folder.path().join(name)).unwrap();
    }

    fn find(&mut self, name: &str, now: u64) -> Found {
        self.cache.find(3, name.as_bytes(), now)
    }

    fn look(&self, name: &str, content_bytes_max: usize) -> Opened {
        let (name, how) = (name.as_bytes(), How::Blocking);
        open(&self.root, name, Negotiated::No, how, content_bytes_max, &BTreeMap::new(), 4_000_000_000)
    }

    /// One request: find, and look when the cache says so.
    fn request(&mut self, name: &str, now: u64) -> Result<Rc<OpenFile>, FileError> {
        let found = self.find(name, now);
        let wanted = self.cache.content_bytes_wanted(&found);
        match found {
            Found::Hit(file) => Ok(file),
            Found::Failed(error) => Err(error),
            Found::Stale(_) | Found::Missing => {
                let opened = self.look(name, wanted);
                self.cache.store(3, name.as_bytes(), opened, now)
            }
        }
    }

    fn is_kept(&self, name: &str) -> bool {
        let mut key = Vec::new();
        write_key(&mut key, 3, name.as_bytes());
        self.cache.files.contains(&key[..])
    }
}

fn text(file: &OpenFile) -> String {
    let mut bytes = [0; 64];
    let length = crate::sys::open::pread(file.fd(), &mut bytes, 0).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

/// Whether descriptor `fd` of this process is open on a file of that name: numbers are used again at once.
fn is_open_on(fd: i32, path: &Path) -> bool {
    fs::read_link(format!("/proc/self/fd/{fd}"))
        .is_ok_and(|link| link.to_string_lossy().starts_with(&*path.to_string_lossy()))
}

#[test]
fn a_file_is_missing_then_hit() {
    let mut site = Site::new(&CONFIG, 4, 0);
    site.write("a", "hello");
    assert!(matches!(site.find("a", 0), Found::Missing));
    let first = site.request("a", 0).unwrap();
    let Found::Hit(second) = site.find("a", VALID - 1) else { panic!("not a hit") };
    assert!(Rc::ptr_eq(&first, &second));
    assert_eq!((site.cache.hits(), site.cache.misses(), site.cache.entries()), (1, 2, 1));
}

#[test]
fn roots_do_not_see_each_others_files() {
    let mut site = Site::new(&CONFIG, 4, 0);
    site.write("a", "hello");
    site.request("a", 0).unwrap();
    assert!(matches!(site.cache.find(4, b"a", 0), Found::Missing));
}

#[test]
fn finding_allocates_no_longer_key() {
    let mut site = Site::new(&CONFIG, 4, 0);
    let capacity = site.cache.key.capacity();
    let longest = "a".repeat(PATH_BYTES_MAX);
    assert!(matches!(site.find(&longest, 0), Found::Missing));
    assert!(matches!(site.find(&format!("{longest}a"), 0), Found::Missing));
    assert_eq!(site.cache.key.capacity(), capacity);
    assert_eq!(site.request(&format!("{longest}a"), 0).unwrap_err(), FileError::NotFound);
    assert_eq!(site.cache.notes(), 0);
}

#[test]
fn the_same_version_is_trusted_anew_and_the_new_descriptor_closed() {
    let mut site = Site::new(&CONFIG, 4, 0);
    site.write("a", "hello");
    let first = site.request("a", 0).unwrap();
    let Found::Stale(stale) = site.find("a", VALID) else { panic!("trusted past valid") };
    assert!(Rc::ptr_eq(&first, &stale));
    let Opened::File(new) = site.look("a", 0) else { panic!("not a file") };
    let new_fd = new.fd().as_raw_fd();
    let kept = site.cache.store(3, b"a", Opened::File(new), VALID).unwrap();
    assert!(Rc::ptr_eq(&first, &kept));
    assert!(!is_open_on(new_fd, &site.folder.path().join("a")));
    assert!(matches!(site.find("a", 2 * VALID - 1), Found::Hit(_)));
}

#[test]
fn a_replaced_file_is_seen_once_valid_has_passed() {
    let mut site = Site::new(&CONFIG, 4, 0);
    site.write("a", "old");
    site.request("a", 0).unwrap();
    site.replace("a", "new");
    assert_eq!(text(&site.request("a", VALID - 1).unwrap()), "old");
    assert_eq!(text(&site.request("a", VALID).unwrap()), "new");
    assert_eq!(site.cache.entries(), 1);
}

#[test]
fn a_removed_file_is_seen_once_valid_has_passed() {
    let mut site = Site::new(&CONFIG, 4, 0);
    site.write("a", "old");
    site.request("a", 0).unwrap();
    fs::remove_file(site.folder.path().join("a")).unwrap();
    assert!(site.request("a", VALID - 1).is_ok());
    assert_eq!(site.request("a", VALID).unwrap_err(), FileError::NotFound);
    assert_eq!(site.cache.entries(), 0);
}

#[test]
fn with_valid_0_each_use_looks_again() {
    let mut site = Site::new(&OpenFileCache { valid: Duration::ZERO, ..CONFIG }, 4, 0);
    site.write("a", "old");
    site.request("a", 0).unwrap();
    site.replace("a", "new");
    assert_eq!(text(&site.request("a", 0).unwrap()), "new");
    assert_eq!(site.request("missing", 0).unwrap_err(), FileError::NotFound);
    assert!(matches!(site.find("missing", 0), Found::Missing));
}

#[test]
fn a_file_in_use_survives_eviction_replacement_and_clearing() {
    let mut site = Site::new(&CONFIG, 1, 0);
    site.write("a", "first");
    site.write("b", "other");
    let evicted = site.request("a", 0).unwrap();
    site.request("b", 0).unwrap();
    assert!(!site.is_kept("a"));
    assert_eq!(text(&evicted), "first");

    let replaced = site.request("b", 0).unwrap();
    site.replace("b", "newer");
    assert_eq!(text(&site.request("b", VALID).unwrap()), "newer");
    assert_eq!(text(&replaced), "other");

    let cleared = site.request("b", VALID).unwrap();
    site.cache.clear();
    assert_eq!((text(&cleared).as_str(), site.cache.entries()), ("newer", 0));

    let fd = cleared.fd().as_raw_fd();
    let path = site.folder.path().join("b");
    assert!(is_open_on(fd, &path));
    drop(cleared);
    assert!(!is_open_on(fd, &path));
}

#[test]
fn holds_its_entries_and_lets_the_least_recently_used_go_for_one_more() {
    let mut site = Site::new(&CONFIG, 3, 0);
    for name in ["a", "b", "c", "d"] {
        site.write(name, name);
    }
    for name in ["a", "b", "c", "a"] {
        site.request(name, 0).unwrap();
    }
    assert_eq!(site.cache.entries(), 3);
    site.request("d", 0).unwrap();
    assert_eq!(site.cache.entries(), 3);
    assert_eq!(["a", "b", "c", "d"].map(|name| site.is_kept(name)), [true, false, true, true]);
}

#[test]
fn a_cache_of_0_entries_keeps_nothing() {
    let mut site = Site::new(&CONFIG, 0, 1 << 20);
    site.write("a", "hello");
    for _ in 0..3 {
        assert_eq!(text(&site.request("a", 0).unwrap()), "hello");
        assert_eq!(site.request("missing", 0).unwrap_err(), FileError::NotFound);
    }
    assert!(matches!(site.find("a", 0), Found::Missing));
    assert_eq!((site.cache.entries(), site.cache.notes(), site.cache.content_bytes()), (0, 0, 0));
}

#[test]
fn a_file_is_kept_from_its_min_uses_th_use_on() {
    let mut site = Site::new(&OpenFileCache { min_uses: 3, ..CONFIG }, 4, 0);
    site.write("a", "hello");
    for (uses, kept) in [(1, false), (2, false), (3, true)] {
        assert_eq!(text(&site.request("a", 0).unwrap()), "hello");
        assert_eq!(site.is_kept("a"), kept, "{uses}");
    }
    assert_eq!(site.cache.notes(), 0);
}

#[test]
fn uses_further_apart_than_inactive_do_not_add_up() {
    let mut site = Site::new(&OpenFileCache { min_uses: 2, ..CONFIG }, 4, 0);
    site.write("a", "hello");
    site.request("a", 0).unwrap();
    site.request("a", INACTIVE).unwrap();
    assert!(!site.is_kept("a"));
    site.request("a", 2 * INACTIVE - 1).unwrap();
    assert!(site.is_kept("a"));
}

#[test]
fn a_sweep_drops_what_was_not_used_for_inactive() {
    let mut site = Site::new(&CONFIG, 4, 0);
    site.write("a", "a");
    site.write("b", "b");
    site.request("a", 0).unwrap();
    site.request("b", 0).unwrap();
    site.request("missing", 0).unwrap_err();
    site.request("a", 1).unwrap();
    site.cache.sweep(VALID - 1);
    assert_eq!((site.cache.entries(), site.cache.notes()), (2, 1));
    site.cache.sweep(VALID);
    assert_eq!((site.cache.entries(), site.cache.notes()), (2, 0));
    site.cache.sweep(INACTIVE);
    assert_eq!((site.is_kept("a"), site.is_kept("b")), (true, false));
    site.cache.sweep(INACTIVE + 1);
    assert_eq!(site.cache.entries(), 0);
}

#[test]
fn a_sweep_does_a_bounded_piece_of_work() {
    let mut site = Site::new(&CONFIG, SWEEP_ENTRIES_MAX + 2, 0);
    site.write("a", "a");
    for number in 0..=SWEEP_ENTRIES_MAX {
        let opened = site.look("a", 0);
        site.cache.store(3, format!("{number}").as_bytes(), opened, 0).unwrap();
    }
    site.cache.sweep(INACTIVE);
    assert_eq!(site.cache.entries(), 1);
    site.cache.sweep(INACTIVE);
    assert_eq!(site.cache.entries(), 0);
}

#[test]
fn failures_are_remembered_for_valid() {
    let mut site = Site::new(&CONFIG, 4, 0);
    assert_eq!(site.request("a", 0).unwrap_err(), FileError::NotFound);
    site.write("a", "hello");
    assert!(matches!(site.find("a", VALID - 1), Found::Failed(FileError::NotFound)));
    assert!(matches!(site.find("a", VALID), Found::Missing));
    assert_eq!(text(&site.request("a", VALID).unwrap()), "hello");
    assert_eq!(site.cache.notes(), 0);
}

#[test]
fn folders_are_remembered_even_when_errors_are_not() {
    let mut site = Site::new(&OpenFileCache { errors: false, ..CONFIG }, 4, 0);
    fs::create_dir(site.folder.path().join("sub")).unwrap();
    assert_eq!(site.request("sub", 0).unwrap_err(), FileError::IsDirectory);
    assert!(matches!(site.find("sub", 0), Found::Failed(FileError::IsDirectory)));
    assert_eq!(site.request("missing", 0).unwrap_err(), FileError::NotFound);
    assert!(matches!(site.find("missing", 0), Found::Missing));
}

#[test]
fn failures_that_pass_are_not_remembered() {
    let mut site = Site::new(&CONFIG, 4, 0);
    for error in [FileError::Exhausted, FileError::Io(libc::EIO)] {
        assert_eq!(site.cache.store(3, b"a", Opened::Failed(error), 0).unwrap_err(), error);
        assert!(matches!(site.find("a", 0), Found::Missing));
    }
    let error = site.cache.store(3, b"a", Opened::WouldBlock, 0).unwrap_err();
    assert_eq!(error, FileError::Io(libc::EAGAIN));
}

#[test]
fn a_kept_file_is_served_while_descriptors_are_exhausted() {
    let mut site = Site::new(&CONFIG, 4, 0);
    site.write("a", "hello");
    site.request("a", 0).unwrap();
    let file = site.cache.store(3, b"a", Opened::Failed(FileError::Exhausted), VALID).unwrap();
    assert_eq!(text(&file), "hello");
    assert!(matches!(site.find("a", VALID), Found::Stale(_)));
}

#[test]
fn a_flood_of_missing_names_is_bounded_and_evicts_no_file() {
    let mut site = Site::new(&CONFIG, 8, 0);
    site.write("a", "hello");
    site.request("a", 0).unwrap();
    for number in 0..100 {
        site.request(&format!("missing-{number}"), 0).unwrap_err();
    }
    assert_eq!((site.cache.entries(), site.cache.notes()), (1, 2));
    assert!(matches!(site.find("a", 0), Found::Hit(_)));
    assert!(matches!(site.find("missing-99", 0), Found::Failed(_)));
    assert!(matches!(site.find("missing-97", 0), Found::Missing));
}

#[test]
fn a_long_missing_name_costs_no_memory() {
    let mut site = Site::new(&CONFIG, 8, 0);
    let longest = "a".repeat(crate::files::notes::NOTED_PATH_BYTES_MAX);
    site.request(&format!("{longest}a"), 0).unwrap_err();
    assert_eq!(site.cache.notes(), 0);
    site.request(&longest, 0).unwrap_err();
    assert_eq!(site.cache.notes(), 1);
}

#[test]
fn small_content_is_kept_from_the_second_use_on() {
    let mut site = Site::new(&CONFIG, 4, 1000);
    site.write("a", "hello");
    assert!(site.request("a", 0).unwrap().content().is_none());
    assert_eq!(site.cache.content_bytes(), 0);
    assert_eq!(site.request("a", 0).unwrap().content().unwrap(), &b"hello"[..]);
    assert_eq!(site.cache.content_bytes(), 5);
    let Found::Hit(file) = site.find("a", 0) else { panic!("looked again") };
    assert_eq!(file.content().unwrap(), &b"hello"[..]);
    assert_eq!((site.cache.entries(), site.cache.content_bytes()), (1, 5));
}

#[test]
fn content_read_at_the_first_use_is_not_kept() {
    let mut site = Site::new(&CONFIG, 4, 1000);
    site.write("a", "hello");
    let opened = site.look("a", 100);
    assert!(site.cache.store(3, b"a", opened, 0).unwrap().content().is_none());
    assert_eq!(site.cache.content_bytes(), 0);
}

#[test]
fn files_past_the_small_size_are_not_looked_at_for_content() {
    let mut site = Site::new(&CONFIG, 4, 1 << 20);
    site.write("fits", vec![b'x'; CONTENT_FILE_BYTES]);
    site.write("not", vec![b'x'; CONTENT_FILE_BYTES + 1]);
    for name in ["fits", "not"] {
        site.request(name, 0).unwrap();
    }
    assert!(site.request("fits", 0).unwrap().content().is_some());
    assert!(matches!(site.find("not", 0), Found::Hit(_)));
}

#[test]
fn content_that_changed_under_the_same_version_is_replaced() {
    let mut site = Site::new(&CONFIG, 4, 1000);
    let path = site.folder.path().join("a");
    site.write("a", "first");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    site.request("a", 0).unwrap();
    site.request("a", 0).unwrap();
    site.write("a", "other");
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    assert_eq!(site.request("a", VALID).unwrap().content().unwrap(), &b"other"[..]);
    assert_eq!((site.cache.entries(), site.cache.content_bytes()), (1, 5));
}

#[test]
fn a_replaced_hot_file_keeps_its_heat_and_its_bytes_are_counted_once() {
    let mut site = Site::new(&CONFIG, 4, 1000);
    site.write("a", "old");
    site.request("a", 0).unwrap();
    site.request("a", 0).unwrap();
    site.replace("a", "newer");
    let file = site.request("a", VALID).unwrap();
    assert_eq!(file.content().unwrap(), &b"newer"[..]);
    assert_eq!(site.cache.content_bytes(), 5);
    fs::remove_file(site.folder.path().join("a")).unwrap();
    site.request("a", 2 * VALID).unwrap_err();
    assert_eq!(site.cache.content_bytes(), 0);
}

/// Contents of 100 bytes in a cache of 1000: 900 is the high mark, 700 the low one.
fn full_of_content() -> Site {
    let mut site = Site::new(&CONFIG, 20, 1000);
    for number in 0..9 {
        let name = number.to_string();
        site.write(&name, vec![b'x'; 100]);
        site.request(&name, 0).unwrap();
        site.request(&name, 0).unwrap();
    }
    assert_eq!(site.cache.content_bytes(), 900);
    site
}

#[test]
fn one_content_past_the_high_mark_evicts_down_to_the_low_one() {
    let mut site = full_of_content();
    site.write("one", "x");
    site.request("one", 0).unwrap();
    assert_eq!(site.cache.content_bytes(), 900);
    assert!(site.request("one", 0).unwrap().content().is_some());
    assert_eq!((site.cache.content_bytes(), site.cache.entries()), (701, 10));
    let has_content = |site: &mut Site, name: &str| site.request(name, 0).unwrap().content().is_some();
    assert_eq!(["0", "1", "2", "8"].map(|name| has_content(&mut site, name)), [false, false, true, true]);
    // What lost its bytes gets them back when it is looked at again.
    assert!(site.request("0", VALID).unwrap().content().is_some());
}

#[test]
fn content_in_use_is_passed_over_and_what_finds_no_room_goes_without() {
    let mut site = full_of_content();
    let in_use: Vec<_> = (0..9).map(|number| site.request(&number.to_string(), 0).unwrap()).collect();
    site.write("one", "x");
    site.request("one", 0).unwrap();
    assert!(site.request("one", 0).unwrap().content().is_none());
    assert_eq!(site.cache.content_bytes(), 900);
    // It is not asked for again before valid has passed, nor are contents walked in vain.
    assert!(matches!(site.find("one", 0), Found::Hit(_)));
    drop(in_use);
    assert!(!site.cache.make_room(1, CONTENT_WALK_PAUSE_MILLIS - 1));
    assert!(site.cache.make_room(1, CONTENT_WALK_PAUSE_MILLIS));
    assert_eq!(site.cache.content_bytes(), 700);
}

#[test]
fn a_content_larger_than_the_high_mark_evicts_nothing() {
    let mut site = full_of_content();
    assert!(!site.cache.make_room(901, 0));
    assert_eq!(site.cache.content_bytes(), 900);
    assert!(site.cache.make_room(200, 0));
}

#[test]
fn evicted_entries_take_their_content_along() {
    let mut site = Site::new(&CONFIG, 1, 1000);
    for name in ["a", "b"] {
        site.write(name, "hello");
        site.request(name, 0).unwrap();
    }
    site.request("a", 0).unwrap();
    site.request("a", 0).unwrap();
    assert_eq!(site.cache.content_bytes(), 5);
    site.request("b", 0).unwrap();
    assert_eq!((site.cache.entries(), site.cache.content_bytes()), (1, 0));
}

#[test]
fn resizing_lets_go_of_what_is_too_much_and_takes_the_new_times() {
    let mut site = full_of_content();
    site.cache.resize(&CONFIG, 20, contents(500), 0);
    assert_eq!((site.cache.entries(), site.cache.content_bytes()), (9, 300));
    site.cache.resize(&CONFIG, 2, contents(500), 0);
    assert_eq!((site.cache.entries(), site.cache.content_bytes()), (2, 200));
    assert!(site.is_kept("8"));
    site.cache.resize(&OpenFileCache { valid: Duration::from_millis(1), ..CONFIG }, 30, contents(500), 0);
    assert!(matches!(site.find("8", 1), Found::Stale(_)));
    site.request("0", 0).unwrap();
    assert_eq!(site.cache.entries(), 3);
    site.cache.resize(&CONFIG, 0, contents(500), 0);
    assert_eq!((site.cache.entries(), site.cache.content_bytes()), (0, 0));
    assert!(matches!(site.find("8", 1), Found::Missing));
    site.cache.resize(&CONFIG, 1, contents(500), 0);
    site.request("8", 0).unwrap();
    assert_eq!(site.cache.entries(), 1);
}

/// Whatever happens in whatever order, the count of bytes is the sum over the entries and the bounds hold.
#[test]
fn counts_and_bounds_hold_through_a_long_run() {
    let mut site = Site::new(&OpenFileCache { min_uses: 2, ..CONFIG }, 6, 600);
    for number in 0..12 {
        site.write(&number.to_string(), vec![b'x'; number * 20]);
    }
    let mut state = 1u64;
    let mut held = Vec::new();
    for step in 0..4000u64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = state >> 33;
        let name = (pick % 16).to_string();
        let now = step * 100;
        match pick % 23 {
            0 => site.replace(&name, &"y".repeat((pick % 97) as usize)),
            1 => drop(fs::remove_file(site.folder.path().join(&name))),
            2 => site.cache.sweep(now),
            3 => held.clear(),
            4 => site.cache.resize(&CONFIG, (pick % 9) as usize, contents(600), now),
            _ => held.extend(site.request(&name, now)),
        }
        let sum: usize = site.cache.files.iter().map(|(_, entry)| entry.content_bytes()).sum();
        assert_eq!(site.cache.content_bytes(), sum, "step {step}");
        assert!(sum <= 540 && site.cache.entries() <= site.cache.entries_max.max(6), "step {step}");
        assert!(site.cache.notes() <= 3);
    }
    assert!(site.cache.hits() > 100 && site.cache.misses() > 100);
}

#[test]
fn marks_and_the_largest_content_are_as_configured() {
    let bounds = |cache: ResponseCache, shards| {
        let bounds = ContentBounds::share(&cache, shards);
        (bounds.high_bytes, bounds.low_bytes, bounds.file_bytes_max)
    };
    let cache = ResponseCache { static_bytes: 1 << 20, ..RESPONSES };
    assert_eq!(bounds(cache, 1), (943_718, 734_003, CONTENT_FILE_BYTES));
    assert_eq!(bounds(cache, 4), (235_929, 183_500, CONTENT_FILE_BYTES));
    assert_eq!(bounds(ResponseCache { high_percent: 100, low_percent: 0, ..cache }, 1).0, 1 << 20);
    assert_eq!(bounds(ResponseCache { object_bytes_max: 100, ..cache }, 1).2, 100);
    assert_eq!(bounds(ResponseCache { static_bytes: usize::MAX, ..RESPONSES }, 1).0, usize::MAX / 10 * 9 + 4);
    assert_eq!(bounds(RESPONSES, 0), (0, 0, 0));
}

#[test]
fn an_entry_takes_what_the_sum_of_a_configuration_says() {
    const FILES: usize = 512;
    let mut site = Site::new(&CONFIG, FILES, 0);
    site.write("file", "content");
    let name = |number: usize, kind: &str| format!("assets/images/2026/{kind}-{number:012}.html");
    let bytes = bytes_kept_by(|| {
        for number in 0..FILES {
            let opened = site.look("file", 0);
            site.cache.store(3, name(number, "picture").as_bytes(), opened, 0).unwrap();
        }
        for number in 0..FILES / 4 {
            let missing = site.look("missing", 0);
            site.cache.store(3, name(number, "missing").as_bytes(), missing, 0).unwrap_err();
        }
    });
    assert_eq!((site.cache.entries(), site.cache.notes()), (FILES, FILES / 4));
    // The allocator takes 8 bytes and rounds to 16 for each of the four blocks of an entry.
    let entry_bytes = bytes / FILES + 4 * 16;
    assert!((OPEN_FILE_BYTES * 9 / 10..=OPEN_FILE_BYTES).contains(&entry_bytes), "{entry_bytes}");
}
