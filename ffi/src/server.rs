//! `webserver_server`: a running server.

use std::{
    ffi::{c_char, c_int},
    mem,
    time::Duration,
};

use webserver_core::{
    ErrorKind,
    server::{Options, Server},
};

use crate::{
    argument,
    config::{NO_CONFIG, webserver_config},
    error::{self, Failure, webserver_error},
    guard,
};

/// A running server: made by webserver_start, ended and freed by webserver_stop.
pub struct webserver_server {
    pub(crate) server: Server,
}

pub(crate) const NO_SERVER: &str = "server is NULL";

/// Starts a server on threads of its own and returns once every listener accepts. `*out` is yours; end it
/// with webserver_stop. What the server needs is copied, so `config` may be changed or freed afterwards.
/// When it fails, nothing is left running.
///
/// Any thread; `config` must not be changed meanwhile. Blocks until the server runs or its start deadline
/// passes; files of certificates are read meanwhile. Errors: WEBSERVER_E_CONFIG (it does not fit together, or a
/// certificate cannot be used: the text says which and why), WEBSERVER_E_ADDRESS (the text names it),
/// WEBSERVER_E_UNSUPPORTED (io_uring or locked memory; the text names the setting), WEBSERVER_E_LIMIT
/// (descriptors), WEBSERVER_E_IO, WEBSERVER_E_TIMEOUT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_start(
    config: *const webserver_config,
    out: *mut *mut webserver_server,
    err: *mut webserver_error,
) -> c_int {
    let result = guard::call(|| {
        // SAFETY: the caller's configuration, which nothing changes during the call.
        let config = unsafe { argument::shared(config, NO_CONFIG)? };
        argument::output(out, "out is NULL")?;
        let options = Options {
            log: config.log.map(|log| log.sink()),
            log_level: config.log.map(|log| log.level()),
            on_pressure: config.pressure.map(|listener| listener.hear()),
            handlers: config.handlers.clone(),
            ..Options::default()
        };
        let server = Server::start_with(&config.config, options)?;
        // SAFETY: not NULL, and the caller's to write.
        unsafe { out.write(Box::into_raw(Box::new(webserver_server { server }))) };
        Ok(())
    });
    // SAFETY: `err` is the caller's, NULL or a webserver_error.
    unsafe { error::report(&result, err) }
}

/// The TCP port of a listener, as the kernel gave it when the configuration says 0. `address` is the address
/// as written in the configuration, the name given to webserver_config_add_listen_fd, "admin", or NULL for
/// the first listener.
///
/// Any thread, until webserver_stop begins. Does not block. Errors: WEBSERVER_E_INVALID (no such
/// listener, or a unix socket).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_port(
    server: *const webserver_server,
    address: *const c_char,
    out: *mut u16,
) -> c_int {
    let result = guard::call(|| {
        // SAFETY: the caller's server, which is not stopped during the call.
        let server = unsafe { argument::shared(server, NO_SERVER)? };
        argument::output(out, "out is NULL")?;
        // SAFETY: the caller's string.
        let name = unsafe { argument::optional_text(address, "address is not UTF-8")? };
        let port =
            server.server.port(name).ok_or(Failure::invalid("no listener with a port has that name"))?;
        // SAFETY: not NULL, and the caller's to write.
        unsafe { out.write(port) };
        Ok(())
    });
    error::status(&result)
}

/// Takes over another configuration, all or nothing: routes, handlers, headers, limits, timeouts, certificates, the
/// number of connections and the sizes of caches and pools; the log gets a line for each key that is different.
/// Another change is an error that names the key, and the server goes on as it was. Files of certificates are read
/// again. The callbacks for the log and for memory pressure stay those that the server was started with.
///
/// Any thread, until webserver_stop begins; `config` is not kept and must not be changed meanwhile. Blocks
/// until every shard has the new configuration. Errors: WEBSERVER_E_CONFIG, WEBSERVER_E_UNSUPPORTED,
/// WEBSERVER_E_LIMIT, WEBSERVER_E_IO, WEBSERVER_E_TIMEOUT, WEBSERVER_E_STATE (draining).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_reload(
    server: *mut webserver_server,
    config: *const webserver_config,
    err: *mut webserver_error,
) -> c_int {
    let result = guard::call(|| {
        // SAFETY: the caller's server, which is not stopped during the call; other threads may use it too,
        // so it is shared although the pointer is mutable.
        let server = unsafe { argument::shared(server, NO_SERVER)? };
        // SAFETY: the caller's configuration, which nothing changes during the call.
        let config = unsafe { argument::shared(config, NO_CONFIG)? };
        Ok(server.server.reload_with(&config.config, config.handlers.clone())?)
    });
    // SAFETY: `err` is the caller's, NULL or a webserver_error.
    unsafe { error::report(&result, err) }
}

/// Opens the log files anew by their paths, both or none: call it after a rotation has renamed them. No line
/// is lost and none is torn. Lines handed over before the call are in the old files when it returns, which may
/// then be compressed or moved; later ones will be in the new ones. Without log files it does nothing. A log
/// callback is not concerned.
///
/// Any thread, until webserver_stop begins. Blocks while the files are opened, and for at most five seconds
/// until the lines before are written. Errors: WEBSERVER_E_IO (a file cannot be opened: the text names it,
/// and the old files stay in use), WEBSERVER_E_TIMEOUT (storage hangs: the new files take over when it does
/// not any more).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_reopen_logs(
    server: *mut webserver_server,
    err: *mut webserver_error,
) -> c_int {
    let result = guard::call(|| {
        // SAFETY: the caller's server, which is not stopped during the call; other threads may use it too,
        // so it is shared although the pointer is mutable.
        let server = unsafe { argument::shared(server, NO_SERVER)? };
        Ok(server.server.reopen_logs()?)
    });
    // SAFETY: `err` is the caller's, NULL or a webserver_error.
    unsafe { error::report(&result, err) }
}

/// Begins to drain: no new connection is accepted, requests in progress are answered, idle connections are
/// closed; one that was answered within the last second has another for a request that may be under way.
/// webserver_stats_get tells how far it is. There is no way back; webserver_stop is still needed.
/// Draining again changes nothing.
///
/// Any thread, until webserver_stop begins. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_drain(server: *mut webserver_server) -> c_int {
    let result = guard::call(|| {
        // SAFETY: the caller's server, which is not stopped during the call.
        let server = unsafe { argument::shared(server, NO_SERVER)? };
        server.server.drain();
        Ok(())
    });
    error::status(&result)
}

/// Stops a server and frees it: drains, cuts what is left when `timeout_ms` have passed (0: at once), joins
/// every thread, closes every descriptor. It always returns. `server` is gone afterwards, also after
/// WEBSERVER_E_TIMEOUT; inside a callback and after fork it stays.
///
/// One thread, once, with no other call on this server in progress or to come. Blocks for `timeout_ms` and
/// the moment that joining takes. Errors: WEBSERVER_E_TIMEOUT (a thread hangs, for instance in storage that
/// does not answer: the log says which, and what that thread needs is kept for good).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_stop(server: *mut webserver_server, timeout_ms: u32) -> c_int {
    let result = guard::call(|| {
        // SAFETY: the caller's server, in use by this call alone.
        let running = unsafe { argument::shared(server, NO_SERVER)? };
        let outcome = running.server.stop(Duration::from_millis(timeout_ms.into()));
        // Not before `stop` has returned: had it panicked, its threads may still need the server.
        // SAFETY: made by webserver_start from a Box, and given back once; `running` is not used again.
        let owned = unsafe { Box::from_raw(server) };
        if matches!(&outcome, Err(error) if error.kind() == ErrorKind::Timeout) {
            mem::forget(owned);
        }
        Ok(outcome?)
    });
    error::status(&result)
}
