//! Who holds how many bytes: the budget and the levels of pressure, pooled buffers, bodies that are gathered, and the
//! heap counted for the metrics.

pub mod budget;
mod gathered;
pub mod heap;
mod mapping;
mod overflow;
pub mod pool;
pub mod pressure;
mod region;
mod stock;

pub use budget::{Budget, Charge, Rank, Reservation, Share};
pub use gathered::{Allowance, Gathered, Sources};
pub use mapping::Mapping;
pub use overflow::Overflow;
pub use pool::{Buffer, BufferPool, Tier};
pub use pressure::Level;
pub use stock::{Stock, Stocked};
