//! What tasks of a shard leave for its driver. Same thread: no lock, no atomics.

use std::{cell::RefCell, rc::Rc};

use super::slot::Key;
use crate::{runtime::Local, service::Response};

/// Something that happened to a connection outside its own turn.
#[derive(Debug)]
pub enum Notice {
    /// A handler's answer.
    Answer(Key, Response),
    /// The connection can go on: a chunk of its file is there, or there will be none.
    Continue(Key),
}

/// The queue of notices. Bounded by the tasks there are: each leaves at most a few.
#[derive(Debug)]
pub struct Inbox {
    notices: RefCell<Vec<Notice>>,
    local: Rc<Local>,
}

impl Inbox {
    /// An empty inbox whose notices wake the driver of `local`.
    pub fn new(local: Rc<Local>) -> Rc<Self> {
        Rc::new(Inbox { notices: RefCell::default(), local })
    }

    /// The shard's tasks.
    pub fn local(&self) -> &Rc<Local> {
        &self.local
    }

    /// A handler has answered.
    pub fn answer(&self, key: Key, response: Response) {
        self.notices.borrow_mut().push(Notice::Answer(key, response));
        self.local.wake_driver();
    }

    /// A connection should be served.
    pub fn queue(&self, key: Key) {
        self.notices.borrow_mut().push(Notice::Continue(key));
        self.local.wake_driver();
    }

    /// Swaps the notices into `empty`, which keeps both allocations in use.
    pub fn take(&self, empty: &mut Vec<Notice>) {
        std::mem::swap(empty, &mut self.notices.borrow_mut());
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.notices.borrow().is_empty()
    }
}
