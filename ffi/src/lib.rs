//! The C interface: a thin layer over `webserver_core::{config, server}`.
//!
//! One file per C object. Each exported function checks its pointers, calls the core inside
//! [`guard::call`], and turns the outcome into a status code; nothing is decided here that a Rust user would
//! want too. Nothing here may unwind into C, print, keep a thread-local that has a destructor, or hold a
//! pointer of the host's past the call, but for callbacks, handlers and their `user`.
//!
//! The doc comments of exported items are the header's text, so they speak to C programmers. The duties they
//! name (pointers are NULL or valid, an object is not used after it was freed) are the duties of the
//! callers of these `unsafe fn`s.
#![allow(non_camel_case_types)]

use webserver_core::memory::heap::CountingAllocator;

/// The library's own heap is counted; the host's is its own affair.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

mod argument;
mod config;
mod error;
mod guard;
mod handler;
mod log;
mod memory;
mod request;
mod server;
mod stats;
mod tls;
mod version;
