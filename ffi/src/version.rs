//! Which library this is. Pure functions: no state, no failure, callable anywhere, even in a log callback or
//! after `fork`.

use std::ffi::c_char;

/// The version of this interface that the header describes. It grows when something is added; what exists
/// keeps its meaning.
pub const WEBSERVER_ABI_VERSION: u32 = 1;

/// The version of the interface that the library implements. Compare it with WEBSERVER_ABI_VERSION, the one
/// that you compiled against: a library with a greater or equal number will do.
///
/// Any thread, also inside a callback and after fork. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn webserver_abi_version() -> u32 {
    WEBSERVER_ABI_VERSION
}

/// The version of the library, for example "0.1.0". The string is the library's.
///
/// Any thread, also inside a callback and after fork. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn webserver_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
