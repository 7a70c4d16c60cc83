//! The pool against a model, and each bound at its value and one past it.

use super::*;
use crate::memory::heap::tests::allocations_during;

const KEPT: BufferPools =
    BufferPools { small: 3, medium: 2, large: 1, global_small: 0, global_medium: 0, global_large: 0 };

fn pool() -> BufferPool {
    BufferPool::new(KEPT, 1 << 20)
}

#[test]
fn picks_the_smallest_tier_that_holds() {
    let pool = pool();
    for (bytes, tier) in [
        (0, Some(Tier::Small)),
        (4096, Some(Tier::Small)),
        (4097, Some(Tier::Medium)),
        (16384, Some(Tier::Medium)),
        (16385, Some(Tier::Large)),
        (65536, Some(Tier::Large)),
        (65537, None),
        (usize::MAX, None),
    ] {
        let buffer = pool.get(bytes);
        assert_eq!(buffer.as_ref().map(Buffer::tier), tier, "{bytes}");
        assert!(buffer.is_none_or(|buffer| buffer.len() >= bytes && buffer.is_empty()));
    }
}

#[test]
fn starts_empty_and_keeps_what_the_configuration_says() {
    let pool = pool();
    assert_eq!(Tier::ALL.map(|tier| pool.available(tier)), [0, 0, 0]);
    let lent: Vec<_> = [4096, 4096, 4096, 4096, 16384, 16384, 16384, 65536, 65536]
        .into_iter()
        .map(|bytes| pool.get(bytes).unwrap())
        .collect();
    assert_eq!(Tier::ALL.map(|tier| pool.in_use(tier)), [4, 3, 2]);
    drop(lent);
    assert_eq!(Tier::ALL.map(|tier| pool.in_use(tier)), [0, 0, 0]);
    assert_eq!(Tier::ALL.map(|tier| pool.available(tier)), [3, 2, 1]);
    assert_eq!(pool.held_bytes(), 3 * 4096 + 2 * 16384 + 65536);
}

#[test]
fn lends_up_to_the_bound_and_again_after_a_return() {
    let pool = BufferPool::new(KEPT, 4096 + 65536);
    let large = pool.get(65536).unwrap();
    assert!(pool.get(4097).is_none());
    let small = pool.get(1).unwrap();
    assert!(pool.get(1).is_none());
    assert_eq!(pool.in_use_bytes(), 4096 + 65536);
    drop(small);
    assert!(pool.get(1).is_some());
    drop(large);
    assert!(pool.get(16384).is_some());
    assert!(BufferPool::new(KEPT, 4095).get(0).is_none());
}

#[test]
fn keeps_nothing_when_told_so() {
    let pool =
        BufferPool::new(BufferPools { small: 0, medium: 0, large: 0, ..BufferPools::default() }, 1 << 20);
    drop([pool.get(1), pool.get(5000), pool.get(20_000)]);
    assert_eq!(pool.held_bytes(), 0);
}

#[test]
fn lends_the_buffer_that_came_back_last() {
    let pool = pool();
    let (first, second) = (pool.get(1).unwrap(), pool.get(1).unwrap());
    let address = first.as_ptr();
    drop(second);
    drop(first);
    assert_eq!(pool.get(1).unwrap().as_ptr(), address);
}

#[test]
fn reuse_allocates_nothing() {
    let pool = pool();
    drop([pool.get(1), pool.get(1), pool.get(5000), pool.get(20_000)]);
    let made = allocations_during(|| {
        for _ in 0..100 {
            let mut lent = [pool.get(1), pool.get(1), pool.get(5000), pool.get(20_000)];
            lent.iter_mut().flatten().for_each(|buffer| assert!(buffer.push(1)));
        }
    });
    assert_eq!(made, 0);
    // A return never allocates, not even the first one.
    let lent = [pool.get(1), pool.get(1), pool.get(1), pool.get(1)];
    assert_eq!(allocations_during(|| drop(lent)), 0);
}

#[test]
fn a_buffer_outlives_its_pool() {
    let pool = pool();
    let mut buffer = pool.get(20_000).unwrap();
    drop(pool);
    assert!(buffer.extend_from_slice(b"still here"));
    assert_eq!(buffer.filled(), b"still here");
}

#[test]
fn every_way_of_writing_is_wiped() {
    let writes: [fn(&mut Buffer); 7] = [
        |buffer| assert!(buffer.extend_from_slice(&[7; 4096])),
        |buffer| assert!(buffer.push(7)),
        |buffer| buffer[4095] = 7,
        |buffer| buffer.unfilled()[4095] = 7,
        |buffer| {
            buffer.unfilled()[..10].fill(7);
            buffer.add_filled(10);
            buffer.consume(10);
        },
        |buffer| {
            buffer.unfilled()[..10].fill(7);
            buffer.set_filled(10);
            buffer.set_filled(0);
        },
        |buffer| {
            assert!(buffer.extend_from_slice(&[7; 100]));
            buffer.consume(90);
            buffer.compact();
            buffer.clear();
        },
    ];
    let pool = pool();
    let address = pool.get(1).unwrap().as_ptr();
    for write in writes {
        let mut buffer = pool.get(1).unwrap();
        assert_eq!(buffer.as_ptr(), address);
        write(&mut buffer);
        drop(buffer);
        assert!(pool.get(1).unwrap().iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_large_buffer_is_zero_at_first_and_not_wiped_after() {
    let pool = pool();
    let mut buffer = pool.get(65536).unwrap();
    assert!(buffer.iter().all(|byte| *byte == 0));
    assert!(buffer.extend_from_slice(b"old"));
    drop(buffer);
    assert_eq!(&pool.get(65536).unwrap()[..3], b"old");
}

#[test]
fn fills_to_the_last_byte_and_not_one_more() {
    let pool = pool();
    let mut buffer = pool.get(4096).unwrap();
    assert!(buffer.extend_from_slice(&[1; 4095]));
    assert!(!buffer.extend_from_slice(&[2; 2]));
    assert!(buffer.push(2));
    assert!(!buffer.push(3));
    assert!(buffer.extend_from_slice(&[]));
    assert_eq!((buffer.filled_len(), buffer.room()), (4096, 0));
    assert!(buffer.unfilled().is_empty());
    buffer.add_filled(usize::MAX);
    assert_eq!(buffer.filled_len(), 4096);
}

#[test]
fn consumed_room_is_used_again() {
    let pool = pool();
    let mut buffer = pool.get(4096).unwrap();
    assert!(buffer.extend_from_slice(&[1; 4096]));
    buffer.consume(10);
    assert_eq!(buffer.room(), 0);
    assert!(!buffer.extend_from_slice(&[2; 11]));
    assert!(buffer.extend_from_slice(&[2; 10]));
    assert_eq!(buffer.filled_len(), 4096);
    assert_eq!(&buffer.filled()[4080..], [[1; 6].as_slice(), &[2; 10]].concat());
    buffer.consume(usize::MAX);
    assert_eq!((buffer.filled_len(), buffer.room()), (0, 4096));
}

#[test]
fn filled_grows_behind_what_was_consumed() {
    let pool = pool();
    let mut buffer = pool.get(4096).unwrap();
    assert!(buffer.extend_from_slice(b"GET /"));
    buffer.consume(4);
    buffer.unfilled()[0] = b'x';
    buffer.add_filled(1);
    assert_eq!(buffer.filled(), b"/x");
    buffer.set_filled(1);
    assert_eq!(buffer.filled(), b"/");
}

#[test]
fn publishes_its_counts() {
    let pool = pool();
    drop(pool.get(1));
    let _lent = [pool.get(5000), pool.get(20_000)];
    let metrics = ShardMetrics::new(0);
    pool.publish(&metrics);
    assert_eq!(metrics.buffers_allocated.each_ref().map(|gauge| gauge.value()), [0, 1, 1]);
    assert_eq!(metrics.buffers_available.each_ref().map(|gauge| gauge.value()), [1, 0, 0]);
}

/// SplitMix64: small, good enough, and the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// Random takes, writes and returns against a model: a lent buffer is lent once and keeps its bytes, the counts
/// are the model's, bounds hold at every step, small and medium buffers come zeroed.
#[test]
fn random_use_loses_and_doubles_nothing() {
    let kept = BufferPools { small: 5, medium: 3, large: 2, ..BufferPools::default() };
    let kept_of = [5, 3, 2];
    let bytes_max = 400 << 10;
    for seed in 0..20 {
        let pool = BufferPool::new(kept, bytes_max);
        let mut random = Random(seed);
        let mut lent: Vec<(Buffer, Vec<u8>)> = Vec::new();
        let mut free_model = [0_usize; 3];
        for step in 0..2000 {
            if random.below(2) == 0 {
                let wanted = 1 + random.below(66_000);
                let in_use: usize = lent.iter().map(|(buffer, _)| buffer.len()).sum();
                let fits = |tier: &Tier| in_use + tier.bytes() <= bytes_max;
                let buffer = pool.get(wanted);
                assert_eq!(buffer.is_some(), Tier::holding(wanted).as_ref().is_some_and(fits));
                let Some(mut buffer) = buffer else { continue };
                assert!(buffer.is_empty() && buffer.len() >= wanted);
                assert!(lent.iter().all(|(other, _)| other.as_ptr() != buffer.as_ptr()));
                if buffer.tier() != Tier::Large {
                    assert!(buffer.iter().all(|byte| *byte == 0));
                }
                let free = &mut free_model[buffer.tier() as usize];
                *free = free.saturating_sub(1);
                let content = vec![(step % 255 + 1) as u8; 1 + random.below(buffer.len())];
                assert!(buffer.extend_from_slice(&content));
                lent.push((buffer, content));
            } else if !lent.is_empty() {
                let (mut buffer, content) = lent.swap_remove(random.below(lent.len()));
                assert_eq!(buffer.filled(), content);
                buffer.consume(random.below(content.len() + 1));
                let tier = buffer.tier() as usize;
                free_model[tier] = (free_model[tier] + 1).min(kept_of[tier]);
            }
            for tier in Tier::ALL {
                let count = lent.iter().filter(|(buffer, _)| buffer.tier() == tier).count();
                assert_eq!(pool.in_use(tier), count);
                assert_eq!(pool.available(tier), free_model[tier as usize]);
            }
            assert_eq!(pool.in_use_bytes(), lent.iter().map(|(buffer, _)| buffer.len()).sum::<usize>());
            assert!(pool.in_use_bytes() <= bytes_max);
        }
        drop(lent);
        assert_eq!(pool.in_use_bytes(), 0);
    }
}
