//! Sending a file: from the page cache, or from what is read past it; as it is, or into the buffer that is encrypted.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
};

use super::{
    Worker,
    cold::{self, Cold, Next, Pace},
    connection::Step,
    exchange::FileBody,
    secure::write_bytes,
    slot::{Key, Slot},
};
use crate::{
    http::range::ByteRange,
    sys::{
        open::{self, Residency},
        sendfile::sendfile,
        socket,
    },
};

/// Bytes of a file sent before other connections get their turn.
pub(super) const SENDFILE_STEP_BYTES: u64 = cold::WINDOW_BYTES_MAX;
/// The same of a file that is encrypted, which takes as long.
const SECURE_STEP_BYTES: usize = 512 << 10;
/// A file up to this size is always read into the page cache, for the next time.
const CACHED_FILE_BYTES_MAX: u64 = 32 << 20;

impl Worker {
    pub(super) fn send_file(&mut self, slot: &mut Slot, key: Key) -> io::Result<Step> {
        let (write_deadline, now_millis) = (self.deadlines.write(self.now), self.now.millis);
        let socket = slot.socket.as_fd();
        let Some(exchange) = slot.exchange.as_deref_mut() else { return Ok(Step::Close) };
        let (Some(body), Some(record)) = (&mut exchange.file, &mut exchange.record) else {
            return Ok(Step::Close);
        };
        while body.offset < body.end {
            let sent = match self.source(body, key) {
                Source::Later => return Ok(Step::Wait),
                Source::Reader(cold) => match send_chunk(socket, &cold) {
                    Ok(Some(sent)) => {
                        self.metrics.cold_bytes.add(sent as u64);
                        keep_pace(body, &cold, now_millis);
                        sent
                    }
                    Ok(None) => return Ok(Step::Wait),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Wait),
                    Err(error) if is_out_of_descriptors(&error) => {
                        give_up_reader(body);
                        continue;
                    }
                    Err(error) => return Err(error),
                },
                Source::PageCache(count) => match sendfile(socket, body.file.fd(), body.offset, count) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(sent) => {
                        self.metrics.sendfile_bytes.add(sent as u64);
                        sent
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Wait),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                },
            };
            body.offset += sent as u64;
            record.body_bytes += sent as u64;
            self.metrics.bytes_sent.add(sent as u64);
            slot.deadline = write_deadline;
            if sent as u64 == SENDFILE_STEP_BYTES && body.offset < body.end {
                return Ok(Step::Yield);
            }
        }
        Ok(Step::Again)
    }

    /// The same over TLS: bytes are read into the buffer that is encrypted, behind what goes before them.
    pub(super) fn send_file_secure(&mut self, slot: &mut Slot, key: Key) -> io::Result<Step> {
        let mut turn_bytes = 0;
        loop {
            if !self.send_records(slot)? {
                return Ok(Step::Wait);
            }
            let body = slot.exchange.as_deref().and_then(|exchange| exchange.file.as_ref());
            let left = body.map_or(0, |body| usize::try_from(body.end - body.offset).unwrap_or(usize::MAX));
            let bytes_max = write_bytes(slot, left);
            let before = self.gather(slot, bytes_max);
            let (count, waits) = self.read_file(slot, key, before..bytes_max)?;
            let Some(body) = slot.exchange.as_deref().and_then(|exchange| exchange.file.as_ref()) else {
                return Ok(Step::Close);
            };
            let left = usize::try_from(body.end - body.offset).unwrap_or(usize::MAX);
            if count == 0 {
                return Ok(if waits { Step::Wait } else { Step::Again });
            }
            let all = self.send_sealed(slot, count, left.saturating_add(count), false)?;
            slot.deadline = self.deadlines.write(self.now);
            if !all || waits {
                return Ok(Step::Wait);
            }
            turn_bytes += count;
            if left == 0 {
                return Ok(Step::Again);
            }
            if turn_bytes >= SECURE_STEP_BYTES {
                return Ok(Step::Yield);
            }
        }
    }

    /// Reads of the file that is sent as much as there is room for behind what is to be encrypted already. Returns how much
    /// there is then, and whether more has to be waited for.
    fn read_file(&mut self, slot: &mut Slot, key: Key, room: Range<usize>) -> io::Result<(usize, bool)> {
        let mut count = room.start;
        let now_millis = self.now.millis;
        let Some(exchange) = slot.exchange.as_deref_mut() else { return Ok((count, false)) };
        let (Some(body), Some(record)) = (&mut exchange.file, &mut exchange.record) else {
            return Ok((count, false));
        };
        loop {
            let left = usize::try_from(body.end - body.offset).unwrap_or(usize::MAX);
            let room_bytes = (room.end - count).min(left);
            if room_bytes == 0 {
                return Ok((count, false));
            }
            let read = match self.source(body, key) {
                Source::Later => return Ok((count, true)),
                Source::Reader(cold) => match cold.next() {
                    Next::Later => return Ok((count, true)),
                    Next::Failed(error) if is_out_of_descriptors(&error) => {
                        give_up_reader(body);
                        continue;
                    }
                    Next::Failed(error) => return Err(error),
                    Next::Chunk(mut chunk) => {
                        let read = chunk.bytes().len().min(room_bytes);
                        self.room_to_seal(count..count + read).copy_from_slice(&chunk.bytes()[..read]);
                        chunk.consume(read);
                        if !chunk.bytes().is_empty() {
                            cold.put_back(chunk);
                        }
                        self.metrics.cold_bytes.add(read as u64);
                        keep_pace(body, &cold, now_millis);
                        read
                    }
                },
                Source::PageCache(ready) => {
                    let room = self.room_to_seal(count..count + ready.min(room_bytes));
                    match read_cached(body.file.fd(), room, body.offset) {
                        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                        Ok(read) => read,
                        // It has left the page cache since it was seen there.
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            self.metrics.cold_reads.add(1);
                            self.read_cold(body, key);
                            continue;
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            body.offset += read as u64;
            record.body_bytes += read as u64;
            count += read;
        }
    }

    /// Where the next bytes of a file come from; has them read if they are nowhere yet.
    fn source(&self, body: &mut FileBody, key: Key) -> Source {
        let now_millis = self.now.millis;
        loop {
            if let Some(cold) = &body.cold {
                return Source::Reader(Rc::clone(cold));
            }
            if let Some(populating) = &body.populating {
                let Some(end) = populating.read_up_to() else { return Source::Later };
                body.populating = None;
                if end <= body.offset {
                    // No thread or no descriptor was free: that says nothing about the client.
                    self.read_cold(body, key);
                    continue;
                }
                self.metrics.cold_bytes.add(end - body.offset);
                body.ready_end = end;
                body.pace.begin(now_millis);
            }
            if body.offset >= body.ready_end || body.pace.is_slow(now_millis) {
                let window = body.pace.next_window(now_millis).min(body.end - body.offset);
                if open::resident(body.file.fd(), body.offset, window) == Residency::Cold {
                    self.metrics.cold_reads.add(1);
                    self.read_cold(body, key);
                    continue;
                }
                body.ready_end = body.offset + window;
            }
            return Source::PageCache(usize::try_from(body.ready_end - body.offset).unwrap_or(usize::MAX));
        }
    }

    /// Has what follows read. Responses that share a file share the page cache too; a reader past it is for a client
    /// that has proved fast and is alone with a file that is too large to be kept.
    fn read_cold(&self, body: &mut FileBody, key: Key) {
        let (inbox, offload) = (&self.inbox, &self.context.offload);
        // Held here and by the cache of open files.
        let is_alone = Rc::strong_count(&body.file) <= 2;
        if body.pace.is_fast()
            && is_alone
            && body.file.size() > CACHED_FILE_BYTES_MAX
            && let Some(permit) = self.cold_permits.take()
        {
            body.cold = Some(Cold::start(Rc::clone(&body.file), body.offset, body.end, key, inbox, permit));
            return;
        }
        let window = body.pace.cold_window(!std::mem::replace(&mut body.was_cold, true));
        let end = body.end.min(body.offset + window);
        let ahead_bytes = window.min(body.end - end);
        body.populating =
            Some(cold::populate(&body.file, body.offset..end, ahead_bytes, key, inbox, offload));
    }

    /// Goes on to the next part of a body that has several: the text before it, or behind the last, is sent first.
    /// Text counts as sent once it is rendered. False when there is nothing more.
    pub(super) fn next_part(&mut self, slot: &mut Slot) -> bool {
        let Some(exchange) = slot.exchange.as_deref_mut() else { return false };
        let (Some(body), Some(record)) = (&mut exchange.file, &mut exchange.record) else { return false };
        let Some(mut parts) = body.parts.take() else { return false };
        let (text, range) = parts.advance();
        self.outgoing.render(|out| out.extend_from_slice(text));
        record.body_bytes += text.len() as u64;
        if let Some(ByteRange { first, last }) = range {
            let part = FileBody::new(Rc::clone(&body.file), first, last + 1);
            *body = FileBody { parts: Some(parts), ..part };
        }
        true
    }

    /// A file was sent whole: count it, log it, give everything back but input that waits.
    pub(super) fn finish_file(&mut self, slot: &mut Slot) {
        let Some(exchange) = slot.exchange.as_deref_mut() else { return };
        exchange.file = None;
        exchange.extra = None;
        let (record, head) = (exchange.record.take(), exchange.head.take());
        if let Some(record) = record {
            self.count_response(record.status);
            self.metrics.request_duration.observe(self.clock.nanos().saturating_sub(record.started_nanos), 1);
            self.log_kept(slot, head.as_ref(), record);
        }
    }
}

/// Where the next bytes of a file are.
enum Source {
    /// So many in the page cache.
    PageCache(usize),
    /// What a reader past it has read.
    Reader(Rc<Cold>),
    /// They are being read; the connection is queued when they were.
    Later,
}

/// A chunk was taken: a client that has become slow goes on through the page cache.
fn keep_pace(body: &mut FileBody, cold: &Cold, now_millis: u64) {
    if body.pace.is_slow(now_millis) {
        cold.cancel();
        give_up_reader(body);
    } else {
        body.pace.begin(now_millis);
    }
}

/// Goes on through the page cache, which needs no descriptor of its own.
fn give_up_reader(body: &mut FileBody) {
    body.cold = None;
    (body.pace, body.was_cold) = (Pace::new(), false);
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Reads from the page cache only, where the file system can tell; what was found there a moment ago where it cannot.
fn read_cached(file: BorrowedFd<'_>, into: &mut [u8], offset: u64) -> io::Result<usize> {
    match open::read_nowait(file, into, offset) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => open::pread(file, into, offset),
        read => read,
    }
}

/// Sends from the reader's next chunk; `None` when there is none yet.
fn send_chunk(socket: BorrowedFd<'_>, cold: &Cold) -> io::Result<Option<usize>> {
    match cold.next() {
        Next::Later => Ok(None),
        Next::Failed(error) => Err(error),
        Next::Chunk(mut chunk) => {
            let sent = socket::send(socket, chunk.bytes(), false);
            if let Ok(count) = sent {
                chunk.consume(count);
            }
            if !chunk.bytes().is_empty() {
                cold.put_back(chunk);
            }
            sent.map(Some)
        }
    }
}
