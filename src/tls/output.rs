//! Records on their way to a socket, in one buffer for all connections of a shard.

/// Ready for the largest flight of a handshake with an ordinary chain, and for the records of one write.
const OUTPUT_BYTES: usize = 64 << 10;

/// Records to be sent; empty between connections.
#[derive(Debug)]
pub struct Output {
    /// Initialised to its end, because the library writes into slices.
    bytes: Vec<u8>,
    filled: usize,
}

impl Default for Output {
    /// Empty; the memory comes with the first record.
    fn default() -> Self {
        Output { bytes: Vec::new(), filled: 0 }
    }
}

impl Output {
    /// What is to be sent.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Forgets everything; memory beyond the usual is given back.
    pub fn clear(&mut self) {
        self.filled = 0;
        if self.bytes.len() > OUTPUT_BYTES {
            self.bytes.truncate(OUTPUT_BYTES);
            self.bytes.shrink_to_fit();
        }
    }

    /// Room for at least so many bytes behind what is filled.
    pub(super) fn room(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.filled + bytes;
        if self.bytes.len() < end {
            self.bytes.resize(end.max(OUTPUT_BYTES), 0);
        }
        &mut self.bytes[self.filled..]
    }

    /// So many bytes of the room are filled.
    pub(super) fn add(&mut self, bytes: usize) {
        self.filled = (self.filled + bytes).min(self.bytes.len());
    }
}
