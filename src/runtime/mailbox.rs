//! Messages from other threads to one shard: a short queue under a lock and an eventfd in the shard's epoll set.
//!
//! The lock is held for a push or a swap, never across anything that waits.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Mutex, PoisonError},
};

use crate::sys::event::EventFd;

/// A bounded queue whose reader sleeps in an epoll set.
#[derive(Debug)]
pub struct Mailbox<M> {
    queue: Mutex<Vec<M>>,
    event: EventFd,
    capacity: usize,
}

impl<M> Mailbox<M> {
    /// An empty mailbox that takes up to `capacity` messages before the shard reads them.
    pub fn new(capacity: usize) -> io::Result<Self> {
        Ok(Mailbox { queue: Mutex::new(Vec::new()), event: EventFd::new()?, capacity })
    }

    /// Adds a message and wakes the shard; gives it back when the mailbox is full.
    pub fn send(&self, message: M) -> Result<(), M> {
        self.send_below(self.capacity, message)
    }

    /// The same for what must leave room for others: gives the message back when `messages_max` wait.
    pub fn send_below(&self, messages_max: usize, message: M) -> Result<(), M> {
        let first = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.len() >= messages_max.min(self.capacity) {
                return Err(message);
            }
            queue.push(message);
            queue.len() == 1
        };
        if first {
            self.event.raise();
        }
        Ok(())
    }

    /// Moves all messages into `into` and makes the descriptor unreadable.
    pub fn receive(&self, into: &mut Vec<M>) {
        self.event.clear();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        into.append(&mut queue);
    }
}

impl<M> AsFd for Mailbox<M> {
    /// The eventfd: readable while there are messages.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_its_capacity_and_no_more_until_read() {
        let mailbox = Mailbox::new(2).unwrap();
        assert_eq!(mailbox.send(1), Ok(()));
        assert_eq!(mailbox.send(2), Ok(()));
        assert_eq!(mailbox.send(3), Err(3));
        assert_eq!(mailbox.send_below(9, 3), Err(3));
        let mut read = Vec::new();
        mailbox.receive(&mut read);
        assert_eq!(read, [1, 2]);
        assert_eq!(mailbox.send_below(1, 3), Ok(()));
        assert_eq!(mailbox.send_below(1, 4), Err(4));
        assert_eq!(mailbox.send(4), Ok(()));
    }
}
