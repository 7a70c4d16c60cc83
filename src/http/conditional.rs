//! Conditional requests (RFC 9110 13): whether a method may be performed, and whether `Range` may be honoured.
//!
//! The verdict is about one representation with its validators. It is asked for only when the request would
//! otherwise be answered with a 2xx: preconditions are ignored in front of any other answer (RFC 9110 13.2.1).

use super::{Known, Method, Request, date};

/// The validators of the selected representation.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// The entity tag as it is sent, quotes and a leading `W/` included. Empty: there is none.
    pub etag: &'a [u8],
    /// Time of the last modification, seconds since 1970, as sent in `Last-Modified`.
    pub modified_unix_seconds: u64,
}

/// What to do with a request after its conditions were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Perform the method.
    Proceed {
        /// The request is a `GET` with one `Range` line that `If-Range`, if any, allows.
        range: bool,
    },
    /// Answer 304.
    NotModified,
    /// Answer 412.
    PreconditionFailed,
}

/// Evaluates all conditions of a request in the order of RFC 9110 13.2.2.
///
/// Entity tags of repeated lines count as one list. A list is read up to its first malformed element, so a
/// malformed `If-Match` fails and a malformed `If-None-Match` lets the request through: both are safe. Dates
/// that are invalid or repeated are ignored (RFC 9110 13.1.3, 13.1.4).
pub fn evaluate(request: Request<'_>, validators: &Validators<'_>) -> Verdict {
    let method = request.method();
    // RFC 9110 13.2.1: conditions are ignored for methods that do not select a representation.
    if matches!(method, Method::Options | Method::Trace | Method::Connect) {
        return Verdict::Proceed { range: false };
    }
    let modified = validators.modified_unix_seconds;

    if request.field(Known::IfMatch).is_some() {
        if !any_matches(request, Known::IfMatch, validators.etag, Comparison::Strong) {
            return Verdict::PreconditionFailed;
        }
    } else if date_of(request, Known::IfUnmodifiedSince).is_some_and(|date| modified > date) {
        return Verdict::PreconditionFailed;
    }

    if request.field(Known::IfNoneMatch).is_some() {
        if any_matches(request, Known::IfNoneMatch, validators.etag, Comparison::Weak) {
            return if method.is_get_or_head() { Verdict::NotModified } else { Verdict::PreconditionFailed };
        }
    } else if method.is_get_or_head()
        && date_of(request, Known::IfModifiedSince).is_some_and(|date| modified <= date)
    {
        return Verdict::NotModified;
    }

    Verdict::Proceed { range: allows_range(request, validators) }
}

/// Whether to look at `Range`. It MUST be ignored for any method but `GET` (RFC 9110 14.2); repeated lines
/// make a list of several units, which nobody sends for good reason, so they are ignored too.
fn allows_range(request: Request<'_>, validators: &Validators<'_>) -> bool {
    if request.method() != Method::Get
        || request.field(Known::Range).is_none()
        || request.repeated(Known::Range)
    {
        return false;
    }
    match request.field(Known::IfRange) {
        None => true,
        Some(_) if request.repeated(Known::IfRange) => false,
        Some(value) => if_range(value, validators),
    }
}

/// RFC 9110 13.1.5: a tag must match strongly, a date must be exactly that of `Last-Modified`. A file that
/// changes twice within a second keeps its date; a client that minds uses the tag.
fn if_range(value: &[u8], validators: &Validators<'_>) -> bool {
    match Tag::parse(value) {
        Some((tag, rest)) => rest.is_empty() && tag.matches(validators.etag, Comparison::Strong),
        None => date::parse(value) == Some(validators.modified_unix_seconds),
    }
}

/// A date field that is present once and valid.
fn date_of(request: Request<'_>, known: Known) -> Option<u64> {
    if request.repeated(known) {
        return None;
    }
    date::parse(request.field(known)?)
}

/// Whether a line is `*` or a tag of any line matches. `*` asks whether a representation exists; one does.
fn any_matches(request: Request<'_>, known: Known, etag: &[u8], comparison: Comparison) -> bool {
    request.fields_named(known).any(|value| value == b"*" || list_matches(value, etag, comparison))
}

fn list_matches(mut list: &[u8], etag: &[u8], comparison: Comparison) -> bool {
    loop {
        // Empty elements are allowed in a list that is received (RFC 9110 5.6.1.2).
        while let [b' ' | b'\t' | b',', rest @ ..] = list {
            list = rest;
        }
        let Some((tag, rest)) = Tag::parse(list) else { return false };
        let rest = rest.trim_ascii_start();
        // Two tags without a comma between them: malformed from here on, this tag included.
        if !rest.is_empty() && rest[0] != b',' {
            return false;
        }
        if tag.matches(etag, comparison) {
            return true;
        }
        list = rest;
    }
}

/// How two entity tags are compared (RFC 9110 8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// Neither is weak and the texts are equal.
    Strong,
    /// The texts are equal.
    Weak,
}

/// An entity tag: `opaque` is the quoted text with its quotes.
struct Tag<'a> {
    weak: bool,
    opaque: &'a [u8],
}

impl<'a> Tag<'a> {
    /// The tag at the start of `text` and what follows it. `W/` has this case only (RFC 9110 8.8.3).
    fn parse(text: &'a [u8]) -> Option<(Tag<'a>, &'a [u8])> {
        let (weak, quoted) = match text.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, text),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let length = inner.iter().position(|&byte| byte == b'"')?;
        if !inner[..length].iter().all(|&byte| byte > b' ' && byte != 0x7f) {
            return None;
        }
        let (opaque, rest) = quoted.split_at(length + 2);
        Some((Tag { weak, opaque }, rest))
    }

    /// Compares with a tag of our own.
    fn matches(&self, own: &[u8], comparison: Comparison) -> bool {
        let Some((own, _)) = Tag::parse(own) else { return false };
        let weak = self.weak || own.weak;
        self.opaque == own.opaque && !(weak && comparison == Comparison::Strong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Field, Parts, Span};

    const MODIFIED: u64 = 784_111_777;
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const PLAIN: Verdict = Verdict::Proceed { range: false };
    const RANGE: Verdict = Verdict::Proceed { range: true };

    fn evaluate_with(etag: &str, method: Method, lines: &[(&str, &str)]) -> Verdict {
        let mut bytes = Vec::new();
        let mut parts = Parts::default();
        parts.method = method;
        let mut add = |text: &str| {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(text.as_bytes());
            Span::new(start, bytes.len() as u32)
        };
        for (name, value) in lines {
            let field = Field { name: add(name), value: add(value) };
            parts.add_field(field, Known::classify(name.as_bytes()));
        }
        let validators = Validators { etag: etag.as_bytes(), modified_unix_seconds: MODIFIED };
        evaluate(Request { bytes: &bytes, parts: &parts }, &validators)
    }

    fn get(lines: &[(&str, &str)]) -> Verdict {
        evaluate_with("\"a\"", Method::Get, lines)
    }

    #[test]
    fn without_conditions_a_request_proceeds() {
        assert_eq!(get(&[]), PLAIN);
        assert_eq!(get(&[("Range", "bytes=0-")]), RANGE);
    }

    #[test]
    fn range_is_for_get_alone() {
        for method in [Method::Head, Method::Post, Method::Put, Method::Other, Method::Options] {
            assert_eq!(evaluate_with("\"a\"", method, &[("Range", "bytes=0-")]), PLAIN);
        }
    }

    #[test]
    fn repeated_range_lines_are_ignored() {
        assert_eq!(get(&[("Range", "bytes=0-1"), ("range", "bytes=2-3")]), PLAIN);
    }

    #[test]
    fn if_match_compares_strongly() {
        assert_eq!(get(&[("If-Match", "\"a\"")]), PLAIN);
        assert_eq!(get(&[("If-Match", "\"b\"")]), Verdict::PreconditionFailed);
        assert_eq!(get(&[("If-Match", "W/\"a\"")]), Verdict::PreconditionFailed);
        assert_eq!(get(&[("If-Match", "*")]), PLAIN);
        assert_eq!(get(&[("If-Match", "\"b\", W/\"a\" ,\"a\"")]), PLAIN);
        let weak = evaluate_with("W/\"a\"", Method::Put, &[("If-Match", "W/\"a\"")]);
        assert_eq!(weak, Verdict::PreconditionFailed);
    }

    #[test]
    fn if_none_match_compares_weakly() {
        assert_eq!(get(&[("If-None-Match", "\"a\"")]), Verdict::NotModified);
        assert_eq!(get(&[("If-None-Match", "W/\"a\"")]), Verdict::NotModified);
        assert_eq!(get(&[("If-None-Match", "\"b\"")]), PLAIN);
        assert_eq!(get(&[("If-None-Match", "*")]), Verdict::NotModified);
        let weak = evaluate_with("W/\"a\"", Method::Get, &[("If-None-Match", "\"a\"")]);
        assert_eq!(weak, Verdict::NotModified);
    }

    #[test]
    fn if_none_match_fails_other_methods() {
        let lines = [("If-None-Match", "*")];
        assert_eq!(evaluate_with("\"a\"", Method::Head, &lines), Verdict::NotModified);
        for method in [Method::Put, Method::Post, Method::Delete, Method::Patch, Method::Other] {
            assert_eq!(evaluate_with("\"a\"", method, &lines), Verdict::PreconditionFailed);
        }
    }

    #[test]
    fn lists_over_lines_and_with_gaps_are_one_list() {
        assert_eq!(get(&[("If-None-Match", "\"b\""), ("if-none-match", "\"a\"")]), Verdict::NotModified);
        assert_eq!(get(&[("If-Match", "\"b\""), ("X", "y"), ("If-Match", "\"a\"")]), PLAIN);
        assert_eq!(get(&[("If-None-Match", ", ,\"b\",, \t\"a\",")]), Verdict::NotModified);
    }

    #[test]
    fn a_comma_within_quotes_is_part_of_the_tag() {
        let lines = [("If-None-Match", "\"x,\", \"p,q\"")];
        assert_eq!(evaluate_with("\"p,q\"", Method::Get, &lines), Verdict::NotModified);
        assert_eq!(evaluate_with("\"p\"", Method::Get, &lines), PLAIN);
    }

    #[test]
    fn malformed_tags_match_nothing() {
        let malformed = [
            "",
            "a",
            "\"a",
            "a\"",
            "w/\"a\"",
            "W/a",
            "W/ \"a\"",
            "'a'",
            "\"b\" \"a\"",
            "\"a\"x",
            "\"b\";\"a\"",
            "\"a b\", \"a\"",
            "**",
            "*, \"b\"",
            "W/",
            "\"",
        ];
        for value in malformed {
            assert_eq!(get(&[("If-None-Match", value)]), PLAIN, "{value}");
            assert_eq!(get(&[("If-Match", value)]), Verdict::PreconditionFailed, "{value}");
        }
    }

    #[test]
    fn without_a_tag_of_our_own_nothing_matches_but_the_star() {
        assert_eq!(evaluate_with("", Method::Get, &[("If-None-Match", "\"\"")]), PLAIN);
        assert_eq!(evaluate_with("", Method::Get, &[("If-None-Match", "*")]), Verdict::NotModified);
        assert_eq!(evaluate_with("", Method::Get, &[("If-Match", "\"\"")]), Verdict::PreconditionFailed);
    }

    #[test]
    fn if_modified_since_compares_seconds() {
        assert_eq!(get(&[("If-Modified-Since", BEFORE)]), PLAIN);
        assert_eq!(get(&[("If-Modified-Since", AT)]), Verdict::NotModified);
        assert_eq!(get(&[("If-Modified-Since", AFTER)]), Verdict::NotModified);
        assert_eq!(evaluate_with("", Method::Head, &[("If-Modified-Since", AT)]), Verdict::NotModified);
        assert_eq!(evaluate_with("", Method::Post, &[("If-Modified-Since", AT)]), PLAIN);
    }

    #[test]
    fn if_unmodified_since_compares_seconds() {
        assert_eq!(get(&[("If-Unmodified-Since", BEFORE)]), Verdict::PreconditionFailed);
        assert_eq!(get(&[("If-Unmodified-Since", AT)]), PLAIN);
        assert_eq!(get(&[("If-Unmodified-Since", AFTER)]), PLAIN);
    }

    #[test]
    fn invalid_and_repeated_dates_are_ignored() {
        assert_eq!(get(&[("If-Modified-Since", "tomorrow")]), PLAIN);
        assert_eq!(get(&[("If-Unmodified-Since", "0")]), PLAIN);
        assert_eq!(get(&[("If-Modified-Since", AT), ("If-Modified-Since", AT)]), PLAIN);
        assert_eq!(get(&[("If-Unmodified-Since", BEFORE), ("If-Unmodified-Since", BEFORE)]), PLAIN);
    }

    #[test]
    fn tags_take_precedence_over_dates() {
        // If-Match present: If-Unmodified-Since is not looked at.
        assert_eq!(get(&[("If-Unmodified-Since", BEFORE), ("If-Match", "\"a\"")]), PLAIN);
        // If-None-Match present: If-Modified-Since is not looked at.
        assert_eq!(get(&[("If-Modified-Since", AFTER), ("If-None-Match", "\"b\"")]), PLAIN);
        assert_eq!(get(&[("If-Modified-Since", BEFORE), ("If-None-Match", "\"a\"")]), Verdict::NotModified);
    }

    #[test]
    fn a_failed_match_comes_before_not_modified() {
        assert_eq!(get(&[("If-None-Match", "\"a\""), ("If-Match", "\"b\"")]), Verdict::PreconditionFailed);
        assert_eq!(get(&[("If-None-Match", "\"a\""), ("If-Match", "\"a\"")]), Verdict::NotModified);
        assert_eq!(
            get(&[("If-Modified-Since", AT), ("If-Unmodified-Since", BEFORE)]),
            Verdict::PreconditionFailed
        );
    }

    #[test]
    fn if_range_needs_a_strong_match_or_the_exact_date() {
        let with = |value: &str| get(&[("Range", "bytes=0-"), ("If-Range", value)]);
        assert_eq!(with("\"a\""), RANGE);
        assert_eq!(with(AT), RANGE);
        for value in ["W/\"a\"", "\"b\"", "\"a\", \"b\"", "\"a\" ", "a", "*", "", BEFORE, AFTER] {
            assert_eq!(with(value), PLAIN, "{value}");
        }
        let weak = evaluate_with("W/\"a\"", Method::Get, &[("Range", "bytes=0-"), ("If-Range", "W/\"a\"")]);
        assert_eq!(weak, PLAIN);
        assert_eq!(get(&[("Range", "bytes=0-"), ("If-Range", "\"a\""), ("If-Range", "\"a\"")]), PLAIN);
    }

    #[test]
    fn if_range_without_range_means_nothing() {
        assert_eq!(get(&[("If-Range", "\"a\"")]), PLAIN);
    }

    #[test]
    fn methods_without_a_representation_have_no_conditions() {
        for method in [Method::Options, Method::Trace, Method::Connect] {
            assert_eq!(evaluate_with("\"a\"", method, &[("If-Match", "\"b\"")]), PLAIN);
        }
    }
}
