//! Random bytes of the kernel (getrandom(2)), for secrets that are made on a thread of the host's: a library of
//! cryptography would keep something of its own there.

use std::io;

use super::check_size;

/// Fills `bytes`. Blocks only while a machine that has just been switched on has no entropy yet.
pub fn fill(mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: the kernel writes at most `bytes.len()` bytes to where `bytes` begins, which is borrowed mutably.
        let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        match check_size(filled as libc::c_long) {
            Ok(count) => bytes = &mut bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_every_byte() {
        let mut seen = [0u8; 1000];
        for _ in 0..20 {
            let mut bytes = [0; 1000];
            fill(&mut bytes).unwrap();
            seen.iter_mut().zip(bytes).for_each(|(seen, byte)| *seen |= byte);
        }
        assert!(seen.iter().all(|byte| *byte != 0));
        fill(&mut []).unwrap();
    }
}
