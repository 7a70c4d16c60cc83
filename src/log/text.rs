//! What both formats of the access log are made of: numbers, and bytes of a peer's making that cannot end a field, a
//! line, or speak to a terminal.

/// Bytes that one field of a peer's making may take, escapes included. A longer one is cut and ends in `...`.
pub(super) const FIELD_BYTES_MAX: usize = 8 << 10;
/// The mark of a cut.
pub(super) const CUT: &[u8] = b"...";

/// How a format writes a byte that is not plain.
pub(super) trait Escape {
    /// Bytes of the longest escape.
    const BYTES_MAX: usize;

    /// Appends the escape of `byte`.
    fn push(line: &mut Vec<u8>, byte: u8);
}

/// An upper bound of what [`push_escaped`] appends.
pub(super) fn escaped_bytes_max<E: Escape>(field: &[u8]) -> usize {
    field.len().saturating_mul(E::BYTES_MAX).min(FIELD_BYTES_MAX) + CUT.len()
}

/// Appends a field, with every byte that is not printable ASCII, and `"` and `\`, escaped. An escape is whole or absent.
pub(super) fn push_escaped<E: Escape>(line: &mut Vec<u8>, field: &[u8]) {
    // The usual case, told by a loop that the compiler makes one of vectors.
    if field.len() <= FIELD_BYTES_MAX && field.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
        line.extend_from_slice(field);
        return;
    }
    let mut rest = field;
    let mut room = FIELD_BYTES_MAX;
    while !rest.is_empty() {
        let plain = rest.iter().take(room).take_while(|byte| is_plain(**byte)).count();
        line.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        room -= plain;
        let Some((byte, tail)) = rest.split_first() else { return };
        if room < E::BYTES_MAX {
            line.extend_from_slice(CUT);
            return;
        }
        let before = line.len();
        E::push(line, *byte);
        room -= line.len() - before;
        rest = tail;
    }
}

/// Appends a number.
pub(super) fn push_decimal(line: &mut Vec<u8>, value: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The two digits of a byte.
pub(super) fn hexadecimal(byte: u8, digits: &[u8; 16]) -> [u8; 2] {
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
}

/// Whether a byte stands for itself in both formats.
pub(super) fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
}
