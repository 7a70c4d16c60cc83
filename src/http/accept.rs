//! `Accept` (RFC 9110 12.5.1): which of the media types that there are a client likes best.

use super::{Known, Request, syntax};

/// A media type as its two tokens, in lower case.
pub type MediaType<'a> = (&'a str, &'a str);

/// Whether a request would rather have `this` than `other`. Without `Accept`, and where it likes both as much, it would
/// not.
pub fn prefers(request: Request<'_>, this: MediaType<'_>, other: MediaType<'_>) -> bool {
    request.field(Known::Accept).is_some() && quality(request, this) > quality(request, other)
}

/// The weight of a media type in thousandths: that of the most specific range that it is in, the first of several such;
/// 0 where it is in none. A range's parameters other than `q` are not looked at, and a malformed range matches nothing.
fn quality(request: Request<'_>, (main, sub): MediaType<'_>) -> u16 {
    let mut best: Option<(u8, u16)> = None;
    for range in request.fields_named(Known::Accept).flat_map(syntax::elements) {
        let mut parts = range.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let Some(slash) = name.iter().position(|&byte| byte == b'/') else { continue };
        let (range_main, range_sub) = (&name[..slash], &name[slash + 1..]);
        let is_main = range_main.eq_ignore_ascii_case(main.as_bytes());
        let specificity = match (range_main, range_sub) {
            (b"*", b"*") => 1,
            (_, b"*") if is_main => 2,
            (_, _) if is_main && range_sub.eq_ignore_ascii_case(sub.as_bytes()) => 3,
            _ => continue,
        };
        let Some(weight) = weight(parts) else { continue };
        if best.is_none_or(|(before, _)| specificity > before) {
            best = Some((specificity, weight));
        }
    }
    best.map_or(0, |(_, weight)| weight)
}

/// The weight among a range's parameters (RFC 9110 12.4.2), 1000 without one; `None` for a malformed one.
fn weight<'a>(mut parameters: impl Iterator<Item = &'a [u8]>) -> Option<u16> {
    let value = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_at_checked(2)?;
        name.eq_ignore_ascii_case(b"q=").then_some(value)
    });
    match value {
        None => Some(1000),
        Some(value) => syntax::qvalue(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Field, Parts, Span};

    const JSON: MediaType<'static> = ("application", "json");
    const HTML: MediaType<'static> = ("text", "html");

    fn prefers_json(lines: &[&str]) -> bool {
        let mut bytes = Vec::new();
        let mut parts = Parts::with_capacity(8);
        for line in lines {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(b"Accept");
            let name = Span::new(start, bytes.len() as u32);
            let start = bytes.len() as u32;
            bytes.extend_from_slice(line.as_bytes());
            parts.add_field(Field { name, value: Span::new(start, bytes.len() as u32) }, Some(Known::Accept));
        }
        prefers(Request { bytes: &bytes, parts: &parts }, JSON, HTML)
    }

    #[test]
    fn the_greater_weight_of_the_most_specific_range_wins() {
        let table: [(&[&str], bool); 20] = [
            (&[], false),
            (&["*/*"], false),
            (&["application/json"], true),
            (&["Application/JSON"], true),
            (&["application/*"], true),
            (&["text/html"], false),
            (&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], false),
            (&["application/json, text/html"], false),
            (&["application/json, text/html;q=0.9"], true),
            (&["application/json;q=0.5, text/html;q=0.4"], true),
            (&["application/json;q=0.5, text/html;q=0.501"], false),
            (&["text/html;q=0.1", "application/json ; charset=utf-8 ; Q=0.2"], true),
            (&["*/*, text/*;q=0.3"], true),
            (&["*/*;q=0.5, application/json;q=0"], false),
            (&["application/json;q=0"], false),
            (&["text/*, text/html;q=0, application/json;q=0.001"], true),
            (&["application/json;q=1.001"], false),
            (&["application/json;q=2, */*;q=0.1"], false),
            (&["application/json;q=0.1234"], false),
            (&[",, application/json;q=1.000,"], true),
        ];
        for (lines, expected) in table {
            assert_eq!(prefers_json(lines), expected, "{lines:?}");
        }
    }
}
