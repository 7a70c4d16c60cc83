//! Limits of this process's control group (cgroups(7)), in both versions.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where control groups are mounted, and which of them the process is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups<'a> {
    pub mount: &'a Path,
    pub membership: &'a Path,
}

/// A limit as it stands in the folder of one group; `None` where there is none.
pub(super) type Read<T> = fn(&Path) -> Option<T>;

impl Groups<'static> {
    /// Those of this process.
    pub(super) fn own() -> Self {
        Groups { mount: Path::new("/sys/fs/cgroup"), membership: Path::new("/proc/self/cgroup") }
    }
}

impl Groups<'_> {
    /// The smallest limit from this process's group up to the root: read with `read_v2` in version 2, with `read_v1` in
    /// the hierarchy of `controller` where version 1 is what is mounted.
    pub(super) fn smallest<T: Ord>(&self, controller: &str, read_v2: Read<T>, read_v1: Read<T>) -> Option<T> {
        let membership = fs::read_to_string(self.membership).ok()?;
        let mut smallest = None;
        for line in membership.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let (base, read): (PathBuf, Read<T>) = if controllers.is_empty() {
                (self.mount.to_path_buf(), read_v2)
            } else if controllers.split(',').any(|name| name == controller) {
                (self.mount.join(controllers), read_v1)
            } else {
                continue;
            };
            let mut folder = base.join(path.trim_start_matches('/'));
            // Inside a container the path may name a folder that is not visible; the walk up ends at the mount.
            while folder.starts_with(&base) {
                smallest = match (smallest, read(&folder)) {
                    (Some(least), Some(limit)) => Some(std::cmp::min(least, limit)),
                    (least, limit) => least.or(limit),
                };
                if !folder.pop() {
                    break;
                }
            }
        }
        smallest
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::fs;

    /// A folder with these files in it.
    pub(crate) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }
}
