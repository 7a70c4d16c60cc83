//! Typed reading of one value of the document, with errors that say what is wrong and what is allowed.
//!
//! Bounds and names come from the caller; nothing here knows a key.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{
    document::{Entry, Mark, Node, Value},
    units::{parse_size, parse_time, show_size, show_time},
};
use crate::error::{Error, ErrorKind, Result};

/// Longest text value, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// One value of the document and the dotted path that leads to it.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    /// As an error names it: `memory.worker_connections`, `routes[2].path`; empty for the whole document.
    pub path: String,
    /// The last key of the path; empty for an item of a list.
    pub key: &'a str,
    /// Where the key stands; for an item of a list, where the item begins.
    pub key_mark: &'a Mark,
    /// The value.
    pub node: &'a Node,
}

impl<'a> Field<'a> {
    /// The whole document.
    pub(super) fn root(node: &'a Node) -> Field<'a> {
        Field { path: String::new(), key: "", key_mark: &node.mark, node }
    }

    /// The keys of a mapping, in the order written. Nothing (`limits:` and no key below) is no keys.
    pub(super) fn section(&self) -> Result<Vec<Field<'a>>> {
        match &self.node.value {
            Value::Null => Ok(Vec::new()),
            Value::Map(entries) => entries.iter().map(|entry| self.below(entry)).collect(),
            _ => Err(self.wrong("a mapping of keys to values")),
        }
    }

    /// The items of a list of at most `max`; a value that is no list counts as a list of itself.
    pub(super) fn items(&self, max: usize) -> Result<Vec<Field<'a>>> {
        let items = match &self.node.value {
            Value::List(items) => items.as_slice(),
            Value::Null => return Err(self.wrong("a list")),
            _ => std::slice::from_ref(self.node),
        };
        if items.len() > max {
            return Err(self.error(format!(
                "{} has {} items, at most {max} are allowed",
                self.path,
                items.len()
            )));
        }
        Ok(items
            .iter()
            .enumerate()
            .map(|(index, node)| Field {
                path: format!("{}[{index}]", self.path),
                key: "",
                key_mark: &node.mark,
                node,
            })
            .collect())
    }

    /// `true` or `false`.
    pub(super) fn bool(&self) -> Result<bool> {
        match self.node.value {
            Value::Bool(value) => Ok(value),
            _ => Err(self.wrong("true or false")),
        }
    }

    /// A whole number within `range`.
    pub(super) fn count<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Result<T> {
        self.whole()
            .filter(|value| range.contains(value))
            .and_then(|value| T::try_from(value).ok())
            .ok_or_else(|| self.wrong(&format!("a whole number from {} to {}", range.start(), range.end())))
    }

    /// A number of bytes within `range`, plain or with a unit.
    pub(super) fn size<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Result<T> {
        let value = match &self.node.value {
            Value::Text(text) => parse_size(text),
            _ => self.whole(),
        };
        value.filter(|value| range.contains(value)).and_then(|value| T::try_from(value).ok()).ok_or_else(
            || {
                let (least, most) = (show_size(*range.start()), show_size(*range.end()));
                self.wrong(&format!(
                    "a size from {least} to {most}, such as 4KB, 64MB or 1GB (powers of 1024, no fractions)"
                ))
            },
        )
    }

    /// A time within `range`.
    pub(super) fn time(&self, range: RangeInclusive<Duration>) -> Result<Duration> {
        let value = match &self.node.value {
            Value::Text(text) => parse_time(text),
            Value::Int(0) => Some(Duration::ZERO),
            _ => None,
        };
        value.filter(|value| range.contains(value)).ok_or_else(|| {
            let (least, most) = (show_time(*range.start()), show_time(*range.end()));
            self.wrong(&format!("a time from {least} to {most}, such as 500ms, 10s, 5m or 1h"))
        })
    }

    /// The same, in whole seconds: for what is sent as such.
    pub(super) fn seconds(&self, range: RangeInclusive<Duration>) -> Result<Duration> {
        let time = self.time(range)?;
        if time.subsec_nanos() == 0 { Ok(time) } else { Err(self.wrong("a time in whole seconds")) }
    }

    /// Text that is not empty, without control characters.
    pub(super) fn text(&self) -> Result<&'a str> {
        match &self.node.value {
            Value::Text(text) if text.is_empty() => {
                Err(self.error(format!("{} must not be empty", self.path)))
            }
            Value::Text(text) if text.len() > TEXT_BYTES_MAX => {
                Err(self.error(format!("{} is longer than {TEXT_BYTES_MAX} bytes", self.path)))
            }
            Value::Text(text) if text.chars().any(char::is_control) => {
                Err(self.error(format!("{} must not contain control characters", self.path)))
            }
            Value::Text(text) => Ok(text),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => Err(self.wrong("text (put it in quotes)")),
            _ => Err(self.wrong("text")),
        }
    }

    /// One of the words in `allowed`.
    pub(super) fn word<T: Copy>(&self, allowed: &[(&str, T)]) -> Result<T> {
        let found = match &self.node.value {
            Value::Text(text) => allowed.iter().find(|(word, _)| word == text),
            _ => None,
        };
        found.map(|&(_, value)| value).ok_or_else(|| {
            let words: Vec<&str> = allowed.iter().map(|&(word, _)| word).collect();
            self.wrong(&format!("one of {}", words.join(", ")))
        })
    }

    /// A path, made absolute from where relative paths of this source start.
    pub(super) fn path(&self) -> Result<PathBuf> {
        let text = self.text()?;
        // Collecting the components drops `.` and doubled slashes; `..` is left to the kernel, as it must be.
        Ok(self.node.mark.base().join(text).components().collect())
    }

    /// An error about the value.
    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        self.node.mark.error(ErrorKind::Config, message)
    }

    /// An error about the key.
    pub(super) fn at_key(&self, message: impl Into<String>) -> Error {
        self.key_mark.error(ErrorKind::Config, message)
    }

    /// The value is not what is allowed here.
    pub(super) fn wrong(&self, allowed: &str) -> Error {
        let name = if self.path.is_empty() { "a configuration" } else { &self.path };
        self.error(format!("{name} must be {allowed}, not {}", self.node.value))
    }

    /// The key is not one of `allowed`. If it is one of `later`, it is known but does nothing yet.
    pub(super) fn unknown(&self, allowed: &[&str], later: &[&str]) -> Error {
        if later.contains(&self.key) {
            return self.later();
        }
        let place = self.path.strip_suffix(self.key).unwrap_or_default().trim_end_matches('.');
        let place = if place.is_empty() { String::new() } else { format!(" in {place}") };
        let what = format!("unknown key {:?}{place}; allowed: {}", self.key, allowed.join(", "));
        self.at_key(what)
    }

    /// The key belongs to something that this version does not do.
    pub(super) fn later(&self) -> Error {
        self.key_mark.error(ErrorKind::Unsupported, format!("{}: not in this version", self.path))
    }

    fn whole(&self) -> Option<u64> {
        match self.node.value {
            Value::Int(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    /// The value of one key. Keys become parts of errors, and those are one line.
    fn below(&self, entry: &'a Entry) -> Result<Field<'a>> {
        if entry.key.chars().any(char::is_control) {
            let what = format!("the key {:?} must not contain control characters", entry.key);
            return Err(entry.key_mark.error(ErrorKind::Config, what));
        }
        let dot = if self.path.is_empty() { "" } else { "." };
        Ok(Field {
            path: format!("{}{dot}{}", self.path, entry.key),
            key: &entry.key,
            key_mark: &entry.key_mark,
            node: &entry.node,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::document::{Source, parse};

    fn with<T>(value: &str, read: impl Fn(&Field<'_>) -> Result<T>) -> Result<T, String> {
        let source = Arc::new(Source { file: Some("f".into()), base: "/base/dir".into() });
        let node = parse(&format!("k: {value}"), &source).unwrap();
        let field = Field::root(&node).section().unwrap().remove(0);
        read(&field).map_err(|error| error.to_string())
    }

    #[test]
    fn counts_are_whole_and_within_their_range() {
        let count = |text: &str| with(text, |field| field.count::<usize>(1..=10));
        assert_eq!((count("1"), count("10")), (Ok(1), Ok(10)));
        let told = |found: &str| Err(format!("f:1:4: k must be a whole number from 1 to 10, not {found}"));
        assert_eq!(count("0"), told("0"));
        assert_eq!(count("11"), told("11"));
        assert_eq!(count("-1"), told("-1"));
        assert_eq!(count("1.5"), told("1.5"));
        assert_eq!(count("\"2\""), told("the text \"2\""));
        assert_eq!(count(""), Err("f:1:2: k must be a whole number from 1 to 10, not nothing".to_owned()));
        assert!(with("256", |field| field.count::<u8>(0..=1000)).is_err());
    }

    #[test]
    fn sizes_and_times_say_how_to_write_them() {
        let size = |text: &str| with(text, |field| field.size::<u64>(1..=1 << 20));
        assert_eq!((size("1MB"), size("1024"), size("\"4kb\"")), (Ok(1 << 20), Ok(1024), Ok(4096)));
        for bad in ["0", "1025KB", "-4KB", "1.5", "1.5MB", "four", "[4]", "99999999999999999999GB"] {
            let message = size(bad).unwrap_err();
            assert!(message.starts_with("f:1:4: k must be a size from 1 to 1MB, such as 4KB"), "{message}");
        }
        let time =
            |text: &str| with(text, |field| field.time(Duration::from_millis(1)..=Duration::from_secs(60)));
        assert_eq!((time("1ms"), time("1m")), (Ok(Duration::from_millis(1)), Ok(Duration::from_secs(60))));
        for bad in ["0", "0s", "61s", "10", "1.5s", "-1s", "true"] {
            let message = time(bad).unwrap_err();
            assert!(message.starts_with("f:1:4: k must be a time from 1ms to 1m, such as"), "{message}");
        }
    }

    #[test]
    fn only_true_and_false_are_booleans() {
        let bool = |text: &str| with(text, |field| field.bool());
        assert_eq!((bool("true"), bool("false")), (Ok(true), Ok(false)));
        for bad in ["yes", "on", "1", "\"true\"", ""] {
            assert!(bool(bad).unwrap_err().contains("k must be true or false, not"));
        }
    }

    #[test]
    fn text_is_bounded_and_printable() {
        let text = |text: &str| with(text, |field| field.text().map(str::to_owned));
        assert_eq!(text("abc"), Ok("abc".to_owned()));
        assert!(text(&"a".repeat(TEXT_BYTES_MAX)).is_ok());
        assert!(text(&"a".repeat(TEXT_BYTES_MAX + 1)).unwrap_err().contains("longer than 4096"));
        assert!(text("\"a\\0b\"").unwrap_err().contains("control characters"));
        assert!(text("\"\"").unwrap_err().contains("must not be empty"));
        assert!(text("12").unwrap_err().contains("text (put it in quotes), not 12"));
    }

    #[test]
    fn keys_are_printable() {
        let source = Arc::new(Source { file: Some("f".into()), base: "/base".into() });
        let node = parse("types:\n  \"a\\nb\": 1\n", &source).unwrap();
        let types = Field::root(&node).section().unwrap().remove(0);
        assert_eq!(
            types.section().unwrap_err().to_string(),
            "f:2:3: the key \"a\\nb\" must not contain control characters"
        );
    }

    #[test]
    fn paths_start_where_the_source_says() {
        let path = |text: &str| with(text, |field| field.path());
        assert_eq!(path("./public"), Ok("/base/dir/public".into()));
        assert_eq!(path("../x"), Ok("/base/dir/../x".into()));
        assert_eq!(path("/srv//www/"), Ok("/srv/www".into()));
    }

    #[test]
    fn a_single_item_is_a_list_of_itself() {
        let items = |text: &str| with(text, |field| Ok(field.items(2)?.len()));
        assert_eq!((items("a"), items("[a, b]"), items("[]")), (Ok(1), Ok(2), Ok(0)));
        assert_eq!(items("[a, b, c]"), Err("f:1:4: k has 3 items, at most 2 are allowed".to_owned()));
        assert!(items("").is_err());
    }
}
