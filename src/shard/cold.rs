//! Bodies that are not in the page cache.
//!
//! Most go through it, a window at a time: a thread reads the window ([`populate`]), `sendfile` sends it. That holds no
//! memory of ours however slow the client, and many readers of one file share what one of them had read. [`Pace`]
//! makes the window as large as the client is fast, so that what was read is sent before the kernel gives it up.
//!
//! A client that has proved fast, and is alone with a large file, gets a reader past the page cache instead
//! ([`Cold`]): it reads ahead of the socket through the executor and leaves the cache to others. It holds memory, so
//! only so many run at once ([`Permits`]), and it ends when its client gets slow.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    ops::Range,
    os::fd::AsFd,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use futures_lite::future::zip;

use super::{inbox::Inbox, slot::Key};
use crate::{
    files::OpenFile,
    memory::{Level, Rank, Reservation, Share},
    metrics::Holder,
    runtime::{self, Chunk, FileReader, Offload},
    sys::open,
};

/// Bytes of one read past the page cache. With [`AHEAD_MAX`] it bounds what a reader holds: 1.5 MB. Measured: 256 KB
/// gave 578 MB/s of a cold file, 512 KB 822 MB/s, 1 MB 712 MB/s at three times the latency for others.
const CHUNK_BYTES: u64 = 512 << 10;
/// Chunks read and not sent; the reader stops there until the socket takes one. Then it reads two at once.
const AHEAD_MAX: usize = 2;

/// What a reader holds at most: chunks that are ready, and two that are being read when one of those has been sent.
pub const READER_BYTES: usize = (AHEAD_MAX + 1) * CHUNK_BYTES as usize;

/// The least that is read into the page cache at once for one response, and what is read first.
const WINDOW_BYTES_MIN: u64 = 256 << 10;
/// The most; also what is sent of a file in the page cache before others get their turn.
pub const WINDOW_BYTES_MAX: u64 = 2 << 20;
/// A window that was sent sooner is followed by one of twice its size.
const FAST_MILLIS: u64 = 250;
/// One that took as long is followed by half of it. What was read is not relied upon for longer.
const SLOW_MILLIS: u64 = 2000;
/// Sent fast before a client gets a reader of its own: more than the kernel's buffers of a connection hold.
const FAST_BYTES: u64 = 8 << 20;
/// When a response that found no thread to read for it tries again.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// A reader and the chunks it has ready.
#[derive(Debug, Default)]
pub struct Cold {
    ready: RefCell<VecDeque<Chunk>>,
    failed: RefCell<Option<io::Error>>,
    cancelled: Cell<bool>,
    /// What is being read.
    reading_bytes: Cell<usize>,
    reader: RefCell<Option<Waker>>,
}

/// What a reader has for the socket.
#[derive(Debug)]
pub enum Next {
    /// The next bytes.
    Chunk(Chunk),
    /// Nothing yet; the connection is queued when there is.
    Later,
    /// The file ended early or could not be read.
    Failed(io::Error),
}

impl Cold {
    /// Starts to read `offset..end` for connection `key`; `permit` is given back when the reader has ended.
    pub fn start(
        file: Rc<OpenFile>,
        offset: u64,
        end: u64,
        key: Key,
        inbox: &Rc<Inbox>,
        permit: Permit,
    ) -> Rc<Self> {
        let cold = Rc::new(Cold::default());
        let (reader, inbox_of_task) = (Rc::clone(&cold), Rc::clone(inbox));
        inbox.local().spawn(async move {
            let _permit = permit;
            if let Err(error) = reader.read_ahead(&file, offset, end, key, &inbox_of_task).await {
                reader.failed.replace(Some(error));
                inbox_of_task.queue(key);
            }
        });
        cold
    }

    /// The next chunk, and room for the reader to go on.
    pub fn next(&self) -> Next {
        if let Some(chunk) = self.ready.borrow_mut().pop_front() {
            self.wake_reader();
            return Next::Chunk(chunk);
        }
        self.failed.take().map_or(Next::Later, Next::Failed)
    }

    /// Puts back what the socket did not take.
    pub fn put_back(&self, chunk: Chunk) {
        self.ready.borrow_mut().push_front(chunk);
    }

    /// Bytes of memory that are held: chunks that were read, and those that are being read.
    pub fn held_bytes(&self) -> usize {
        self.reading_bytes.get() + self.ready.borrow().iter().map(Chunk::held_bytes).sum::<usize>()
    }

    /// The response is over: the reader closes its file and ends.
    pub fn cancel(&self) {
        self.cancelled.set(true);
        self.ready.borrow_mut().clear();
        self.wake_reader();
    }

    fn wake_reader(&self) {
        if let Some(waker) = self.reader.borrow_mut().take() {
            waker.wake();
        }
    }

    async fn read_ahead(
        &self,
        file: &OpenFile,
        mut offset: u64,
        end: u64,
        key: Key,
        inbox: &Inbox,
    ) -> io::Result<()> {
        let mut reader = FileReader::open(file.fd())?;
        let read = self.read_all(&mut reader, file, &mut offset, end, key, inbox).await;
        reader.close().await;
        read
    }

    async fn read_all(
        &self,
        reader: &mut FileReader,
        file: &OpenFile,
        offset: &mut u64,
        end: u64,
        key: Key,
        inbox: &Inbox,
    ) -> io::Result<()> {
        while *offset < end && !self.cancelled.get() {
            // Up to a multiple of the chunk, so that all reads but the first begin aligned.
            let middle = (*offset + CHUNK_BYTES - *offset % CHUNK_BYTES).min(end);
            let last = (middle + CHUNK_BYTES).min(end);
            self.reading_bytes.set(usize::try_from(last - *offset).unwrap_or(usize::MAX));
            let pair = zip(read_range(reader, *offset..middle), read_range(reader, middle..last)).await;
            self.reading_bytes.set(0);
            for (read, wanted) in [(pair.0, *offset..middle), (pair.1, middle..last)] {
                let chunk = match read {
                    Ok(None) => continue,
                    Ok(Some(chunk)) if !chunk.bytes().is_empty() => chunk,
                    Ok(Some(_)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    // A file system that takes O_DIRECT and then wants another alignment.
                    Err(error) if reader.is_direct() && error.raw_os_error() == Some(libc::EINVAL) => {
                        let buffered = FileReader::open_buffered(file.fd())?;
                        std::mem::replace(reader, buffered).close().await;
                        break;
                    }
                    Err(error) => return Err(error),
                };
                if self.cancelled.get() {
                    return Ok(());
                }
                *offset += chunk.bytes().len() as u64;
                self.ready.borrow_mut().push_back(chunk);
                inbox.queue(key);
                if *offset < wanted.end {
                    // A short read: the file has become shorter, which the next one tells for certain.
                    break;
                }
            }
            poll_fn(|context| {
                if self.cancelled.get() || self.ready.borrow().len() < AHEAD_MAX {
                    return Poll::Ready(());
                }
                *self.reader.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            })
            .await;
        }
        Ok(())
    }
}

/// The bytes of `range`; none are wanted of an empty one.
async fn read_range(reader: &FileReader, range: Range<u64>) -> io::Result<Option<Chunk>> {
    if range.is_empty() {
        return Ok(None);
    }
    let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    reader.read(range.start, length).await.map(Some)
}

/// How many readers of a shard may run at once.
#[derive(Debug)]
pub struct Permits {
    left: Rc<Cell<usize>>,
    share: Rc<Share>,
}

/// The right to run one reader, and the memory for it; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    left: Rc<Cell<usize>>,
    _held: Reservation,
}

impl Permits {
    /// `count` readers at once, as long as there is memory for them.
    pub fn new(count: usize, share: &Rc<Share>) -> Self {
        Permits { left: Rc::new(Cell::new(count)), share: Rc::clone(share) }
    }

    /// A permit, if one is free. Never while memory is short: a file is sent through the page cache as well.
    pub fn take(&self) -> Option<Permit> {
        let left = self.left.get().checked_sub(1)?;
        if self.share.budget().level() > Level::Normal {
            return None;
        }
        let held = self.share.reserve(Holder::DirectReads, READER_BYTES, Rank::Start)?;
        self.left.set(left);
        Some(Permit { left: Rc::clone(&self.left), _held: held })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.left.set(self.left.get() + 1);
    }
}

/// How fast a client takes a file, and how much of it is read for it at once.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    window_bytes: u64,
    /// When the window at hand began to be sent; `None` before the first.
    since_millis: Option<u64>,
    /// Sent without a slow window since the last one.
    fast_bytes: u64,
}

impl Pace {
    /// Nothing known; nothing was cold.
    pub fn new() -> Self {
        Pace { window_bytes: WINDOW_BYTES_MAX, since_millis: None, fast_bytes: 0 }
    }

    /// The size of the next window, after the one at hand was sent or has lasted too long.
    pub fn next_window(&mut self, now_millis: u64) -> u64 {
        if let Some(since) = self.since_millis {
            match now_millis.saturating_sub(since) {
                ..FAST_MILLIS => {
                    self.fast_bytes = self.fast_bytes.saturating_add(self.window_bytes);
                    self.window_bytes = (self.window_bytes * 2).min(WINDOW_BYTES_MAX);
                }
                FAST_MILLIS..SLOW_MILLIS => self.fast_bytes = 0,
                SLOW_MILLIS.. => self.slow_down(),
            }
        }
        self.since_millis = Some(now_millis);
        self.window_bytes
    }

    /// A window was found cold: the first that is starts small, since nothing says yet how fast the client is.
    pub fn cold_window(&mut self, first: bool) -> u64 {
        if first {
            *self = Pace { window_bytes: WINDOW_BYTES_MIN, ..Pace::new() };
        }
        self.window_bytes
    }

    /// The window was read, and begins to be sent.
    pub fn begin(&mut self, now_millis: u64) {
        self.since_millis = Some(now_millis);
    }

    /// Whether the window at hand takes so long that its rest may have left the page cache.
    pub fn is_slow(&self, now_millis: u64) -> bool {
        self.since_millis.is_some_and(|since| now_millis.saturating_sub(since) >= SLOW_MILLIS)
    }

    /// Whether the client has been fast for long enough that it is not just its socket that took the bytes.
    pub fn is_fast(&self) -> bool {
        self.fast_bytes >= FAST_BYTES
    }

    fn slow_down(&mut self) {
        self.fast_bytes = 0;
        self.window_bytes = (self.window_bytes / 2).max(WINDOW_BYTES_MIN);
    }
}

/// A window that is being read into the page cache.
#[derive(Debug)]
pub struct Populating(Rc<Cell<Option<u64>>>);

impl Populating {
    /// Where what was read ends. `None` while it is being read; nothing, if no thread had time for it.
    pub fn read_up_to(&self) -> Option<u64> {
        self.0.get()
    }
}

/// Reads `window` of a file into the page cache, on a thread for blocking work, has the kernel begin with the `ahead_bytes`
/// behind it, and queues the connection. When there is no room in the queue of the threads, or no descriptor, the
/// connection is queued a little later, to try again.
pub fn populate(
    file: &OpenFile,
    window: Range<u64>,
    ahead_bytes: u64,
    key: Key,
    inbox: &Rc<Inbox>,
    offload: &Rc<Offload>,
) -> Populating {
    let read_up_to = Rc::new(Cell::new(None));
    let (finished, inbox_of_task) = (Rc::clone(&read_up_to), Rc::clone(inbox));
    let (start, end) = (window.start, window.end);
    let waiting = file.fd().try_clone_to_owned().ok().and_then(|source| {
        let job = move || {
            open::populate(source.as_fd(), start, end);
            open::will_need(source.as_fd(), end, ahead_bytes);
        };
        offload.run(job).ok()
    });
    inbox.local().spawn(async move {
        let end = match waiting {
            Some(waiting) => {
                waiting.await;
                end
            }
            None => {
                runtime::sleep(RETRY_AFTER).await;
                start
            }
        };
        finished.set(Some(end));
        inbox_of_task.queue(key);
    });
    Populating(read_up_to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cold_window_grows_with_a_fast_client_and_shrinks_with_a_slow_one() {
        let mut pace = Pace::new();
        assert_eq!(pace.next_window(0), WINDOW_BYTES_MAX);
        assert_eq!(pace.cold_window(true), WINDOW_BYTES_MIN);
        let mut now = 1000;
        let mut sent_in = |millis: u64| {
            pace.begin(now);
            now += millis;
            (pace.next_window(now), pace.is_fast())
        };
        assert_eq!(sent_in(FAST_MILLIS - 1), (WINDOW_BYTES_MIN * 2, false));
        assert_eq!(sent_in(FAST_MILLIS), (WINDOW_BYTES_MIN * 2, false));
        assert_eq!(sent_in(SLOW_MILLIS - 1), (WINDOW_BYTES_MIN * 2, false));
        assert_eq!(sent_in(SLOW_MILLIS), (WINDOW_BYTES_MIN, false));
        assert_eq!(sent_in(SLOW_MILLIS), (WINDOW_BYTES_MIN, false));
        let mut windows = 0;
        while !sent_in(0).1 {
            windows += 1;
        }
        // 256 KB, 512 KB, 1 MB, and 2 MB until it is 8 MB.
        assert_eq!(windows, 6);
        assert_eq!(sent_in(FAST_MILLIS), (WINDOW_BYTES_MAX, false));
    }

    #[test]
    fn a_window_is_trusted_for_two_seconds() {
        let mut pace = Pace::new();
        assert!(!pace.is_slow(1_000_000));
        pace.begin(1000);
        assert!(!pace.is_slow(1000 + SLOW_MILLIS - 1));
        assert!(pace.is_slow(1000 + SLOW_MILLIS));
    }
}
