//! How much memory this process may use: what the machine has, and its control group's limit.

use std::{fs, path::Path};

use super::{cgroup::Groups, open::page_bytes};

/// Physical memory in bytes, or the smallest limit of this process's control groups if that is less. 1 GB when the
/// system does not say.
pub fn usable_bytes() -> u64 {
    const UNKNOWN_BYTES: u64 = 1 << 30;
    let physical = physical_bytes().unwrap_or(UNKNOWN_BYTES);
    limit(&Groups::own()).map_or(physical, |limit| limit.min(physical))
}

/// Installed memory (sysconf(3)).
fn physical_bytes() -> Option<u64> {
    // SAFETY: has no preconditions.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    u64::try_from(pages).ok()?.checked_mul(page_bytes() as u64).filter(|bytes| *bytes > 0)
}

fn limit(groups: &Groups<'_>) -> Option<u64> {
    groups.smallest(
        "memory",
        |folder| read(&folder.join("memory.max")),
        |folder| read(&folder.join("memory.limit_in_bytes")),
    )
}

/// A number of bytes; `max` of version 2 is none, and the largest one of version 1 is more than any machine has.
fn read(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cgroup::testing::folder;

    fn limit_of(files: &[(&str, &str)]) -> Option<u64> {
        let folder = folder(files);
        let (mount, membership) = (folder.path().join("cgroup"), folder.path().join("self"));
        limit(&Groups { mount: &mount, membership: &membership })
    }

    #[test]
    fn takes_the_smallest_limit_on_the_way_up() {
        let files = [
            ("cgroup/a/b/memory.max", "max\n"),
            ("cgroup/a/memory.max", "67108864\n"),
            ("cgroup/memory.max", "134217728\n"),
            ("self", "0::/a/b\n"),
        ];
        assert_eq!(limit_of(&files), Some(64 << 20));
        assert_eq!(limit_of(&[("cgroup/a/memory.max", "max\n"), ("self", "0::/a\n")]), None);
        assert_eq!(limit_of(&[("self", "")]), None);
    }

    #[test]
    fn reads_version_1() {
        let files = [
            ("cgroup/memory/x/memory.limit_in_bytes", "33554432\n"),
            ("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("self", "5:memory:/x\n4:cpu,cpuacct:/\n0::/\n"),
        ];
        assert_eq!(limit_of(&files), Some(32 << 20));
    }

    #[test]
    fn this_process_may_use_some_and_no_more_than_there_is() {
        let usable = usable_bytes();
        assert!(usable >= 16 << 20 && usable <= physical_bytes().unwrap(), "{usable}");
    }
}
