//! The pool against a model, and each bound at its value and one past it.

use super::*;
use crate::memory::{
    budget::tests::{budget, plenty},
    heap::tests::allocations_during,
};

/// A pool that keeps so many free buffers of each tier, and shares none with others.
pub(crate) fn pool_of(counts: [usize; 3], share: &Rc<Share>) -> BufferPool {
    let kept = kept(counts, [0; 3]);
    BufferPool::new(kept, share, &Overflow::new(kept, share.budget()))
}

fn kept([small, medium, large]: [usize; 3], global: [usize; 3]) -> BufferPools {
    let [global_small, global_medium, global_large] = global;
    BufferPools { small, medium, large, global_small, global_medium, global_large }
}

fn pool() -> BufferPool {
    pool_of([3, 2, 1], &plenty())
}

/// Bytes that a pool holds, in use and free.
fn held_bytes(pool: &BufferPool) -> usize {
    Tier::ALL.iter().map(|tier| (pool.in_use(*tier) + pool.available(*tier)) * tier.bytes()).sum()
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
        let buffer = pool.get(bytes, Rank::Start);
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
        .map(|bytes| pool.get(bytes, Rank::Start).unwrap())
        .collect();
    assert_eq!(Tier::ALL.map(|tier| pool.in_use(tier)), [4, 3, 2]);
    drop(lent);
    assert_eq!(Tier::ALL.map(|tier| pool.in_use(tier)), [0, 0, 0]);
    assert_eq!(Tier::ALL.map(|tier| pool.available(tier)), [3, 2, 1]);
    assert_eq!(held_bytes(&pool), 3 * 4096 + 2 * 16384 + 65536);
}

#[test]
fn lends_what_the_budget_has_and_gives_up_free_buffers_for_it() {
    let share = Share::new(&budget(72 << 10, 1), 0);
    let pool = pool_of([3, 2, 1], &share);
    let large = pool.get(65536, Rank::Start).unwrap();
    // 72 KB less 1/32: 5.75 KB are left for starting something, 8 KB for finishing.
    assert!(pool.get(4097, Rank::Finish).is_none());
    let small = pool.get(1, Rank::Start).unwrap();
    assert!(pool.get(1, Rank::Start).is_none());
    let last = pool.get(1, Rank::Finish).unwrap();
    assert!(pool.get(1, Rank::Finish).is_none());
    assert_eq!(share.budget().used_bytes(), 72 << 10);
    drop((small, last));
    assert_eq!(pool.available(Tier::Small), 2);
    drop(large);
    // What is free of one tier makes room for another.
    let mediums: Vec<_> = (0..4).map(|_| pool.get(16384, Rank::Start).unwrap()).collect();
    assert_eq!((pool.available(Tier::Large), pool.available(Tier::Small)), (0, 0));
    drop((mediums, pool));
    assert_eq!(share.budget().used_bytes(), 0);
}

#[test]
fn keeps_nothing_when_told_so() {
    let pool = pool_of([0; 3], &plenty());
    drop([pool.get(1, Rank::Start), pool.get(5000, Rank::Start), pool.get(20_000, Rank::Start)]);
    assert_eq!(held_bytes(&pool), 0);
}

#[test]
fn lends_the_buffer_that_came_back_last() {
    let pool = pool();
    let (first, second) = (pool.get(1, Rank::Start).unwrap(), pool.get(1, Rank::Start).unwrap());
    let address = first.as_ptr();
    drop(second);
    drop(first);
    assert_eq!(pool.get(1, Rank::Start).unwrap().as_ptr(), address);
}

#[test]
fn reuse_allocates_nothing() {
    let pool = pool();
    drop([
        pool.get(1, Rank::Start),
        pool.get(1, Rank::Start),
        pool.get(5000, Rank::Start),
        pool.get(20_000, Rank::Start),
    ]);
    let made = allocations_during(|| {
        for _ in 0..100 {
            let mut lent = [
                pool.get(1, Rank::Start),
                pool.get(1, Rank::Start),
                pool.get(5000, Rank::Start),
                pool.get(20_000, Rank::Start),
            ];
            lent.iter_mut().flatten().for_each(|buffer| assert!(buffer.push(1)));
        }
    });
    assert_eq!(made, 0);
    // A return never allocates, not even the first one.
    let lent = [
        pool.get(1, Rank::Start),
        pool.get(1, Rank::Start),
        pool.get(1, Rank::Start),
        pool.get(1, Rank::Start),
    ];
    assert_eq!(allocations_during(|| drop(lent)), 0);
}

#[test]
fn a_buffer_outlives_its_pool() {
    let pool = pool();
    let mut buffer = pool.get(20_000, Rank::Start).unwrap();
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
    let address = pool.get(1, Rank::Start).unwrap().as_ptr();
    for write in writes {
        let mut buffer = pool.get(1, Rank::Start).unwrap();
        assert_eq!(buffer.as_ptr(), address);
        write(&mut buffer);
        drop(buffer);
        assert!(pool.get(1, Rank::Start).unwrap().iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_large_buffer_is_zero_at_first_and_not_wiped_after() {
    let pool = pool();
    let mut buffer = pool.get(65536, Rank::Start).unwrap();
    assert!(buffer.iter().all(|byte| *byte == 0));
    assert!(buffer.extend_from_slice(b"old"));
    drop(buffer);
    assert_eq!(&pool.get(65536, Rank::Start).unwrap()[..3], b"old");
}

#[test]
fn fills_to_the_last_byte_and_not_one_more() {
    let pool = pool();
    let mut buffer = pool.get(4096, Rank::Start).unwrap();
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
    let mut buffer = pool.get(4096, Rank::Start).unwrap();
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
    let mut buffer = pool.get(4096, Rank::Start).unwrap();
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
    drop(pool.get(1, Rank::Start));
    let _lent = [pool.get(5000, Rank::Start), pool.get(20_000, Rank::Start)];
    let metrics = ShardMetrics::new(0);
    pool.publish(&metrics);
    assert_eq!(metrics.buffers_allocated.each_ref().map(|gauge| gauge.value()), [0, 1, 1]);
    assert_eq!(metrics.buffers_available.each_ref().map(|gauge| gauge.value()), [1, 0, 0]);
}

/// Bytes that a shard holds for something, by the metrics.
fn used(budget: &Arc<crate::memory::Budget>, shard: usize, holder: Holder) -> usize {
    usize::try_from(budget.used_by_shard(shard, holder)).unwrap()
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

#[test]
fn surplus_buffers_go_to_all_shards_and_come_back() {
    let budget = budget(1 << 30, 2);
    let (one, two) = (Share::new(&budget, 0), Share::new(&budget, 1));
    let kept = kept([1, 1, 1], [2, 0, 0]);
    let overflow = Overflow::new(kept, &budget);
    let (giver, taker) = (BufferPool::new(kept, &one, &overflow), BufferPool::new(kept, &two, &overflow));
    let lent: Vec<_> = (0..5).map(|_| giver.get(1, Rank::Start).unwrap()).collect();
    drop(lent);
    assert_eq!((giver.available(Tier::Small), overflow.available(Tier::Small)), (1, 2));
    assert_eq!(budget.used_bytes(), 3 * 4096);
    let taken: Vec<_> = (0..3).map(|_| taker.get(1, Rank::Start).unwrap()).collect();
    assert!(taken.iter().all(|buffer| buffer.iter().all(|byte| *byte == 0)));
    assert_eq!((giver.available(Tier::Small), overflow.available(Tier::Small)), (1, 0));
    assert_eq!(budget.used_bytes(), 4 * 4096);
    drop((taken, taker, giver, overflow));
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn half_of_what_nobody_needs_goes_at_each_decay() {
    let budget = budget(1 << 30, 1);
    let share = Share::new(&budget, 0);
    let kept = kept([8, 0, 0], [16, 0, 0]);
    let overflow = Overflow::new(kept, &budget);
    let pool = BufferPool::new(kept, &share, &overflow);
    drop((0..24).map(|_| pool.get(1, Rank::Start)).collect::<Vec<_>>());
    assert_eq!((pool.available(Tier::Small), overflow.available(Tier::Small)), (8, 16));
    // All of them were in use since the last time there was none.
    let mut left = Vec::new();
    for tick in 1..8 {
        pool.decay();
        overflow.decay(tick * 1000);
        // Not yet a second later: nothing more.
        overflow.decay(tick * 1000 + 999);
        left.push((pool.available(Tier::Small), overflow.available(Tier::Small)));
    }
    assert_eq!(left, [(8, 16), (4, 8), (2, 4), (1, 2), (0, 1), (0, 0), (0, 0)]);
    assert!(pool.is_empty() && overflow.is_empty());
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn half_as_many_are_kept_while_memory_is_short() {
    let budget = budget(1 << 30, 1);
    let share = Share::new(&budget, 0);
    let kept = kept([4, 2, 1], [4, 0, 0]);
    let overflow = Overflow::new(kept, &budget);
    let pool = BufferPool::new(kept, &share, &overflow);
    let fill = || drop((0..9).map(|_| pool.get(1, Rank::Start)).collect::<Vec<_>>());
    fill();
    pool.halve(kept);
    overflow.halve(kept);
    assert_eq!((pool.available(Tier::Small), overflow.available(Tier::Small)), (2, 2));
    fill();
    assert_eq!((pool.available(Tier::Small), overflow.available(Tier::Small)), (2, 2));
    pool.resize(kept);
    overflow.resize(kept);
    fill();
    assert_eq!((pool.available(Tier::Small), overflow.available(Tier::Small)), (4, 4));
}

/// Several shards take and return at random, by a budget that is too small for all: no buffer is lent twice or lost,
/// and what the metrics say is what there is.
#[test]
fn random_use_by_several_shards_loses_and_doubles_nothing() {
    const SHARDS: usize = 3;
    let budget = budget(2 << 20, SHARDS);
    let kept = kept([5, 3, 2], [4, 2, 1]);
    let overflow = Overflow::new(kept, &budget);
    std::thread::scope(|scope| {
        for shard in 0..SHARDS {
            let (budget, overflow) = (&budget, &overflow);
            scope.spawn(move || {
                let share = Share::new(budget, shard);
                let pool = BufferPool::new(kept, &share, overflow);
                let mut random = Random(shard as u64);
                let mut lent: Vec<(Buffer, u8)> = Vec::new();
                for step in 0..4000_usize {
                    match random.below(8) {
                        0..4 => {
                            let Some(mut buffer) = pool.get(1 + random.below(65_536), Rank::Start) else {
                                lent.clear();
                                continue;
                            };
                            if buffer.tier() != Tier::Large {
                                assert!(buffer.iter().all(|byte| *byte == 0));
                            }
                            // Whoever else wrote into it meanwhile would be found out below.
                            let mark = (shard * 80 + step % 80) as u8;
                            buffer.fill(mark);
                            lent.push((buffer, mark));
                        }
                        4..7 if !lent.is_empty() => {
                            let (buffer, mark) = lent.swap_remove(random.below(lent.len()));
                            assert!(buffer.iter().all(|byte| *byte == mark));
                        }
                        7 if step % 97 == 0 => pool.decay(),
                        7 if step % 89 == 0 => overflow.decay(step as u64 * 1000),
                        _ => {}
                    }
                    let in_use: usize = lent.iter().map(|(buffer, _)| buffer.len()).sum();
                    assert_eq!(used(budget, shard, Holder::BuffersInUse), in_use);
                    assert_eq!(used(budget, shard, Holder::BuffersFree), held_bytes(&pool) - in_use);
                }
            });
        }
    });
    drop(overflow);
    assert_eq!(budget.used_bytes(), 0);
}

/// Random takes, writes and returns against a model: a lent buffer is lent once and keeps its bytes, the counts
/// are the model's, bounds hold at every step, small and medium buffers come zeroed.
#[test]
fn random_use_loses_and_doubles_nothing() {
    let kept_of = [5, 3, 2];
    for seed in 0..20 {
        let share = plenty();
        let pool = pool_of(kept_of, &share);
        let mut random = Random(seed);
        let mut lent: Vec<(Buffer, Vec<u8>)> = Vec::new();
        let mut free_model = [0_usize; 3];
        for step in 0..2000 {
            if random.below(2) == 0 {
                let wanted = 1 + random.below(66_000);
                let buffer = pool.get(wanted, Rank::Start);
                assert_eq!(buffer.is_some(), Tier::holding(wanted).is_some());
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
            assert_eq!(share.budget().used_bytes(), held_bytes(&pool) as u64);
        }
        drop((lent, pool));
        assert_eq!(share.budget().used_bytes(), 0);
    }
}
