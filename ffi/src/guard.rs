//! The boundary that every call crosses: no panic leaves the library, none is printed, no call runs in a
//! child after `fork` or inside one of the host's callbacks.
//!
//! Its thread-locals have no destructor, so a host's thread that called us once ends without us.

use std::{
    any::Any,
    cell::Cell,
    mem, panic,
    panic::{AssertUnwindSafe, PanicHookInfo},
    sync::{
        Once,
        atomic::{AtomicI32, Ordering},
    },
};

use webserver_core::{Error, ErrorKind};

use crate::error::Failure;

/// The process that first made a configuration; 0 before that. A child inherits its parent's number for good.
static OWNER: AtomicI32 = AtomicI32::new(0);

static HOOK: Once = Once::new();

/// How our threads' names begin, in the kernel's copy of the name. A thread inherits it, so a dependency's
/// unnamed thread that one of ours started has it too.
const THREAD_PREFIX: &[u8] = b"webserver";

thread_local! {
    /// This thread is inside [`call`].
    static IN_CALL: Cell<bool> = const { Cell::new(false) };
    /// This thread is inside a function of the host that we called.
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
    /// Where the last panic inside [`call`] happened.
    static PANIC_PLACE: Cell<PanicPlace> = const { Cell::new(PanicPlace { file: [0; 48], line: 0 }) };
}

/// Runs the work of one exported function.
///
/// A panic becomes [`ErrorKind::Panic`], a child after `fork` gets [`ErrorKind::Forked`], a host's callback
/// [`ErrorKind::State`]; in the latter two `work` does not run.
pub(crate) fn call(work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    if IN_CALLBACK.get() {
        return Err(Failure::Here(ErrorKind::State, "a callback must not call back into the library"));
    }
    call_anywhere(work)
}

/// The same for a function that callbacks and handlers may call, because it neither waits nor calls anybody.
pub(crate) fn call_anywhere(work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    if is_forked() {
        return Err(Failure::Here(ErrorKind::Forked, "after fork a child may only exec or exit"));
    }
    catch(work)
}

/// Runs the work of a function that a handler may call: no panic leaves it. It looks at memory alone, so neither a
/// fork nor a callback is asked about.
pub(crate) fn catch(work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let outer = IN_CALL.replace(true);
    // Unwind safe: a handle whose call panicked is only ever read again through the core, which locks or
    // uses atomics, or is a configuration or a reply, whose parts are replaced whole.
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    IN_CALL.set(outer);
    outcome.unwrap_or_else(|payload| Err(Error::new(ErrorKind::Panic, panic_text(payload)).into()))
}

/// Runs a function of the host: meanwhile this thread's calls into the library answer
/// [`ErrorKind::State`].
pub(crate) fn callback<T>(function: impl FnOnce() -> T) -> T {
    let outer = IN_CALLBACK.replace(true);
    let result = function();
    IN_CALLBACK.set(outer);
    result
}

/// Remembers this process as the library's and keeps our panics off the host's standard error. Idempotent;
/// called by `webserver_config_new`, which every other object descends from.
pub(crate) fn prepare() {
    // SAFETY: getpid has no preconditions.
    let own = unsafe { libc::getpid() };
    // Relaxed: the number publishes nothing but itself. Failing means that it is already there.
    let _ = OWNER.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed);
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IN_CALL.get() {
                PANIC_PLACE.set(PanicPlace::of(info));
            } else if is_own_thread() {
                // Goes to the subscriber of this thread, if it has one; `tracing` drops what is reported from
                // inside a subscriber, so a log callback cannot recurse into itself.
                tracing::error!(target: "webserver::panic", "{info}");
            } else {
                previous(info);
            }
        }));
    });
}

fn is_forked() -> bool {
    let owner = OWNER.load(Ordering::Relaxed);
    // SAFETY: getpid has no preconditions.
    owner != 0 && owner != unsafe { libc::getpid() }
}

/// Asks the kernel, not `std::thread::current`, which would leave a destructor on a host's thread.
fn is_own_thread() -> bool {
    let mut name = [0_u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes (prctl(2)), and `name` has 16.
    let outcome = unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    outcome == 0 && name.starts_with(THREAD_PREFIX)
}

/// The message of a caught panic, for the error struct.
fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let place = PANIC_PLACE.replace(PanicPlace::UNKNOWN);
    let message = if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        String::from("no message")
    };
    // Dropping a payload of unknown type could panic again; these few bytes are the price of a bug.
    mem::forget(payload);
    format!("bug in webserver at {}:{}: {message}", place.file(), place.line)
}

/// A source location that needs no destructor.
#[derive(Clone, Copy)]
struct PanicPlace {
    /// The end of the file's path; NULs in front.
    file: [u8; 48],
    line: u32,
}

impl PanicPlace {
    const UNKNOWN: PanicPlace = PanicPlace { file: [0; 48], line: 0 };

    fn of(info: &PanicHookInfo<'_>) -> Self {
        let mut place = PanicPlace::UNKNOWN;
        if let Some(location) = info.location() {
            let path = location.file().as_bytes();
            let kept = &path[path.len().saturating_sub(place.file.len())..];
            let start = place.file.len() - kept.len();
            place.file[start..].copy_from_slice(kept);
            place.line = location.line();
        }
        place
    }

    /// The path's end; "?" when it was cut inside a character or is unknown.
    fn file(&self) -> &str {
        let start = self.file.iter().position(|byte| *byte != 0).unwrap_or(self.file.len());
        str::from_utf8(&self.file[start..]).ok().filter(|path| !path.is_empty()).unwrap_or("?")
    }
}
