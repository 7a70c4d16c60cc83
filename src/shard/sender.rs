//! How a body leaves, and how a connection ends.
//!
//! | body | way out |
//! | --- | --- |
//! | in memory, or mapped | the same send as its head (`outgoing`) |
//! | a file in the page cache | `sendfile` in 2 MB steps, the head before it with `MSG_MORE` |
//! | either over TLS | read into the buffer that is encrypted (`secure`), a write of it at a time |
//! | a file that is not | read into it a window at a time, or for a fast client through io_uring past it (`cold`) |

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
};

use super::{
    Worker,
    cold::{self, Cold, Next, Pace},
    connection::{Received, Step, decode_kept},
    exchange::{Exchange, FileBody, Record},
    listener::no_room,
    outgoing,
    secure::write_bytes,
    slot::{Key, Slot, Stage},
};
use crate::{
    http::{Known, Request, range::ByteRange},
    http1, log,
    memory::{Buffer, Rank},
    sys::{
        open::{self, Residency},
        sendfile::sendfile,
        socket,
    },
};

/// Bytes of a file sent before other connections get their turn.
const SENDFILE_STEP_BYTES: u64 = cold::WINDOW_BYTES_MAX;
/// The same of a file that is encrypted, which takes as long.
const SECURE_STEP_BYTES: usize = 512 << 10;
/// Bytes thrown away from a client that sends on after its connection ended; then it is cut.
const LINGER_BYTES_MAX: u32 = 1 << 20;
/// A file up to this size is always read into the page cache, for the next time.
const CACHED_FILE_BYTES_MAX: u64 = 32 << 20;

impl Worker {
    /// Goes on with a response, and notes where it stands when it has to wait.
    pub(super) fn send(&mut self, slot: &mut Slot, key: Key) -> Step {
        let step = self.send_what_fits(slot, key);
        if step == Step::Wait {
            slot.stage_bytes = in_flight(slot);
        }
        step
    }

    /// The write or idle deadline passed. The kernel says that a socket has room again only when a third of its buffer
    /// is free, and takes a response's last megabytes long before the peer has them: a slow client that has
    /// acknowledged anything since has made progress, and is not idle.
    pub(super) fn has_progressed(&mut self, slot: &mut Slot) -> bool {
        let in_flight = in_flight(slot);
        let progressed = in_flight < slot.stage_bytes && (in_flight > 0 || slot.stage == Stage::Sending);
        if progressed {
            slot.stage_bytes = in_flight;
            slot.deadline = match slot.stage {
                Stage::Idle => self.deadlines.idle(self.now),
                _ => self.deadlines.write(self.now),
            };
        }
        progressed
    }

    /// Kept bytes first, then the file; of several parts each behind the text before it.
    fn send_what_fits(&mut self, slot: &mut Slot, key: Key) -> Step {
        let before = body_bytes(slot);
        loop {
            let file = slot.exchange.as_ref().and_then(|exchange| exchange.file.as_ref());
            let (has_file, file_follows) = (file.is_some(), file.is_some_and(|body| body.offset < body.end));
            match self.flush(slot, file_follows) {
                Err(_) => return self.cut(slot),
                Ok(false) => return Step::Wait,
                Ok(true) => {}
            }
            if !has_file {
                break;
            }
            let sent =
                if slot.is_secure() { self.send_file_secure(slot, key) } else { self.send_file(slot, key) };
            match sent {
                // Parts that are no step each are one together.
                Ok(Step::Again) if body_bytes(slot) - before > SENDFILE_STEP_BYTES => return Step::Yield,
                Ok(Step::Again) => {}
                Ok(step) => return step,
                Err(error) => {
                    if error.kind() == io::ErrorKind::UnexpectedEof {
                        tracing::warn!("a file became shorter while it was sent; the connection is closed");
                    }
                    return self.cut(slot);
                }
            }
            if !self.next_part(slot) {
                self.finish_file(slot);
                break;
            }
        }
        slot.stage = Stage::Idle;
        if slot.flags.close() {
            return self.end(slot);
        }
        self.begin_idle(slot);
        Step::Again
    }

    /// From now on the next request is waited for.
    pub(super) fn begin_idle(&mut self, slot: &mut Slot) {
        slot.stage_bytes = u32::MAX;
        slot.deadline = self.deadlines.idle(self.now);
        if let Some(secure) = slot.secure.as_deref_mut() {
            secure.begin_response();
        }
    }

    /// Sends what this turn collected behind what earlier turns kept. False when the socket is full.
    pub(super) fn flush(&mut self, slot: &mut Slot, more: bool) -> io::Result<bool> {
        let flushed = self.flush_kept_and_collected(slot, more);
        if let Err(error) = &flushed
            && outgoing::is_file_changed(error)
        {
            self.metrics.responses_cut.add(1);
            tracing::warn!("a mapped file changed while it was sent; the connection is closed");
        }
        flushed
    }

    fn flush_kept_and_collected(&mut self, slot: &mut Slot, more: bool) -> io::Result<bool> {
        if slot.is_secure() {
            return self.flush_secure(slot, more);
        }
        let kept = slot.exchange.as_ref().is_some_and(|exchange| !exchange.unsent.is_empty());
        if !kept {
            if self.outgoing.is_empty() {
                return Ok(true);
            }
            let bytes = self.outgoing.len();
            if self.outgoing.flush(slot.socket.as_fd(), more)? {
                self.metrics.bytes_sent.add(bytes as u64);
                return Ok(true);
            }
            self.metrics.bytes_sent.add((bytes - self.outgoing.len()) as u64);
        }
        self.keep_collected(slot)?;
        if !kept {
            return Ok(false);
        }
        let Some(exchange) = slot.exchange.as_deref_mut() else { return Ok(true) };
        let socket = slot.socket.as_fd();
        let (all, sent) = outgoing::resume(socket, &mut exchange.unsent, more)?;
        self.metrics.bytes_sent.add(sent as u64);
        if sent > 0 && slot.stage == Stage::Sending {
            slot.deadline = self.deadlines.write(self.now);
        }
        Ok(all)
    }

    /// Moves what this turn collected and did not send behind what earlier turns kept.
    pub(super) fn keep_collected(&mut self, slot: &mut Slot) -> io::Result<()> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let (outgoing, pool) = (&mut self.outgoing, &self.pool);
        if slot.exchange.is_none() {
            slot.exchange = self.exchanges.put(Exchange::default(), Rank::Finish);
        }
        let kept = slot.exchange.as_deref_mut().is_some_and(|exchange| outgoing.keep(pool, exchange));
        if kept { Ok(()) } else { Err(io::ErrorKind::OutOfMemory.into()) }
    }

    /// While something else is waited for: goes on with bytes that the socket did not take.
    pub(super) fn resume_unsent(&mut self, slot: &mut Slot) -> Step {
        match self.flush(slot, false) {
            Ok(_) => Step::Wait,
            Err(_) => Step::Close,
        }
    }

    fn send_file(&mut self, slot: &mut Slot, key: Key) -> io::Result<Step> {
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
    fn send_file_secure(&mut self, slot: &mut Slot, key: Key) -> io::Result<Step> {
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
            let all = self.send_sealed(slot, count, left.saturating_add(count))?;
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
    fn finish_file(&mut self, slot: &mut Slot) {
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

    /// The response cannot be finished: what was sent is logged, and the connection is closed so that the client
    /// sees a short message (RFC 9112 8).
    fn cut(&mut self, slot: &mut Slot) -> Step {
        self.outgoing.discard();
        let record = slot.exchange.as_mut().and_then(|exchange| exchange.record.take());
        if let Some(record) = record {
            let head = slot.exchange.as_mut().and_then(|exchange| exchange.head.take());
            self.metrics.responses_cut.add(1);
            self.count_response(record.status);
            self.log_kept(slot, head.as_ref(), record);
        }
        Step::Close
    }

    /// Everything was handed to the kernel and the connection shall end: at once if the peer has all of it and
    /// nothing in flight that we would leave unread, after lingering otherwise. To what comes later a closed socket
    /// answers with a reset, which would destroy the response that is still under way (RFC 9112 9.6).
    pub(super) fn end(&mut self, slot: &mut Slot) -> Step {
        let delivered = || matches!(socket::unacknowledged_bytes(slot.socket.as_fd()), Ok(0));
        if !slot.flags.linger() && !slot.flags.readable() && delivered() {
            return Step::Close;
        }
        if !self.say_goodbye(slot) {
            slot.flags.set_close(true);
            slot.stage = Stage::Sending;
            slot.stage_bytes = in_flight(slot);
            slot.deadline = self.deadlines.write(self.now);
            return Step::Wait;
        }
        if socket::finish_sending(slot.socket.as_fd()).is_err() {
            return Step::Close;
        }
        self.release(slot);
        slot.secure = None;
        slot.stage = Stage::Lingering;
        slot.stage_bytes = 0;
        slot.deadline = self.deadlines.linger(self.now);
        Step::Again
    }

    /// [`Worker::end`] for a response that the kernel took whole in the turn that made it. A peer that asked for the
    /// close sends nothing after its request, so there is nothing to reset the connection: no need to ask how far the
    /// response got, or to stay until it has. Four system calls a connection instead of seven to ten.
    pub(super) fn end_at_once(&mut self, slot: &mut Slot) -> Step {
        if slot.flags.last_request() && !slot.flags.linger() && !slot.flags.readable() {
            return Step::Close;
        }
        self.end(slot)
    }

    pub(super) fn linger(&mut self, slot: &mut Slot) -> Step {
        let mut scratch = std::mem::take(&mut self.scratch);
        let step = loop {
            match self.receive_bytes(slot, &mut scratch) {
                Ok(Received::Bytes(count)) => {
                    slot.stage_bytes =
                        slot.stage_bytes.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
                    if slot.stage_bytes > LINGER_BYTES_MAX {
                        break Step::Close;
                    }
                }
                Ok(Received::Nothing) => break Step::Wait,
                Ok(Received::End) | Err(_) => break Step::Close,
            }
        };
        self.scratch = scratch;
        step
    }

    /// Says 503 to a connection there is no room for.
    pub fn shed(&mut self, slot: &mut Slot) -> Step {
        let told = no_room(slot.is_secure());
        match socket::send(slot.socket.as_fd(), told, false) {
            Ok(count) if count == told.len() => {
                slot.flags.set_linger(true);
                self.end(slot)
            }
            _ => Step::Close,
        }
    }

    /// The connection is closed: a response in progress is logged as far as it went.
    pub(super) fn abandon(&mut self, slot: &mut Slot) {
        if slot.stage == Stage::Sending {
            self.cut(slot);
        } else if slot.is_secure() {
            self.say_goodbye(slot);
        }
        self.release(slot);
    }

    /// Gives back whatever the connection holds but its slot.
    pub(super) fn release(&mut self, slot: &mut Slot) {
        slot.exchange = None;
    }

    pub(super) fn count_response(&mut self, status: u16) {
        self.metrics.requests.add(status, 1);
    }

    /// Logs a request that was answered, as far as it is one that is logged. `request` is absent when its head could
    /// not be kept.
    pub(super) fn log_access(&mut self, slot: &Slot, request: Option<Request<'_>>, record: Record) {
        let Some(log) = self.access_log.as_mut().filter(|_| !slot.flags.admin()) else { return };
        if !log.takes(record.status) {
            return;
        }
        let is_timed = log.tells_duration();
        log.record(&log::Entry {
            peer: slot.peer,
            now: self.now,
            request_line: request.map(http1::request_line).unwrap_or_default(),
            request: request.map(|request| log::RequestParts {
                method: request.method_text(),
                target: request.target(),
                protocol: request.version().text(),
                host: request.host(),
            }),
            status: record.status,
            body_bytes_sent: record.body_bytes,
            duration_nanos: if is_timed {
                self.clock.nanos().saturating_sub(record.started_nanos)
            } else {
                0
            },
            referer: request.and_then(|request| request.field(Known::Referer)),
            user_agent: request.and_then(|request| request.field(Known::UserAgent)),
            tls: tls_parts(slot),
        });
    }

    /// Logs bytes that were refused by their first line, as far as there is one.
    pub(super) fn log_refused(&mut self, slot: &Slot, bytes: &[u8], status: u16) {
        let Some(log) = self.access_log.as_mut().filter(|_| !slot.flags.admin()) else { return };
        let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(0);
        log.record(&log::Entry {
            peer: slot.peer,
            now: self.now,
            request_line: &bytes[..end],
            request: None,
            status,
            body_bytes_sent: 0,
            duration_nanos: self.clock.nanos().saturating_sub(self.turn_nanos),
            referer: None,
            user_agent: None,
            tls: tls_parts(slot),
        });
    }

    fn log_kept(&mut self, slot: &Slot, head: Option<&Buffer>, record: Record) {
        if self.access_log.is_none() {
            return;
        }
        let Some(mut parts) = self.parts.take() else { return };
        let request = head.filter(|head| decode_kept(head, &mut parts));
        let request = request.map(|head| Request { bytes: head.filled(), parts: &parts });
        self.log_access(slot, request, record);
        self.parts = Some(parts);
    }
}

fn tls_parts(slot: &Slot) -> Option<log::TlsParts<'_>> {
    let facts = slot.tls_facts()?;
    Some(log::TlsParts {
        version: facts.version,
        cipher: facts.cipher,
        resumed: facts.resumed,
        server_name: facts.server_name,
        client_subject: facts.client_subject,
    })
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

/// Bytes of the current response's body handed to the kernel so far, if it is a file's.
fn body_bytes(slot: &Slot) -> u64 {
    let record = slot.exchange.as_ref().and_then(|exchange| exchange.record);
    record.map_or(0, |record| record.body_bytes)
}

/// Bytes sent and not acknowledged; none if the socket cannot tell.
pub(super) fn in_flight(slot: &Slot) -> u32 {
    let bytes = socket::unacknowledged_bytes(slot.socket.as_fd()).unwrap_or(0);
    u32::try_from(bytes).unwrap_or(u32::MAX)
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
