//! Who holds how many bytes: pooled buffers, bodies that are gathered, and the heap counted for the metrics.

mod gathered;
pub mod heap;
mod mapping;
pub mod pool;

pub use gathered::{Allowance, Gathered};
pub use mapping::Mapping;
pub use pool::{Buffer, BufferPool, Tier};
