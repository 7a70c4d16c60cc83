//! The shard's loop: readiness in, turns of connections out.
//!
//! Sockets are in an edge-triggered epoll set. While no task of the executor is outstanding the loop blocks in
//! `epoll_wait` itself; otherwise it parks in the executor's reactor, which watches the epoll set, so that reads of
//! files and sockets are waited for together. Under load it enters the reactor at least once a millisecond.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use slab::Slab;

use super::{
    Message, Setup, Worker,
    connection::Step,
    deadline::Deadlines,
    handshakes::Handshakes,
    inbox::Notice,
    listener::{Listening, RESERVED_SLOTS},
    slot::{Key, SLOT_BYTES, Slot, Stage},
    token, watch,
};
use crate::{
    config::{BufferPools, Settings},
    error::{Error, ErrorKind, Result},
    memory::{Level, Rank, Reservation, Share},
    metrics::{Holder, Registry},
    runtime::{self, Local, Mailbox, Parking, yield_now},
    sys::{
        epoll::{self, Epoll, Event},
        event::{EventFd, TimerFd},
        socket,
    },
};

/// Tokens of what is not a connection.
const TIMER: u32 = 0;
const MAILBOX: u32 = 1;
const FINISHED: u32 = 2;
const FIRST_LISTENER: u32 = 16;
/// Readiness reports taken at once.
const EVENTS_MAX: usize = 256;
/// While a task is outstanding, the executor's reactor is entered at least this often.
const REACTOR_NANOS: u64 = 1_000_000;
/// Connections ended by a deadline in one turn: thousands that began together end together, and others shall not
/// wait for all of them.
const EXPIRED_PER_TURN: usize = 256;
/// How often caches, logs and figures are seen to while there is something to see to.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long the shard sleeps where it cannot wait, for want of a descriptor.
const WITHOUT_DESCRIPTOR: Duration = Duration::from_millis(1);

/// A running shard.
pub(super) struct Driver {
    pub(super) worker: Worker,
    pub(super) slots: Slab<Slot>,
    pub(super) epoll: Epoll,
    pub(super) listeners: Vec<Option<Listening>>,
    pub(super) paused: Vec<usize>,
    /// Tick at which paused listeners are looked at again.
    pub(super) resume_at: u32,
    pub(super) spare: Option<OwnedFd>,
    pub(super) generation: u32,
    /// Connections that count against `capacity`.
    pub(super) open: usize,
    pub(super) capacity: usize,
    pub(super) sheds: usize,
    pub(super) admins: usize,
    idle: usize,
    ready: VecDeque<Key>,
    local: Rc<Local>,
    mailbox: Arc<Mailbox<Message>>,
    pub(super) mailboxes: Arc<[Arc<Mailbox<Message>>]>,
    pub(super) registry: Arc<Registry>,
    finished: Arc<EventFd>,
    timer: TimerFd,
    /// Tick that the timer is armed for; `u32::MAX` when it is not.
    armed: u32,
    housekeeping_at: u32,
    parking: Parking,
    notices: Vec<Notice>,
    messages: Vec<Message>,
    pub(super) stopping: bool,
    /// The shard's number, for the log.
    pub(super) shard: usize,
    /// The level of pressure that was obeyed last.
    pub(super) level: Level,
    /// Free buffers that are kept while memory is not short.
    pub(super) kept: BufferPools,
    /// What the slots count for.
    pub(super) slots_held: Reservation,
    /// Tick at which bodies last looked for memory.
    fed_at: u32,
    pub(super) handshakes: Handshakes,
}

/// What the slots of so many connections, and those beside them, count for.
pub(super) fn slots_bytes(connections: usize) -> usize {
    (connections + RESERVED_SLOTS) * SLOT_BYTES
}

/// One shard's part of the handshakes that may be in progress.
pub(super) fn handshakes_share(settings: &Settings) -> usize {
    settings.limits.handshakes.div_ceil(settings.shards.max(1))
}

impl Driver {
    /// Makes a shard inside its executor and begins to watch its listeners.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`] when the budget has no room for the connection slots; [`ErrorKind::Io`] for want of
    /// descriptors.
    pub(super) fn new(setup: Setup) -> Result<Self> {
        let share = Share::new(&setup.budget, setup.index);
        let bytes = slots_bytes(setup.site.settings.memory.worker_connections);
        let held = share.reserve(Holder::Connections, bytes, Rank::Start).ok_or_else(|| {
            let what = format!("memory.budget has no room for {bytes} bytes of connection slots");
            Error::new(ErrorKind::Memory, what)
        })?;
        Driver::begin(setup, &share, held).map_err(|error| Error::io("cannot start a shard", &error))
    }

    fn begin(setup: Setup, share: &Rc<Share>, slots_held: Reservation) -> io::Result<Self> {
        let local = Local::new();
        let finished = Arc::new(EventFd::new()?);
        let worker = Worker::new(&setup, share, Rc::clone(&local), Arc::clone(&finished));
        let memory = &setup.site.settings.memory;
        let handshakes_max = handshakes_share(&setup.site.settings);
        let (capacity, kept) = (memory.worker_connections, memory.buffer_pools);
        let driver = Driver {
            worker,
            slots: Slab::with_capacity(capacity + RESERVED_SLOTS),
            epoll: Epoll::new()?,
            listeners: setup.listeners.into_iter().map(Some).collect(),
            paused: Vec::new(),
            resume_at: u32::MAX,
            spare: Some(socket::spare_descriptor()?),
            generation: 0,
            open: 0,
            capacity,
            sheds: 0,
            admins: 0,
            idle: 0,
            ready: VecDeque::new(),
            local,
            mailbox: Arc::clone(&setup.mailboxes[setup.index]),
            mailboxes: setup.mailboxes,
            registry: setup.registry,
            finished,
            timer: TimerFd::new()?,
            armed: u32::MAX,
            housekeeping_at: u32::MAX,
            parking: Parking::default(),
            notices: Vec::new(),
            messages: Vec::new(),
            stopping: false,
            shard: setup.index,
            level: Level::Normal,
            kept,
            slots_held,
            fed_at: 0,
            handshakes: Handshakes::new(handshakes_max),
        };
        watch(&driver.epoll, &driver.timer, TIMER)?;
        watch(&driver.epoll, &*driver.mailbox, MAILBOX)?;
        watch(&driver.epoll, &*driver.finished, FINISHED)?;
        for index in 0..driver.listeners.len() {
            driver.watch_listener(index)?;
        }
        Ok(driver)
    }

    /// Runs until the shard was told to end and has.
    pub(super) async fn run(mut self) {
        tracing::info!(
            shard = self.shard,
            listeners = self.listeners.len(),
            connections_max = self.capacity,
            "accepting"
        );
        let mut events = [Event::EMPTY; EVENTS_MAX];
        let mut reactor_entered_nanos = 0;
        while !self.is_over() {
            let block = self.local.outstanding() == 0 && self.has_nothing_to_do();
            let reported = match self.epoll.wait(&mut events, block) {
                Ok(reported) => reported.len(),
                Err(error) => {
                    tracing::error!(%error, "epoll_wait failed; the shard ends");
                    break;
                }
            };
            let begun_nanos = self.begin_turn();
            for event in &events[..reported] {
                self.handle(*event);
            }
            self.local.take_woken();
            self.take_notices();
            self.serve_ready();
            self.serve_handshakes();
            self.sweep();
            self.end_turn(begun_nanos);
            if self.local.outstanding() > 0 {
                let nothing = reported == 0 && self.has_nothing_to_do();
                if nothing || begun_nanos - reactor_entered_nanos >= REACTOR_NANOS {
                    reactor_entered_nanos = begun_nanos;
                    self.enter_reactor(nothing).await;
                } else {
                    yield_now().await;
                }
            }
        }
        tracing::info!(shard = self.shard, "ended");
        // Connections that another shard has passed on meanwhile are closed, not kept.
        self.mailbox.receive(&mut self.messages);
        self.messages.clear();
        self.parking.release();
        if let Some(log) = &mut self.worker.access_log {
            log.flush();
        }
        self.publish();
    }

    /// Whether there is nothing that can be done before something happens.
    fn has_nothing_to_do(&self) -> bool {
        let in_progress = self.worker.tls.in_progress();
        self.ready.is_empty() && self.worker.inbox.is_empty() && !self.handshakes.is_ready(in_progress)
    }

    /// Lets the executor see to its rings: until something happens if there is nothing to do, else just once.
    async fn enter_reactor(&mut self, sleep: bool) {
        self.worker.metrics.parks.add(1);
        if !sleep {
            // Something is to be done: the set is made ready so that the park returns at once.
            self.finished.raise();
        }
        if self.parking.park(self.epoll.as_fd(), &self.local).await.is_err() {
            // No descriptor for the park: look again soon, until one is free.
            if sleep {
                runtime::sleep(WITHOUT_DESCRIPTOR).await;
            } else {
                yield_now().await;
            }
        }
    }

    fn begin_turn(&mut self) -> u64 {
        let now = self.worker.clock.now();
        self.worker.now = now;
        self.worker.context.now.set(now);
        self.worker.turn_nanos = self.worker.clock.nanos();
        self.worker.turn_nanos
    }

    fn end_turn(&mut self, begun_nanos: u64) {
        let answered = std::mem::take(&mut self.worker.answered);
        if answered > 0 {
            let nanos = self.worker.clock.nanos().saturating_sub(begun_nanos);
            self.worker.metrics.request_duration.observe(nanos, answered);
        }
        if self.housekeeping_at == u32::MAX && self.needs_housekeeping() {
            self.housekeeping_at = self.worker.deadlines.within(HOUSEKEEPING, self.worker.now);
        }
        self.publish();
        self.arm();
    }

    fn handle(&mut self, event: Event) {
        let key = Key::from_token(event.token());
        if key.generation != 0 {
            return self.handle_connection(key, event);
        }
        match key.index {
            TIMER => {
                self.timer.clear();
                self.armed = u32::MAX;
            }
            MAILBOX => {
                let mut messages = std::mem::take(&mut self.messages);
                self.mailbox.receive(&mut messages);
                for message in messages.drain(..) {
                    self.obey(message);
                }
                self.messages = messages;
            }
            FINISHED => {
                self.finished.clear();
                self.worker.context.offload.wake();
            }
            index => {
                self.accept((index - FIRST_LISTENER) as usize);
            }
        }
    }

    fn handle_connection(&mut self, key: Key, event: Event) {
        let Some(slot) = self.slot(key) else { return };
        slot.flags.set_peer_finished(slot.flags.peer_finished() || event.peer_finished());
        let readable = event.readable() || event.peer_finished();
        slot.flags.set_readable(slot.flags.readable() || readable);
        // Who ends his stream while his handshake waits for its turn can never complete it.
        let has_left = event.peer_finished()
            && slot.stage == Stage::Handshake
            && slot.flags.queued()
            && slot.secure.is_none();
        if event.broken() || has_left {
            // Reset, or closed in both directions: nobody is left to read an answer.
            if let Some(slot) = self.slots.get(key.index as usize) {
                self.worker.note_truncation(slot);
            }
            self.close(key);
            return;
        }
        if slot.flags.queued() {
            return;
        }
        if slot.stage == Stage::Handshake {
            return self.queue_handshake(key);
        }
        self.turn(key, Worker::serve);
    }

    /// Gives a connection a turn and does what comes of it.
    pub(super) fn turn(&mut self, key: Key, work: impl FnOnce(&mut Worker, &mut Slot, Key) -> Step) -> Step {
        let Driver { slots, worker, .. } = self;
        let Some(slot) = slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)
        else {
            return Step::Close;
        };
        let was_idle = slot.stage == Stage::Idle;
        // A bug closes one connection: it never takes the host down.
        let step = catch_unwind(AssertUnwindSafe(|| work(worker, slot, key))).unwrap_or_else(|_| {
            worker.recover();
            worker.metrics.panics.add(1);
            Step::Close
        });
        // What a turn collected never outlives it: the next connection would send it to its own client.
        let step = if worker.outgoing.is_empty() {
            step
        } else {
            debug_assert!(false, "a turn ended with bytes that were neither sent nor kept");
            worker.outgoing.discard();
            worker.metrics.panics.add(1);
            Step::Close
        };
        let is_idle = slot.stage == Stage::Idle;
        if !slot.flags.admin() && was_idle != is_idle {
            if is_idle {
                self.idle += 1;
            } else {
                self.idle -= 1;
            }
        }
        match step {
            Step::Close => self.close(key),
            Step::Again | Step::Yield => self.queue(key),
            Step::Wait => {}
        }
        step
    }

    /// Serves a connection again without waiting for an event.
    pub(super) fn queue(&mut self, key: Key) {
        if let Some(slot) = self.slot(key)
            && !slot.flags.queued()
        {
            if slot.stage == Stage::Handshake {
                return self.queue_handshake(key);
            }
            slot.flags.set_queued(true);
            self.ready.push_back(key);
        }
    }

    fn serve_ready(&mut self) {
        // Only those that were queued before: what they queue again waits for the next turn.
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { return };
            if let Some(slot) = self.slot(key) {
                slot.flags.set_queued(false);
                self.turn(key, Worker::serve);
            }
        }
    }

    fn take_notices(&mut self) {
        let mut notices = std::mem::take(&mut self.notices);
        self.worker.inbox.take(&mut notices);
        for notice in notices.drain(..) {
            match notice {
                Notice::Answer(key, response) => {
                    self.turn(key, |worker, slot, key| worker.answer(slot, key, response));
                }
                Notice::Continue(key) => {
                    self.turn(key, Worker::serve);
                }
            }
        }
        self.notices = notices;
    }

    fn is_over(&self) -> bool {
        self.worker.draining
            && self.open == 0
            && self.sheds == 0
            && self.local.outstanding() == 0
            && (self.stopping || self.admins == 0 || self.only_idle_admins())
    }

    fn only_idle_admins(&self) -> bool {
        self.slots.iter().all(|(_, slot)| matches!(slot.stage, Stage::Idle | Stage::Fresh))
    }

    /// Ends what has lasted too long. A pass over the slots, at most once a tick and only when one is due.
    fn sweep(&mut self) {
        let tick = Deadlines::tick(self.worker.now);
        if tick >= self.resume_at {
            self.resume_at = u32::MAX;
            self.resume_listeners();
        }
        if tick >= self.housekeeping_at {
            self.housekeeping_at = u32::MAX;
            self.keep_house();
        }
        if !self.worker.starved.is_empty() && tick > self.fed_at {
            self.fed_at = tick;
            self.feed_starved();
        }
        self.end_slow_handshakes(tick);
        if tick < self.worker.deadlines.earliest() {
            return;
        }
        let mut earliest = u32::MAX;
        let mut expired = Vec::new();
        for (index, slot) in &self.slots {
            if slot.deadline == 0 {
                continue;
            }
            if slot.deadline <= tick && expired.len() < EXPIRED_PER_TURN {
                expired.push(Key::of(index, slot));
            } else {
                earliest = earliest.min(slot.deadline);
            }
        }
        self.worker.deadlines.replace_earliest(earliest);
        for key in expired {
            self.turn(key, |worker, slot, _| worker.expire(slot));
        }
    }

    fn needs_housekeeping(&self) -> bool {
        self.worker.context.files.borrow().entries() > 0
            || !self.worker.mappings.is_empty()
            || self.worker.resumption.needs_housekeeping()
            || !self.worker.pool.is_empty()
            || !self.worker.exchanges.is_empty()
            || !self.worker.overflow.is_empty()
            || self.worker.access_log.as_ref().is_some_and(crate::log::AccessLog::has_lines)
    }

    fn keep_house(&mut self) {
        self.worker.context.files.borrow_mut().sweep(self.worker.now.millis);
        self.worker.mappings.sweep(self.worker.now.millis);
        self.worker.resumption.keep_house();
        self.worker.pool.decay();
        self.worker.exchanges.decay();
        self.worker.overflow.decay(self.worker.now.millis);
        if let Some(log) = &mut self.worker.access_log {
            log.flush();
        }
    }

    /// Sets the timer to the next thing that is due, if that is earlier than what it is set to.
    fn arm(&mut self) {
        let mut next = self.worker.deadlines.earliest().min(self.housekeeping_at).min(self.resume_at);
        if !self.worker.starved.is_empty() {
            next = next.min(self.fed_at.max(Deadlines::tick(self.worker.now)) + 1);
        }
        if self.handshakes.waiting() > 0 {
            next = next.min(Deadlines::tick(self.worker.now) + 1);
        }
        if next < self.armed && self.timer.arm(Deadlines::millis_until(next, self.worker.now)).is_ok() {
            self.armed = next;
        }
    }

    fn publish(&self) {
        let metrics = &self.worker.metrics;
        metrics.connections_idle.set(self.idle as u64);
        metrics.tls.handshakes_in_progress.set(self.worker.tls.in_progress() as u64);
        metrics.tls.handshakes_waiting.set(self.handshakes.waiting() as u64);
        metrics.connections_active.set((self.open - self.idle) as u64);
        let files = self.worker.context.files.borrow();
        metrics.file_cache_entries.set(files.entries() as u64);
        metrics.response_cache_bytes.set(files.content_bytes() as u64);
        metrics.mapped_bytes.set(self.worker.mappings.mapped_bytes() as u64);
        metrics.file_cache_hits.set(files.hits());
        metrics.file_cache_misses.set(files.misses());
        metrics.blocking_jobs.set(self.worker.context.offload.submitted());
        metrics.blocking_refused.set(self.worker.context.offload.refused());
        metrics.request_body_bytes.set(self.worker.bodies.used_bytes() as u64);
        self.worker.pool.publish(metrics);
    }

    pub(super) fn insert(&mut self, slot: Slot) -> Key {
        *self.count_of(&slot) += 1;
        let vacant = self.slots.vacant_entry();
        let key = Key::of(vacant.key(), &slot);
        vacant.insert(slot);
        key
    }

    pub(super) fn close(&mut self, key: Key) {
        if self.slot(key).is_none() {
            return;
        }
        let mut slot = self.slots.remove(key.index as usize);
        self.uncount(slot.peer, slot.listener, slot.flags);
        *self.count_of(&slot) -= 1;
        if slot.stage == Stage::Idle && !slot.flags.admin() {
            self.idle -= 1;
        }
        self.worker.abandon(&mut slot);
        self.worker.metrics.connections_closed.add(1);
    }

    pub(super) fn close_where(&mut self, matches: impl Fn(&Slot) -> bool) {
        for key in self.keys_where(matches) {
            self.close(key);
        }
    }

    fn keys_where(&self, matches: impl Fn(&Slot) -> bool) -> Vec<Key> {
        self.slots
            .iter()
            .filter(|(_, slot)| matches(slot))
            .map(|(index, slot)| Key::of(index, slot))
            .collect()
    }

    fn count_of(&mut self, slot: &Slot) -> &mut usize {
        match (slot.flags.admin(), slot.flags.shed()) {
            (true, _) => &mut self.admins,
            (false, true) => &mut self.sheds,
            (false, false) => &mut self.open,
        }
    }

    pub(super) fn slot(&mut self, key: Key) -> Option<&mut Slot> {
        self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)
    }

    /// Puts a connection into the epoll set, which reports at once what it has missed.
    pub(super) fn register(&mut self, key: Key) -> bool {
        let Some(slot) = self.slots.get(key.index as usize) else { return false };
        self.epoll.add(slot.socket.as_fd(), key.token(), epoll::SOCKET).is_ok()
    }

    pub(super) fn watch_listener(&self, index: usize) -> io::Result<()> {
        let Some(Some(listening)) = self.listeners.get(index) else { return Ok(()) };
        let token = token(FIRST_LISTENER + index as u32);
        self.epoll.add(listening.socket.as_fd(), token, listening.interest())
    }
}
