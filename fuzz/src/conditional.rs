//! Conditional requests and their dates: `http::conditional::evaluate`. The first three lines of the input are the
//! method, our entity tag and our modification time in seconds; the others are field lines.
//!
//! The verdict is that of RFC 9110 13.2.2 followed step by step.

use webserver::http::{
    Method,
    conditional::{Validators, Verdict, evaluate},
    date,
};

/// A request of which only this much matters.
struct Asked<'a> {
    method: Method,
    etag: &'a [u8],
    modified: u64,
    fields: Vec<(&'a [u8], &'a [u8])>,
}

/// Checks one input; whether it has a condition that decides, or a range.
pub fn check(input: &[u8]) -> bool {
    let (method, rest) = super::first_line(input);
    let (etag, rest) = super::first_line(rest);
    let (modified, rest) = super::first_line(rest);
    let asked = Asked {
        method: Method::from_text(method),
        // Ours is well formed or absent.
        etag: if tags(etag) == [etag] { etag } else { b"" },
        modified: super::number(modified),
        fields: rest.split(|&byte| byte == b'\n').filter_map(field).collect(),
    };
    for (_, value) in &asked.fields {
        check_date(value);
    }
    let verdict = asked.evaluate();
    assert_eq!(verdict, asked.plain());
    verdict != Verdict::Proceed { range: false }
}

/// Name and value of a field line as the codec lets them through.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    (super::is_token(name) && super::is_value(value)).then_some((name, value))
}

/// A date that is understood is understood when it is written our way too.
fn check_date(value: &[u8]) {
    if let Some(seconds) = date::parse(value) {
        assert_eq!(date::parse(&date::format(seconds)), Some(seconds), "{}", value.escape_ascii());
    }
}

impl Asked<'_> {
    fn evaluate(&self) -> Verdict {
        let request = super::request(self.method, &self.fields);
        let validators = Validators { etag: self.etag, modified_unix_seconds: self.modified };
        evaluate(request.as_request(), &validators)
    }

    /// RFC 9110 13.2.2, and nothing for the methods of 13.2.1.
    fn plain(&self) -> Verdict {
        if matches!(self.method, Method::Options | Method::Trace | Method::Connect) {
            return Verdict::Proceed { range: false };
        }
        let reads = matches!(self.method, Method::Get | Method::Head);
        let (if_match, if_none_match) = (self.lines("if-match"), self.lines("if-none-match"));
        let unmodified = self.date("if-unmodified-since").is_none_or(|date| self.modified <= date);
        if if !if_match.is_empty() { !self.has(&if_match, true) } else { !unmodified } {
            return Verdict::PreconditionFailed;
        }
        let not_modified = reads && self.date("if-modified-since").is_some_and(|date| self.modified <= date);
        if if !if_none_match.is_empty() { self.has(&if_none_match, false) } else { not_modified } {
            return if reads { Verdict::NotModified } else { Verdict::PreconditionFailed };
        }
        let unchanged = match self.lines("if-range")[..] {
            [] => true,
            [value] => {
                let same_tag = tags(value) == [value] && is_same(value, self.etag, true);
                same_tag || date::parse(value) == Some(self.modified)
            }
            _ => false,
        };
        Verdict::Proceed { range: self.method == Method::Get && self.lines("range").len() == 1 && unchanged }
    }

    fn lines(&self, wanted: &str) -> Vec<&[u8]> {
        let wanted = wanted.as_bytes();
        let named = self.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named.map(|&(_, value)| value).collect()
    }

    /// The date of a field that is there once.
    fn date(&self, name: &str) -> Option<u64> {
        match self.lines(name)[..] {
            [value] => date::parse(value),
            _ => None,
        }
    }

    /// Whether a line is `*` or lists our tag.
    fn has(&self, lines: &[&[u8]], strong: bool) -> bool {
        lines.iter().any(|&line| line == b"*" || tags(line).iter().any(|tag| is_same(tag, self.etag, strong)))
    }
}

/// The entity tags of a list, `W/` and quotes included, up to the first element that is none.
fn tags(mut list: &[u8]) -> Vec<&[u8]> {
    let mut tags = Vec::new();
    loop {
        let gap = list.iter().take_while(|byte| b" \t,".contains(byte)).count();
        list = &list[gap..];
        let mut quotes = list.iter().enumerate().filter(|&(_, &byte)| byte == b'"').map(|(at, _)| at);
        let (Some(open), Some(close)) = (quotes.next(), quotes.next()) else { return tags };
        let (tag, rest) = list.split_at(close + 1);
        let next = rest.iter().find(|byte| !b" \t".contains(byte));
        let opaque = tag[open..].iter().all(|&byte| byte > b' ' && byte != 0x7f);
        if !matches!(&list[..open], b"" | b"W/") || !opaque || next.is_some_and(|&byte| byte != b',') {
            return tags;
        }
        tags.push(tag);
        list = rest;
    }
}

/// RFC 9110 8.8.3.2. Without a tag of ours there is nothing to be the same as.
fn is_same(tag: &[u8], own: &[u8], strong: bool) -> bool {
    let weak = |tag: &[u8]| tag.starts_with(b"W/");
    let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    !own.is_empty() && opaque(tag) == opaque(own) && !(strong && (weak(tag) || weak(own)))
}
