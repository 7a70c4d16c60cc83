//! The diagnostic log: `tracing` events as lines of text, for a file or for the host's callback.
//!
//! A [`tracing::Dispatch`] made here is set as the default of each of our threads and never globally: the host may
//! have its own. Spans are not recorded; an event says what it has to say in its own fields.

use std::{
    fmt::{self, Debug, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};

use super::{date, queue::DiagnosticQueue};
use crate::config::Level;

/// Bytes of a message, fields and the mark of a cut included.
const MESSAGE_BYTES_MAX: usize = 1024;
const CUT: &str = "...";

/// A host's log function: severity, target (a module path), message. Called on any of our threads, several at once.
pub type Callback = Arc<dyn Fn(Level, &str, &str) + Send + Sync>;

/// Where diagnostic events go: to a log file, to the host, to both, or nowhere. One for a server's whole life; what
/// may change is changed in place.
pub struct Sink {
    /// Least severe level that is wanted, as a number.
    level: AtomicU8,
    /// Whether there is a file to write to. Its lines read `2026-11-23T12:00:00Z INFO target: message key=value`.
    has_file: AtomicBool,
    /// The way to it, from the first time on that there is one.
    queue: OnceLock<DiagnosticQueue>,
    /// The host's function.
    callback: Option<Callback>,
}

impl Sink {
    /// To `callback` alone, if there is one.
    pub fn new(level: Level, callback: Option<Callback>) -> Self {
        Sink {
            level: AtomicU8::new(level as u8),
            has_file: AtomicBool::new(false),
            queue: OnceLock::new(),
            callback,
        }
    }

    /// The way to a file. The first one stays.
    pub(super) fn connect(&self, queue: DiagnosticQueue) {
        // A second one would be the same.
        let _ = self.queue.set(queue);
    }

    /// Another level, and a file or none, from now on in every thread.
    pub(super) fn change(self: &Arc<Self>, level: Level, has_file: bool) {
        let level_before = self.level.swap(level as u8, Relaxed);
        let had_file = self.has_file.swap(has_file, Relaxed);
        if (level_before, had_file) != (level as u8, has_file) {
            // Making one asks.
            drop(dispatch(self));
        }
    }

    /// 0 when nobody listens.
    fn level_max(&self) -> u8 {
        let is_heard = self.callback.is_some() || self.has_file.load(Relaxed);
        if is_heard { self.level.load(Relaxed) } else { 0 }
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let is_executor = target == "glommio" || target.starts_with("glommio::");
        let level_max = self.level_max();
        let level_max = if is_executor { level_max.min(Level::Warn as u8) } else { level_max };
        metadata.is_event() && level_of(metadata) as u8 <= level_max
    }
}

impl Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("level", &self.level)
            .field("has_file", &self.has_file)
            .field("callback", &self.callback.is_some())
            .finish_non_exhaustive()
    }
}

/// The dispatch for our threads: events down to the sink's level, of the executor's own only warnings and errors.
/// Make it once, and set a clone in each thread with `tracing::dispatcher::set_default`.
pub fn dispatch(sink: &Arc<Sink>) -> Dispatch {
    let dispatch = Dispatch::new(Diagnostics(Arc::clone(sink)));
    ask_again(&dispatch);
    dispatch
}

/// Has each place in the code told anew whether its events are wanted. While only one dispatch is alive, `tracing` asks
/// the default of the calling thread instead, so that must be this one: else places that an earlier server has passed
/// would stay silent for a later one.
fn ask_again(dispatch: &Dispatch) {
    tracing::dispatcher::with_default(dispatch, tracing::callsite::rebuild_interest_cache);
}

/// The subscriber behind [`dispatch`].
struct Diagnostics(Arc<Sink>);

impl Subscriber for Diagnostics {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.0.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        const FILTERS: [LevelFilter; 6] = [
            LevelFilter::OFF,
            LevelFilter::ERROR,
            LevelFilter::WARN,
            LevelFilter::INFO,
            LevelFilter::DEBUG,
            LevelFilter::TRACE,
        ];
        FILTERS.get(usize::from(self.0.level_max())).copied()
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        // No span is enabled; the trait wants an answer.
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let sink = &self.0;
        // Another dispatch may have made a callsite interesting that is not so here.
        if !sink.wants(metadata) {
            return;
        }
        let (level, target) = (level_of(metadata), metadata.target());
        let mut message = Message::default();
        event.record(&mut message);
        if let Some(callback) = &sink.callback {
            callback(level, target, &message.text);
        }
        if sink.has_file.load(Relaxed)
            && let Some(queue) = sink.queue.get()
        {
            let unix_seconds =
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let stamp = date::rfc3339(unix_seconds);
            queue.send(format!("{stamp} {} {target}: {}\n", metadata.level(), message.text));
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn level_of(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

/// One event as text: the message, then ` key=value` for each field. On one line, because controls are escaped, and
/// bounded, because what does not fit is cut.
#[derive(Default)]
struct Message {
    text: String,
    is_full: bool,
}

impl Message {
    fn put(&mut self, char: char) {
        if self.text.len() + char.len_utf8() + CUT.len() <= MESSAGE_BYTES_MAX {
            self.text.push(char);
        } else {
            self.text.push_str(CUT);
            self.is_full = true;
        }
    }

    fn put_key(&mut self, key: &str) -> fmt::Result {
        if !self.text.is_empty() {
            self.write_char(' ')?;
        }
        self.write_str(key)?;
        self.write_char('=')
    }
}

impl Write for Message {
    /// Fails when the message is full, which ends a long formatting early.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            if self.is_full {
                return Err(fmt::Error);
            }
            if char.is_control() {
                char.escape_default().for_each(|escaped| {
                    if !self.is_full {
                        self.put(escaped);
                    }
                });
            } else {
                self.put(char);
            }
        }
        Ok(())
    }
}

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_word = !value.is_empty() && !value.contains([' ', '"', '=']);
        // An error means that the message is full, which is marked in it.
        let _ = if field.name() == "message" || is_word {
            self.put_value(field, format_args!("{value}"))
        } else {
            self.put_value(field, format_args!("{value:?}"))
        };
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // An error means that the message is full, which is marked in it.
        let _ = self.put_value(field, format_args!("{value:?}"));
    }
}

impl Message {
    /// The event's message stands bare and is recorded before the other fields.
    fn put_value(&mut self, field: &Field, value: fmt::Arguments<'_>) -> fmt::Result {
        if field.name() != "message" {
            self.put_key(field.name())?;
        }
        self.write_fmt(value)
    }
}

#[cfg(test)]
mod tests;
