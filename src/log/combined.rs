//! One line of the access log in the combined format of Apache and nginx.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr},
};

use super::{
    access::Entry,
    date,
    text::{CUT, Escape, FIELD_BYTES_MAX, escaped_bytes_max, hexadecimal, push_decimal, push_escaped},
};

/// All of a line but its three fields of a peer's making: an IPv6 address (45), the date (28), a status (5), a length
/// (20) and the 17 bytes between them.
const FIXED_BYTES_MAX: usize = 45 + date::COMBINED_BYTES + 5 + 20 + 17;
/// The longest line.
pub(super) const LINE_BYTES_MAX: usize = FIXED_BYTES_MAX + 3 * (FIELD_BYTES_MAX + CUT.len());

/// What lines of one second have in common.
#[derive(Debug)]
pub(super) struct Combined {
    unix_seconds: u64,
    date: [u8; date::COMBINED_BYTES],
}

impl Default for Combined {
    fn default() -> Self {
        Combined { unix_seconds: 0, date: date::combined(0) }
    }
}

impl Combined {
    /// An upper bound of the line's length, by counting every byte as escaped.
    pub(super) fn line_bytes_max(entry: &Entry<'_>) -> usize {
        FIXED_BYTES_MAX
            + escaped_bytes_max::<Hexadecimal>(entry.request_line)
            + escaped_bytes_max::<Hexadecimal>(entry.referer.unwrap_or_default())
            + escaped_bytes_max::<Hexadecimal>(entry.user_agent.unwrap_or_default())
    }

    /// Appends the entry's line.
    pub(super) fn push(&mut self, line: &mut Vec<u8>, entry: &Entry<'_>) {
        if self.unix_seconds != entry.now.unix_seconds {
            self.unix_seconds = entry.now.unix_seconds;
            self.date = date::combined(entry.now.unix_seconds);
        }
        match entry.peer.ip() {
            None => line.extend_from_slice(b"unix:"),
            Some(address) => push_address(line, address),
        }
        line.extend_from_slice(b" - - ");
        line.extend_from_slice(&self.date);
        line.extend_from_slice(b" \"");
        push_field(line, Some(entry.request_line));
        line.extend_from_slice(b"\" ");
        push_decimal(line, u64::from(entry.status));
        line.push(b' ');
        push_decimal(line, entry.body_bytes_sent);
        line.extend_from_slice(b" \"");
        push_field(line, entry.referer);
        line.extend_from_slice(b"\" \"");
        push_field(line, entry.user_agent);
        line.extend_from_slice(b"\"\n");
    }
}

/// Appends an address; IPv4 in IPv6 must be given as IPv4.
pub(super) fn push_address(line: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => push_ipv4(line, address),
        // Formatting an address into a Vec with room neither fails nor allocates.
        IpAddr::V6(address) => write!(line, "{address}").unwrap_or_default(),
    }
}

fn push_ipv4(line: &mut Vec<u8>, address: Ipv4Addr) {
    let mut text = *b"255.255.255.255.";
    let mut length = 0;
    for octet in address.octets() {
        for (least, digit) in [(100, octet / 100), (10, octet / 10 % 10), (0, octet % 10)] {
            if octet >= least {
                text[length] = b'0' + digit;
                length += 1;
            }
        }
        text[length] = b'.';
        length += 1;
    }
    line.extend_from_slice(&text[..length - 1]);
}

/// A field between quotes: `-` when it is absent or empty.
fn push_field(line: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None | Some([]) => line.push(b'-'),
        Some(field) => push_escaped::<Hexadecimal>(line, field),
    }
}

/// `\xHH`, as nginx writes it.
struct Hexadecimal;

impl Escape for Hexadecimal {
    const BYTES_MAX: usize = 4;

    fn push(line: &mut Vec<u8>, byte: u8) {
        let [high, low] = hexadecimal(byte, b"0123456789ABCDEF");
        line.extend_from_slice(&[b'\\', b'x', high, low]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::text::is_plain;

    fn field(bytes: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        push_field(&mut line, Some(bytes));
        line
    }

    #[test]
    fn every_byte_is_plain_or_four_characters() {
        for byte in 0..=u8::MAX {
            let expected = if is_plain(byte) { vec![byte] } else { format!("\\x{byte:02X}").into_bytes() };
            assert_eq!(field(&[byte]), expected);
        }
    }

    #[test]
    fn cuts_a_field_past_its_bound_and_not_at_it() {
        assert_eq!(field(&[b'a'; FIELD_BYTES_MAX]), [b'a'; FIELD_BYTES_MAX]);
        let cut = field(&[b'a'; FIELD_BYTES_MAX + 1]);
        assert_eq!(cut.len(), FIELD_BYTES_MAX + 3);
        assert!(cut.ends_with(b"a..."));
        assert_eq!(field(&[0; FIELD_BYTES_MAX / 4]).len(), FIELD_BYTES_MAX);
        assert!(field(&[0; FIELD_BYTES_MAX / 4 + 1]).ends_with(b"\\x00..."));
        // An escape is whole or absent.
        let mut mixed = vec![b'a'; FIELD_BYTES_MAX - 3];
        mixed.push(0);
        assert_eq!(field(&mixed), [&mixed[..FIELD_BYTES_MAX - 3], CUT].concat());
    }
}
