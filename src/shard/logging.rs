//! What is counted and logged of a request when it has been answered.

use super::{Worker, connection::decode_kept, exchange::Record, slot::Slot};
use crate::{
    http::{Known, Request},
    http1, log,
    memory::Buffer,
};

impl Worker {
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

    pub(super) fn log_kept(&mut self, slot: &Slot, head: Option<&Buffer>, record: Record) {
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
