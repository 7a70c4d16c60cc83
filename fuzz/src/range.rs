//! The `Range` field: `http::range::select`, and the bodies in parts that come of it. The first line of the input is
//! the size of the representation, what follows the value of the field.
//!
//! What is selected lies within the representation, and is what sorting and sweeping the ranges asked for gives.

use webserver::http::{
    multipart::{Multipart, part_overhead_bytes},
    range::{ByteRange, RANGES_MAX, RangeSet, Selected, select},
};

const MEDIA_TYPE: &[u8] = b"text/plain";

/// Overlapping ranges that are forgiven.
const OVERLAPS_MAX: usize = 2;

/// Checks one input; whether it selects a part of the representation.
pub fn check(input: &[u8]) -> bool {
    let (size, value) = super::first_line(input);
    let size = super::number(size);
    let mut partial = false;
    for overhead in [0, part_overhead_bytes(MEDIA_TYPE.len(), size)] {
        let selected = select(value, size, overhead);
        match &selected {
            Selected::Whole | Selected::Unsatisfiable => {}
            Selected::One(range) => assert!(range.first <= range.last && range.last < size),
            Selected::Several(set) => check_several(set, size, overhead),
        }
        assert_eq!(plain(value, size, overhead), selected_ranges(&selected), "{}", value.escape_ascii());
        partial = matches!(selected, Selected::One(_) | Selected::Several(_));
    }
    partial
}

fn check_several(set: &RangeSet, size: u64, overhead: u64) {
    let ranges = set.as_slice();
    assert!((2..=RANGES_MAX).contains(&ranges.len()));
    assert!(ranges.iter().all(|range| range.first <= range.last && range.last < size));
    let content: u128 = ranges.iter().map(|range| u128::from(range.length())).sum();
    assert!(content + ranges.len() as u128 * u128::from(overhead) < size.into(), "less than the whole");

    let mut body = Multipart::new(set, size, MEDIA_TYPE, size);
    let (expected, mut length, mut taken) = (body.length(), 0, Vec::new());
    loop {
        let (text, range) = body.advance();
        assert!(text.len() as u64 <= part_overhead_bytes(MEDIA_TYPE.len(), size));
        length += text.len() as u64;
        let Some(range) = range else { break };
        length += range.length();
        taken.push(range);
    }
    assert_eq!((length, &taken[..]), (expected, ranges));
}

/// The ranges of an answer in order; one that begins past its end stands for 416, none for the whole.
fn selected_ranges(selected: &Selected) -> Vec<ByteRange> {
    match selected {
        Selected::Whole => Vec::new(),
        Selected::One(range) => vec![*range],
        Selected::Several(set) => set.as_slice().to_vec(),
        Selected::Unsatisfiable => vec![NOTHING],
    }
}

const NOTHING: ByteRange = ByteRange { first: 1, last: 0 };

/// What is to be selected, as [`selected_ranges`] writes it.
fn plain(value: &[u8], size: u64, overhead: u64) -> Vec<ByteRange> {
    let Some(asked) = asked(value) else { return Vec::new() };
    if asked.is_empty() || asked.len() > RANGES_MAX {
        return Vec::new();
    }
    // RFC 9110 14.1.2: what of each is there.
    let end = u128::from(size);
    let mut there: Vec<(u128, u128)> = Vec::new();
    for spec in &asked {
        match *spec {
            (None, Some(0)) => {}
            (None, _) if size == 0 => return Vec::new(),
            (None, length) => there.push((end.saturating_sub(length.unwrap_or(0)), end - 1)),
            (Some(first), _) if first >= end => {}
            (Some(first), last) => there.push((first, last.map_or(end - 1, |last| last.min(end - 1)))),
        }
    }
    match there[..] {
        [] => return vec![NOTHING],
        [one] => return vec![range(one)],
        _ => {}
    }
    let overlaps = (1..there.len())
        .filter(|&at| there[..at].iter().any(|earlier| earlier.0 <= there[at].1 && there[at].0 <= earlier.1))
        .count();
    let asked_bytes: u128 = there.iter().map(|(first, last)| last - first + 1).sum();
    if asked_bytes > end || overlaps > OVERLAPS_MAX {
        return Vec::new();
    }

    // Swept from left to right; each run stands where its first member was asked for.
    let mut sorted: Vec<(usize, (u128, u128))> = there.into_iter().enumerate().collect();
    sorted.sort_by_key(|&(_, bounds)| bounds);
    let mut runs: Vec<(usize, (u128, u128))> = Vec::new();
    for (place, (first, last)) in sorted {
        match runs.last_mut() {
            Some((least, (_, end))) if first <= *end || first - *end - 1 < overhead.into() => {
                *end = last.max(*end);
                *least = place.min(*least);
            }
            _ => runs.push((place, (first, last))),
        }
    }
    runs.sort_by_key(|&(place, _)| place);
    let cost: u128 = runs.iter().map(|(_, (first, last))| last - first + 1 + u128::from(overhead)).sum();
    if runs.len() > 1 && cost >= end {
        return Vec::new();
    }
    runs.into_iter().map(|(_, bounds)| range(bounds)).collect()
}

fn range((first, last): (u128, u128)) -> ByteRange {
    ByteRange { first: first as u64, last: last as u64 }
}

/// First and last position of each range, or no first and the length of a suffix; `None` if any of it is malformed.
fn asked(value: &[u8]) -> Option<Vec<(Option<u128>, Option<u128>)>> {
    let text = String::from_utf8_lossy(value);
    let (unit, set) = text.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let specs = set.split(',').map(|spec| spec.trim_matches([' ', '\t', '\n', '\r', '\u{c}']));
    let position = |text: &str| match text {
        "" => Some(None),
        _ => digits(text).map(Some),
    };
    specs
        .filter(|spec| !spec.is_empty())
        .map(|spec| {
            let (first, last) = spec.split_once('-')?;
            // Numbers of one width compare as text.
            let width = spec.len();
            let backwards = format!("{last:0>width$}") < format!("{first:0>width$}");
            match (position(first)?, position(last)?) {
                (None, None) => None,
                (Some(_), Some(_)) if backwards => None,
                bounds => Some(bounds),
            }
        })
        .collect()
}

/// A number of digits only. One of more digits than these hold is as good as any other past every end.
fn digits(text: &str) -> Option<u128> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.trim_start_matches('0').parse().unwrap_or(if text.contains(|digit| digit != '0') {
        u128::MAX
    } else {
        0
    }))
}
