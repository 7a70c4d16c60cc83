//! Figures about the server: counted by each shard on its own cache lines, added up when somebody asks.
//!
//! A shard writes its [`ShardMetrics`] with a plain load and a plain store, because nobody else writes them;
//! a scrape reads them relaxed from another thread and may see one figure a moment older than the next.
//! Nothing here keeps time, opens a socket, or is called on its own: text is made by [`Registry::render`].

mod counter;
mod exposition;
pub mod heap;
mod histogram;
mod memory;
mod process;
mod registry;
mod shard;
mod tls;

pub use counter::{Counter, Gauge, SharedCounter, SharedGauge};
pub use histogram::{BUCKETS, Histogram};
pub use memory::{Holder, LEVELS, Relief, ServerMemory, ShardMemory};
pub use process::resident_bytes;
pub use registry::{Labelled, LogMetrics, Registry, Status, Totals};
pub use shard::{BUFFER_SIZES, ShardMetrics, Shed, StatusCounters, Timeout};
pub use tls::{Handshake, ServerTls, ShardTls, TlsFailure};
