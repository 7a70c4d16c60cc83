//! Who holds how many bytes: pooled buffers, and the heap counted for the metrics.

pub mod heap;
mod mapping;
pub mod pool;

pub use mapping::Mapping;
pub use pool::{Buffer, BufferPool, Tier};
