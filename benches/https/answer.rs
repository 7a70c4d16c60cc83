//! Answers as they arrive: all must be whole, have status 200 and the length of the file; of the bytes some are looked at.

use super::File;
use crate::common::Outcome;

/// A head longer than this is none that was asked for.
const HEAD_BYTES_MAX: usize = 4096;

/// The answer that is being received.
#[derive(Default)]
pub struct Answer {
    head: Vec<u8>,
    /// Bytes of the body that came, once the head is complete.
    body: Option<usize>,
}

impl Answer {
    /// Takes what came; true when the answer is complete. Then another may follow.
    ///
    /// # Errors
    /// It is not the right answer.
    pub fn take(&mut self, mut piece: &[u8], file: File) -> Outcome<bool> {
        if self.body.is_none() {
            let begun = self.head.len();
            self.head.extend_from_slice(&piece[..piece.len().min(HEAD_BYTES_MAX)]);
            let Some(at) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
                return if self.head.len() < HEAD_BYTES_MAX { Ok(false) } else { Err(self.wrong("no end")) };
            };
            piece = &piece[at + 4 - begun..];
            self.head.truncate(at + 2);
            self.check_head(file)?;
            self.body = Some(0);
        }
        let came = self.body.unwrap_or(0);
        let through = came + piece.len();
        let right = match piece {
            [] => true,
            [first, .., last] => *first == File::byte(came) && *last == File::byte(through - 1),
            [one] => *one == File::byte(came),
        };
        if !right || through > file.0 {
            return Err(format!("wrong bytes from {came} to {through} of {}", file.0));
        }
        self.body = Some(through);
        let complete = through == file.0;
        if complete {
            self.head.clear();
            self.body = None;
        }
        Ok(complete)
    }

    fn check_head(&self, file: File) -> Outcome<()> {
        let head = String::from_utf8_lossy(&self.head);
        let mut lines = head.lines();
        if !lines.next().is_some_and(|line| line.starts_with("HTTP/1.1 200 ")) {
            return Err(self.wrong("no 200"));
        }
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
        });
        if length == Some(Ok(file.0)) { Ok(()) } else { Err(self.wrong("another length")) }
    }

    fn wrong(&self, what: &str) -> String {
        format!("an answer with {what}: {}", String::from_utf8_lossy(&self.head))
    }
}
