//! Bodies that are not in the page cache.
//!
//! [`Cold`] reads ahead of the socket through the executor, a few chunks at most. It holds memory for as long as the
//! client takes, so only so many run at once ([`Permits`]). Who finds no permit gets [`populate`]: a thread reads the
//! next step into the page cache, from where it is sent; that holds none, however slow the client.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    os::fd::AsFd,
    rc::Rc,
    task::{Poll, Waker},
};

use super::{inbox::Inbox, slot::Key};
use crate::{
    files::OpenFile,
    runtime::{Chunk, FileReader, Offload},
    sys::open,
};

/// Bytes of one read. With [`AHEAD_MAX`] it bounds what a reader holds: 1.5 MB. Measured: 256 KB
/// gave 578 MB/s of a cold file, 512 KB 822 MB/s, 1 MB 712 MB/s at three times the latency for others.
const CHUNK_BYTES: u64 = 512 << 10;
/// Chunks read and not sent; the reader stops there until the socket takes one. One more is in flight.
const AHEAD_MAX: usize = 2;

/// A reader and the chunks it has ready.
#[derive(Debug, Default)]
pub struct Cold {
    ready: RefCell<VecDeque<Chunk>>,
    failed: Cell<Option<io::ErrorKind>>,
    cancelled: Cell<bool>,
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
    Failed(io::ErrorKind),
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
                reader.failed.set(Some(error.kind()));
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
        match self.failed.get() {
            Some(kind) => Next::Failed(kind),
            None => Next::Later,
        }
    }

    /// Puts back what the socket did not take.
    pub fn put_back(&self, chunk: Chunk) {
        self.ready.borrow_mut().push_front(chunk);
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
        while offset < end && !self.cancelled.get() {
            // Up to a multiple of the chunk, so that all reads but the first begin aligned.
            let length = (CHUNK_BYTES - offset % CHUNK_BYTES).min(end - offset);
            let chunk = match reader.read(offset, usize::try_from(length).unwrap_or(usize::MAX)).await {
                // A file system that takes O_DIRECT and then wants another alignment.
                Err(error) if reader.is_direct() && error.raw_os_error() == Some(libc::EINVAL) => {
                    let buffered = FileReader::open_buffered(file.fd());
                    std::mem::replace(&mut reader, buffered?).close().await;
                    continue;
                }
                other => other,
            };
            let chunk = match chunk {
                Ok(chunk) if !chunk.bytes().is_empty() => chunk,
                Ok(_) => {
                    reader.close().await;
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Err(error) => {
                    reader.close().await;
                    return Err(error);
                }
            };
            if self.cancelled.get() {
                break;
            }
            offset += chunk.bytes().len() as u64;
            self.ready.borrow_mut().push_back(chunk);
            inbox.queue(key);
            poll_fn(|context| {
                if self.cancelled.get() || self.ready.borrow().len() < AHEAD_MAX {
                    return Poll::Ready(());
                }
                *self.reader.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            })
            .await;
        }
        reader.close().await;
        Ok(())
    }
}

/// How many readers of a shard may run at once.
#[derive(Debug)]
pub struct Permits(Rc<Cell<usize>>);

/// The right to run one reader; given back when dropped.
#[derive(Debug)]
pub struct Permit(Rc<Cell<usize>>);

impl Permits {
    /// `count` readers at once.
    pub fn new(count: usize) -> Self {
        Permits(Rc::new(Cell::new(count)))
    }

    /// A permit, if one is free.
    pub fn take(&self) -> Option<Permit> {
        self.0.set(self.0.get().checked_sub(1)?);
        Some(Permit(Rc::clone(&self.0)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// A step of a file that is being read into the page cache.
#[derive(Debug)]
pub struct Populating {
    done: Rc<Cell<bool>>,
    end: u64,
}

impl Populating {
    /// Whether `offset` may be sent from the page cache without asking whether it is there. `None` while the step is
    /// still being read.
    pub fn covers(&self, offset: u64) -> Option<bool> {
        self.done.get().then_some(offset < self.end)
    }

    /// How many of `length` bytes from `offset` lie in the step.
    pub fn clip(&self, offset: u64, length: u64) -> u64 {
        length.min(self.end.saturating_sub(offset))
    }
}

/// Reads `offset..end` of a file into the page cache, on a thread for blocking work, and queues the connection.
pub fn populate(
    file: &OpenFile,
    offset: u64,
    end: u64,
    key: Key,
    inbox: &Rc<Inbox>,
    offload: &Rc<Offload>,
) -> io::Result<Populating> {
    let source = file.fd().try_clone_to_owned()?;
    let waiting = offload
        .run(move || open::populate(source.as_fd(), offset, end))
        .map_err(|_| io::Error::from(io::ErrorKind::ResourceBusy))?;
    let done = Rc::new(Cell::new(false));
    let (finished, inbox_of_task) = (Rc::clone(&done), Rc::clone(inbox));
    inbox.local().spawn(async move {
        waiting.await;
        finished.set(true);
        inbox_of_task.queue(key);
    });
    Ok(Populating { done, end })
}
