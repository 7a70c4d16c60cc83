//! Bodies that are not in the page cache: a task of the executor reads ahead of the socket, a few chunks at most.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    rc::Rc,
    task::{Poll, Waker},
};

use super::{inbox::Inbox, slot::Key};
use crate::{
    files::OpenFile,
    runtime::{Chunk, FileReader},
};

/// Bytes of one read. With [`AHEAD_MAX`] it bounds what a reader holds: 768 KB.
const CHUNK_BYTES: u64 = 256 << 10;
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
    /// Starts to read `offset..end` for connection `key`. The reader waits for a permit first: readers of one
    /// shard are bounded by `permits`.
    pub fn start(
        file: Rc<OpenFile>,
        offset: u64,
        end: u64,
        key: Key,
        inbox: &Rc<Inbox>,
        permits: &Rc<Permits>,
    ) -> Rc<Self> {
        let cold = Rc::new(Cold::default());
        let (reader, inbox_of_task, permits) = (Rc::clone(&cold), Rc::clone(inbox), Rc::clone(permits));
        inbox.local().spawn(async move {
            permits.acquire(&reader).await;
            let result = reader.read_ahead(&file, offset, end, key, &inbox_of_task).await;
            permits.release();
            if let Err(error) = result {
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

/// How many readers of a shard may run at once; others wait, under the deadline of their connections.
#[derive(Debug)]
pub struct Permits {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Cold>>>,
}

impl Permits {
    /// `count` readers at once.
    pub fn new(count: usize) -> Rc<Self> {
        Rc::new(Permits { free: Cell::new(count), waiting: RefCell::default() })
    }

    async fn acquire(&self, cold: &Rc<Cold>) {
        let mut queued = false;
        poll_fn(|context| {
            if self.free.get() > 0 {
                self.free.set(self.free.get() - 1);
                if queued {
                    self.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, cold));
                }
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut queued, true) {
                self.waiting.borrow_mut().push_back(Rc::clone(cold));
            }
            *cold.reader.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        // Several permits may have come back before this reader ran.
        self.wake_next();
    }

    fn release(&self) {
        self.free.set(self.free.get() + 1);
        self.wake_next();
    }

    /// The reader at the front takes a permit when it runs; a cancelled one ends at once and passes it on.
    fn wake_next(&self) {
        if self.free.get() == 0 {
            return;
        }
        let next = self.waiting.borrow().front().cloned();
        if let Some(next) = next {
            next.wake_reader();
        }
    }
}
