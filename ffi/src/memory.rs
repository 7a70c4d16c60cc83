//! The host's part in the memory budget: bytes of its own that count there, and its function for levels of pressure.

use std::{
    ffi::{c_int, c_void},
    sync::Arc,
};

use webserver_core::{memory::Level, server::OnPressure};

use crate::{
    argument, error, guard,
    server::{NO_SERVER, webserver_server},
};

/// Less than 70 % of the memory budget is held.
pub const WEBSERVER_PRESSURE_NORMAL: c_int = 0;
/// From 70 %: the server's caches shrink.
pub const WEBSERVER_PRESSURE_ELEVATED: c_int = 1;
/// From 85 %: idle connections are closed, nothing new is cached.
pub const WEBSERVER_PRESSURE_HIGH: c_int = 2;
/// From 95 %: new connections are refused, and a quarter of those that there are is closed.
pub const WEBSERVER_PRESSURE_CRITICAL: c_int = 3;

/// Hears that the level of memory pressure has changed. `level` is one of the WEBSERVER_PRESSURE_ numbers,
/// `used` and `budget` are bytes. A level is left 5 % of the budget below where it was entered, so it does not
/// come and go with each request; levels may be skipped.
///
/// It runs on a thread of the server's own, never twice at once for one server. Beside what any callback may
/// call it may call webserver_memory_charge and webserver_memory_release. It should return soon, because the
/// level is not looked at meanwhile; it must not throw, longjmp or end its thread.
pub type webserver_pressure_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, level: c_int, used: u64, budget: u64)>;

/// What `webserver_config_on_pressure` was given.
#[derive(Clone, Copy)]
pub(crate) struct Listener {
    function: unsafe extern "C" fn(*mut c_void, c_int, u64, u64),
    user: *mut c_void,
}

// SAFETY: the header tells the host that its function, and so what `user` points to, is called from a thread of the
// server's; we never look behind `user`.
unsafe impl Send for Listener {}
// SAFETY: as for `Send`. The core calls from one thread for each server; several servers started from one
// configuration may call at once, as the header says.
unsafe impl Sync for Listener {}

impl Listener {
    /// `None` without a function.
    pub(crate) fn new(function: webserver_pressure_fn, user: *mut c_void) -> Option<Self> {
        function.map(|function| Listener { function, user })
    }

    /// The core's side of this function.
    pub(crate) fn hear(self) -> OnPressure {
        Arc::new(move |level, used, budget| self.call(level, used, budget))
    }

    fn call(&self, level: Level, used: u64, budget: u64) {
        let level = match level {
            Level::Normal => WEBSERVER_PRESSURE_NORMAL,
            Level::Elevated => WEBSERVER_PRESSURE_ELEVATED,
            Level::High => WEBSERVER_PRESSURE_HIGH,
            Level::Critical => WEBSERVER_PRESSURE_CRITICAL,
        };
        guard::callback(|| {
            // SAFETY: the host's function, alive as long as the servers of its configuration.
            unsafe { (self.function)(self.user, level, used, budget) }
        });
    }
}

/// Counts `bytes` of your own memory against the server's budget, before you allocate them: under pressure the
/// server gives up its caches and then connections for them. Nothing is counted when they do not fit.
/// Give back what was counted with webserver_memory_release; what is left ends with the server.
///
/// Any thread, also in callbacks and handlers, until webserver_stop begins. Does not block. Errors:
/// WEBSERVER_E_MEMORY (it does not fit).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_memory_charge(server: *mut webserver_server, bytes: usize) -> c_int {
    let result = guard::call_anywhere(|| {
        // SAFETY: the caller's server, which is not stopped during the call; other threads may use it too, so it
        // is shared although the pointer is mutable.
        let server = unsafe { argument::shared(server, NO_SERVER)? };
        Ok(server.server.charge(bytes)?)
    });
    error::status(&result)
}

/// Gives back bytes that webserver_memory_charge has counted; of more, as many as are counted. A NULL `server`
/// is ignored.
///
/// Any thread, also in callbacks and handlers, until webserver_stop begins. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_memory_release(server: *mut webserver_server, bytes: usize) {
    // Nobody to tell: in a child after fork nothing is given back.
    let _ = guard::call_anywhere(|| {
        // SAFETY: the caller's server, which is not stopped during the call.
        let server = unsafe { argument::shared(server, NO_SERVER)? };
        server.server.release(bytes);
        Ok(())
    });
}
