//! What the kernel says about this process. Read at a scrape, never by a shard's turn.

use std::{fs::File, io::Read};

/// Resident set size of this process in bytes: `VmRSS` of `/proc/self/status` (proc_pid_status(5)).
///
/// `None` when the file cannot be opened (no `/proc`, no descriptor left) or has no such line.
pub fn resident_bytes() -> Option<u64> {
    // The file is about 1.5 KB; the line stands in its first half.
    let mut text = [0; 4096];
    let mut filled = 0;
    let mut file = File::open("/proc/self/status").ok()?;
    while filled < text.len() {
        match file.read(&mut text[filled..]).ok()? {
            0 => break,
            count => filled += count,
        }
    }
    parse_resident(&text[..filled])
}

/// Finds `VmRSS:     1234 kB` and turns it into bytes.
fn parse_resident(status: &[u8]) -> Option<u64> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"VmRSS:"))?;
    let kilobytes = std::str::from_utf8(line).ok()?.trim().strip_suffix("kB")?.trim();
    kilobytes.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        assert!(resident_bytes().unwrap() > 4096);
    }

    #[test]
    fn parses_the_line_and_nothing_else() {
        assert_eq!(
            parse_resident(b"VmHWM:\t  9 kB\nVmRSS:\t    1234 kB\nRssAnon: 1 kB\n"),
            Some(1234 * 1024)
        );
        assert_eq!(parse_resident(b"VmRSS:\t1234\n"), None);
        assert_eq!(parse_resident(b"VmRSS:\t99999999999999999999 kB\n"), None);
        assert_eq!(parse_resident(b"VmRSS:\t18446744073709551615 kB\n"), None);
        assert_eq!(parse_resident(b""), None);
    }
}
