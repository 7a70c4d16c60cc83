//! Durations of requests in fixed buckets. Not cumulative in memory; made so when it is rendered.

use super::Counter;

/// Number of buckets, the unbounded one included.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// Upper bounds, inclusive: in nanoseconds for the comparison, in seconds as they are written.
pub(super) const BOUNDS: [(u64, &str); 16] = [
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
];

/// How long requests took, from 0.1 ms to 10 s and beyond. One writer.
#[derive(Debug)]
pub struct Histogram {
    counts: [Counter; BUCKETS],
    sum_nanos: Counter,
}

impl Histogram {
    /// An empty histogram.
    pub const fn new() -> Self {
        Histogram { counts: [const { Counter::new() }; BUCKETS], sum_nanos: Counter::new() }
    }

    /// Counts `count` requests of `nanos` nanoseconds each. A turn that answered several pipelined requests
    /// reads the clock once and says so here.
    #[inline]
    pub fn observe(&self, nanos: u64, count: u64) {
        // Most answers fall into the first buckets, so the search from below ends early.
        let bucket = BOUNDS.iter().position(|(bound, _)| nanos <= *bound).unwrap_or(BOUNDS.len());
        self.counts[bucket].add(count);
        self.sum_nanos.add(nanos.saturating_mul(count));
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram::new()
    }
}

/// What the histograms of all shards hold together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Merged {
    pub(super) counts: [u64; BUCKETS],
    pub(super) sum_nanos: u64,
}

impl Merged {
    /// Adds one shard's figures.
    pub(super) fn add(&mut self, histogram: &Histogram) {
        for (sum, counter) in self.counts.iter_mut().zip(&histogram.counts) {
            *sum = sum.wrapping_add(counter.value());
        }
        self.sum_nanos = self.sum_nanos.wrapping_add(histogram.sum_nanos.value());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_ascend_and_their_labels_are_the_same_numbers() {
        assert!(BOUNDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (nanos, label) in BOUNDS {
            let seconds: f64 = label.parse().unwrap();
            assert_eq!((seconds * 1e9).round() as u64, nanos);
        }
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_one_more_to_the_next() {
        for (index, (bound, _)) in BOUNDS.into_iter().enumerate() {
            let histogram = Histogram::new();
            histogram.observe(bound, 1);
            histogram.observe(bound + 1, 2);
            assert_eq!(histogram.counts[index].value(), 1);
            assert_eq!(histogram.counts[index + 1].value(), 2);
        }
    }

    #[test]
    fn sums_over_shards() {
        let (first, second) = (Histogram::new(), Histogram::new());
        first.observe(5, 3);
        second.observe(u64::MAX, 1);
        let mut merged = Merged::default();
        merged.add(&first);
        assert_eq!(merged.sum_nanos, 15);
        merged.add(&second);
        assert_eq!(merged.counts[0], 3);
        assert_eq!(merged.counts[BUCKETS - 1], 1);
    }
}
