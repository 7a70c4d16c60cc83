//! Dates as logs write them, in UTC. Pure: the caller knows what time it is.

/// Bytes of [`combined`].
pub(super) const COMBINED_BYTES: usize = 28;

/// Bytes of [`rfc3339_seconds`].
pub(super) const RFC3339_SECONDS_BYTES: usize = 19;

/// Last second of the year 9999; later ones are written as this.
const UNIX_SECONDS_MAX: u64 = 253_402_300_799;

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// `[23/Nov/2026:12:00:00 +0000]`, as the combined log format has it.
pub(super) fn combined(unix_seconds: u64) -> [u8; COMBINED_BYTES] {
    let date = Date::of(unix_seconds);
    let mut text = *b"[00/Jan/0000:00:00:00 +0000]";
    put_decimal(&mut text[1..3], date.day);
    text[4..7].copy_from_slice(MONTHS[date.month as usize - 1]);
    put_decimal(&mut text[8..12], date.year);
    put_decimal(&mut text[13..15], date.hour);
    put_decimal(&mut text[16..18], date.minute);
    put_decimal(&mut text[19..21], date.second);
    text
}

/// `2026-11-23T12:00:00Z` (RFC 3339).
pub(crate) fn rfc3339(unix_seconds: u64) -> String {
    let seconds = rfc3339_seconds(unix_seconds);
    format!("{}Z", String::from_utf8_lossy(&seconds))
}

/// `2026-11-23T12:00:00` (RFC 3339): a fraction may follow, and `Z` must.
pub(super) fn rfc3339_seconds(unix_seconds: u64) -> [u8; RFC3339_SECONDS_BYTES] {
    let date = Date::of(unix_seconds);
    let mut text = *b"0000-00-00T00:00:00";
    put_decimal(&mut text[0..4], date.year);
    put_decimal(&mut text[5..7], date.month);
    put_decimal(&mut text[8..10], date.day);
    put_decimal(&mut text[11..13], date.hour);
    put_decimal(&mut text[14..16], date.minute);
    put_decimal(&mut text[17..19], date.second);
    text
}

/// A moment in the Gregorian calendar; month and day count from 1.
#[derive(Clone, Copy)]
struct Date {
    year: u32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
}

impl Date {
    /// The calendar date of a day count, by Howard Hinnant's `civil_from_days`: years begin in March, so that
    /// the leap day is the last one, and an era of 400 years has 146,097 days. Every value fits 32 bits, because
    /// the year is at most 9999.
    fn of(unix_seconds: u64) -> Date {
        let seconds = unix_seconds.min(UNIX_SECONDS_MAX);
        let second_of_day = (seconds % 86_400) as u32;
        let days = (seconds / 86_400) as u32 + 719_468; // since 0000-03-01
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Date {
            year: era * 400 + year_of_era + u32::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: second_of_day / 3600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }
}

/// Fills `place` with the last digits of `value`.
fn put_decimal(place: &mut [u8], mut value: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn writes_known_moments() {
        for (seconds, text, stamp) in [
            (0, "[01/Jan/1970:00:00:00 +0000]", "1970-01-01T00:00:00"),
            (951_782_399, "[28/Feb/2000:23:59:59 +0000]", "2000-02-28T23:59:59"),
            (951_782_400, "[29/Feb/2000:00:00:00 +0000]", "2000-02-29T00:00:00"),
            (1_795_435_200, "[23/Nov/2026:12:00:00 +0000]", "2026-11-23T12:00:00"),
            (4_107_542_400, "[01/Mar/2100:00:00:00 +0000]", "2100-03-01T00:00:00"),
            (UNIX_SECONDS_MAX, "[31/Dec/9999:23:59:59 +0000]", "9999-12-31T23:59:59"),
            (u64::MAX, "[31/Dec/9999:23:59:59 +0000]", "9999-12-31T23:59:59"),
        ] {
            assert_eq!(std::str::from_utf8(&combined(seconds)).unwrap(), text);
            assert_eq!(std::str::from_utf8(&rfc3339_seconds(seconds)).unwrap(), stamp);
        }
    }

    #[test]
    fn agrees_with_http_dates_on_every_day_for_two_centuries() {
        for day in 0..73_050_u64 {
            let seconds = day * 86_400 + day % 86_400;
            let http = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
            let text = String::from_utf8(combined(seconds).to_vec()).unwrap();
            // "Sun, 06 Nov 1994 08:49:37 GMT" against "[06/Nov/1994:08:49:37 +0000]".
            let expected =
                format!("[{}/{}/{}:{} +0000]", &http[5..7], &http[8..11], &http[12..16], &http[17..25]);
            assert_eq!(text, expected);
        }
    }
}
