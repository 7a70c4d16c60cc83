//! Files of a folder as HTTP sees them: a decoded path, an open file with its header fields, a cache of both.
//!
//! Nothing here knows a socket, a request or a route, and nothing here starts a thread: looking a file up says
//! "would block" and the caller decides where to wait.

pub mod cache;
pub mod file;
pub mod folder;
pub mod mapped;
mod notes;
pub mod open;
pub mod path;
pub mod root;

pub use cache::{ContentBounds, FileCache, Found};
pub use file::{Negotiated, OpenFile};
pub use folder::Folder;
pub use mapped::{MappedSlice, MmapCache};
pub use open::{CONTENT_FILE_BYTES, CONTENT_FILE_BYTES_MAX, FileError, How, Opened};
pub use path::{Dotfiles, PathBuffer, PathError, decode, decode_absolute, has_hidden_segment};
pub use root::Root;
