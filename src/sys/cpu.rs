//! How many cores this process may use: its affinity and its cgroup's quota.

use std::{fs, io, mem::MaybeUninit, path::Path};

use super::{cgroup::Groups, check};

/// The cores in the calling thread's affinity mask (sched_getaffinity(2)), lowest first.
pub fn allowed() -> io::Result<Vec<usize>> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the kernel writes at most the given size into the set.
    check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) })?;
    // SAFETY: all zeros is a valid set, and the call above filled it.
    let set = unsafe { set.assume_init() };
    let bits = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: each index is below CPU_SETSIZE.
    Ok((0..bits).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect())
}

/// Cores to run shards on: the affinity mask, lowered to the cgroup's CPU quota (rounded up), at least 1.
pub fn usable() -> usize {
    let cores = allowed().map_or(1, |cores| cores.len()).max(1);
    match quota(&Groups::own()) {
        Some(quota) => cores.min(quota),
        None => cores,
    }
}

/// The smallest quota (version 2, `cpu.max`; version 1, `cpu.cfs_quota_us`).
fn quota(groups: &Groups<'_>) -> Option<usize> {
    groups.smallest("cpu", read_v2, read_v1)
}

fn read_v2(folder: &Path) -> Option<usize> {
    let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
    let mut words = text.split_ascii_whitespace();
    cores(words.next()?.parse().ok()?, words.next()?.parse().ok()?)
}

fn read_v1(folder: &Path) -> Option<usize> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<i64>().ok();
    cores(read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?)
}

fn cores(quota: i64, period: i64) -> Option<usize> {
    let (quota, period) = (u64::try_from(quota).ok()?, u64::try_from(period).ok()?);
    if quota == 0 || period == 0 {
        return None;
    }
    usize::try_from(quota.div_ceil(period)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cgroup::testing::folder;

    fn quota_of(files: &[(&str, &str)]) -> Option<usize> {
        let folder = folder(files);
        let (mount, membership) = (folder.path().join("cgroup"), folder.path().join("self"));
        quota(&Groups { mount: &mount, membership: &membership })
    }

    #[test]
    fn rounds_a_quota_up_and_takes_the_smallest_on_the_way_up() {
        let files = [
            ("cgroup/a/b/cpu.max", "350000 100000\n"),
            ("cgroup/a/cpu.max", "150000 100000\n"),
            ("self", "0::/a/b\n"),
        ];
        assert_eq!(quota_of(&files), Some(2));
    }

    #[test]
    fn no_limit_is_no_quota() {
        assert_eq!(quota_of(&[("cgroup/a/cpu.max", "max 100000\n"), ("self", "0::/a\n")]), None);
    }

    #[test]
    fn reads_version_1() {
        let files = [
            ("cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n"),
            ("cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
            ("self", "4:cpu,cpuacct:/x\n3:memory:/x\n"),
        ];
        assert_eq!(quota_of(&files), Some(1));
    }

    #[test]
    fn this_process_may_use_a_core() {
        assert!(usable() >= 1);
        assert!(usable() <= allowed().unwrap().len());
    }
}
