//! Blocking work off the shards: a few named threads that are joined, with a bounded queue before them.
//!
//! A shard gets a future for the result. The thread that finished a job raises the shard's eventfd, and the
//! shard's driver wakes the future: no waker crosses a thread.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    thread::JoinHandle,
};

use crate::sys::{event::EventFd, thread};

/// Jobs that may wait for a thread, over all shards. One more is refused.
pub(crate) const QUEUE_MAX: usize = 1024;

/// The queue was full: the caller answers 503 and counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// The threads and their queue. Shared by all shards of a server.
#[derive(Debug)]
pub struct Jobs {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    stopping: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Jobs {
    /// Starts `threads` threads (at least one).
    pub fn start(threads: usize) -> io::Result<Self> {
        let jobs = Jobs { shared: Arc::new(Shared::default()), threads: Mutex::new(Vec::new()) };
        for index in 0..threads.max(1) {
            let shared = Arc::clone(&jobs.shared);
            match thread::spawn(&format!("webserver-io{index}"), move || shared.work()) {
                Ok(thread) => jobs.lock_threads().push(thread),
                Err(error) => {
                    jobs.close();
                    jobs.take_threads().into_iter().for_each(|thread| drop(thread.join()));
                    return Err(error);
                }
            }
        }
        Ok(jobs)
    }

    /// Queues a job; `finished` is called on the thread that ran it, after its result can be read.
    pub fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
        finished: impl FnOnce() + Send + 'static,
    ) -> Result<Job<T>, QueueFull> {
        let slot = Arc::new(Mutex::new(None));
        let result = Arc::clone(&slot);
        let work: Work = Box::new(move || {
            // A job that panics leaves no result, and its waiter is told so.
            let value = catch_unwind(AssertUnwindSafe(job)).ok();
            *result.lock().unwrap_or_else(PoisonError::into_inner) = value;
            drop(result);
            finished();
        });
        {
            let mut state = self.shared.lock();
            if state.stopping || state.queue.len() >= QUEUE_MAX {
                return Err(QueueFull);
            }
            state.queue.push_back(work);
        }
        self.shared.ready.notify_one();
        Ok(Job { slot })
    }

    /// No more jobs are taken; the threads end when the queue is empty.
    pub fn close(&self) {
        self.shared.lock().stopping = true;
        self.shared.ready.notify_all();
    }

    /// The threads, to be joined with a deadline after [`Jobs::close`].
    pub fn take_threads(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.lock_threads())
    }

    fn lock_threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            let work = loop {
                if let Some(work) = state.queue.pop_front() {
                    break work;
                }
                if state.stopping {
                    return;
                }
                state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            drop(state);
            work();
        }
    }
}

/// A job that was queued.
#[derive(Debug)]
pub struct Job<T> {
    slot: Arc<Mutex<Option<T>>>,
}

impl<T> Job<T> {
    /// The result, once.
    pub fn take(&self) -> Option<T> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the thread is done with it: then the result is there, or there is none.
    fn ended(&self) -> bool {
        Arc::strong_count(&self.slot) == 1
    }
}

/// One shard's access to the threads: what is run here comes back as a future of this shard.
#[derive(Debug)]
pub struct Offload {
    jobs: Arc<Jobs>,
    finished: Arc<EventFd>,
    waiters: RefCell<Vec<Waker>>,
    closed: Cell<bool>,
    submitted: Cell<u64>,
    refused: Cell<u64>,
}

impl Offload {
    /// `finished` belongs to the shard's epoll set; the driver calls [`Offload::wake`] when it is raised.
    pub fn new(jobs: Arc<Jobs>, finished: Arc<EventFd>) -> Rc<Self> {
        Rc::new(Offload {
            jobs,
            finished,
            waiters: RefCell::default(),
            closed: Cell::new(false),
            submitted: Cell::new(0),
            refused: Cell::new(0),
        })
    }

    /// Runs `job` on one of the threads. The future gives `None` when the job panicked or the shard was cut
    /// before it ended.
    pub fn run<T: Send + 'static>(
        self: &Rc<Self>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Wait<T>, QueueFull> {
        let event = Arc::clone(&self.finished);
        match self.jobs.submit(job, move || event.raise()) {
            Ok(job) => {
                self.submitted.set(self.submitted.get() + 1);
                Ok(Wait { offload: Rc::clone(self), job })
            }
            Err(full) => {
                self.refused.set(self.refused.get() + 1);
                Err(full)
            }
        }
    }

    /// A place for a value that another thread will leave, and the future of it.
    pub fn promise<T: Send + 'static>(self: &Rc<Self>) -> (Promise<T>, Wait<T>) {
        let slot = Arc::new(Mutex::new(None));
        let promise = Promise { slot: Some(Arc::clone(&slot)), event: Arc::clone(&self.finished) };
        (promise, Wait { offload: Rc::clone(self), job: Job { slot } })
    }

    /// Jobs taken so far.
    pub fn submitted(&self) -> u64 {
        self.submitted.get()
    }

    /// Jobs that found the queue full so far.
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Lets every waiter look at its own job. They are few: files that are not in the kernel's caches.
    pub fn wake(&self) {
        for waker in self.waiters.take() {
            waker.wake();
        }
    }

    /// From now on waiters get nothing: the shard is being cut.
    pub fn close(&self) {
        self.closed.set(true);
        self.wake();
    }
}

/// Where another thread leaves a value for a task of a shard. Dropped without one, it tells the task that there is none.
#[derive(Debug)]
pub struct Promise<T> {
    slot: Option<Arc<Mutex<Option<T>>>>,
    event: Arc<EventFd>,
}

impl<T> Promise<T> {
    /// Leaves the value and wakes the shard.
    pub fn keep(self, value: T) {
        if let Some(slot) = &self.slot {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        // First the place, for that is how the future sees that nothing more will come.
        self.slot = None;
        self.event.raise();
    }
}

/// The future of [`Offload::run`] and of [`Offload::promise`]. Whoever need not be told may ask with [`Wait::take`] instead.
#[derive(Debug)]
pub struct Wait<T> {
    offload: Rc<Offload>,
    job: Job<T>,
}

impl<T> Wait<T> {
    /// The result, once: `None` while the job runs, `Some(None)` when it gave none or its result was taken.
    pub fn take(&self) -> Option<Option<T>> {
        // Whether it ended is asked first: a result that comes between the two questions is seen by the next.
        let ended = self.job.ended();
        match self.job.take() {
            Some(value) => Some(Some(value)),
            None => (ended || self.offload.closed.get()).then_some(None),
        }
    }

    /// Where the job runs.
    pub fn offload(&self) -> &Rc<Offload> {
        &self.offload
    }
}

impl<T> Future for Wait<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(result) = self.take() {
            return Poll::Ready(result);
        }
        self.offload.waiters.borrow_mut().push(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn runs_a_job_and_says_so_after_its_result_can_be_read() {
        let jobs = Jobs::start(1).unwrap();
        let (sender, receiver) = mpsc::channel();
        let job = jobs.submit(|| 42, move || sender.send(()).unwrap()).unwrap();
        receiver.recv().unwrap();
        assert_eq!(job.take(), Some(42));
        jobs.close();
        jobs.take_threads().into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn refuses_one_more_than_the_queue_holds_and_recovers() {
        let jobs = Jobs::start(1).unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel();
        let first = move || {
            started.send(()).unwrap();
            let _ = gate.recv();
        };
        jobs.submit(first, || {}).unwrap();
        running.recv().unwrap();
        let (done, finished) = mpsc::channel();
        for _ in 0..QUEUE_MAX {
            let done = done.clone();
            jobs.submit(|| (), move || done.send(()).unwrap()).unwrap();
        }
        assert!(matches!(jobs.submit(|| (), || {}), Err(QueueFull)));
        drop(release);
        for _ in 0..QUEUE_MAX {
            finished.recv().unwrap();
        }
        jobs.submit(|| (), || {}).unwrap();
        jobs.close();
        jobs.take_threads().into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_promise_is_kept_by_another_thread_or_broken() {
        let jobs = Arc::new(Jobs::start(1).unwrap());
        let event = Arc::new(EventFd::new().unwrap());
        let offload = Offload::new(jobs, event);
        let (promise, kept) = offload.promise();
        let (dropped, broken) = offload.promise::<u32>();
        assert_eq!(kept.take(), None, "nothing yet");
        std::thread::scope(|scope| {
            scope.spawn(|| promise.keep(7));
            scope.spawn(|| drop(dropped));
        });
        assert_eq!((kept.take(), broken.take()), (Some(Some(7)), Some(None)));
    }

    #[test]
    fn a_panic_in_a_job_keeps_its_thread() {
        let jobs = Jobs::start(1).unwrap();
        jobs.submit(|| std::panic::resume_unwind(Box::new("bug")), || {}).unwrap();
        let (sender, receiver) = mpsc::channel();
        jobs.submit(|| 1, move || sender.send(()).unwrap()).unwrap();
        receiver.recv().unwrap();
        jobs.close();
        jobs.take_threads().into_iter().for_each(|thread| thread.join().unwrap());
    }
}
