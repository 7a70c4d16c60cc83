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

/// A number that goes up and down, written by any thread: one locked operation each. Not for a request's way.
#[derive(Debug, Default)]
pub struct SharedGauge(AtomicU64);

impl SharedGauge {
    /// A gauge at 0.
    pub const fn new() -> Self {
        SharedGauge(AtomicU64::new(0))
    }

    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds `count`; returns the new value.
    pub fn add(&self, count: u64) -> u64 {
        self.0.fetch_add(count, Relaxed).wrapping_add(count)
    }

    /// Adds `count` unless that makes it more than `max`; returns the new value.
    pub fn add_up_to(&self, count: u64, max: u64) -> Option<u64> {
        let sum = |value: u64| value.checked_add(count).filter(|sum| *sum <= max);
        self.0.fetch_update(Relaxed, Relaxed, sum).ok().map(|value| value + count)
    }

    /// Takes up to `count` away, as much as there is; returns how much that was.
    pub fn subtract_up_to(&self, count: u64) -> u64 {
        let less = |value: u64| Some(value.saturating_sub(count));
        self.0.fetch_update(Relaxed, Relaxed, less).map_or(0, |value| value.min(count))
    }

    /// Makes it at least `value`.
    pub fn raise(&self, value: u64) {
        self.0.fetch_max(value, Relaxed);
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
    fn shared_gauge_stops_at_its_bounds() {
        let gauge = SharedGauge::new();
        assert_eq!(gauge.add_up_to(3, 3), Some(3));
        assert_eq!(gauge.add_up_to(1, 3), None);
        assert_eq!(gauge.add_up_to(u64::MAX, u64::MAX), None);
        assert_eq!((gauge.subtract_up_to(2), gauge.subtract_up_to(2), gauge.value()), (2, 1, 0));
        gauge.raise(5);
        gauge.raise(4);
        assert_eq!(gauge.value(), 5);
    }

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
