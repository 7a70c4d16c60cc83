//! Reads what the host passed: NULL is an error, text is checked to be UTF-8, nothing is kept.

use std::{
    ffi::{CStr, OsStr, c_char},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    slice,
};

use webserver_core::{Error, ErrorKind, Place};

use crate::error::Failure;

/// The object behind `pointer`; `missing` is the message for NULL.
///
/// # Safety
/// `pointer` is NULL or points to a live `T` that nothing changes during `'a`.
pub(crate) unsafe fn shared<'a, T>(pointer: *const T, missing: &'static str) -> Result<&'a T, Failure> {
    // SAFETY: the caller's duty above.
    unsafe { pointer.as_ref() }.ok_or(Failure::invalid(missing))
}

/// The object behind `pointer`, to be changed; `missing` is the message for NULL.
///
/// # Safety
/// `pointer` is NULL or points to a live `T` that nothing else uses during `'a`.
pub(crate) unsafe fn exclusive<'a, T>(pointer: *mut T, missing: &'static str) -> Result<&'a mut T, Failure> {
    // SAFETY: the caller's duty above.
    unsafe { pointer.as_mut() }.ok_or(Failure::invalid(missing))
}

/// Fails when an output has nowhere to go.
pub(crate) fn output<T>(pointer: *mut T, missing: &'static str) -> Result<(), Failure> {
    if pointer.is_null() { Err(Failure::invalid(missing)) } else { Ok(()) }
}

/// A NUL-terminated UTF-8 string; `wrong` is the message for NULL and for other bytes.
///
/// # Safety
/// `pointer` is NULL or points to a NUL-terminated string that nothing changes during `'a`.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, wrong: &'static str) -> Result<&'a str, Failure> {
    output(pointer.cast_mut(), wrong)?;
    // SAFETY: not NULL, and the caller's duty above.
    let string = unsafe { CStr::from_ptr(pointer) };
    string.to_str().map_err(|_| Failure::invalid(wrong))
}

/// The same for a string that may be left out, as NULL.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn optional_text<'a>(
    pointer: *const c_char,
    wrong: &'static str,
) -> Result<Option<&'a str>, Failure> {
    // SAFETY: the caller's duty above.
    if pointer.is_null() { Ok(None) } else { unsafe { text(pointer, wrong) }.map(Some) }
}

/// A NUL-terminated path of any bytes; `missing` is the message for NULL.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn path<'a>(pointer: *const c_char, missing: &'static str) -> Result<&'a Path, Failure> {
    output(pointer.cast_mut(), missing)?;
    // SAFETY: not NULL, and the caller's duty above.
    let string = unsafe { CStr::from_ptr(pointer) };
    Ok(Path::new(OsStr::from_bytes(string.to_bytes())))
}

/// `length` bytes of YAML. Bytes that are not UTF-8 are a configuration error with their place.
///
/// # Safety
/// `pointer` is NULL or points to `length` bytes that nothing changes during `'a`.
pub(crate) unsafe fn yaml<'a>(pointer: *const c_char, length: usize) -> Result<&'a str, Failure> {
    // SAFETY: the caller's duty above.
    let bytes = unsafe { bytes(pointer, length, "text is NULL")? };
    str::from_utf8(bytes).map_err(|wrong| {
        let before = String::from_utf8_lossy(&bytes[..wrong.valid_up_to()]);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        let place = Place { file: PathBuf::from("<text>"), line: small(line), column: small(column) };
        Error::new(ErrorKind::Config, "the text is not UTF-8").at(place).into()
    })
}

/// `length` bytes of UTF-8; `wrong` is the message for NULL and for other bytes.
///
/// # Safety
/// As [`yaml`].
pub(crate) unsafe fn sized_text<'a>(
    pointer: *const c_char,
    length: usize,
    wrong: &'static str,
) -> Result<&'a str, Failure> {
    // SAFETY: the caller's duty above.
    let bytes = unsafe { bytes(pointer, length, wrong)? };
    str::from_utf8(bytes).map_err(|_| Failure::invalid(wrong))
}

/// `length` bytes; `missing` is the message for NULL.
///
/// # Safety
/// As [`yaml`].
pub(crate) unsafe fn bytes<'a>(
    pointer: *const c_char,
    length: usize,
    missing: &'static str,
) -> Result<&'a [u8], Failure> {
    output(pointer.cast_mut(), missing)?;
    if length > isize::MAX as usize {
        return Err(Failure::invalid("length is larger than any object"));
    }
    // SAFETY: not NULL, not longer than an object may be, and the caller's duty above.
    Ok(unsafe { slice::from_raw_parts(pointer.cast(), length) })
}

/// A line or column; past four billion the exact figure helps nobody.
fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
