//! Request bodies: `http1::BodyDecoder`. The first line of the input is the limit in bytes, what follows the body.
//!
//! However a body arrives it is the same data, never more than the limit, and a chunked one is what a plain reader
//! that has all of it in hand makes of it.

use webserver::{
    http::Framing,
    http1::{BodyDecoder, Piece, Refusal},
};

/// Sizes of the pieces that a body arrives in, beside all of it at once.
const STEPS: [usize; 5] = [1, 2, 3, 7, 64];

/// Digits that fill 64 bits.
const SIZE_DIGITS_MAX: usize = 16;

/// What came of a body.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    data: Vec<u8>,
    end: Result<End, Refusal>,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The body is over after so many bytes.
    Finished(usize),
    /// All bytes were consumed and more are wanted.
    Unfinished,
}

/// Checks one input; whether it is a whole chunked body.
pub fn check(input: &[u8]) -> bool {
    let (limit, body) = super::first_line(input);
    let limit = super::number(limit);
    check_length(body, limit);
    let decoder = BodyDecoder::new(Framing::Chunked, limit).expect("only a length is refused at once");
    let whole = check_pieces(decoder, body);
    assert!(limit == 0 || whole.data.len() as u64 <= limit, "{} bytes of {limit}", whole.data.len());
    let reference = dechunk(body);
    match whole.end {
        Ok(End::Finished(used)) => assert_eq!(reference, Some((whole.data, used))),
        Ok(End::Unfinished) => assert_eq!(reference, None),
        // Limits that the plain reader does not have.
        Err(Refusal::BodyTooLarge | Refusal::ChunkExtension | Refusal::TrailersTooLarge) => {}
        Err(refusal) => assert_eq!(reference, None, "{refusal:?}"),
    }
    matches!(whole.end, Ok(End::Finished(_)))
}

/// A body with a length is as many bytes, whatever they are.
fn check_length(body: &[u8], limit: u64) {
    for length in [0, 1, body.len() / 2, body.len(), body.len() + 1] {
        let allowed = limit == 0 || length as u64 <= limit;
        match BodyDecoder::new(Framing::Length(length as u64), limit) {
            Err(refusal) => assert_eq!((refusal, allowed), (Refusal::BodyTooLarge, false)),
            Ok(decoder) => {
                assert!(allowed);
                let whole = check_pieces(decoder, body);
                let end = if length <= body.len() { End::Finished(length) } else { End::Unfinished };
                assert_eq!(whole, Outcome { data: body[..length.min(body.len())].to_vec(), end: Ok(end) });
            }
        }
    }
}

/// Decodes `input` at once, and in pieces with the same outcome.
fn check_pieces(decoder: BodyDecoder, input: &[u8]) -> Outcome {
    let whole = run(decoder, input, input.len().max(1));
    for step in STEPS {
        assert_eq!(run(decoder, input, step), whole, "in pieces of {step}");
    }
    whole
}

fn run(mut decoder: BodyDecoder, input: &[u8], step: usize) -> Outcome {
    let (mut data, mut at, mut end) = (Vec::new(), 0, 0);
    let outcome = loop {
        let available = &input[at..end];
        let (used, piece) = match decoder.decode(available) {
            Ok(decoded) => decoded,
            Err(refusal) => break Err(refusal),
        };
        assert!(used <= available.len(), "{used} of {}", available.len());
        at += used;
        match piece {
            Piece::Data(bytes) => {
                assert!(!bytes.is_empty() && input[..at].ends_with(bytes));
                data.extend_from_slice(bytes);
            }
            Piece::End => {
                assert!(decoder.is_finished());
                assert_eq!(decoder.decode(&input[at..]), Ok((0, Piece::End)), "it stays over");
                break Ok(End::Finished(at));
            }
            Piece::More => {
                assert!(at == end && !decoder.is_finished());
                if end == input.len() {
                    break Ok(End::Unfinished);
                }
                end = (end + step).min(input.len());
            }
        }
    };
    Outcome { data, end: outcome }
}

/// RFC 9112 7.1 read line by line: the data of a whole chunked body and its length, trailers included. `None` if it is
/// malformed or not whole.
fn dechunk(body: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut rest = body;
    let mut data = Vec::new();
    loop {
        let line = take_line(&mut rest)?;
        let (digits, extension) = match line.iter().position(|byte| b"; \t".contains(byte)) {
            Some(end) => line.split_at(end),
            None => (line, &b""[..]),
        };
        // Whitespace and then a semicolon, or nothing at all.
        let marked = extension.iter().find(|byte| !b" \t".contains(byte)) == Some(&b';');
        if digits.len() > SIZE_DIGITS_MAX
            || !digits.iter().all(u8::is_ascii_hexdigit)
            || !(extension.is_empty() || marked)
            || !super::is_value(extension)
        {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        data.extend_from_slice(rest.get(..size)?);
        rest = rest[size..].strip_prefix(b"\r\n")?;
    }
    loop {
        let line = take_line(&mut rest)?;
        if line.is_empty() {
            return Some((data, body.len() - rest.len()));
        }
        let colon = line.iter().position(|&byte| byte == b':')?;
        if !super::is_token(&line[..colon]) || !super::is_value(line) {
            return None;
        }
    }
}

/// The bytes before the first CR LF, and `rest` what follows it.
fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}
