//! One line of the access log as a JSON object (RFC 8259), with Caddy's names where it has one for the same thing.
//!
//! Strings of a peer's making hold arbitrary bytes, JSON holds characters: a byte outside ASCII becomes the character
//! of the same number, as in ISO 8859-1, so that nothing is lost and every line is valid whatever was sent.

use std::ops::Range;

use super::{
    access::{Entry, TlsParts},
    combined::push_address,
    date,
    text::{CUT, Escape, FIELD_BYTES_MAX, escaped_bytes_max, hexadecimal, push_decimal, push_escaped},
};
use crate::clock::Now;

/// All of a line but its seven fields of a peer's making: names and punctuation (190), the time (24), an IPv6 address
/// (45), a port (5), the protocol (8), a status (5), a length (20) and a duration (27), TLS (160), and some to spare.
const FIXED_BYTES_MAX: usize = 544;
/// The longest line.
pub(super) const LINE_BYTES_MAX: usize = FIXED_BYTES_MAX + 7 * (FIELD_BYTES_MAX + CUT.len());

/// Where the date and the milliseconds stand in [`Json::start`].
const DATE: Range<usize> = 9..9 + date::RFC3339_SECONDS_BYTES;
const MILLIS: Range<usize> = DATE.end + 1..DATE.end + 4;

/// What lines of one millisecond have in common.
#[derive(Debug)]
pub(super) struct Json {
    unix_seconds: u64,
    unix_second_millis: u16,
    start: [u8; 34],
}

impl Default for Json {
    fn default() -> Self {
        Json { unix_seconds: 0, unix_second_millis: 0, start: *b"{\"time\":\"1970-01-01T00:00:00.000Z\"" }
    }
}

impl Json {
    /// An upper bound of the line's length, by counting every byte as escaped.
    pub(super) fn line_bytes_max(entry: &Entry<'_>) -> usize {
        let of = escaped_bytes_max::<Unicode>;
        let request = match &entry.request {
            Some(request) => of(request.method) + of(request.target) + of(request.host.unwrap_or_default()),
            None => of(entry.request_line),
        };
        let (referer, user_agent) = (entry.referer.unwrap_or_default(), entry.user_agent.unwrap_or_default());
        let names = |tls: &TlsParts<'_>| {
            let (name, subject) =
                (tls.server_name.unwrap_or_default(), tls.client_subject.unwrap_or_default());
            of(name.as_bytes()) + of(subject.as_bytes())
        };
        FIXED_BYTES_MAX + request + of(referer) + of(user_agent) + entry.tls.as_ref().map_or(0, names)
    }

    /// Appends the entry's line.
    pub(super) fn push(&mut self, line: &mut Vec<u8>, entry: &Entry<'_>) {
        self.set_time(entry.now);
        line.extend_from_slice(&self.start);
        if let (Some(address), Some(port)) = (entry.peer.ip(), entry.peer.port()) {
            line.extend_from_slice(b",\"remote_ip\":\"");
            push_address(line, address);
            line.extend_from_slice(b"\",\"remote_port\":");
            push_decimal(line, u64::from(port));
        }
        match &entry.request {
            Some(request) => {
                push_text(line, b",\"method\":\"", request.method);
                push_text(line, b",\"uri\":\"", request.target);
                line.extend_from_slice(b",\"proto\":\"");
                line.extend_from_slice(request.protocol.as_bytes());
                line.push(b'"');
                if let Some(host) = request.host {
                    push_text(line, b",\"host\":\"", host);
                }
            }
            None => push_text(line, b",\"request\":\"", entry.request_line),
        }
        line.extend_from_slice(b",\"status\":");
        push_decimal(line, u64::from(entry.status));
        line.extend_from_slice(b",\"size\":");
        push_decimal(line, entry.body_bytes_sent);
        line.extend_from_slice(b",\"duration\":");
        let micros = entry.duration_nanos / 1000;
        push_decimal(line, micros / 1_000_000);
        line.push(b'.');
        line.extend_from_slice(&digits::<6>((micros % 1_000_000) as u32));
        if let Some(referer) = entry.referer {
            push_text(line, b",\"referer\":\"", referer);
        }
        if let Some(user_agent) = entry.user_agent {
            push_text(line, b",\"user_agent\":\"", user_agent);
        }
        if let Some(tls) = &entry.tls {
            push_tls(line, tls);
        }
        line.extend_from_slice(b"}\n");
    }

    fn set_time(&mut self, now: Now) {
        if self.unix_seconds != now.unix_seconds {
            self.unix_seconds = now.unix_seconds;
            self.start[DATE].copy_from_slice(&date::rfc3339_seconds(now.unix_seconds));
        }
        if self.unix_second_millis != now.unix_second_millis {
            self.unix_second_millis = now.unix_second_millis;
            self.start[MILLIS].copy_from_slice(&digits::<3>(now.unix_second_millis.into()));
        }
    }
}

fn push_tls(line: &mut Vec<u8>, tls: &TlsParts<'_>) {
    push_text(line, b",\"tls\":{\"version\":\"", tls.version.as_bytes());
    push_text(line, b",\"cipher_suite\":\"", tls.cipher.as_bytes());
    line.extend_from_slice(if tls.resumed { b",\"resumed\":true" } else { b",\"resumed\":false" });
    if let Some(name) = tls.server_name {
        push_text(line, b",\"server_name\":\"", name.as_bytes());
    }
    if let Some(subject) = tls.client_subject {
        push_text(line, b",\"client_subject\":\"", subject.as_bytes());
    }
    line.push(b'}');
}

/// Appends a string after what stands before it, its opening quote included.
fn push_text(line: &mut Vec<u8>, before: &[u8], text: &[u8]) {
    line.extend_from_slice(before);
    push_escaped::<Unicode>(line, text);
    line.push(b'"');
}

/// The last `N` digits of a number.
fn digits<const N: usize>(mut value: u32) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit += (value % 10) as u8;
        value /= 10;
    }
    digits
}

/// `\"`, `\\`, else `\u00hh` (RFC 8259 7).
struct Unicode;

impl Escape for Unicode {
    const BYTES_MAX: usize = 6;

    fn push(line: &mut Vec<u8>, byte: u8) {
        if let b'"' | b'\\' = byte {
            line.extend_from_slice(&[b'\\', byte]);
        } else {
            let [high, low] = hexadecimal(byte, b"0123456789abcdef");
            line.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        let mut line = Vec::new();
        push_text(&mut line, b"\"", bytes);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn every_byte_is_plain_or_an_escape_of_the_character_with_its_number() {
        for byte in 0..=u8::MAX {
            let expected = match byte {
                b'"' => "\"\\\"\"".to_owned(),
                b'\\' => "\"\\\\\"".to_owned(),
                0x20..0x7f => format!("\"{}\"", char::from(byte)),
                _ => format!("\"\\u{:04x}\"", u32::from(byte)),
            };
            assert_eq!(text(&[byte]), expected);
            // YAML 1.2 is a superset of JSON, and reads it back.
            let read: String = serde_saphyr::from_str(&text(&[byte])).unwrap();
            assert_eq!(read, char::from(byte).to_string());
        }
    }

    #[test]
    fn cuts_a_string_past_its_bound_and_not_at_it() {
        assert_eq!(text(&[b'a'; FIELD_BYTES_MAX]).len(), FIELD_BYTES_MAX + 2);
        assert!(text(&[b'a'; FIELD_BYTES_MAX + 1]).ends_with("aa...\""));
        assert_eq!(text(&[b'"'; FIELD_BYTES_MAX / 2 - 2]).len(), FIELD_BYTES_MAX - 4 + 2);
        assert!(text(&[b'"'; FIELD_BYTES_MAX]).ends_with("\\\"...\""));
        assert!(text(&[0xff; FIELD_BYTES_MAX]).ends_with("\\u00ff...\""));
    }

    #[test]
    fn digits_keep_their_zeros() {
        let digits = |value| String::from_utf8(digits::<6>(value).to_vec()).unwrap();
        assert_eq!(
            (digits(0), digits(123), digits(999_999)),
            ("000000".into(), "000123".into(), "999999".into())
        );
    }
}
