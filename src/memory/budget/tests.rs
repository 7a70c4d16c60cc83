//! The budget holds in every order of events, from one shard and from several.

use super::*;

/// A budget of its own for a test, with this many shards.
pub(crate) fn budget(bytes: usize, shards: usize) -> Arc<Budget> {
    let shards = (0..shards).map(|_| Arc::new(ShardMetrics::new(0))).collect();
    Budget::new(bytes, Arc::default(), shards)
}

/// The share of the only shard of a budget that is never short.
pub(crate) fn plenty() -> Rc<Share> {
    Share::new(&budget(1 << 40, 1), 0)
}

#[test]
fn is_used_up_to_its_last_byte_and_no_further() {
    let budget = budget(1 << 20, 1);
    let share = Share::new(&budget, 0);
    let start = (1 << 20) - (1 << 20) / 32;
    let most = share.reserve(Holder::Connections, start, Rank::Start).unwrap();
    assert!(share.reserve(Holder::Connections, 1, Rank::Start).is_none());
    assert!(budget.charge(Holder::OpenFiles, 1).is_none());
    assert!(!budget.charge_host(1));
    // What was begun can be finished.
    let rest = share.reserve(Holder::ResponseBodies, (1 << 20) - start, Rank::Finish).unwrap();
    assert!(share.reserve(Holder::ResponseBodies, 1, Rank::Finish).is_none());
    assert_eq!(budget.used_bytes(), 1 << 20);
    drop(rest);
    assert!(share.reserve(Holder::ResponseBodies, (1 << 20) - start, Rank::Finish).is_some());
    drop(most);
    assert_eq!(budget.used_bytes(), 0);
    assert!(share.reserve(Holder::Connections, start, Rank::Start).is_some());
}

#[test]
fn refusals_are_counted_by_holder() {
    let budget = budget(1 << 20, 1);
    let share = Share::new(&budget, 0);
    assert!(share.reserve(Holder::RequestBodies, 2 << 20, Rank::Start).is_none());
    assert!(budget.charge(Holder::MappedFiles, 2 << 20).is_none());
    assert_eq!(budget.shards[0].memory.refused[Holder::RequestBodies as usize].value(), 1);
    assert_eq!(budget.server.refused[Holder::MappedFiles as usize].value(), 1);
}

#[test]
fn a_shard_gives_back_all_but_a_chunk_or_two() {
    let budget = budget(64 << 20, 2);
    let (one, two) = (Share::new(&budget, 0), Share::new(&budget, 1));
    let many: Vec<_> =
        (0..1000).map(|_| one.reserve(Holder::Connections, 4096, Rank::Start).unwrap()).collect();
    drop(many);
    assert!(budget.server.taken_bytes.value() <= 2 * budget.chunk_bytes());
    let start = (64 << 20) - (64 << 20) / 32;
    let left = start - usize::try_from(2 * budget.chunk_bytes()).unwrap();
    assert!(two.reserve(Holder::Connections, left, Rank::Start).is_some());
    drop((one, two));
    assert_eq!(budget.server.taken_bytes.value(), 0);
}

#[test]
fn a_reservation_grows_or_stays() {
    let share = Share::new(&budget(1 << 20, 1), 0);
    let mut reservation = share.reserve(Holder::RequestBodies, 1000, Rank::Start).unwrap();
    assert!(reservation.grow(2000, Rank::Start));
    assert!(reservation.grow(10, Rank::Start));
    assert!(!reservation.grow(1 << 20, Rank::Start));
    assert_eq!((reservation.bytes(), share.budget().used_bytes()), (2000, 2000));
    drop(reservation);
    assert_eq!(share.budget().used_bytes(), 0);
}

#[test]
fn bytes_change_hands_without_being_counted_twice() {
    let budget = budget(1 << 20, 2);
    let (one, two) = (Share::new(&budget, 0), Share::new(&budget, 1));
    assert!(one.take(Holder::BuffersInUse, 4096, Rank::Start));
    one.pass(Holder::BuffersInUse, Holder::BuffersFree, 4096);
    one.hand_over(Holder::BuffersFree, 4096);
    assert_eq!((budget.used_bytes(), one.used_bytes.get()), (4096, 0));
    two.adopt(Holder::BuffersFree, 4096);
    assert_eq!((budget.used_bytes(), two.used_bytes.get()), (4096, 4096));
    two.give_back(Holder::BuffersFree, 4096);
    drop((one, two));
    assert_eq!((budget.used_bytes(), budget.server.taken_bytes.value()), (0, 0));
}

#[test]
fn the_host_gives_back_no_more_than_it_charged() {
    let budget = budget(1 << 20, 1);
    assert!(budget.charge_host(1000));
    budget.release_host(5000);
    assert_eq!((budget.used_bytes(), budget.server.taken_bytes.value()), (0, 0));
}

#[test]
fn the_level_follows_what_is_held_and_the_alarm_tells_when_to_look() {
    let budget = budget(1 << 20, 1);
    let at_once = Some(Duration::ZERO);
    assert!(budget.wait(at_once));
    let charge = budget.charge(Holder::Logs, 900 << 10).unwrap();
    assert!(budget.alarm.rung.load(Relaxed), "past 70 % somebody should look");
    let (assessment, changed) = budget.assess();
    assert_eq!((assessment.level, changed, budget.level()), (Level::High, true, Level::High));
    assert!(budget.wait(at_once));
    drop(charge);
    assert!(budget.alarm.rung.load(Relaxed));
    assert_eq!((budget.assess().0.level, budget.assess().1), (Level::Normal, false));
    assert_eq!(budget.server.entered[Level::High as usize].value(), 1);
    budget.close();
    assert!(!budget.wait(None));
}

#[test]
fn several_shards_never_hold_more_than_the_budget() {
    let total = 2 << 20;
    let budget = budget(total, 4);
    std::thread::scope(|scope| {
        for shard in 0..4 {
            let budget = &budget;
            scope.spawn(move || {
                let share = Share::new(budget, shard);
                let mut random = 0x9e37_79b9_u64 + shard as u64;
                let mut held = std::collections::VecDeque::new();
                for _ in 0..20_000 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let bytes = (random >> 40) as usize % (40 << 10);
                    match random >> 62 {
                        0 => drop(held.pop_front()),
                        rank => {
                            let rank = if rank == 1 { Rank::Finish } else { Rank::Start };
                            held.extend(share.reserve(Holder::Connections, bytes, rank));
                        }
                    }
                    assert!(share.used_bytes.get() <= share.granted_bytes.get());
                    assert!(budget.server.taken_bytes.value() <= total as u64);
                }
            });
        }
    });
    assert_eq!((budget.used_bytes(), budget.server.taken_bytes.value()), (0, 0));
    assert!(budget.server.peak_bytes.value() <= total as u64);
}
