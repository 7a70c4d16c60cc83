//! `webserver_config`: what a server is to be started with. Holds no running thing.

use std::{
    ffi::{c_char, c_int, c_void},
    io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use webserver_core::{Error, ErrorKind, config::Config, service::Handlers};

use crate::{
    argument,
    error::{self, Failure, webserver_error},
    guard,
    log::{Callback, webserver_log_fn},
    memory::{Listener, webserver_pressure_fn},
};

/// A configuration: built with the webserver_config_ functions, started with webserver_start, freed with
/// webserver_config_free at any time after that. It may be started several times and changed in between.
pub struct webserver_config {
    pub(crate) config: Config,
    pub(crate) log: Option<Callback>,
    pub(crate) pressure: Option<Listener>,
    pub(crate) handlers: Handlers,
}

pub(crate) const NO_CONFIG: &str = "config is NULL";

/// Makes a configuration with every default. `*out` is yours; free it with webserver_config_free.
///
/// Any thread. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_config_new(
    out: *mut *mut webserver_config,
    err: *mut webserver_error,
) -> c_int {
    let result = guard::call(|| {
        argument::output(out, "out is NULL")?;
        guard::prepare();
        let config = Box::new(webserver_config {
            config: Config::new(),
            log: None,
            pressure: None,
            handlers: Handlers::new(),
        });
        // SAFETY: not NULL, and the caller's to write.
        unsafe { out.write(Box::into_raw(config)) };
        Ok(())
    });
    // SAFETY: `err` is the caller's, NULL or a webserver_error.
    unsafe { error::report(&result, err) }
}

/// Frees a configuration. NULL is ignored. Servers started from it go on.
///
/// One thread at a time, and the last call on this configuration. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_config_free(config: *mut webserver_config) {
    // Nobody to tell: in a child after fork and in a callback the configuration stays.
    let _ = guard::call(|| {
        if !config.is_null() {
            // SAFETY: made by webserver_config_new from a Box, and given back once.
            drop(unsafe { Box::from_raw(config) });
        }
        Ok(())
    });
}

/// Reads a YAML file and merges it: its keys win over earlier ones, its lists replace earlier ones. Relative
/// paths in it start at its folder. On failure the configuration is unchanged.
///
/// One thread at a time. Blocks for the file. Errors: WEBSERVER_E_CONFIG (with line and column),
/// WEBSERVER_E_UNSUPPORTED (a key of a later version), WEBSERVER_E_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_config_load_file(
    config: *mut webserver_config,
    path: *const c_char,
    err: *mut webserver_error,
) -> c_int {
    let result = guard::call(|| {
        // SAFETY: the caller's configuration, used by this thread alone.
        let config = unsafe { argument::exclusive(config, NO_CONFIG)? };
        // SAFETY: the caller's string.
        let path = unsafe { argument::path(path, "path is NULL")? };
        Ok(config.config.load_file(path)?)
    });
    // SAFETY: `err` is the caller's, NULL or a webserver_error.
    unsafe { error::report(&result, err) }
}

/// Like webserver_config_load_file, from `length` bytes of text, which need no NUL. Relative paths start at
/// the working directory.
///
/// One thread at a time. Does not block. Errors: as webserver_config_load_file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_config_load_yaml(
    config: *mut webserver_config,
    text: *const c_char,
    length: usize,
    err: *mut webserver_error,
) -> c_int {
    let result = guard::call(|| {
        // SAFETY: the caller's configuration, used by this thread alone.
        let config = unsafe { argument::exclusive(config, NO_CONFIG)? };
        // SAFETY: the caller's `length` bytes.
        let text = unsafe { argument::yaml(text, length)? };
        Ok(config.config.load_yaml(text)?)
    });
    // SAFETY: `err` is the caller's, NULL or a webserver_error.
    unsafe { error::report(&result, err) }
}

/// Sets one key: a dotted name such as "timeouts.idle" and a value that is read as YAML, such as "75s".
/// "listen" replaces all listeners; "root" is short for a route "/" with that root. On failure the
/// configuration is unchanged.
///
/// One thread at a time. Does not block. Errors: as webserver_config_load_file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_config_set(
    config: *mut webserver_config,
    key: *const c_char,
    value: *const c_char,
    err: *mut webserver_error,
) -> c_int {
    let result = guard::call(|| {
        // SAFETY: the caller's configuration, used by this thread alone.
        let config = unsafe { argument::exclusive(config, NO_CONFIG)? };
        // SAFETY: the caller's string.
        let key = unsafe { argument::text(key, "key is NULL or not UTF-8")? };
        // SAFETY: the caller's string.
        let value = unsafe { argument::text(value, "value is NULL or not UTF-8")? };
        Ok(config.config.set(key, value)?)
    });
    // SAFETY: `err` is the caller's, NULL or a webserver_error.
    unsafe { error::report(&result, err) }
}

/// Adds a listener on a socket that you opened: a stream socket that is bound and listening. The descriptor
/// is duplicated and yours stays yours; closing it later does not disturb the server. webserver_port finds
/// the listener by `name`.
///
/// One thread at a time. Does not block. Errors: WEBSERVER_E_INVALID (not a descriptor of a listening
/// socket), WEBSERVER_E_CONFIG (the name is taken), WEBSERVER_E_LIMIT (no descriptor left), WEBSERVER_E_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_config_add_listen_fd(
    config: *mut webserver_config,
    name: *const c_char,
    fd: c_int,
    err: *mut webserver_error,
) -> c_int {
    let result = guard::call(|| {
        // SAFETY: the caller's configuration, used by this thread alone.
        let config = unsafe { argument::exclusive(config, NO_CONFIG)? };
        // SAFETY: the caller's string.
        let name = unsafe { argument::text(name, "name is NULL or not UTF-8")? };
        let listener = duplicate(fd)?;
        if !is_listening(&listener) {
            return Err(Failure::invalid("fd is not a listening socket"));
        }
        Ok(config.config.add_listener(name, listener)?)
    });
    // SAFETY: `err` is the caller's, NULL or a webserver_error.
    unsafe { error::report(&result, err) }
}

/// Adds a certificate to a listener and makes it HTTPS. `certificate` is PEM text, the server's own certificate first
/// and the intermediate ones after it; `key` is the PEM text of its private key, not encrypted. Both are copied, need
/// no NUL and have at most 512 KB. Your copy may be wiped at once; ours is freed with the configuration and the
/// servers that were started or reloaded from it.
///
/// `address` is a listener's address as written in the configuration, or the name given to
/// webserver_config_add_listen_fd; NULL is every listener that was configured or added before, or the default address
/// when none was. A listener's first certificate is its default; further ones, 256 in all, are chosen by the name that
/// a client asks for. Other keys of "tls", such as "versions" and "client_ca", may be configured before, with
/// "certificates" or without. "listen", loaded or set later, replaces listeners together with their certificates.
///
/// What is in the texts is looked at by webserver_start and webserver_reload, which answer WEBSERVER_E_CONFIG to a
/// certificate that has expired or a key that belongs to another. To renew one, make a new configuration with it and
/// call webserver_reload: new connections get it, those that are open go on.
///
/// One thread at a time. Does not block. Errors, after which the configuration is unchanged: WEBSERVER_E_INVALID (no
/// such listener, or a text that is not PEM), WEBSERVER_E_CONFIG (a text that is too long or cut off, too many
/// certificates).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_config_add_certificate(
    config: *mut webserver_config,
    address: *const c_char,
    certificate: *const c_char,
    certificate_length: usize,
    key: *const c_char,
    key_length: usize,
    err: *mut webserver_error,
) -> c_int {
    let result = guard::call(|| {
        // SAFETY: the caller's configuration, used by this thread alone.
        let config = unsafe { argument::exclusive(config, NO_CONFIG)? };
        // SAFETY: the caller's string.
        let address = unsafe { argument::optional_text(address, "address is not UTF-8")? };
        // SAFETY: the caller's `certificate_length` bytes.
        let certificate = unsafe {
            argument::sized_text(certificate, certificate_length, "certificate is NULL or not PEM text")?
        };
        // SAFETY: the caller's `key_length` bytes.
        let key = unsafe { argument::sized_text(key, key_length, "key is NULL or not PEM text")? };
        Ok(config.config.add_certificate(address, certificate, key)?)
    });
    // SAFETY: `err` is the caller's, NULL or a webserver_error.
    unsafe { error::report(&result, err) }
}

/// Sends the diagnostic log of servers that are started from this configuration to `log`, lines of
/// `max_level` and more severe (a WEBSERVER_LOG_ number). NULL or a level below WEBSERVER_LOG_ERROR turns it
/// off, which is the default. `log` and what `user` points to must live until the configuration and every
/// server started from it are gone; after a WEBSERVER_E_TIMEOUT from webserver_stop, for good.
///
/// One thread at a time. Does not block. A NULL `config` is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_config_set_log(
    config: *mut webserver_config,
    log: webserver_log_fn,
    max_level: c_int,
    user: *mut c_void,
) {
    // Nobody to tell: in a child after fork and in a callback nothing is set.
    let _ = guard::call(|| {
        // SAFETY: the caller's configuration, used by this thread alone.
        let config = unsafe { argument::exclusive(config, NO_CONFIG)? };
        config.log = Callback::new(log, max_level, user);
        Ok(())
    });
}

/// Has servers that are started from this configuration call `pressure` when their level of memory pressure
/// changes. They begin at normal and do not tell that. NULL turns it off, which is the default. `pressure` and
/// what `user` points to must live until the configuration and every server started from it are gone; after a
/// WEBSERVER_E_TIMEOUT from webserver_stop, for good. Several servers may call at once.
///
/// One thread at a time. Does not block. A NULL `config` is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_config_on_pressure(
    config: *mut webserver_config,
    pressure: webserver_pressure_fn,
    user: *mut c_void,
) {
    // Nobody to tell: in a child after fork and in a callback nothing is set.
    let _ = guard::call(|| {
        // SAFETY: the caller's configuration, used by this thread alone.
        let config = unsafe { argument::exclusive(config, NO_CONFIG)? };
        config.pressure = Listener::new(pressure, user);
        Ok(())
    });
}

/// Our own descriptor for what `fd` refers to, closed on exec.
fn duplicate(fd: c_int) -> Result<OwnedFd, Failure> {
    // SAFETY: fcntl checks the number; F_DUPFD_CLOEXEC touches no memory of ours.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        let cause = io::Error::last_os_error();
        let kind = match cause.raw_os_error() {
            Some(libc::EBADF) => ErrorKind::Invalid,
            Some(libc::EMFILE) => ErrorKind::Limit,
            _ => ErrorKind::Io,
        };
        return Err(Error::sys(kind, format_args!("cannot duplicate descriptor {fd}"), &cause).into());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Whether `socket` is a socket that accepts connections (socket(7), SO_ACCEPTCONN). Looked at here, where
/// descriptors are still plain numbers of the host's; the core takes an owned one at its word.
fn is_listening(socket: &OwnedFd) -> bool {
    let mut answer: c_int = 0;
    let mut size = mem::size_of::<c_int>() as libc::socklen_t;
    // SAFETY: both pointers are to locals, `size` says how large `answer` is, and the kernel checks the number.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ACCEPTCONN,
            (&raw mut answer).cast(),
            &raw mut size,
        )
    };
    outcome == 0 && answer != 0
}
