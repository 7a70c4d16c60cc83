//! The stand-alone binary: reads its arguments and hands over to [`cli`].
#![deny(unsafe_code)]

mod cli;

use std::process::ExitCode;

use webserver::memory::heap::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    cli::run(lexopt::Parser::from_env())
}
