//! Deadlines as small integers: a slot holds one tick, and a sweep compares. No timer object per connection.

use std::{cell::Cell, time::Duration};

use crate::{
    clock::{Now, saturating_millis},
    config::Timeouts,
};

/// Length of a tick as a power of two: 64 ms. Deadlines are met one to two ticks late, never early.
const TICK_SHIFT: u32 = 6;
/// How long a peer whose connection ended may take to notice before it is cut.
const LINGER: Duration = Duration::from_secs(2);
/// In a drain: who has answered within this time, or has not sent anything yet, gets as long again for a request that
/// may be under way. It would meet a closed connection otherwise (RFC 9112 9.5).
pub(super) const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How many ticks each wait may take, and the earliest deadline that was given out.
#[derive(Debug)]
pub struct Deadlines {
    handshake: u32,
    header: u32,
    body: u32,
    write: u32,
    idle: u32,
    /// The shortest `idle` that a connection's deadline can have come from.
    idle_min: u32,
    earliest: Cell<u32>,
}

impl Deadlines {
    /// From the configuration. Waits longer than six years are six years.
    pub fn new(timeouts: &Timeouts) -> Self {
        Deadlines {
            handshake: ticks(timeouts.handshake),
            header: ticks(timeouts.header),
            body: ticks(timeouts.body),
            write: ticks(timeouts.write),
            idle: ticks(timeouts.idle),
            idle_min: ticks(timeouts.idle),
            earliest: Cell::new(u32::MAX),
        }
    }

    /// From another configuration; deadlines that were given out stay.
    pub fn reload(&mut self, timeouts: &Timeouts) {
        let new = Deadlines::new(timeouts);
        *self = Deadlines { idle_min: new.idle.min(self.idle_min), earliest: self.earliest.clone(), ..new };
    }

    /// From now on who has answered waits for the next request no longer than [`DRAIN_GRACE`].
    pub fn begin_drain(&mut self) {
        self.idle = self.idle.min(ticks(DRAIN_GRACE));
    }

    /// Whether a connection with this idle deadline has answered within [`DRAIN_GRACE`]. After a reload that made the
    /// timeout shorter it may have been longer ago; that it was not is certain.
    pub fn answered_lately(&self, deadline: u32, now: Now) -> bool {
        let idle_since = deadline.saturating_sub(self.idle_min);
        idle_since.saturating_add(ticks(DRAIN_GRACE)) >= Deadlines::tick(now)
    }

    /// The tick that `now` lies in.
    pub fn tick(now: Now) -> u32 {
        u32::try_from(now.millis >> TICK_SHIFT).unwrap_or(u32::MAX - 1)
    }

    /// Milliseconds from `now` until `tick` has begun, at least 1.
    pub fn millis_until(tick: u32, now: Now) -> u64 {
        (u64::from(tick) << TICK_SHIFT).saturating_sub(now.millis).max(1)
    }

    /// For the rest of a TLS handshake.
    pub fn handshake(&self, now: Now) -> u32 {
        self.after(self.handshake, now)
    }

    /// For the rest of a request's head.
    pub fn header(&self, now: Now) -> u32 {
        self.after(self.header, now)
    }

    /// For the next piece of a request's body.
    pub fn body(&self, now: Now) -> u32 {
        self.after(self.body, now)
    }

    /// For the next piece of a response to be taken, or made.
    pub fn write(&self, now: Now) -> u32 {
        self.after(self.write, now)
    }

    /// For the next request.
    pub fn idle(&self, now: Now) -> u32 {
        self.after(self.idle, now)
    }

    /// For the peer to close after we did.
    pub fn linger(&self, now: Now) -> u32 {
        self.after(ticks(LINGER), now)
    }

    /// A deadline of another length.
    pub fn within(&self, duration: Duration, now: Now) -> u32 {
        self.after(ticks(duration), now)
    }

    /// The earliest deadline given out since it was last replaced.
    pub fn earliest(&self) -> u32 {
        self.earliest.get()
    }

    /// After a sweep: the earliest that is left.
    pub fn replace_earliest(&self, tick: u32) {
        self.earliest.set(tick);
    }

    fn after(&self, ticks: u32, now: Now) -> u32 {
        let deadline = Deadlines::tick(now).saturating_add(ticks).min(u32::MAX - 1);
        if deadline < self.earliest.get() {
            self.earliest.set(deadline);
        }
        deadline
    }
}

/// Ticks that cover a duration whenever in its tick it begins: rounded up, and one more.
fn ticks(duration: Duration) -> u32 {
    let millis = saturating_millis(duration);
    u32::try_from(millis.div_ceil(1 << TICK_SHIFT)).unwrap_or(u32::MAX - 2).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Now {
        Now { millis, unix_seconds: 0, unix_second_millis: 0 }
    }

    fn deadlines() -> Deadlines {
        let second = Duration::from_secs(1);
        Deadlines::new(&Timeouts {
            handshake: second,
            header: second,
            body: second * 2,
            write: second * 3,
            idle: second * 4,
            drain: second,
        })
    }

    #[test]
    fn is_never_early_and_at_most_two_ticks_late() {
        let deadlines = deadlines();
        for begin in 0..200 {
            let deadline = u64::from(deadlines.header(at(begin))) << TICK_SHIFT;
            assert!(deadline >= begin + 1000);
            assert!(deadline <= begin + 1000 + 2 * (1 << TICK_SHIFT));
        }
    }

    #[test]
    fn remembers_the_earliest() {
        let deadlines = deadlines();
        let idle = deadlines.idle(at(0));
        assert_eq!(deadlines.earliest(), idle);
        let header = deadlines.header(at(0));
        deadlines.body(at(0));
        assert_eq!(deadlines.earliest(), header);
        deadlines.replace_earliest(idle);
        assert_eq!(deadlines.earliest(), idle);
    }

    #[test]
    fn knows_who_has_answered_lately_whatever_a_reload_made_of_the_timeout() {
        let grace = saturating_millis(DRAIN_GRACE);
        let mut deadlines = deadlines();
        let deadline = deadlines.idle(at(10_000));
        assert!(deadlines.answered_lately(deadline, at(10_000 + grace)));
        assert!(!deadlines.answered_lately(deadline, at(10_000 + grace + 3 * (1 << TICK_SHIFT))));
        for seconds in [1, 100] {
            let idle = Duration::from_secs(seconds);
            let before = deadlines.idle(at(50_000));
            deadlines.reload(&Timeouts { idle, ..Timeouts::default() });
            assert!(deadlines.answered_lately(before, at(50_000 + grace)));
            let after = deadlines.idle(at(50_000));
            assert!(deadlines.answered_lately(after, at(50_000 + grace)));
        }
        deadlines.begin_drain();
        assert!(deadlines.idle(at(0)) <= ticks(DRAIN_GRACE));
    }

    #[test]
    fn a_day_from_the_far_future_is_still_a_deadline() {
        let deadlines = deadlines();
        let far = at(u64::MAX);
        assert!(deadlines.within(Duration::from_secs(86_400), far) > 0);
        assert_eq!(Deadlines::millis_until(1, far), 1);
    }
}
