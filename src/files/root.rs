//! A folder that is served: the descriptor below which every lookup stays.
//!
//! It opens the folder and nothing in it; `open` does that.

use std::{
    fs::{self, OpenOptions},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
};

use super::Negotiated;
use crate::{Error, Result, config::Coding};

/// Bits of a root's number. There are at most 1024 routes; above it is room for the number of a coding.
const ID_BITS: u32 = 14;

const _: () = assert!(Coding::COUNT < 1 << (u16::BITS - ID_BITS));

/// An open folder. The descriptor stays on the same folder when its name is given to another: a deployment that
/// swaps the folder itself needs a reload, one that swaps a link inside it does not.
#[derive(Debug)]
pub struct Root {
    id: u16,
    dir: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens `path`, following links. `id`, below 2^14, tells roots apart in a cache: one id for each route that serves files, since
    /// two routes can name the same folder with different media types.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] naming the path: missing, not a folder, or not searchable by this user.
    pub fn open(id: u16, path: &Path) -> Result<Root> {
        debug_assert!(id < 1 << ID_BITS);
        let failed = |source| Error::io(format_args!("cannot serve the folder {}", path.display()), &source);
        // O_PATH asks for no permission to list the folder, which serving does not need.
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let dir = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
        // Permission to search it, on the other hand, shows only when something in it is looked up.
        fs::metadata(path.join(".")).map_err(failed)?;
        Ok(Root { id, dir: dir.into(), path: path.to_path_buf() })
    }

    /// The number given when it was opened.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// The number under which a cache keeps what was opened so: codings apart from the files that they are codings of.
    pub fn id_of(&self, negotiated: Negotiated) -> u16 {
        match negotiated {
            Negotiated::No | Negotiated::Identity => self.id,
            Negotiated::Coded(coding) => self.id | (coding as u16 + 1) << ID_BITS,
        }
    }

    /// The folder's descriptor: good for looking up below it, not for reading it.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The path that it was opened by, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, sys::open::testing::as_nobody};
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

    #[test]
    fn opens_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(7, folder.path()).unwrap();
        assert_eq!((root.id(), root.path()), (7, folder.path()));
    }

    #[test]
    fn each_coding_has_a_number_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let numbers: std::collections::BTreeSet<u16> = [0, 1, (1 << ID_BITS) - 1]
            .into_iter()
            .map(|id| Root::open(id, folder.path()).unwrap())
            .flat_map(|root| {
                let of_codings = Coding::ALL.map(|coding| root.id_of(Negotiated::Coded(coding)));
                [root.id(), root.id_of(Negotiated::Identity)].into_iter().chain(of_codings)
            })
            .collect();
        assert_eq!(numbers.len(), 3 * (1 + Coding::COUNT));
    }

    #[test]
    fn says_which_folder_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing");
        let error = Root::open(0, &path).unwrap_err();
        assert_eq!((error.kind(), error.sys_errno()), (ErrorKind::Io, libc::ENOENT));
        assert!(error.message().contains(path.to_str().unwrap()), "{error}");
    }

    #[test]
    fn refuses_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        assert_eq!(Root::open(0, &path).unwrap_err().sys_errno(), libc::ENOTDIR);
    }

    #[test]
    fn refuses_a_folder_that_may_not_be_searched() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("closed");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let error = as_nobody(|| Root::open(0, &path)).unwrap_err();
        assert_eq!(error.sys_errno(), libc::EACCES);
    }

    #[test]
    fn accepts_a_folder_that_may_be_searched_but_not_listed() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        assert!(as_nobody(|| Root::open(0, folder.path())).is_ok());
    }
}
