//! The diagnostic log: `tracing` events as lines of text, for a file or for the host's callback.
//!
//! A [`tracing::Dispatch`] made here is set as the default of each of our threads and never globally: the host may
//! have its own. Spans are not recorded; an event says what it has to say in its own fields.

use std::{
    fmt::{self, Debug, Write},
    sync::Arc,
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

/// Where diagnostic events go: to a log file, to the host, to both, or nowhere.
#[derive(Clone, Default)]
pub struct Sink {
    /// The writer's queue; its lines read `2026-11-23T12:00:00Z INFO target: message key=value`.
    pub queue: Option<DiagnosticQueue>,
    /// The host's function.
    pub callback: Option<Callback>,
}

impl Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("queue", &self.queue.is_some())
            .field("callback", &self.callback.is_some())
            .finish()
    }
}

/// The dispatch for our threads: events down to `level`, of the executor's own only warnings and errors.
/// Make it once, and set a clone in each thread with `tracing::dispatcher::set_default`.
///
/// With an empty sink it is the one that does nothing.
pub fn dispatch(level: Level, sink: &Sink) -> Dispatch {
    if sink.queue.is_none() && sink.callback.is_none() {
        return Dispatch::none();
    }
    Dispatch::new(Diagnostics { level, sink: sink.clone() })
}

/// The subscriber behind [`dispatch`].
struct Diagnostics {
    level: Level,
    sink: Sink,
}

impl Diagnostics {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let is_executor = target == "glommio" || target.starts_with("glommio::");
        let level_max = if is_executor { self.level.min(Level::Warn) } else { self.level };
        metadata.is_event() && level_of(metadata) <= level_max
    }
}

impl Subscriber for Diagnostics {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.level {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        })
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        // No span is enabled; the trait wants an answer.
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        // Another dispatch may have made a callsite interesting that is not so here.
        if !self.wants(metadata) {
            return;
        }
        let (level, target) = (level_of(metadata), metadata.target());
        let mut message = Message::default();
        event.record(&mut message);
        if let Some(callback) = &self.sink.callback {
            callback(level, target, &message.text);
        }
        if let Some(queue) = &self.sink.queue {
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
