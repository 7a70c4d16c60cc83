//! One glommio executor on the calling thread, made so that it cannot panic on us, and taken down so that
//! nothing of it stays: glommio 0.9 leaks an eventfd an executor (its issue 448) and detaches a thread.

use std::{
    ffi::{CStr, CString},
    future::Future,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use crate::{
    error::{Error, ErrorKind, Result},
    sys::{
        descriptors::{self, Census, Leaked},
        thread,
    },
};

/// Memory registered with io_uring by each executor, bytes; glommio's default is 10 MB.
pub const IO_MEMORY_BYTES: usize = 1 << 20;
/// Entries of each of the executor's three rings.
const RING_DEPTH: usize = 128;
/// How long to wait for the executor's helper thread, which has nothing to do, to notice that it is over.
const HELPER_EXIT: Duration = Duration::from_secs(2);

/// What the helper thread is called: by its name it is known from threads that others start meanwhile.
const HELPER_NAME: &CStr = c"webserver/idle";

/// Making an executor compares the process's descriptors and threads before and after: one at a time, and none closes
/// its eventfd meanwhile, whose number another would get.
static MAKING: Mutex<()> = Mutex::new(());

/// An executor for the thread that made it.
#[derive(Debug)]
pub struct Executor {
    inner: Option<LocalExecutor>,
    eventfd: Option<Leaked>,
    helper: Option<u32>,
}

impl Executor {
    /// Makes the executor. Run `sys::uring::preflight` first: it explains what this would only panic about.
    ///
    /// Allocates `IO_MEMORY_BYTES`, three rings, an eventfd, and a helper thread that stays idle.
    pub fn new() -> Result<Self> {
        let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let own_name = thread::current_name().and_then(|name| CString::new(name).ok());
        thread::set_current_name(HELPER_NAME);
        let made = Executor::make();
        if let Some(name) = own_name {
            thread::set_current_name(&name);
        }
        made
    }

    fn make() -> Result<Self> {
        let before = Census::take();
        let inner = LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(IO_MEMORY_BYTES)
            .ring_depth(RING_DEPTH)
            .make()
            .map_err(|error| {
                Error::new(ErrorKind::Unsupported, format!("cannot make an io_uring executor: {error}"))
            })?;
        let (eventfd, helper) = match (before, Census::take()) {
            (Ok(before), Ok(after)) => (after.new_eventfd(&before), after.new_thread(&before)),
            _ => (None, None),
        };
        Ok(Executor { inner: Some(inner), eventfd, helper })
    }

    /// Runs a future to its end. Every task it spawned must have ended by then.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.inner.as_ref().map(|executor| executor.run(future))
    }

    /// Takes the executor down: closes what it leaks and waits for its helper thread.
    ///
    /// Returns how many descriptors had to be left open because their owner was not certain.
    pub fn finish(mut self) -> usize {
        drop(self.inner.take());
        if let Some(helper) = self.helper {
            let deadline = Instant::now() + HELPER_EXIT;
            while descriptors::thread_exists(helper) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        match self.eventfd {
            Some(leaked) => {
                let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
                leaked.close();
                0
            }
            None => 1,
        }
    }
}
