//! The host's log callback, as a sink of the core's log. Formats nothing and filters nothing: lines arrive
//! finished, and the core drops what is above the level.

use std::{
    ffi::{c_char, c_int, c_void},
    sync::Arc,
};

use webserver_core::{config::Level, log};

use crate::guard;

/// Something failed that an operator must look at.
pub const WEBSERVER_LOG_ERROR: c_int = 1;
/// Something is wrong and was survived.
pub const WEBSERVER_LOG_WARN: c_int = 2;
/// Start, reload, drain, stop.
pub const WEBSERVER_LOG_INFO: c_int = 3;
/// Per connection.
pub const WEBSERVER_LOG_DEBUG: c_int = 4;
/// Per event.
pub const WEBSERVER_LOG_TRACE: c_int = 5;

/// Takes one line of the diagnostic log. `level` is one of the WEBSERVER_LOG_ numbers, `target` the part of
/// the library that speaks, `message` the line without a newline: `length` bytes of UTF-8 and then a NUL,
/// which `length` does not count. Both strings live for the call.
///
/// It runs on any thread of the library, on several at once, and on yours inside a call. It should return
/// soon, since a shard serves nobody meanwhile; it must not throw, longjmp or end its thread.
pub type webserver_log_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        level: c_int,
        target: *const c_char,
        message: *const c_char,
        length: usize,
    ),
>;

/// What `webserver_config_set_log` was given.
#[derive(Clone, Copy)]
pub(crate) struct Callback {
    function: unsafe extern "C" fn(*mut c_void, c_int, *const c_char, *const c_char, usize),
    user: *mut c_void,
    level: Level,
}

// SAFETY: the header demands of the host that its function, and so what `user` points to, bears calls from
// any thread, several at once; we never look behind `user`.
unsafe impl Send for Callback {}
// SAFETY: as for `Send`.
unsafe impl Sync for Callback {}

impl Callback {
    /// `None` when the host turned its log off: no function, or a level below error. A level above trace is
    /// trace.
    pub(crate) fn new(function: webserver_log_fn, max_level: c_int, user: *mut c_void) -> Option<Self> {
        let level = match max_level {
            ..WEBSERVER_LOG_ERROR => return None,
            WEBSERVER_LOG_ERROR => Level::Error,
            WEBSERVER_LOG_WARN => Level::Warn,
            WEBSERVER_LOG_INFO => Level::Info,
            WEBSERVER_LOG_DEBUG => Level::Debug,
            WEBSERVER_LOG_TRACE.. => Level::Trace,
        };
        function.map(|function| Callback { function, user, level })
    }

    /// The least severe level that the host wants.
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// The core's side of this callback.
    pub(crate) fn sink(self) -> log::Callback {
        Arc::new(move |level, target: &str, message: &str| self.write(level, target, message))
    }

    fn write(&self, level: Level, target: &str, message: &str) {
        let mut name = [0_u8; 64];
        let kept = target.floor_char_boundary(name.len() - 1);
        name[..kept].copy_from_slice(&target.as_bytes()[..kept]);

        let mut line = Vec::with_capacity(message.len() + 1);
        line.extend_from_slice(message.as_bytes());
        line.push(0);
        guard::callback(|| {
            // SAFETY: the host's function, alive as long as the servers of its configuration; both strings
            // are NUL-terminated and live until it returns.
            unsafe {
                (self.function)(
                    self.user,
                    level as c_int,
                    name.as_ptr().cast(),
                    line.as_ptr().cast(),
                    message.len(),
                )
            }
        });
    }
}
