//! What is in a folder, for a listing: names, sizes and times of what could be served.
//!
//! It waits for the storage, so it runs off the shard. It knows no format; that is `service`'s.

use std::io;

use super::{FileError, Root, file::unix_seconds};
use crate::sys::{
    folder::Names,
    open::{self as sys, FileKind, Lookup},
};

/// Entries of a folder that are looked at; a larger one is cut.
pub const ENTRIES_MAX: usize = 10_000;

/// Names that are read while entries are looked for, hidden ones included.
const NAMES_MAX: usize = 100_000;

/// A folder's entries, in no order.
#[derive(Debug, Default)]
pub struct Folder {
    /// At most [`ENTRIES_MAX`].
    pub entries: Vec<Entry>,
    /// There were more.
    pub is_cut: bool,
}

/// A file or a folder in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name: bytes, 255 at most, UTF-8 or not.
    pub name: Box<[u8]>,
    /// A folder, not a file.
    pub is_folder: bool,
    /// Length of a file in bytes.
    pub size: u64,
    /// Last modification in seconds since 1970.
    pub modified_unix_seconds: u64,
}

/// Lists the folder `path` (empty, or ending in a slash) below `root`: regular files and folders, and links to such
/// that stay inside the root. Names that begin with a dot are left out unless `with_dotfiles`.
///
/// Each entry costs three system calls. What goes away meanwhile is left out.
///
/// # Errors
/// The folder is not there, is none, or may not be read.
pub fn list(root: &Root, path: &[u8], with_dotfiles: bool) -> Result<Folder, FileError> {
    let failed = |error: io::Error| FileError::from_open(&error);
    let place = if path.is_empty() { b"." } else { path };
    let open = sys::openat2(root.dir(), place, Lookup::Blocking, libc::O_DIRECTORY).map_err(failed)?;
    let mut names = Names::of(open);
    let mut folder = Folder::default();
    let mut place = path.to_vec();
    let mut read = 0;
    while let Some(name) = names.read().map_err(failed)? {
        read += 1;
        if folder.entries.len() == ENTRIES_MAX || read > NAMES_MAX {
            folder.is_cut = true;
            break;
        }
        if name.starts_with(b".") && !with_dotfiles {
            continue;
        }
        place.truncate(path.len());
        place.extend_from_slice(name);
        folder.entries.extend(entry(root, &place, name));
    }
    Ok(folder)
}

/// The entry at `place`, if it is something that could be served.
fn entry(root: &Root, place: &[u8], name: &[u8]) -> Option<Entry> {
    use std::os::fd::AsFd as _;
    // From the root on, so that a link that leads out of it is not followed, and one that leads back is.
    let found = sys::find(root.dir(), place).ok()?;
    let stat = sys::stat(found.as_fd()).ok()?;
    let is_folder = match stat.kind {
        FileKind::Regular => false,
        FileKind::Directory => true,
        FileKind::Other => return None,
    };
    Some(Entry {
        name: name.into(),
        is_folder,
        size: if is_folder { 0 } else { stat.size },
        modified_unix_seconds: unix_seconds(stat.mtime_ns),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::sys::open::testing::{as_nobody, make_fifo};

    fn names(folder: &Folder) -> Vec<String> {
        let text = |entry: &Entry| {
            let kind = if entry.is_folder { "/" } else { "" };
            format!("{}{kind} {}", String::from_utf8_lossy(&entry.name), entry.size)
        };
        let mut names: Vec<String> = folder.entries.iter().map(text).collect();
        names.sort();
        names
    }

    #[test]
    fn lists_what_could_be_served() {
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("site");
        fs::create_dir_all(site.join("sub/deep")).unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        fs::write(site.join("a"), "12345").unwrap();
        fs::write(site.join(".hidden"), "").unwrap();
        fs::write(site.join("sub/b"), "b").unwrap();
        make_fifo(&site.join("fifo"));
        symlink("a", site.join("link")).unwrap();
        symlink("../a", site.join("sub/up")).unwrap();
        symlink("sub", site.join("folder")).unwrap();
        symlink("../secret", site.join("out")).unwrap();
        symlink(folder.path().join("secret"), site.join("absolute")).unwrap();
        symlink("nowhere", site.join("broken")).unwrap();
        let root = Root::open(0, &site).unwrap();
        let plain = list(&root, b"", false).unwrap();
        assert_eq!(names(&plain), ["a 5", "folder/ 0", "link 5", "sub/ 0"]);
        assert!(!plain.is_cut);
        assert_eq!(names(&list(&root, b"", true).unwrap())[0], ".hidden 0");
        assert_eq!(names(&list(&root, b"sub/", false).unwrap()), ["b 1", "deep/ 0", "up 5"]);
        assert_eq!(names(&list(&root, b"sub/deep/", false).unwrap()), [""; 0]);
        for (path, error) in [
            (&b"a/"[..], FileError::NotFound),
            (b"missing/", FileError::NotFound),
            (b"../", FileError::NotFound),
            (b"out/", FileError::NotFound),
        ] {
            assert_eq!(list(&root, path, false).unwrap_err(), error);
        }
    }

    #[test]
    fn a_folder_that_may_not_be_read_is_forbidden() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let root = Root::open(0, folder.path()).unwrap();
        assert_eq!(as_nobody(|| list(&root, b"", false)).unwrap_err(), FileError::Forbidden);
    }

    #[test]
    fn a_large_folder_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "").unwrap();
        for n in 1..ENTRIES_MAX {
            fs::hard_link(folder.path().join("a"), folder.path().join(n.to_string())).unwrap();
        }
        let root = Root::open(0, folder.path()).unwrap();
        let whole = list(&root, b"", false).unwrap();
        assert_eq!((whole.entries.len(), whole.is_cut), (ENTRIES_MAX, false));
        fs::write(folder.path().join("one more"), "").unwrap();
        let cut = list(&root, b"", false).unwrap();
        assert_eq!((cut.entries.len(), cut.is_cut), (ENTRIES_MAX, true));
    }
}
