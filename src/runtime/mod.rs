//! Everything that is asked of the executor, in one place: make it, run a future, spawn, yield, park on a
//! descriptor, read a file. Nothing else in the project names glommio.
//!
//! Sockets are deliberately not here: they live in the shard's own epoll set (`sys::epoll`), and the executor
//! is entered only while a task is outstanding. [`Local::outstanding`] knows when that is.

mod executor;
mod jobs;
mod mailbox;
mod park;
mod reader;

pub use executor::Executor;
pub(crate) use jobs::QUEUE_MAX;
pub use jobs::{Job, Jobs, Offload, Promise, QueueFull, Wait};
pub use mailbox::Mailbox;
pub use park::Parking;
pub use reader::{Chunk, FileReader};

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    task::Waker,
    time::Duration,
};

/// What the tasks of one shard share with its driver: how many there are, and how to wake the driver.
#[derive(Debug, Default)]
pub struct Local {
    outstanding: Cell<usize>,
    woken: Cell<bool>,
    driver: RefCell<Option<Waker>>,
}

impl Local {
    /// Nothing outstanding, nobody to wake.
    pub fn new() -> Rc<Self> {
        Rc::new(Local::default())
    }

    /// Starts a task on this shard's executor. It must end by itself: the shard waits for all of them when it
    /// stops. Costs one allocation.
    pub fn spawn(self: &Rc<Self>, future: impl Future<Output = ()> + 'static) {
        let guard = Outstanding::new(self);
        glommio::spawn_local(async move {
            let _guard = guard;
            future.await;
        })
        .detach();
    }

    /// Tasks that have not ended. While there are none the executor has nothing to do, and the driver may
    /// block in its epoll set.
    pub fn outstanding(&self) -> usize {
        self.outstanding.get()
    }

    /// Makes the driver take another turn: called by tasks that have something for it.
    pub fn wake_driver(&self) {
        self.woken.set(true);
        if let Some(waker) = self.driver.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Whether [`Local::wake_driver`] was called since the last call of this.
    pub fn take_woken(&self) -> bool {
        self.woken.replace(false)
    }

    fn is_woken(&self) -> bool {
        self.woken.get()
    }

    fn register_driver(&self, waker: &Waker) {
        *self.driver.borrow_mut() = Some(waker.clone());
    }
}

/// Lets every other task that is ready run once.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// Waits for at least `duration`; a little longer when the executor is busy. Costs an allocation, no descriptor.
pub async fn sleep(duration: Duration) {
    glommio::timer::sleep(duration).await;
}

/// Counts a task from before its first poll until its future is dropped.
struct Outstanding(Rc<Local>);

impl Outstanding {
    fn new(local: &Rc<Local>) -> Self {
        local.outstanding.set(local.outstanding.get() + 1);
        Outstanding(Rc::clone(local))
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.outstanding.set(self.0.outstanding.get() - 1);
        // The last one to end lets the driver block in epoll again, or end.
        self.0.wake_driver();
    }
}
