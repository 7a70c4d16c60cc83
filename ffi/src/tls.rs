//! What a handler is told about the TLS of its request's connection.

use std::ffi::c_int;

use webserver_core::tls::Facts;

use crate::request::{read, webserver_request, webserver_slice};

/// Whether the request came over TLS: 1 or 0, and 0 for NULL.
///
/// The handler's thread, during its call. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_request_is_tls(request: *const webserver_request<'_>) -> c_int {
    // SAFETY: the handler's request, NULL or alive.
    unsafe { is_so(request, |_| true) }
}

/// Whether the connection resumed an earlier session of its client instead of a full handshake: 1 or 0, and 0 without
/// TLS.
///
/// The handler's thread, during its call. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_request_tls_resumed(request: *const webserver_request<'_>) -> c_int {
    // SAFETY: the handler's request, NULL or alive.
    unsafe { is_so(request, |facts| facts.resumed) }
}

/// The version of TLS: "TLSv1.2" or "TLSv1.3"; `data` is NULL without TLS. Later versions may add others.
///
/// The handler's thread, during its call. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_request_tls_version(
    request: *const webserver_request<'_>,
) -> webserver_slice {
    // SAFETY: the handler's request, NULL or alive.
    unsafe { fact(request, |facts| Some(facts.version.as_bytes())) }
}

/// The cipher suite by the name that IANA has for it, for example "TLS_AES_128_GCM_SHA256"; `data` is NULL without
/// TLS.
///
/// The handler's thread, during its call. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_request_tls_cipher(
    request: *const webserver_request<'_>,
) -> webserver_slice {
    // SAFETY: the handler's request, NULL or alive.
    unsafe { fact(request, |facts| Some(facts.cipher.as_bytes())) }
}

/// The host that the client asked for when it connected (SNI, RFC 6066 3), in lower case; `data` is NULL when it
/// asked for none, as clients do that were given an IP address, and without TLS. The Host of the request need not be
/// the same.
///
/// The handler's thread, during its call. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_request_tls_server_name(
    request: *const webserver_request<'_>,
) -> webserver_slice {
    // SAFETY: the handler's request, NULL or alive.
    unsafe { fact(request, |facts| facts.server_name.map(str::as_bytes)) }
}

/// The subject of the certificate that the client showed and that an authority of client_ca has signed, for example
/// "CN=client 7,O=Example,C=DE" (RFC 4514): printable ASCII, whatever the certificate holds, and at most 1 KB. `data` is
/// NULL when the client showed none, when its subject is longer, and without TLS.
///
/// The handler's thread, during its call. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_request_tls_client_subject(
    request: *const webserver_request<'_>,
) -> webserver_slice {
    // SAFETY: the handler's request, NULL or alive.
    unsafe { fact(request, |facts| facts.client_subject.map(str::as_bytes)) }
}

/// That certificate, DER, without the intermediate ones; `data` is NULL when the client showed none and without TLS.
///
/// The handler's thread, during its call. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_request_tls_client_certificate(
    request: *const webserver_request<'_>,
) -> webserver_slice {
    // SAFETY: the handler's request, NULL or alive.
    unsafe { fact(request, |facts| facts.client_certificate) }
}

/// What `of` finds in the facts; absent without TLS.
///
/// # Safety
/// As [`read`].
unsafe fn fact(
    request: *const webserver_request<'_>,
    of: impl for<'r> FnOnce(Facts<'r>) -> Option<&'r [u8]>,
) -> webserver_slice {
    // SAFETY: the caller's duty above.
    unsafe { read(request, |request| request.call.tls.and_then(of)) }
}

/// 1 when there is TLS and `of` says so.
///
/// # Safety
/// As [`read`].
unsafe fn is_so(request: *const webserver_request<'_>, of: impl FnOnce(Facts<'_>) -> bool) -> c_int {
    // SAFETY: the caller's duty above.
    let found = unsafe { read(request, |request| request.call.tls.is_some_and(of).then_some(&[])) };
    c_int::from(!found.data.is_null())
}
