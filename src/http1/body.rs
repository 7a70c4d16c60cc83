//! The body of a request: pieces of data out of a length or of chunks (RFC 9112 6 and 7).
//!
//! The decoder keeps counters, never bytes: it can be stopped after any byte and continued with the next
//! buffer. Chunk extensions and trailers are checked, bounded and dropped.

use super::Refusal;
use crate::http::{
    Framing,
    syntax::{is_token_byte, is_value_byte},
};

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'b> {
    /// The next bytes of the body; never empty.
    Data(&'b [u8]),
    /// The input is used up and the body is not over.
    More,
    /// The body is over; bytes that were not consumed belong to the next request.
    End,
}

/// Decodes one body. A small value that fits where a connection's state is kept.
///
/// ```text
///                 Length: data ------------------------------------------------> end
/// Chunked: size -> (extension) -> LF -> data -> CR -> LF -> size ...
///                                  '-(0)-> line -> (name -> value -> LF -> line) -> CR LF -> end
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BodyDecoder {
    state: State,
    /// Digits of the chunk size so far.
    digits: u8,
    /// Bytes of extension in this chunk's line.
    line_bytes: u16,
    /// Bytes of extension in this body.
    extension_bytes: u16,
    /// Bytes of the trailer section.
    trailer_bytes: u16,
    /// Bytes left of the length or of this chunk.
    left: u64,
    /// Bytes that further chunks may still bring.
    allowed: u64,
}

/// Digits of a chunk size, leading zeros included: what 64 bits hold (RFC 9112 7.1 asks for care with overflow).
const SIZE_DIGITS_MAX: u8 = 16;

/// Bytes of extension, semicolons and spaces included, in the line of one chunk.
const EXTENSION_LINE_BYTES_MAX: u16 = 1024;

/// Bytes of extension in one body; they are a known way to make a server work for nothing (RFC 9112 7.1.1).
const EXTENSION_BYTES_MAX: u16 = 4096;

/// Bytes of the trailer section, line ends included.
const TRAILER_BYTES_MAX: u16 = 8192;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length,
    Size,
    ExtensionSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerLine,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
}

impl BodyDecoder {
    /// A decoder for a body of at most `body_bytes_max` bytes of data; 0 is unlimited.
    ///
    /// # Errors
    /// [`Refusal::BodyTooLarge`] at once for a length beyond the limit.
    pub fn new(framing: Framing, body_bytes_max: u64) -> Result<BodyDecoder, Refusal> {
        let allowed = if body_bytes_max == 0 { u64::MAX } else { body_bytes_max };
        let (state, left) = match framing {
            Framing::None | Framing::Length(0) => (State::End, 0),
            Framing::Length(length) if length > allowed => return Err(Refusal::BodyTooLarge),
            Framing::Length(length) => (State::Length, length),
            Framing::Chunked => (State::Size, 0),
        };
        Ok(BodyDecoder {
            state,
            digits: 0,
            line_bytes: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            left,
            allowed,
        })
    }

    /// Whether the body is over. True right after the last byte of a length, before a call returns
    /// [`Piece::End`].
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.state == State::End
    }

    /// Reads on: returns how many bytes of `input` were consumed, and what they were. To be called again with
    /// the rest after [`Piece::Data`], with new input after [`Piece::More`] (which consumes all of it).
    ///
    /// # Errors
    /// The framing is broken or a limit passed: no later byte of this connection can be trusted.
    pub fn decode<'b>(&mut self, input: &'b [u8]) -> Result<(usize, Piece<'b>), Refusal> {
        let mut at = 0;
        while self.state != State::End {
            let Some(&byte) = input.get(at) else { return Ok((at, Piece::More)) };
            if matches!(self.state, State::Length | State::Data) {
                let data = self.take(&input[at..]);
                return Ok((at + data.len(), Piece::Data(data)));
            }
            self.step(byte)?;
            at += 1;
        }
        Ok((at, Piece::End))
    }

    /// Takes what of `input` is data of the length or of this chunk.
    #[inline]
    fn take<'b>(&mut self, input: &'b [u8]) -> &'b [u8] {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
        self.left -= length as u64;
        if self.left == 0 {
            self.state = if self.state == State::Length { State::End } else { State::DataCr };
        }
        &input[..length]
    }

    /// Takes one byte of what is not data.
    fn step(&mut self, byte: u8) -> Result<(), Refusal> {
        self.state = match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeLf,
            (State::Size, b';') if self.digits > 0 => self.extend(State::Extension)?,
            // Whitespace that a sender should not write but a recipient MUST accept (RFC 9110 5.6.3) stands
            // before a semicolon only (RFC 9112 7.1.1).
            (State::Size | State::ExtensionSpace, b' ' | b'\t') if self.digits > 0 => {
                self.extend(State::ExtensionSpace)?
            }
            (State::Size, _) => self.add_digit(byte)?,
            (State::ExtensionSpace, b';') => self.extend(State::Extension)?,
            (State::ExtensionSpace, _) => return Err(Refusal::ChunkSize),
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, _) if is_value_byte(byte) => self.extend(State::Extension)?,
            (State::Extension, _) => return Err(Refusal::ChunkExtension),
            (State::SizeLf, b'\n') => self.begin_chunk()?,
            (State::SizeLf, _) => return Err(Refusal::ChunkSize),

            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::DataCr | State::DataLf, _) => return Err(Refusal::ChunkEnd),

            (State::TrailerLine, b'\r') => self.trail(State::EndLf)?,
            (State::TrailerLine | State::TrailerName, _) if is_token_byte(byte) => {
                self.trail(State::TrailerName)?
            }
            (State::TrailerName, b':') => self.trail(State::TrailerValue)?,
            (State::TrailerValue, b'\r') => self.trail(State::TrailerLf)?,
            (State::TrailerValue, _) if is_value_byte(byte) => self.trail(State::TrailerValue)?,
            (State::TrailerLf, b'\n') => self.trail(State::TrailerLine)?,
            (State::EndLf, b'\n') => self.trail(State::End)?,
            (
                State::TrailerLine
                | State::TrailerName
                | State::TrailerValue
                | State::TrailerLf
                | State::EndLf,
                _,
            ) => return Err(Refusal::TrailerMalformed),

            // `decode` does not come here with these.
            (State::Length | State::Data | State::End, _) => self.state,
        };
        Ok(())
    }

    /// One more digit of the chunk size. 16 of them fill 64 bits, so the shift loses nothing.
    fn add_digit(&mut self, byte: u8) -> Result<State, Refusal> {
        let digit = char::from(byte).to_digit(16).ok_or(Refusal::ChunkSize)?;
        if self.digits == SIZE_DIGITS_MAX {
            return Err(Refusal::ChunkSize);
        }
        self.digits += 1;
        self.left = self.left << 4 | u64::from(digit);
        Ok(State::Size)
    }

    /// The line of the chunk size is over.
    fn begin_chunk(&mut self) -> Result<State, Refusal> {
        self.digits = 0;
        self.line_bytes = 0;
        if self.left == 0 {
            return Ok(State::TrailerLine);
        }
        self.allowed = self.allowed.checked_sub(self.left).ok_or(Refusal::BodyTooLarge)?;
        Ok(State::Data)
    }

    /// Counts a byte of extension.
    fn extend(&mut self, next: State) -> Result<State, Refusal> {
        self.line_bytes = self.line_bytes.saturating_add(1);
        self.extension_bytes = self.extension_bytes.saturating_add(1);
        if self.line_bytes > EXTENSION_LINE_BYTES_MAX || self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(Refusal::ChunkExtension);
        }
        Ok(next)
    }

    /// Counts a byte of the trailer section.
    fn trail(&mut self, next: State) -> Result<State, Refusal> {
        self.trailer_bytes = self.trailer_bytes.saturating_add(1);
        if self.trailer_bytes > TRAILER_BYTES_MAX { Err(Refusal::TrailersTooLarge) } else { Ok(next) }
    }
}

const _: () = assert!(size_of::<BodyDecoder>() <= 32, "it is kept in a connection's state");

#[cfg(test)]
mod tests;
