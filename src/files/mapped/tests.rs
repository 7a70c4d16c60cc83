use super::*;
use crate::memory::budget::tests::plenty;
use crate::{
    files::{How, Negotiated, Opened, Root, open::open},
    runtime::Jobs,
    sys::event::EventFd,
};
use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

const PAGE: usize = 4096;
/// Longer than anything here is waited for unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

struct Fixture {
    folder: tempfile::TempDir,
    root: Root,
    jobs: Arc<Jobs>,
    cache: MmapCache,
}

impl Fixture {
    fn new(file_bytes_max: u64, total_bytes_max: usize) -> Self {
        assert_eq!(PAGE, open::page_bytes(), "these tests count pages of 4 KB");
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(0, folder.path()).unwrap();
        let jobs = Arc::new(Jobs::start(1).unwrap());
        let offload = Offload::new(Arc::clone(&jobs), Arc::new(EventFd::new().unwrap()));
        let cache = MmapCache::new(file_bytes_max, total_bytes_max, 1, plenty().budget(), offload);
        Fixture { folder, root, jobs, cache }
    }

    fn write(&self, name: &str, bytes: usize) -> Rc<OpenFile> {
        fs::write(self.folder.path().join(name), vec![b'x'; bytes]).unwrap();
        self.open(name)
    }

    fn open(&self, name: &str) -> Rc<OpenFile> {
        let (name, how) = (name.as_bytes(), How::Blocking);
        match open(&self.root, name, Negotiated::No, how, 0, &BTreeMap::new(), 4_000_000_000) {
            Opened::File(file) => Rc::new(file),
            other => panic!("not a file: {other:?}"),
        }
    }

    /// Uses a file until it is mapped.
    fn map(&mut self, file: &Rc<OpenFile>, now_millis: u64) -> MappedSlice {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(slice) = self.cache.slice(file, 0, file.size(), now_millis) {
                return slice;
            }
            assert!(Instant::now() < deadline, "never mapped");
        }
    }

    /// Uses a file often enough to be mapped, and waits for whatever that made the thread do.
    fn never_maps(&mut self, file: &Rc<OpenFile>, now_millis: u64) {
        for _ in 0..USES_MIN + 2 {
            assert!(self.cache.slice(file, 0, file.size(), now_millis).is_none());
        }
        self.await_thread();
        assert!(self.cache.slice(file, 0, file.size(), now_millis).is_none());
        assert!(self.cache.slice(file, 0, file.size(), now_millis).is_none());
    }

    /// Until the thread has done what it was asked before.
    fn await_thread(&self) {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.jobs.submit(|| (), move || sender.send(()).unwrap()).unwrap();
        receiver.recv_timeout(PATIENCE).unwrap();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.jobs.close();
    }
}

#[test]
fn a_file_is_mapped_at_its_ninth_use_and_shared() {
    let mut fixture = Fixture::new(1 << 20, 1 << 20);
    let file = fixture.write("a", 5000);
    for _ in 0..USES_MIN {
        assert!(fixture.cache.slice(&file, 0, 5000, 0).is_none());
        assert_eq!(fixture.cache.mapped_bytes(), 0);
    }
    assert!(fixture.cache.slice(&file, 0, 5000, 0).is_none());
    assert_eq!(fixture.cache.mapped_bytes(), 2 * PAGE);
    let whole = fixture.map(&file, 0);
    let part = fixture.cache.slice(&file, 10, 20, 0).unwrap();
    assert!(Rc::ptr_eq(&whole.mapped, &part.mapped));
    let (mapping, range) = part.piece().unwrap();
    assert_eq!((mapping.bytes(), range), (5000, 10..30));
    assert_eq!(fixture.cache.mapped_bytes(), 2 * PAGE);
    // Another descriptor for the same version of the file finds the same mapping.
    let again = fixture.cache.slice(&fixture.open("a"), 0, 1, 0).unwrap();
    assert!(Rc::ptr_eq(&whole.mapped, &again.mapped));
}

#[test]
fn a_file_is_mapped_up_to_the_limit_of_a_file() {
    let mut fixture = Fixture::new(5000, 1 << 20);
    let (fits, larger) = (fixture.write("a", 5000), fixture.write("b", 5001));
    fixture.map(&fits, 0);
    fixture.never_maps(&larger, 0);
    let empty = fixture.write("c", 0);
    fixture.never_maps(&empty, 0);
    assert_eq!(fixture.cache.files.len(), 1);
}

#[test]
fn with_a_limit_of_0_nothing_is_remembered() {
    let mut fixture = Fixture::new(0, 0);
    let file = fixture.write("a", 5000);
    fixture.never_maps(&file, 0);
    assert!(fixture.cache.is_empty());
}

#[test]
fn pages_are_mapped_up_to_the_limit_of_all() {
    let mut fixture = Fixture::new(1 << 20, 3 * PAGE);
    let (two, one, another) = (fixture.write("a", 2 * PAGE), fixture.write("b", 1), fixture.write("c", 1));
    fixture.map(&two, 0);
    fixture.map(&one, 0);
    assert_eq!(fixture.cache.mapped_bytes(), 3 * PAGE);
    fixture.never_maps(&another, PLACE_MILLIS - 1);
    assert_eq!(fixture.cache.mapped_bytes(), 3 * PAGE);
    let larger = fixture.write("d", 3 * PAGE + 1);
    fixture.never_maps(&larger, PLACE_MILLIS);
}

#[test]
fn a_file_takes_the_place_of_one_that_is_not_used_any_more() {
    let mut fixture = Fixture::new(1 << 20, PAGE);
    let (old, new) = (fixture.write("a", 1), fixture.write("b", 1));
    let held = fixture.map(&old, 0);
    fixture.never_maps(&new, PLACE_MILLIS - 1);
    // The response that still sends the old one keeps its pages, and they count.
    fixture.never_maps(&new, PLACE_MILLIS);
    assert!(held.piece().is_some());
    assert_eq!(fixture.cache.mapped_bytes(), PAGE);
    drop(held);
    fixture.await_thread();
    assert_eq!(fixture.cache.mapped_bytes(), 0);
    fixture.map(&new, PLACE_MILLIS);
    assert_eq!(fixture.cache.mapped_bytes(), PAGE);
}

#[test]
fn a_file_that_changed_is_another_file() {
    let mut fixture = Fixture::new(1 << 20, 1 << 20);
    let file = fixture.write("a", 5000);
    let slice = fixture.map(&file, 0);
    assert!(slice.is_intact());
    let changed = fixture.write("a", 5001);
    assert!(!slice.is_intact());
    assert!(fixture.cache.slice(&file, 0, 5000, 0).is_none(), "what was mapped is not what was opened");
    assert!(fixture.map(&changed, 0).is_intact());
    drop(slice);
    fixture.await_thread();
    assert_eq!(fixture.cache.mapped_bytes(), 2 * PAGE);
}

#[test]
fn what_is_not_used_for_a_minute_is_unmapped() {
    let mut fixture = Fixture::new(1 << 20, 1 << 20);
    let file = fixture.write("a", 5000);
    drop(fixture.map(&file, 1000));
    fixture.cache.sweep(1000 + INACTIVE_MILLIS - 1);
    assert!(!fixture.cache.is_empty());
    fixture.cache.sweep(1000 + INACTIVE_MILLIS);
    assert!(fixture.cache.is_empty());
    fixture.await_thread();
    assert_eq!(fixture.cache.mapped_bytes(), 0);
}

#[test]
fn smaller_limits_let_go_of_what_is_beyond_them() {
    let mut fixture = Fixture::new(1 << 20, 1 << 20);
    let files = [5000, 1, 2].map(|bytes| fixture.write(&bytes.to_string(), bytes));
    for file in &files {
        drop(fixture.map(file, 0));
    }
    fixture.cache.resize(4999, 2 * PAGE);
    fixture.await_thread();
    assert_eq!(fixture.cache.mapped_bytes(), 2 * PAGE);
    fixture.cache.resize(4999, PAGE);
    fixture.await_thread();
    assert_eq!(fixture.cache.mapped_bytes(), PAGE);
    assert!(fixture.cache.slice(&files[2], 0, 1, 0).is_some(), "the one used last stays");
    fixture.cache.resize(0, 0);
    fixture.await_thread();
    assert_eq!((fixture.cache.mapped_bytes(), fixture.cache.is_empty()), (0, true));
}

#[test]
fn a_mapping_that_nobody_came_for_is_unmapped() {
    let mut fixture = Fixture::new(1 << 20, 1 << 20);
    let file = fixture.write("a", 5000);
    for _ in 0..=USES_MIN {
        assert!(fixture.cache.slice(&file, 0, 5000, 0).is_none());
    }
    fixture.await_thread();
    assert_eq!(fixture.cache.mapped_bytes(), 2 * PAGE);
    fixture.cache.resize(0, 0);
    fixture.await_thread();
    assert_eq!(fixture.cache.mapped_bytes(), 0);
}

#[test]
fn files_are_remembered_up_to_the_shards_share() {
    let mut fixture = Fixture::new(1 << 20, 1 << 20);
    fixture.cache =
        MmapCache::new(1 << 20, 1 << 20, FILES_MAX / 2, plenty().budget(), Rc::clone(&fixture.cache.offload));
    let files = [1, 2, 3].map(|bytes| fixture.write(&bytes.to_string(), bytes));
    for file in &files {
        assert!(fixture.cache.slice(file, 0, 1, 0).is_none());
    }
    assert_eq!(fixture.cache.files.len(), 2);
    assert!(fixture.cache.files.peek(&Version::of(files[0].stat())).is_none());
}
