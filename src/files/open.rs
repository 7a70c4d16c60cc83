//! Looking a file up below a root and, when it is small, reading it.
//!
//! One call, on the shard with what the kernel has in memory or on the blocking pool with patience; the result can
//! travel between the two. It keeps nothing, caches nothing and never waits unless asked to.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use bytes::Bytes;

use super::{Negotiated, OpenFile, Root};
use crate::{
    http::mime,
    sys::open::{self as sys, FileKind, Lookup},
};

/// Largest file whose bytes are kept in memory, unless told otherwise: 16 KB.
pub const CONTENT_FILE_BYTES: usize = 16 << 10;

/// Largest file whose bytes are ever kept in memory, whatever is asked: 64 KB.
pub const CONTENT_FILE_BYTES_MAX: usize = 64 << 10;

/// Longest media type that is used, in bytes.
pub(super) const MEDIA_TYPE_BYTES_MAX: usize = 1024;

/// Longest extension that can have a media type, in bytes.
const EXTENSION_BYTES_MAX: usize = 32;

const MEDIA_TYPE_UNKNOWN: &str = "application/octet-stream";

/// Whether looking a file up may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Never blocks: path and content come from memory, or the answer is [`Opened::WouldBlock`].
    Cached,
    /// As long as the storage takes: for the blocking pool.
    Blocking,
}

/// What was found. `Send`, so that the blocking pool can make it.
#[derive(Debug)]
pub enum Opened {
    /// A regular file, open for reading.
    File(OpenFile),
    /// A folder.
    Directory,
    /// Nothing that can be served.
    Failed(FileError),
    /// Only with [`How::Cached`]: look again with [`How::Blocking`].
    WouldBlock,
}

/// Why a path gives no file. The scope is one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileError {
    /// There is no such name, a part of the path is no folder, links go in circles or lead out of the root, or the
    /// file system cannot have such a name.
    NotFound,
    /// This user may not read it.
    Forbidden,
    /// A FIFO, socket or device: answered as forbidden, and never read.
    NotRegular,
    /// A folder.
    IsDirectory,
    /// Out of descriptors or of kernel memory; passes.
    Exhausted,
    /// The storage failed with this `errno`.
    Io(i32),
}

impl FileError {
    /// The status to answer with. A folder is the caller's to redirect or to list; refused, it is 403.
    pub fn status(self) -> u16 {
        match self {
            FileError::NotFound => 404,
            FileError::Forbidden | FileError::NotRegular | FileError::IsDirectory => 403,
            FileError::Exhausted => 503,
            FileError::Io(_) => 500,
        }
    }

    /// Whether asking again soon gives the same answer, so that it can be remembered.
    pub(super) fn is_lasting(self) -> bool {
        match self {
            FileError::NotFound | FileError::Forbidden | FileError::NotRegular | FileError::IsDirectory => {
                true
            }
            FileError::Exhausted | FileError::Io(_) => false,
        }
    }

    pub(super) fn from_open(error: &io::Error) -> Self {
        match error.raw_os_error().unwrap_or(libc::EIO) {
            // EXDEV: the kernel stopped at the root's edge. EINVAL and EILSEQ: a file system that wants UTF-8 or has
            // forbidden characters, since the flags were probed at start.
            libc::ENOENT
            | libc::ENOTDIR
            | libc::ELOOP
            | libc::ENAMETOOLONG
            | libc::EXDEV
            | libc::EINVAL
            | libc::EILSEQ => FileError::NotFound,
            libc::EACCES | libc::EPERM => FileError::Forbidden,
            // A socket, or a device without a driver.
            libc::ENXIO | libc::ENODEV => FileError::NotRegular,
            libc::EMFILE | libc::ENFILE | libc::ENOMEM => FileError::Exhausted,
            errno => FileError::Io(errno),
        }
    }
}

/// Looks up `path` (as [`super::path::decode`] returns it: relative, decoded) below `root`, or, for a coding, the file
/// beside it that has the coding's suffix, and reads the file when it has at most `content_bytes_max` bytes (and at most [`CONTENT_FILE_BYTES_MAX`]); 0 reads none but empty files.
///
/// `types` gives media types by extension (lower case, without dot) before the built-in table is asked; a file of
/// neither is `application/octet-stream`. `now_unix_seconds` bounds `Last-Modified`.
///
/// Symbolic links are followed inside the root; one that leads out, or is absolute, is [`FileError::NotFound`]. A file
/// that changes while it is read is served from its descriptor. Costs an `openat2` and an `fstat`, with content a read
/// and an `fstat` more, and allocates the file's header fields and content.
pub fn open(
    root: &Root,
    path: &[u8],
    negotiated: Negotiated,
    how: How,
    content_bytes_max: usize,
    types: &BTreeMap<String, String>,
    now_unix_seconds: u64,
) -> Opened {
    let lookup = match how {
        How::Cached => Lookup::Cached,
        How::Blocking => Lookup::Blocking,
    };
    let coded;
    let name = match negotiated {
        Negotiated::Coded(coding) => {
            coded = [path, coding.suffix().as_bytes()].concat();
            &coded
        }
        _ if path.is_empty() => &b"."[..],
        _ => path,
    };
    let fd = match sys::openat2(root.dir(), name, lookup, 0) {
        Ok(fd) => fd,
        // EINVAL: a kernel before 5.12, which cannot look up in memory only.
        Err(error)
            if how == How::Cached && matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINVAL)) =>
        {
            return Opened::WouldBlock;
        }
        Err(error) => return Opened::Failed(FileError::from_open(&error)),
    };
    let media_type = media_type(path, types);
    let content_bytes_max = content_bytes_max.min(CONTENT_FILE_BYTES_MAX);
    match describe(fd, media_type, negotiated, how, content_bytes_max, now_unix_seconds) {
        Ok(opened) => opened,
        Err(error) => Opened::Failed(FileError::Io(error.raw_os_error().unwrap_or(libc::EIO))),
    }
}

/// What the descriptor is, with content where that is wanted and stands still.
fn describe(
    fd: OwnedFd,
    media_type: &str,
    negotiated: Negotiated,
    how: How,
    content_bytes_max: usize,
    now_unix_seconds: u64,
) -> io::Result<Opened> {
    let mut stat = sys::stat(fd.as_fd())?;
    match stat.kind {
        FileKind::Regular => {}
        FileKind::Directory => return Ok(Opened::Directory),
        FileKind::Other => return Ok(Opened::Failed(FileError::NotRegular)),
    }
    let content = match usize::try_from(stat.size) {
        Ok(size) if size <= content_bytes_max => match read_whole(fd.as_fd(), size, how) {
            Ok(content) => {
                let after = sys::stat(fd.as_fd())?;
                let unchanged = after.same_version(&stat);
                stat = after;
                content.filter(|_| unchanged)
            }
            // EOPNOTSUPP: the file system cannot say whether a read would block.
            Err(error)
                if how == How::Cached
                    && matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EOPNOTSUPP)) =>
            {
                return Ok(Opened::WouldBlock);
            }
            Err(error) => return Err(error),
        },
        _ => None,
    };
    Ok(Opened::File(OpenFile::new(fd, stat, media_type, negotiated, content, now_unix_seconds)))
}

/// All `size` bytes, or `None` when the file ends before.
fn read_whole(fd: BorrowedFd<'_>, size: usize, how: How) -> io::Result<Option<Bytes>> {
    let mut buffer = vec![0; size];
    let mut filled = 0;
    while filled < size {
        let rest = &mut buffer[filled..];
        let read = match how {
            How::Cached => sys::read_nowait(fd, rest, filled as u64)?,
            How::Blocking => sys::pread(fd, rest, filled as u64)?,
        };
        if read == 0 {
            return Ok(None);
        }
        filled += read;
    }
    let content = Bytes::from(buffer);
    // The first clone of a `Bytes` made from a vector allocates its count. Do that here, so that no response does.
    drop(content.clone());
    Ok(Some(content))
}

/// The media type of a file by its name: `types` first, then the built-in table.
fn media_type<'a>(path: &[u8], types: &'a BTreeMap<String, String>) -> &'a str {
    let own = if types.is_empty() { None } else { own_media_type(path, types) };
    own.or_else(|| mime::lookup(path)).unwrap_or(MEDIA_TYPE_UNKNOWN)
}

fn own_media_type<'a>(path: &[u8], types: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let name = path.rsplit(|&byte| byte == b'/').next()?;
    let dot = name.iter().rposition(|&byte| byte == b'.')?;
    let extension = &name[dot + 1..];
    let mut lower = [0; EXTENSION_BYTES_MAX];
    let lower = lower.get_mut(..extension.len())?;
    lower.copy_from_slice(extension);
    lower.make_ascii_lowercase();
    let value = types.get(std::str::from_utf8(lower).ok()?)?;
    // The configuration refuses others; this keeps a caller's mistake out of the response head.
    let sound =
        value.len() <= MEDIA_TYPE_BYTES_MAX && value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    sound.then_some(value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Coding,
        sys::open::testing::{as_nobody, make_fifo},
    };
    use std::{
        fs::{self, Permissions},
        os::unix::{
            fs::{MetadataExt as _, PermissionsExt as _, symlink},
            net::UnixListener,
        },
        path::Path,
    };

    const NOW: u64 = 4_000_000_000;

    fn folder() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(0, folder.path()).unwrap();
        (folder, root)
    }

    fn look(root: &Root, path: &str) -> Opened {
        look_for(root, path, Negotiated::No)
    }

    fn look_for(root: &Root, path: &str, negotiated: Negotiated) -> Opened {
        let (path, how) = (path.as_bytes(), How::Blocking);
        open(root, path, negotiated, how, CONTENT_FILE_BYTES, &BTreeMap::new(), NOW)
    }

    fn file(opened: Opened) -> OpenFile {
        match opened {
            Opened::File(file) => file,
            other => panic!("not a file: {other:?}"),
        }
    }

    fn failure(opened: Opened) -> FileError {
        match opened {
            Opened::Failed(error) => error,
            other => panic!("not a failure: {other:?}"),
        }
    }

    #[test]
    fn what_is_opened_can_cross_threads() {
        fn is_send<T: Send>() {}
        is_send::<Opened>();
    }

    #[test]
    fn opens_a_file_with_its_facts_and_content() {
        let (folder, root) = folder();
        fs::create_dir(folder.path().join("sub")).unwrap();
        let path = folder.path().join("sub/a.html");
        fs::write(&path, "hello").unwrap();
        let file = file(look(&root, "sub/a.html"));
        let metadata = fs::metadata(path).unwrap();
        let mtime = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        assert_eq!(file.etag(), format!("\"{:x}-5-{mtime:x}\"", metadata.ino()).as_bytes());
        assert_eq!(file.size(), 5);
        assert_eq!(file.content().unwrap(), &b"hello"[..]);
        assert!(file.head_full().windows(16).any(|window| window == b"Content-Length: "));
    }

    #[test]
    fn a_cached_look_finds_what_was_just_used_or_says_that_it_would_block() {
        let (folder, root) = folder();
        fs::write(folder.path().join("a"), "hello").unwrap();
        drop(file(look(&root, "a")));
        match open(&root, b"a", Negotiated::No, How::Cached, CONTENT_FILE_BYTES, &BTreeMap::new(), NOW) {
            Opened::File(file) => assert_eq!(file.content().unwrap(), &b"hello"[..]),
            // Somebody else's rename, or a file system that cannot promise not to block.
            Opened::WouldBlock => {}
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_content_at_the_limit_and_not_past_it() {
        let (folder, root) = folder();
        for (size, asked, kept) in [
            (0, 0, true),
            (1, 0, false),
            (100, 100, true),
            (101, 100, false),
            (CONTENT_FILE_BYTES_MAX, usize::MAX, true),
            (CONTENT_FILE_BYTES_MAX + 1, usize::MAX, false),
        ] {
            fs::write(folder.path().join("a"), vec![b'x'; size]).unwrap();
            let opened = open(&root, b"a", Negotiated::No, How::Blocking, asked, &BTreeMap::new(), NOW);
            let file = file(opened);
            assert_eq!(file.content().is_some(), kept, "{size} of {asked}");
            assert_eq!(file.size(), size as u64);
        }
    }

    #[test]
    fn a_file_shorter_than_its_stat_has_no_content() {
        let (folder, _root) = folder();
        let path = folder.path().join("a");
        fs::write(&path, "hello").unwrap();
        let file = fs::File::open(&path).unwrap();
        assert!(read_whole(file.as_fd(), 5, How::Blocking).unwrap().is_some());
        assert!(read_whole(file.as_fd(), 6, How::Blocking).unwrap().is_none());
    }

    #[test]
    fn a_coding_is_the_file_beside_it_with_the_type_of_the_other() {
        let (folder, root) = folder();
        fs::write(folder.path().join("a.html"), "plain").unwrap();
        fs::write(folder.path().join("a.html.zst"), "coded").unwrap();
        fs::create_dir(folder.path().join("a.html.br")).unwrap();
        let coded = file(look_for(&root, "a.html", Negotiated::Coded(Coding::Zstd)));
        assert_eq!((coded.content().unwrap().as_ref(), coded.is_coded()), (&b"coded"[..], true));
        assert!(coded.media_type().starts_with(b"text/html"));
        let plain = file(look_for(&root, "a.html", Negotiated::Identity));
        assert_eq!((plain.content().unwrap().as_ref(), plain.is_coded()), (&b"plain"[..], false));
        assert_ne!(plain.etag(), coded.etag());
        let itself = file(look(&root, "a.html.zst"));
        assert_eq!((itself.media_type(), itself.is_coded()), (&b"application/zstd"[..], false));
        assert!(matches!(look_for(&root, "a.html", Negotiated::Coded(Coding::Br)), Opened::Directory));
        let missing = look_for(&root, "a.html", Negotiated::Coded(Coding::Gzip));
        assert_eq!(failure(missing), FileError::NotFound);
    }

    #[test]
    fn folders_are_told_apart_from_files() {
        let (folder, root) = folder();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        for path in ["", "sub", "sub/"] {
            assert!(matches!(look(&root, path), Opened::Directory), "{path:?}");
        }
        assert_eq!(failure(look(&root, "file/")), FileError::NotFound);
        assert_eq!(failure(look(&root, "file/more")), FileError::NotFound);
    }

    #[test]
    fn what_cannot_exist_is_not_found() {
        let (_folder, root) = folder();
        let long_name = "a".repeat(256);
        let long_path = "a/".repeat(3000);
        for path in ["missing", "a/b", "..", "../x", "/etc/passwd", "a\0b", &long_name, &long_path] {
            assert_eq!(failure(look(&root, path)), FileError::NotFound, "{path:?}");
        }
        assert_eq!(FileError::NotFound.status(), 404);
    }

    #[test]
    fn links_are_followed_inside_the_root_and_refused_out_of_it() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let (folder, root) = folder();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("target"), "inside").unwrap();
        fs::create_dir(at("sub")).unwrap();
        symlink("target", at("near")).unwrap();
        symlink("../target", at("sub/up")).unwrap();
        symlink(outside.path().join("secret"), at("absolute")).unwrap();
        symlink(outside.path(), at("folder")).unwrap();
        let out = Path::new("..").join(outside.path().file_name().unwrap()).join("secret");
        symlink(out, at("relative")).unwrap();
        symlink("loop", at("loop")).unwrap();
        symlink("/proc/self/exe", at("magic")).unwrap();
        for path in ["near", "sub/up"] {
            assert_eq!(file(look(&root, path)).content().unwrap(), &b"inside"[..], "{path}");
        }
        for path in ["absolute", "folder", "folder/secret", "relative", "loop", "magic"] {
            assert_eq!(failure(look(&root, path)), FileError::NotFound, "{path}");
        }
    }

    #[test]
    fn fifos_sockets_and_devices_are_refused_without_waiting() {
        let (folder, root) = folder();
        make_fifo(&folder.path().join("fifo"));
        let _listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        assert_eq!(failure(look(&root, "fifo")), FileError::NotRegular);
        assert_eq!(failure(look(&root, "socket")), FileError::NotRegular);
        let devices = Root::open(0, Path::new("/dev")).unwrap();
        assert_eq!(failure(look(&devices, "null")), FileError::NotRegular);
        assert_eq!(FileError::NotRegular.status(), 403);
    }

    #[test]
    fn what_this_user_may_not_read_is_forbidden() {
        let (folder, _) = folder();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("unreadable"), "x").unwrap();
        fs::set_permissions(at("unreadable"), Permissions::from_mode(0o0)).unwrap();
        fs::create_dir(at("closed")).unwrap();
        fs::write(at("closed/a"), "x").unwrap();
        fs::set_permissions(at("closed"), Permissions::from_mode(0o0)).unwrap();
        let root = Root::open(0, folder.path()).unwrap();
        for path in ["unreadable", "closed", "closed/a"] {
            assert_eq!(as_nobody(|| failure(look(&root, path))), FileError::Forbidden, "{path}");
        }
        assert_eq!(FileError::Forbidden.status(), 403);
        // So that the folder can be removed by whoever runs the tests.
        fs::set_permissions(at("closed"), Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn each_errno_has_its_answer() {
        for (errno, error, status) in [
            (libc::ELOOP, FileError::NotFound, 404),
            (libc::EPERM, FileError::Forbidden, 403),
            (libc::EMFILE, FileError::Exhausted, 503),
            (libc::ENFILE, FileError::Exhausted, 503),
            (libc::EIO, FileError::Io(libc::EIO), 500),
        ] {
            let found = FileError::from_open(&io::Error::from_raw_os_error(errno));
            assert_eq!((found, found.status()), (error, status));
        }
    }

    #[test]
    fn media_types_of_the_route_come_before_the_table() {
        let types = BTreeMap::from([
            ("foo".to_owned(), "x/foo".to_owned()),
            ("html".to_owned(), "x/page".to_owned()),
            ("bad".to_owned(), "x/y\r\nSet-Cookie: z".to_owned()),
            ("a".repeat(EXTENSION_BYTES_MAX), "x/long".to_owned()),
        ]);
        assert_eq!(media_type(b"sub.d/a.FOO", &types), "x/foo");
        assert_eq!(media_type(b"a.html", &types), "x/page");
        assert_eq!(media_type(b"a.bad", &types), MEDIA_TYPE_UNKNOWN);
        assert_eq!(media_type(b"x.foo/none", &types), MEDIA_TYPE_UNKNOWN);
        let long = format!("x.{}", "A".repeat(EXTENSION_BYTES_MAX));
        assert_eq!(media_type(long.as_bytes(), &types), "x/long");
        assert_eq!(media_type(format!("{long}a").as_bytes(), &types), MEDIA_TYPE_UNKNOWN);
        assert!(media_type(b"a.html", &BTreeMap::new()).starts_with("text/html"));
    }
}
