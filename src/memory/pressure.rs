//! How short memory is: four levels, from accounted bytes alone. What is done at each is the shards' business.

use crate::metrics::LEVELS;

/// A level of pressure. The value is what `webserver_memory_pressure` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Below 70 % of the budget.
    #[default]
    Normal,
    /// From 70 %: caches shrink.
    Elevated,
    /// From 85 %: idle connections are closed, nothing new is cached.
    High,
    /// Above 95 %: new connections are refused, a quarter of those that there are is closed.
    Critical,
}

/// Per cent of the budget from which each level but the first holds.
const ENTER_PERCENT: [u64; 3] = [70, 85, 95];
/// A level is left this far below where it was entered, so that it does not come and go with each request.
const HYSTERESIS_PERCENT: u64 = 5;

impl Level {
    /// Number of levels.
    pub const COUNT: usize = Level::ALL.len();
    /// All levels, the calm one first.
    pub const ALL: [Level; 4] = [Level::Normal, Level::Elevated, Level::High, Level::Critical];

    /// Its name: `normal`, `elevated`, `high`, `critical`.
    pub fn name(self) -> &'static str {
        LEVELS[self as usize]
    }

    /// The level with this number; the last one for greater numbers.
    pub fn from_number(number: u64) -> Level {
        let index = usize::try_from(number).unwrap_or(usize::MAX).min(Level::COUNT - 1);
        Level::ALL[index]
    }

    /// The level that follows this one when `used_bytes` of `budget_bytes` are held.
    pub fn next(self, used_bytes: u64, budget_bytes: u64) -> Level {
        let mut level = Level::Normal;
        for (higher, from) in Level::ALL[1..].iter().zip(ENTER_PERCENT) {
            let from = if *higher <= self { from - HYSTERESIS_PERCENT } else { from };
            if used_bytes >= share(budget_bytes, from) {
                level = *higher;
            }
        }
        level
    }

    /// Below the first and from the second number of bytes on another level may follow.
    pub fn bounds(self, budget_bytes: u64) -> (u64, u64) {
        let number = self as usize;
        let leave = number
            .checked_sub(1)
            .map_or(0, |below| share(budget_bytes, ENTER_PERCENT[below] - HYSTERESIS_PERCENT));
        let enter = ENTER_PERCENT.get(number).map_or(u64::MAX, |percent| share(budget_bytes, *percent));
        (leave, enter)
    }
}

/// `percent` of `bytes`, rounded up.
fn share(bytes: u64, percent: u64) -> u64 {
    u64::try_from((u128::from(bytes) * u128::from(percent)).div_ceil(100)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_begins_where_the_profile_says() {
        for (used, level) in [
            (0, Level::Normal),
            (699, Level::Normal),
            (700, Level::Elevated),
            (849, Level::Elevated),
            (850, Level::High),
            (949, Level::High),
            (950, Level::Critical),
            (5000, Level::Critical),
        ] {
            assert_eq!(Level::Normal.next(used, 1000), level, "{used}");
        }
    }

    #[test]
    fn a_level_is_left_lower_than_it_was_entered() {
        for (before, used, level) in [
            (Level::Critical, 900, Level::Critical),
            (Level::Critical, 899, Level::High),
            (Level::High, 800, Level::High),
            (Level::High, 799, Level::Elevated),
            (Level::Elevated, 650, Level::Elevated),
            (Level::Elevated, 649, Level::Normal),
            (Level::Critical, 0, Level::Normal),
            (Level::Elevated, 960, Level::Critical),
        ] {
            assert_eq!(before.next(used, 1000), level, "{before:?} {used}");
        }
    }

    #[test]
    fn a_small_swing_never_changes_the_level_twice() {
        // Whatever the level and the use: after a change, a swing of less than five per cent changes nothing.
        for used in 0..1100_u64 {
            for before in Level::ALL {
                let level = before.next(used, 1000);
                let (leave, enter) = level.bounds(1000);
                assert!(leave <= used && used < enter, "{before:?} {used} {level:?}");
                if level > before {
                    assert_eq!(level.next(used.saturating_sub(49), 1000), level);
                }
                assert_eq!(level.next(used, 1000), level);
            }
        }
    }

    #[test]
    fn large_budgets_do_not_overflow() {
        assert_eq!(Level::Normal.next(u64::MAX, u64::MAX), Level::Critical);
        assert_eq!(Level::Normal.next(u64::MAX / 2, u64::MAX), Level::Normal);
    }
}
