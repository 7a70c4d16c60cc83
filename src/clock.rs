//! Time as the shards see it: read once a turn, handed down, never read by a codec.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment as one shard sees it. Cheap to copy; a turn reads the clock once and passes this on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the clock was made; monotonic.
    pub millis: u64,
    /// Seconds since 1970, for dates that people read.
    pub unix_seconds: u64,
    /// Milliseconds since that second began, 0 to 999.
    pub unix_second_millis: u16,
}

/// The source of [`Now`]: a monotonic clock, and the wall clock beside it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose `millis` begin at 0.
    pub fn start() -> Self {
        Clock { start: Instant::now() }
    }

    /// Reads both clocks. Two vDSO calls, about 40 ns.
    pub fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            millis: saturating_millis(self.start.elapsed()),
            unix_seconds: unix.as_secs(),
            unix_second_millis: unix.subsec_millis() as u16,
        }
    }

    /// Nanoseconds since the clock was made, for durations of requests.
    pub fn nanos(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A duration in whole milliseconds, at most `u64::MAX`.
pub fn saturating_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
