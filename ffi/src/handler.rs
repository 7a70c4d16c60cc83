//! Handlers of the host: adding them to a configuration, and the core's side of one.

use std::{
    ffi::{c_char, c_int, c_void},
    rc::Rc,
    sync::{Arc, OnceLock},
};

use webserver_core::{
    ErrorKind,
    http::Request,
    service::{BodyWanted, Call, Context, Handler, Outcome},
};

use crate::{
    argument,
    config::{NO_CONFIG, webserver_config},
    error::{self, Failure, webserver_error},
    guard,
    request::webserver_request,
};

/// The handler runs on the thread that serves the connection, which serves nobody else meanwhile: it must not
/// block and should return within some hundred microseconds. It costs no thread switch.
pub const WEBSERVER_HANDLER_INLINE: u32 = 1;
/// The handler runs on a worker thread and may block. Not in this version.
pub const WEBSERVER_HANDLER_BLOCKING: u32 = 2;

/// A handler returns this when it has called webserver_reply.
pub const WEBSERVER_DONE: c_int = 0;
/// The request is not this handler's: the next route that matches is asked, and without one the answer is 404.
pub const WEBSERVER_NEXT: c_int = 1;
/// The reply comes later. Not in this version: the answer is 500.
pub const WEBSERVER_DEFERRED: c_int = 2;

/// Answers one request: reads it with the webserver_request_ functions, calls webserver_reply, and returns
/// WEBSERVER_DONE; or returns WEBSERVER_NEXT without a reply. Any other number, WEBSERVER_DONE without a reply and
/// WEBSERVER_NEXT after one are answered with 500 and reported in the log.
///
/// `request` and everything read from it end with the call: keep no pointer to them, and use them on this thread
/// alone. It runs on the server's threads, on several at once when there are several shards. Of the library's
/// functions it may call those of the request and webserver_version, webserver_abi_version and
/// webserver_strerror; all others answer WEBSERVER_E_STATE, or do nothing. It must not throw, longjmp or end its
/// thread: a C++ handler catches every exception before it returns, since one that leaves it has no defined effect.
pub type webserver_handler_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, request: *mut webserver_request<'_>) -> c_int>;

/// Adds a handler. `method` is in capitals, or NULL for every method; a handler for "GET" gets HEAD requests too,
/// unless another has those. `path` begins with "/" and is compared with the path after decoding: exactly, or as a
/// prefix when it ends in "/*" ("/a/*" is all that begins with "/a/"). It answers on every host. `flags` is
/// WEBSERVER_HANDLER_INLINE. `user` is passed to each call, untouched.
///
/// Handlers and configured routes are asked in this order: the longest path first; an exact path before a prefix
/// of its length; a handler before a route; a handler for one method before one for all. When handlers have the path
/// and none has the method, and no later route matches, the answer is 405.
///
/// `drop`, unless NULL, is called once with `user` when this configuration and every server that was started or
/// reloaded from it are gone, or have been reloaded from another: from inside the call that let go of it, or on a
/// thread of the library. The rules for handlers hold for it. After WEBSERVER_E_TIMEOUT from webserver_stop it
/// is never called. When this function fails, `user` stays yours.
///
/// One thread at a time. Does not block. Servers that run already get it by webserver_reload. Errors:
/// WEBSERVER_E_INVALID (a path that no request can have, no method, unknown flags, or a path and method that have a
/// handler), WEBSERVER_E_UNSUPPORTED (WEBSERVER_HANDLER_BLOCKING), WEBSERVER_E_LIMIT (1024 handlers).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_config_add_handler(
    config: *mut webserver_config,
    method: *const c_char,
    path: *const c_char,
    flags: u32,
    handler: webserver_handler_fn,
    user: *mut c_void,
    drop: Option<unsafe extern "C" fn(user: *mut c_void)>,
    err: *mut webserver_error,
) -> c_int {
    let result = guard::call(|| {
        // SAFETY: the caller's configuration, used by this thread alone.
        let config = unsafe { argument::exclusive(config, NO_CONFIG)? };
        // SAFETY: the caller's string.
        let method = unsafe { argument::optional_text(method, "method is not UTF-8")? };
        // SAFETY: the caller's string.
        let path = unsafe { argument::text(path, "path is NULL or not UTF-8")? };
        check(flags)?;
        let function = handler.ok_or(Failure::invalid("handler is NULL"))?;
        let host = Arc::new(Host { function, user, drop: OnceLock::new() });
        let shared = Arc::clone(&host);
        config.handlers.add(method, path, move || Rc::new(HostHandler(Arc::clone(&shared))))?;
        if let Some(drop) = drop {
            // Only now is `user` ours to let go of. It is set once: the value was made here.
            let _ = host.drop.set(drop);
        }
        Ok(())
    });
    // SAFETY: `err` is the caller's, NULL or a webserver_error.
    unsafe { error::report(&result, err) }
}

fn check(flags: u32) -> Result<(), Failure> {
    match flags {
        WEBSERVER_HANDLER_INLINE => Ok(()),
        WEBSERVER_HANDLER_BLOCKING => {
            Err(Failure::Here(ErrorKind::Unsupported, "WEBSERVER_HANDLER_BLOCKING is not in this version"))
        }
        _ => Err(Failure::invalid("flags must be WEBSERVER_HANDLER_INLINE")),
    }
}

/// A handler of the host's, shared by the shards of its servers and its configuration.
struct Host {
    function: unsafe extern "C" fn(*mut c_void, *mut webserver_request<'_>) -> c_int,
    user: *mut c_void,
    drop: OnceLock<unsafe extern "C" fn(*mut c_void)>,
}

// SAFETY: the header demands of the host that its functions, and so what `user` points to, bear calls from any
// thread, several at once; we never look behind `user`.
unsafe impl Send for Host {}
// SAFETY: as for `Send`.
unsafe impl Sync for Host {}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(function) = self.drop.take() {
            // SAFETY: the host's function, given to be called once when nothing of ours uses `user` any more.
            guard::callback(|| unsafe { function(self.user) });
        }
    }
}

/// One shard's handle to it.
struct HostHandler(Arc<Host>);

impl Handler for HostHandler {
    fn handle(self: Rc<Self>, call: &Call<'_>, context: &Rc<Context>) -> Outcome {
        let mut request = webserver_request::new(call, context);
        let code = guard::callback(|| {
            // SAFETY: the host's function, alive until its `drop` is called; the request lives until it returns.
            unsafe { (self.0.function)(self.0.user, &raw mut request) }
        });
        request.outcome(code, context)
    }

    fn body_wanted(&self, _: Request<'_>) -> BodyWanted {
        BodyWanted::Whole
    }
}
