//! Each rule about a request body, and that no split of the input changes the outcome.

use super::*;

/// Feeds `pieces` in order. Returns data, bytes consumed and whether the body ended.
fn feed(mut decoder: BodyDecoder, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), Refusal> {
    let (mut data, mut total) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let (consumed, found) = decoder.decode(rest)?;
            total += consumed;
            rest = &rest[consumed..];
            match found {
                Piece::Data(bytes) => {
                    assert!(!bytes.is_empty() && bytes.len() <= consumed);
                    data.extend_from_slice(bytes);
                }
                Piece::More => {
                    assert!(rest.is_empty());
                    break;
                }
                Piece::End => {
                    assert!(decoder.is_finished());
                    return Ok((data, total, true));
                }
            }
        }
    }
    Ok((data, total, decoder.is_finished()))
}

fn chunked(input: &[u8]) -> Result<(Vec<u8>, usize, bool), Refusal> {
    feed(BodyDecoder::new(Framing::Chunked, 0).unwrap(), &[input])
}

fn refused(input: &[u8]) -> Refusal {
    match chunked(input) {
        Err(refusal) => refusal,
        Ok(found) => panic!("{found:?}: {:?}", String::from_utf8_lossy(input)),
    }
}

#[test]
fn no_body_ends_at_once_and_consumes_nothing() {
    for framing in [Framing::None, Framing::Length(0)] {
        let mut decoder = BodyDecoder::new(framing, 1).unwrap();
        assert!(decoder.is_finished());
        assert_eq!(decoder.decode(b"GET"), Ok((0, Piece::End)));
        assert_eq!(decoder.decode(b""), Ok((0, Piece::End)));
    }
}

#[test]
fn a_length_takes_that_many_bytes() {
    let mut decoder = BodyDecoder::new(Framing::Length(5), 0).unwrap();
    assert_eq!(decoder.decode(b""), Ok((0, Piece::More)));
    assert_eq!(decoder.decode(b"ab"), Ok((2, Piece::Data(b"ab"))));
    assert!(!decoder.is_finished());
    assert_eq!(decoder.decode(b"cdeGET"), Ok((3, Piece::Data(b"cde"))));
    assert!(decoder.is_finished());
    assert_eq!(decoder.decode(b"GET"), Ok((0, Piece::End)));
}

#[test]
fn a_length_is_bounded_before_its_first_byte() {
    assert!(BodyDecoder::new(Framing::Length(100), 100).is_ok());
    assert_eq!(BodyDecoder::new(Framing::Length(101), 100).err(), Some(Refusal::BodyTooLarge));
    assert!(BodyDecoder::new(Framing::Length(u64::MAX), 0).is_ok());
}

#[test]
fn chunks_are_joined() {
    let input = b"5\r\nhello\r\nB\r\n, wide worl\r\n01\r\nd\r\n0\r\n\r\nGET";
    assert_eq!(chunked(input), Ok((b"hello, wide world".to_vec(), input.len() - 3, true)));
    assert_eq!(chunked(b"0\r\n\r\n"), Ok((vec![], 5, true)));
    assert_eq!(chunked(b"000\r\n\r\n"), Ok((vec![], 7, true)));
}

#[test]
fn an_unfinished_body_wants_more() {
    let input = b"5;x\r\nhello\r\n0\r\nA: b\r\n\r\n";
    for end in 0..input.len() {
        let (_, consumed, finished) = chunked(&input[..end]).unwrap();
        assert_eq!((consumed, finished), (end, false));
    }
}

#[test]
fn a_chunk_size_is_hexadecimal_digits_only() {
    for input in [
        &b"\r\n"[..],
        b" 5\r\n",
        b"+5\r\n",
        b"-5\r\n",
        b"0x5\r\n",
        b"g\r\n",
        b"5 5\r\n",
        b"5 \r\n",
        b"5\t\r\n",
        b"5\n",
        b"5\r\r\n",
        b"5\rx",
        b";x\r\n",
        b"5,\r\n",
        b"5_0\r\n",
        b"\0",
        b"\n",
        b"5\0\r\n",
        b"5 \n",
    ] {
        assert_eq!(refused(input), Refusal::ChunkSize, "{:?}", String::from_utf8_lossy(input));
    }
}

#[test]
fn a_chunk_size_has_16_digits_at_most() {
    assert_eq!(chunked(b"ffffffffffffffff\r\nab").unwrap(), (b"ab".to_vec(), 20, false));
    assert_eq!(chunked(b"0000000000000002\r\nab").unwrap(), (b"ab".to_vec(), 20, false));
    assert_eq!(refused(b"00000000000000002\r\n"), Refusal::ChunkSize);
    assert_eq!(refused(b"10000000000000000\r\n"), Refusal::ChunkSize);
}

#[test]
fn chunks_are_bounded_together() {
    let limited = |input: &[u8]| feed(BodyDecoder::new(Framing::Chunked, 10).unwrap(), &[input]);
    assert_eq!(limited(b"6\r\nabcdef\r\n4\r\nghij\r\n0\r\n\r\n").unwrap().0.len(), 10);
    assert_eq!(limited(b"6\r\nabcdef\r\n5\r\n"), Err(Refusal::BodyTooLarge));
    assert_eq!(limited(b"b\r\n"), Err(Refusal::BodyTooLarge));
    assert_eq!(limited(b"ffffffffffffffff\r\n"), Err(Refusal::BodyTooLarge));
}

#[test]
fn sizes_do_not_overflow_without_a_limit() {
    let mut decoder = BodyDecoder::new(Framing::Chunked, 0).unwrap();
    assert_eq!(decoder.decode(b"1\r\na\r\n").unwrap(), (4, Piece::Data(b"a")));
    assert_eq!(decoder.decode(b"\r\nffffffffffffffff\r\n"), Err(Refusal::BodyTooLarge));
}

#[test]
fn a_chunk_ends_with_cr_lf() {
    for input in [&b"1\r\nab"[..], b"1\r\na\n", b"1\r\na\rb", b"1\r\na\r\r\n", b"1\r\nab\r\n"] {
        assert_eq!(refused(input), Refusal::ChunkEnd, "{:?}", String::from_utf8_lossy(input));
    }
}

#[test]
fn extensions_are_skipped() {
    for line in ["1;a", "1;a=b;c=\"d;e\"", "1 ; a = b", "1\t;a\t", "1;\u{e4}"] {
        let input = format!("{line}\r\nx\r\n0;last\r\n\r\n");
        assert_eq!(chunked(input.as_bytes()), Ok((b"x".to_vec(), input.len(), true)), "{line}");
    }
    for input in [&b"1;a\n"[..], b"1;a\0\r\n", b"1;a\x7f\r\n", b"1;\"\n\"\r\n"] {
        assert_eq!(refused(input), Refusal::ChunkExtension);
    }
    assert_eq!(refused(b"1;a\rb\n"), Refusal::ChunkSize);
}

#[test]
fn the_extension_of_a_line_is_bounded() {
    let line = |length: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(length - 1)).into_bytes();
    let most = usize::from(EXTENSION_LINE_BYTES_MAX);
    assert!(chunked(&line(most)).is_ok());
    assert_eq!(refused(&line(most + 1)), Refusal::ChunkExtension);
    let spaces = format!("1{}", " ".repeat(most + 1));
    assert_eq!(refused(spaces.as_bytes()), Refusal::ChunkExtension);
}

#[test]
fn the_extensions_of_a_body_are_bounded() {
    let line = format!("1;{}\r\nx\r\n", "a".repeat(1023));
    let most = line.repeat(usize::from(EXTENSION_BYTES_MAX) / 1024);
    assert!(chunked(format!("{most}0\r\n\r\n").as_bytes()).is_ok());
    assert_eq!(refused(format!("{most}0;\r\n\r\n").as_bytes()), Refusal::ChunkExtension);
}

#[test]
fn trailers_are_checked_and_dropped() {
    let input = b"1\r\nx\r\n0\r\nA: b\r\nEmpty:\r\nC:d \t\r\n\r\nGET";
    assert_eq!(chunked(input), Ok((b"x".to_vec(), input.len() - 3, true)));
    for trailer in [
        &b" A: b\r\n"[..],
        b"A : b\r\n",
        b"A\r\n",
        b": b\r\n",
        b"A: b\n",
        b"A: \0\r\n",
        b"A: b\r\n c\r\n",
        b"A: b\rc",
        b"\rx",
        b"\n",
        b"A(: b\r\n",
        b"\r\r\n",
    ] {
        let input = [b"0\r\n", trailer].concat();
        assert_eq!(refused(&input), Refusal::TrailerMalformed, "{:?}", String::from_utf8_lossy(&input));
    }
}

#[test]
fn trailers_are_bounded() {
    let trailers = |length: usize| format!("0\r\nA:{}\r\n\r\n", "b".repeat(length - 6)).into_bytes();
    let most = usize::from(TRAILER_BYTES_MAX);
    assert!(chunked(&trailers(most)).is_ok());
    assert_eq!(refused(&trailers(most + 1)), Refusal::TrailersTooLarge);
    let endless = [&b"0\r\n"[..], &b"A: b\r\n".repeat(most)].concat();
    assert_eq!(refused(&endless), Refusal::TrailersTooLarge);
}

#[test]
fn no_split_changes_the_outcome() {
    let inputs = [
        &b"5\r\nhello\r\n6 ;e=\"f\"\r\n world\r\n0;g\r\nA: b\r\nC:\r\n\r\nGET / "[..],
        b"0\r\n\r\n",
        b"1\r\nab",
        b"5\r\nhello\r\n0x\r\n",
        b"3;\0",
        b"2\r\nab\r\n0\r\nA b\r\n",
        b"ffffffffffffffff\r\nabc",
    ];
    let framings = [Framing::Chunked, Framing::Length(7), Framing::Length(40)];
    for input in inputs {
        for framing in framings {
            let decoder = BodyDecoder::new(framing, 0).unwrap();
            let whole = feed(decoder, &[input]);
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            assert_eq!(feed(decoder, &bytes), whole);
            for first in 0..=input.len() {
                for second in first..=input.len() {
                    let pieces = [&input[..first], &input[first..second], &input[second..]];
                    assert_eq!(feed(decoder, &pieces), whole, "{pieces:?}");
                }
            }
        }
    }
}

#[test]
fn a_refused_decoder_can_be_called_again_without_harm() {
    let mut decoder = BodyDecoder::new(Framing::Chunked, 0).unwrap();
    assert!(decoder.decode(b"1;").is_ok());
    for _ in 0..70_000 {
        // Whatever the answer, it is one.
        let _ = decoder.decode(b"aaaa");
    }
    assert_eq!(decoder.decode(b"a"), Err(Refusal::ChunkExtension));
}
