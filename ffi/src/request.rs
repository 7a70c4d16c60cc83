//! `webserver_request`: one request during the call of its handler, and the reply to it.
//!
//! Lives on the stack of that call. Its functions neither take a lock nor make a system call; what could go wrong in
//! them goes wrong with a status code.

use std::{
    cell::{Cell, OnceCell, RefCell},
    ffi::{c_char, c_int, c_void},
    io::Write as _,
};

use webserver_core::{
    ErrorKind,
    http::Status,
    memory::Reservation,
    service::{Body, Call, Context, NoMemory, Outcome, Response},
};

use crate::{
    argument,
    error::{self, Failure},
    guard,
    handler::{WEBSERVER_DEFERRED, WEBSERVER_DONE, WEBSERVER_NEXT},
};

/// Most bytes of a reply's own header fields, names, values and line ends together.
const FIELDS_BYTES_MAX: usize = 16 << 10;
/// Most bytes of a reply from memory.
const REPLY_BYTES_MAX: usize = 64 << 20;

const NO_REQUEST: &str = "request is NULL";

/// Bytes of a request: not NUL-terminated, and only there during the call of the handler. `data` is NULL when the
/// request does not have what was asked for, and not NULL when it is there and empty.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct webserver_slice {
    /// The first byte.
    pub data: *const c_char,
    /// Number of bytes.
    pub length: usize,
}

/// A request, and the reply to it, during the call of its handler.
pub struct webserver_request<'a> {
    pub(crate) call: &'a Call<'a>,
    context: &'a Context,
    peer: OnceCell<PeerText>,
    /// Rendered header fields of the reply.
    fields: RefCell<Vec<u8>>,
    body: RefCell<Vec<u8>>,
    /// What the body counts for.
    held: Cell<Option<Reservation>>,
    /// Set by the reply.
    status: Cell<Option<Status>>,
}

/// The method as sent, for example "GET".
///
/// The handler's thread, during its call. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_request_method(request: *const webserver_request<'_>) -> webserver_slice {
    // SAFETY: the handler's request, NULL or alive.
    unsafe { read(request, |request| Some(request.call.request.method_text())) }
}

/// The path, decoded once and with its dot segments and repeated slashes resolved: begins with "/" and holds no NUL.
/// It need not be UTF-8.
///
/// The handler's thread, during its call. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_request_path(request: *const webserver_request<'_>) -> webserver_slice {
    // SAFETY: the handler's request, NULL or alive.
    unsafe { read(request, |request| Some(request.call.absolute_path)) }
}

/// The whole request target as sent, query included; in rare requests an absolute URL.
///
/// The handler's thread, during its call. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_request_target(request: *const webserver_request<'_>) -> webserver_slice {
    // SAFETY: the handler's request, NULL or alive.
    unsafe { read(request, |request| Some(request.call.request.target())) }
}

/// What follows the first "?" of the target, not decoded; `data` is NULL when there is no "?".
///
/// The handler's thread, during its call. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_request_query(request: *const webserver_request<'_>) -> webserver_slice {
    // SAFETY: the handler's request, NULL or alive.
    unsafe { read(request, |request| request.call.request.query()) }
}

/// The address of who asks, without port: "192.0.2.1", "2001:db8::1", or "unix:" for a unix socket.
///
/// The handler's thread, during its call. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_request_peer(request: *const webserver_request<'_>) -> webserver_slice {
    // SAFETY: the handler's request, NULL or alive.
    unsafe { read(request, |request| Some(request.peer.get_or_init(|| PeerText::of(request.call)).bytes())) }
}

/// The version that the request was sent with: "HTTP/1.1" or "HTTP/1.0". Later versions may add others.
///
/// The handler's thread, during its call. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_request_version(request: *const webserver_request<'_>) -> webserver_slice {
    // SAFETY: the handler's request, NULL or alive.
    unsafe { read(request, |request| Some(request.call.request.version().as_str().as_bytes())) }
}

/// The whole body with chunks put together; empty when there is none. It is never longer than limits.body_bytes:
/// a client that sends more gets 413, and no handler is called.
///
/// The handler's thread, during its call. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_request_body(request: *const webserver_request<'_>) -> webserver_slice {
    // SAFETY: the handler's request, NULL or alive.
    unsafe { read(request, |request| Some(request.call.body)) }
}

/// The value of the first header field with this name, in any case, without the spaces around it; `data` is NULL
/// when there is none and when `name` is NULL.
///
/// The handler's thread, during its call. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_request_header(
    request: *const webserver_request<'_>,
    name: *const c_char,
) -> webserver_slice {
    // SAFETY: the caller's string.
    let Ok(name) = (unsafe { argument::text(name, "") }) else { return webserver_slice::ABSENT };
    // SAFETY: the handler's request, NULL or alive.
    unsafe { read(request, |request| request.call.request.header(name)) }
}

/// Adds a header field to the reply that webserver_reply will make. The same name may be added several times. Both
/// strings are copied. Content-Length, Date and what concerns the connection (Connection, Keep-Alive,
/// Transfer-Encoding, Trailer, Upgrade) are the server's own.
///
/// The handler's thread, during its call. Does not block. Errors: WEBSERVER_E_INVALID (the name is not a token
/// or the server's own, the value holds a control character; nothing is added), WEBSERVER_E_LIMIT (16 KB of fields),
/// WEBSERVER_E_STATE (the reply was made).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_reply_header(
    request: *mut webserver_request<'_>,
    name: *const c_char,
    value: *const c_char,
) -> c_int {
    let result = guard::catch(|| {
        // SAFETY: the handler's request, alive during its call; shared, since slices of it may be in use.
        let request = unsafe { argument::shared(request, NO_REQUEST)? };
        // SAFETY: the caller's string.
        let name = unsafe { argument::text(name, "name is NULL or not UTF-8")? };
        // SAFETY: the caller's string.
        let value = unsafe { argument::text(value, "value is NULL or not UTF-8")? };
        request.add_field(name, value)
    });
    error::status(&result)
}

/// Makes the reply: a status from 200 to 599 and a body of `length` bytes, which is copied. To a HEAD request the
/// body is left out and its length told; with 204, 205 and 304 it is left out. It is sent after the handler has
/// returned WEBSERVER_DONE.
///
/// The handler's thread, once during its call. Does not block. Errors: WEBSERVER_E_INVALID (the status; `body` is NULL
/// and `length` not 0), WEBSERVER_E_LIMIT (more than 64 MB), WEBSERVER_E_MEMORY (the memory budget has no room for the
/// body now; a body of up to 4 KB needs none), WEBSERVER_E_STATE (the reply was made already, and stays as it was).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_reply(
    request: *mut webserver_request<'_>,
    status: c_int,
    body: *const c_void,
    length: usize,
) -> c_int {
    let result = guard::catch(|| {
        // SAFETY: the handler's request, alive during its call; shared, since slices of it may be in use.
        let request = unsafe { argument::shared(request, NO_REQUEST)? };
        // SAFETY: the caller's `length` bytes.
        let body = unsafe { bytes(body, length)? };
        request.reply(status, body)
    });
    error::status(&result)
}

impl webserver_slice {
    const ABSENT: webserver_slice = webserver_slice { data: std::ptr::null(), length: 0 };

    fn of(bytes: &[u8]) -> Self {
        // An empty slice of Rust's may point anywhere: C programs like to pass pointers on.
        let data = if bytes.is_empty() { c"".as_ptr() } else { bytes.as_ptr().cast() };
        webserver_slice { data, length: bytes.len() }
    }
}

impl<'a> webserver_request<'a> {
    /// The request of a call, with buffers that an earlier reply left.
    pub(crate) fn new(call: &'a Call<'a>, context: &'a Context) -> Self {
        webserver_request {
            call,
            context,
            peer: OnceCell::new(),
            fields: RefCell::new(context.buffer()),
            body: RefCell::new(context.buffer()),
            held: Cell::new(None),
            status: Cell::new(None),
        }
    }

    /// What the core does after the handler has returned `code`.
    pub(crate) fn outcome(self, code: c_int, context: &Context) -> Outcome {
        let (fields, body) = (self.fields.into_inner(), self.body.into_inner());
        match (code, self.status.get()) {
            (WEBSERVER_DONE, Some(status)) => {
                let mut response = Response::new(status);
                response.fields = fields;
                response.body = Body::Owned(body);
                return Outcome::Ready(response);
            }
            (WEBSERVER_NEXT, None) => {
                context.recycle(fields);
                context.recycle(body);
                return Outcome::Next;
            }
            (WEBSERVER_DONE, None) => tracing::warn!("a handler returned WEBSERVER_DONE without a reply"),
            (WEBSERVER_NEXT, Some(_)) => tracing::warn!("a handler returned WEBSERVER_NEXT after its reply"),
            (WEBSERVER_DEFERRED, _) => {
                tracing::warn!("a handler returned WEBSERVER_DEFERRED: not in this version")
            }
            (code, _) => tracing::warn!(code, "a handler returned a number that means nothing here"),
        }
        Outcome::Ready(Response::page(Status::INTERNAL_SERVER_ERROR))
    }

    fn add_field(&self, name: &str, value: &str) -> Result<(), Failure> {
        self.not_replied()?;
        Response::check_field(name.as_bytes(), value.as_bytes()).map_err(Failure::invalid)?;
        let mut fields = self.fields.borrow_mut();
        let length = fields.len().saturating_add(name.len()).saturating_add(value.len()).saturating_add(4);
        if length > FIELDS_BYTES_MAX {
            return Err(Failure::Here(ErrorKind::Limit, "the reply has more than 16 KB of header fields"));
        }
        for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            fields.extend_from_slice(part);
        }
        Ok(())
    }

    fn reply(&self, status: c_int, bytes: &[u8]) -> Result<(), Failure> {
        self.not_replied()?;
        let status = u16::try_from(status)
            .ok()
            .and_then(Status::of_response)
            .ok_or(Failure::invalid("status is not from 200 to 599"))?;
        if bytes.len() > REPLY_BYTES_MAX {
            return Err(Failure::Here(ErrorKind::Limit, "the reply is larger than 64 MB"));
        }
        let held = self.context.reserve(bytes.len());
        self.held.set(held.map_err(|NoMemory| {
            Failure::Here(ErrorKind::Memory, "memory.budget has no room for the reply")
        })?);
        let mut body = self.body.borrow_mut();
        body.try_reserve_exact(bytes.len())
            .map_err(|_| Failure::Here(ErrorKind::Memory, "no memory for the reply"))?;
        body.extend_from_slice(bytes);
        self.status.set(Some(status));
        Ok(())
    }

    fn not_replied(&self) -> Result<(), Failure> {
        match self.status.get() {
            None => Ok(()),
            Some(_) => Err(Failure::Here(ErrorKind::State, "the reply was made already")),
        }
    }
}

/// What `of` finds in a request; absent without one.
///
/// # Safety
/// `request` is NULL or the one that a handler was called with, during that call.
pub(crate) unsafe fn read<'a>(
    request: *const webserver_request<'a>,
    of: impl for<'r> FnOnce(&'r webserver_request<'a>) -> Option<&'r [u8]>,
) -> webserver_slice {
    let mut found = webserver_slice::ABSENT;
    // A failure is NULL, and there is nobody to tell more.
    let _ = guard::catch(|| {
        // SAFETY: the caller's duty above.
        let request = unsafe { argument::shared(request, NO_REQUEST)? };
        found = of(request).map_or(webserver_slice::ABSENT, webserver_slice::of);
        Ok(())
    });
    found
}

/// `length` bytes of the host's; NULL is allowed when there are none.
///
/// # Safety
/// `pointer` is NULL or points to `length` bytes that nothing changes during `'b`.
unsafe fn bytes<'b>(pointer: *const c_void, length: usize) -> Result<&'b [u8], Failure> {
    if length == 0 {
        return Ok(&[]);
    }
    // SAFETY: the caller's duty above.
    unsafe { argument::bytes(pointer.cast(), length, "body is NULL and length is not 0") }
}

/// The text of an address, made when it is first asked for.
struct PeerText {
    bytes: [u8; 48],
    length: usize,
}

impl PeerText {
    fn of(call: &Call<'_>) -> Self {
        let mut bytes = [0; 48];
        let mut rest = &mut bytes[..];
        // The longest IPv6 address has 45 bytes.
        let _ = match call.peer.ip() {
            Some(address) => write!(rest, "{address}"),
            None => write!(rest, "unix:"),
        };
        let length = 48 - rest.len();
        PeerText { bytes, length }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
