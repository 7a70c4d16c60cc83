//! What a route's `cache_control` says about a file: the rule whose pattern matches, and its rendered fields.
//!
//! A pattern comes from the configuration, a path from a client: they are compared in at most the product of their
//! lengths, whatever they are.

use std::{
    cell::{Ref, RefCell},
    rc::Rc,
};

use crate::{config, http::date};

const EXPIRES_NAME: &[u8] = b"Expires: ";

/// One rule, made for a shard. The line with the date is rendered again when the second changes, in place.
#[derive(Debug)]
pub struct Freshness {
    pattern: Vec<u8>,
    /// Compare with the whole path, not with the file's name alone.
    whole: bool,
    fields: RefCell<Fields>,
}

#[derive(Debug)]
struct Fields {
    /// `Cache-Control` and, with `expires`, `Expires` at the end.
    text: Vec<u8>,
    expires_seconds: Option<u64>,
    /// The second that `Expires` was rendered for.
    unix_seconds: u64,
}

impl Freshness {
    /// The rules as configured.
    pub(super) fn rules(rules: &[config::CacheRule]) -> Vec<Rc<Freshness>> {
        rules.iter().map(|rule| Rc::new(Freshness::new(rule))).collect()
    }

    fn new(rule: &config::CacheRule) -> Self {
        let pattern = rule.pattern.strip_prefix('/').unwrap_or(&rule.pattern);
        let expires_seconds = rule.expires.map(|time| time.as_secs());
        let mut text = match (&rule.value, expires_seconds) {
            (Some(value), _) => format!("Cache-Control: {value}\r\n"),
            (None, Some(seconds)) => format!("Cache-Control: max-age={seconds}\r\n"),
            (None, None) => String::new(),
        }
        .into_bytes();
        if let Some(seconds) = expires_seconds {
            text.extend_from_slice(EXPIRES_NAME);
            text.extend_from_slice(&date::format(seconds));
            text.extend_from_slice(b"\r\n");
        }
        Freshness {
            pattern: pattern.as_bytes().to_vec(),
            whole: rule.pattern.contains('/'),
            fields: RefCell::new(Fields { text, expires_seconds, unix_seconds: 0 }),
        }
    }

    /// Whether the rule is about the file with this path below the route (without leading slash).
    pub(super) fn is_about(&self, path: &[u8]) -> bool {
        let text = if self.whole { path } else { path.rsplit(|&byte| byte == b'/').next().unwrap_or(path) };
        matches(&self.pattern, text)
    }

    /// The fields of a response of this second, each line with its CRLF. Allocates nothing.
    pub fn fields(&self, unix_seconds: u64) -> Ref<'_, [u8]> {
        let stale = {
            let fields = self.fields.borrow();
            fields.expires_seconds.is_some() && fields.unix_seconds != unix_seconds
        };
        if stale {
            self.fields.borrow_mut().render(unix_seconds);
        }
        Ref::map(self.fields.borrow(), |fields| fields.text.as_slice())
    }
}

impl Fields {
    fn render(&mut self, unix_seconds: u64) {
        let Some(seconds) = self.expires_seconds else { return };
        let start = self.text.len().saturating_sub(date::DATE_BYTES + 2);
        let date = date::format(unix_seconds.saturating_add(seconds));
        if let Some(place) = self.text.get_mut(start..start + date::DATE_BYTES) {
            place.copy_from_slice(&date);
        }
        self.unix_seconds = unix_seconds;
    }
}

/// Whether `text` is what `pattern` says: `*` stands for any bytes, `?` for one, each other byte for itself.
///
/// After a mismatch only the last `*` takes one byte more: an earlier one cannot help when a later one has matched.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Behind the last star, and where in the text what follows it was tried last.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((behind, tried)) = star else { return false };
                p = behind;
                t = tried + 1;
                star = Some((behind, t));
            }
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn rule(pattern: &str, value: Option<&str>, expires: Option<u64>) -> Freshness {
        Freshness::new(&config::CacheRule {
            pattern: pattern.to_owned(),
            value: value.map(str::to_owned),
            expires: expires.map(Duration::from_secs),
        })
    }

    #[test]
    fn patterns_are_about_names_or_about_whole_paths() {
        let table = [
            ("*", "a/b.css", true),
            ("*", "", true),
            ("*.css", "a/b.css", true),
            ("*.css", "b.css", true),
            ("*.css", ".css", true),
            ("*.css", "b.css.map", false),
            ("*.css", "b.CSS", false),
            ("b*", "a/b.css", true),
            ("a*", "a/b.css", false),
            ("?.css", "a/b.css", true),
            ("??.css", "a/b.css", false),
            ("a/*", "a/b/c.css", true),
            ("a/*", "b/a/c.css", false),
            ("*/a/*", "b/a/c.css", true),
            ("/index.html", "index.html", true),
            ("/index.html", "a/index.html", false),
            ("index.html", "a/index.html", true),
            ("/*.*.js", "x/app.1a2b.js", true),
            ("**a**", "bab", true),
            ("a**", "a", true),
            ("a?", "a", false),
            ("", "a", false),
        ];
        for (pattern, path, expected) in table {
            assert_eq!(
                rule(pattern, Some("x"), None).is_about(path.as_bytes()),
                expected,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = "*a".repeat(127);
        let text = [vec![b'a'; 4000], vec![b'b'; 95]].concat();
        let start = Instant::now();
        assert!(!matches(pattern.as_bytes(), &text));
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn fields_follow_the_clock_where_they_expire() {
        let text = |rule: &Freshness, now| String::from_utf8(rule.fields(now).to_vec()).unwrap();
        let fixed = rule("*", Some("no-cache"), None);
        assert_eq!(text(&fixed, 5), "Cache-Control: no-cache\r\n");
        let hour = rule("*", None, Some(3600));
        let at = |date: &str| format!("Cache-Control: max-age=3600\r\nExpires: {date}\r\n");
        assert_eq!(text(&hour, 0), at("Thu, 01 Jan 1970 01:00:00 GMT"));
        assert_eq!(text(&hour, 784_108_177), at("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(text(&hour, 784_108_178), at("Sun, 06 Nov 1994 08:49:38 GMT"));
        let both = rule("*", Some("private"), Some(0));
        assert_eq!(
            text(&both, 784_111_777),
            "Cache-Control: private\r\nExpires: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        );
    }
}
