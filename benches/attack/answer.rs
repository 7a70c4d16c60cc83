//! Responses as they come in, as far as it must be known whether one is whole.

/// Bytes of a response's head beyond which it is none.
const HEAD_BYTES_MAX: usize = 8192;

/// The response that is coming in, and the one before it.
#[derive(Default)]
pub struct Answer {
    head: Vec<u8>,
    /// What is missing of the body; `None` within the head.
    body_left: Option<u64>,
    status: u16,
    /// Status of the last response that came whole.
    pub last: Option<u16>,
    /// Responses that came whole.
    pub count: u64,
}

impl Answer {
    /// Takes what was received.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.body_left {
                Some(left) => {
                    let taken = left.min(bytes.len() as u64);
                    bytes = &bytes[taken as usize..];
                    self.body_left = Some(left - taken);
                }
                None => bytes = self.take_head(bytes),
            }
            if self.body_left == Some(0) {
                self.body_left = None;
                self.last = Some(self.status);
                self.count += 1;
            }
        }
    }

    /// A part of a response has come.
    pub fn begun(&self) -> bool {
        self.body_left.is_some() || !self.head.is_empty()
    }

    /// Takes bytes of a head up to its end; what is behind it is given back.
    fn take_head<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let from = before.saturating_sub(3);
        let end = self.head[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| from + at + 4);
        let Some(end) = end else {
            self.head.truncate(HEAD_BYTES_MAX);
            return &[];
        };
        let text = String::from_utf8_lossy(&self.head[..end]).to_ascii_lowercase();
        let status = text.strip_prefix("http/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        self.status = status.unwrap_or(0);
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        self.body_left = Some(length.unwrap_or(0));
        self.head = Vec::new();
        &bytes[end - before..]
    }
}
