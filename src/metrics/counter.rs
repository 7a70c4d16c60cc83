//! The numbers themselves: relaxed atomics, of which the single-writer kinds never take a locked bus cycle.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that grows, written by one thread and read by any.
///
/// A second writer would not be unsound, it would lose counts; [`SharedCounter`] is for that.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at 0.
    pub const fn new() -> Self {
        Counter(AtomicU64::new(0))
    }

    /// Adds `count`: a load, an addition and a store. Wraps at 2^64, as Prometheus expects of a reset.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Adds one.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Takes over a count that is kept elsewhere, by the same thread; it never falls.
    #[inline]
    pub fn set(&self, total: u64) {
        self.0.store(total, Relaxed);
    }

    /// The value now.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down, written by one thread and read by any. Stops at 0 and at 2^64 - 1.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// A gauge at 0.
    pub const fn new() -> Self {
        Gauge(AtomicU64::new(0))
    }

    /// Replaces the value.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds `count`.
    #[inline]
    pub fn add(&self, count: u64) {
        self.set(self.value().saturating_add(count));
    }

    /// Takes `count` away. Stops at 0: a gauge that would be negative is a bug that must not look like 2^64.
    #[inline]
    pub fn subtract(&self, count: u64) {
        self.set(self.value().saturating_sub(count));
    }

    /// The value now.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that grows, written by any thread: one locked addition each. Not for a request's way.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// A counter at 0.
    pub const fn new() -> Self {
        SharedCounter(AtomicU64::new(0))
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_adds_and_wraps() {
        let counter = Counter::new();
        counter.add(u64::MAX);
        counter.increment();
        counter.increment();
        assert_eq!(counter.value(), 1);
    }

    #[test]
    fn gauge_stops_at_both_ends() {
        let gauge = Gauge::new();
        gauge.add(2);
        gauge.subtract(3);
        assert_eq!(gauge.value(), 0);
        gauge.set(u64::MAX);
        gauge.add(1);
        assert_eq!(gauge.value(), u64::MAX);
    }

    #[test]
    fn shared_counter_loses_nothing_between_threads() {
        let counter = SharedCounter::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| counter.add(1)));
            }
        });
        assert_eq!(counter.value(), 4000);
    }
}
