//! An HTTP server that lives inside another program: it serves files and answers requests inside stated
//! limits, on threads of its own, and leaves nothing behind when it is stopped.
//!
//! [`config::Config`] is what a user writes, [`Server`] is what runs. The C interface is the package `ffi`
//! over these two; the binary is `main.rs`. `docs/architecture.md` tells how the parts fit together.
//!
//! A module uses modules listed above it here, never below.
#![deny(unsafe_code)]

pub mod clock;
pub mod config;
mod error;
pub mod metrics;

pub mod admission;
pub mod files;
pub mod http;
pub mod http1;
pub mod log;
#[allow(unsafe_code)]
pub mod memory;
pub mod runtime;
pub mod server;
pub mod service;
pub mod shard;
#[allow(unsafe_code)]
pub mod sys;
pub mod tls;

pub use error::{Error, ErrorKind, Place, Result};
pub use server::Server;
