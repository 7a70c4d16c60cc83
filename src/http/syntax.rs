//! The few lexical rules that several fields share (RFC 9110 5.6): tokens, list elements, numbers.
//!
//! Every function takes whatever bytes a peer sent and allocates nothing.

/// Whether `byte` may be part of a token: a field name, a method, a transfer coding (RFC 9110 5.6.2).
#[inline]
pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Whether `byte` may be part of a field value: visible ASCII, space, tab and bytes from 0x80 (RFC 9110 5.5).
#[inline]
pub(crate) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Whether `text` is a token: at least one byte and all of them token bytes.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

/// The elements of a comma-separated list without the whitespace around them, empty ones included
/// (RFC 9110 5.6.1). Does not know quoted strings: for fields whose elements are tokens.
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// A number of digits only; `None` for an empty text, any other byte, or more than `u64` holds.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A weight (RFC 9110 12.4.2) in thousandths: 0 to 1 with at most three decimals.
pub(crate) fn qvalue(text: &[u8]) -> Option<u16> {
    let (whole, decimals) = match text {
        [whole] => (*whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (*whole, decimals),
        _ => return None,
    };
    let mut thousandths = 0;
    for place in 0..3 {
        let digit = decimals.get(place).copied().unwrap_or(b'0');
        thousandths = thousandths * 10 + u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    match (whole, thousandths) {
        (b'0', _) => Some(thousandths),
        (b'1', 0) => Some(1000),
        _ => None,
    }
}

/// What a hexadecimal digit stands for, in either case (RFC 3986 2.1).
pub(crate) fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

static TOKEN: [bool; 256] = token_table();

const fn token_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z'
            | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_no_separators() {
        assert!(is_token(b"x-Custom_1.2"));
        for text in [&b""[..], b"a b", b"a:b", b"a/b", b"a\"", b"\x7f", b"\xc3\xa4", b"a\0"] {
            assert!(!is_token(text), "{text:?}");
        }
    }

    #[test]
    fn numbers_are_digits_within_64_bits() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for text in [&b"18446744073709551616"[..], b"", b"+1", b"-1", b"1 ", b"0x1", b"1,1"] {
            assert_eq!(decimal(text), None, "{text:?}");
        }
    }

    #[test]
    fn weights_are_thousandths_up_to_one() {
        let table: [(&[u8], u16); 9] = [
            (b"0", 0),
            (b"0.", 0),
            (b"0.000", 0),
            (b"0.001", 1),
            (b"0.12", 120),
            (b"0.999", 999),
            (b"1", 1000),
            (b"1.", 1000),
            (b"1.000", 1000),
        ];
        for (text, weight) in table {
            assert_eq!(qvalue(text), Some(weight), "{text:?}");
        }
        for text in [
            &b""[..],
            b".5",
            b"0.1234",
            b"1.0000",
            b"1.001",
            b"2",
            b"00",
            b"01",
            b"0.x",
            b"0,5",
            b"-0",
            b" 0",
        ] {
            assert_eq!(qvalue(text), None, "{text:?}");
        }
    }

    #[test]
    fn list_elements_are_trimmed_and_empty_ones_kept() {
        let all: Vec<&[u8]> = elements(b" a ,\tb,,c").collect();
        assert_eq!(all, [&b"a"[..], b"b", b"", b"c"]);
    }
}
