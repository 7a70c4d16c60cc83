//! Waiting for the shard's epoll set inside the executor's reactor.
//!
//! glommio has no public "wait until this descriptor is readable". A `TcpStream` made from a duplicate of the
//! epoll descriptor polls it at once, and its first `poll_read` waits for that poll without touching the
//! descriptor; when the poll has fired, the read fails with `ENOTSOCK`, which tells us no less. The test below
//! would notice if an upgrade of glommio changed that.

use std::{cell::RefCell, future::poll_fn, io, os::fd::BorrowedFd, pin::Pin, rc::Rc, task::Poll};

use futures_lite::AsyncRead;
use glommio::net::TcpStream;

use super::Local;
use crate::sys::{descriptors, socket};

/// The armed poll of one shard's epoll set; kept between parks until it fires.
#[derive(Debug, Default)]
pub struct Parking {
    armed: RefCell<Option<TcpStream>>,
}

impl Parking {
    /// Waits until `epoll` has something to report or a task called [`Local::wake_driver`].
    ///
    /// Costs a `dup`, a `close` and a submission when the poll has to be armed: about 8 µs. Fails with
    /// `EMFILE` when no descriptor is left for the duplicate; the caller then looks again after a while.
    pub async fn park(&self, epoll: BorrowedFd<'_>, local: &Rc<Local>) -> io::Result<()> {
        if local.is_woken() {
            super::yield_now().await;
            return Ok(());
        }
        let mut stream = match self.armed.borrow_mut().take() {
            Some(stream) => stream,
            None => arm(epoll)?,
        };
        let fired = poll_fn(|context| {
            if local.is_woken() {
                return Poll::Ready(false);
            }
            local.register_driver(context.waker());
            Pin::new(&mut stream).poll_read(context, &mut [0]).map(|_| true)
        })
        .await;
        if !fired {
            *self.armed.borrow_mut() = Some(stream);
        }
        Ok(())
    }

    /// Gives the duplicate back. Must be called inside the executor, before it ends.
    pub fn release(&self) {
        self.armed.borrow_mut().take();
    }
}

fn arm(epoll: BorrowedFd<'_>) -> io::Result<TcpStream> {
    Ok(descriptors::give(socket::duplicate(epoll)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{runtime::Executor, sys::epoll::Epoll, sys::epoll::READABLE, sys::event::EventFd};
    use std::{os::fd::AsFd, sync::Arc};

    /// Runs `body` on an executor of its own, on a thread of its own.
    fn on_executor<F, T>(body: impl FnOnce(Rc<Local>) -> F + Send + 'static) -> T
    where
        F: Future<Output = T>,
        T: Send + 'static,
    {
        std::thread::spawn(move || {
            let executor = Executor::new().unwrap();
            let result = executor.run(body(Local::new())).unwrap();
            executor.finish();
            result
        })
        .join()
        .unwrap()
    }

    #[test]
    fn wakes_when_another_thread_makes_the_set_ready() {
        on_executor(|local| async move {
            let (epoll, event) = (Epoll::new().unwrap(), Arc::new(EventFd::new().unwrap()));
            epoll.add(event.as_fd().as_fd(), 7, READABLE).unwrap();
            let parking = Parking::default();
            for _ in 0..20 {
                let raise = Arc::clone(&event);
                let thread = std::thread::spawn(move || raise.raise());
                parking.park(epoll.as_fd(), &local).await.unwrap();
                thread.join().unwrap();
                let mut events = [crate::sys::epoll::Event::EMPTY; 4];
                assert_eq!(epoll.wait(&mut events, false).unwrap()[0].token(), 7);
                event.clear();
            }
            parking.release();
        });
    }

    #[test]
    fn wakes_when_the_set_was_ready_before() {
        on_executor(|local| async move {
            let (epoll, event) = (Epoll::new().unwrap(), EventFd::new().unwrap());
            epoll.add(event.as_fd(), 7, READABLE).unwrap();
            event.raise();
            let parking = Parking::default();
            parking.park(epoll.as_fd(), &local).await.unwrap();
            parking.release();
        });
    }

    #[test]
    fn wakes_for_a_task_and_keeps_the_poll_armed() {
        on_executor(|local| async move {
            let (epoll, event) = (Epoll::new().unwrap(), EventFd::new().unwrap());
            epoll.add(event.as_fd(), 7, READABLE).unwrap();
            let parking = Parking::default();
            for _ in 0..5 {
                let waker = Rc::clone(&local);
                local.spawn(async move { waker.wake_driver() });
                parking.park(epoll.as_fd(), &local).await.unwrap();
                assert!(local.take_woken());
            }
            assert_eq!(local.outstanding(), 0);
            event.raise();
            parking.park(epoll.as_fd(), &local).await.unwrap();
            parking.release();
        });
    }

    #[test]
    fn an_executor_leaves_no_descriptor_and_no_thread() {
        // In a child: other tests of this process open descriptors and threads at the same time.
        let program = std::env::current_exe().unwrap();
        let status = std::process::Command::new(program)
            .args(["--exact", "--ignored", "runtime::park::tests::executor_alone", "--test-threads=1"])
            .output()
            .unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
    }

    #[test]
    #[ignore = "run in a process of its own by an_executor_leaves_no_descriptor_and_no_thread"]
    fn executor_alone() {
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        on_executor(|_| async {});
        let before = (descriptors(), threads());
        for _ in 0..5 {
            wakes_for_a_task_and_keeps_the_poll_armed();
        }
        assert_eq!((descriptors(), threads()), before);
    }
}
