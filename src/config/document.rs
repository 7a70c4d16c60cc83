//! YAML text as a tree whose every key and value knows its place, and merging of two such trees.
//!
//! Knows no key of the configuration but the five that have a short form; what keys mean is [`super::draft`]'s.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::settings::Pem;
use crate::error::{Error, ErrorKind, Place, Result};

/// Longest text that is parsed, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 1 << 20;

/// Deepest nesting of lists and mappings; the configuration itself needs five.
const DEPTH_MAX: usize = 16;

/// Most values in one text, aliases expanded: 1024 routes of 100 values each.
const NODES_MAX: usize = 100_000;

/// Where a text came from, shared by everything parsed out of it.
#[derive(Debug)]
pub(super) struct Source {
    /// What errors call it; absent for a value given by key, whose errors name the key alone.
    pub file: Option<PathBuf>,
    /// Relative paths start here; absolute.
    pub base: PathBuf,
}

/// A position in a source.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    source: Arc<Source>,
    line: u32,
    column: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// First character of the value.
    pub mark: Mark,
    /// What it is.
    pub value: Value,
}

/// A YAML value. Mappings keep the order they were written in.
#[derive(Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`; `yes` and `no` are text.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number with a fraction or too large.
    Float(f64),
    /// Text, quoted or not.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping without repeated keys.
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_mark: Mark,
    /// Its value.
    pub node: Node,
}

impl Mark {
    /// The beginning of `source`.
    pub(super) fn start(source: &Arc<Source>) -> Mark {
        Mark { source: Arc::clone(source), line: 1, column: 1 }
    }

    fn new(source: &Arc<Source>, location: Location) -> Mark {
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Mark { source: Arc::clone(source), line: narrow(location.line()), column: narrow(location.column()) }
    }

    /// The folder at which relative paths start.
    pub(super) fn base(&self) -> &Path {
        &self.source.base
    }

    /// The line, from 1.
    pub(super) fn line(&self) -> u32 {
        self.line
    }

    /// An error of `kind` here.
    pub(super) fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        let error = Error::new(kind, message);
        match &self.source.file {
            Some(file) => error.at(Place { file: file.clone(), line: self.line, column: self.column }),
            None => error,
        }
    }
}

impl Node {
    /// Text that stands at the beginning of `source`.
    pub(super) fn text(text: &str, source: &Arc<Source>) -> Node {
        Node { mark: Mark::start(source), value: Value::Text(text.to_owned()) }
    }

    /// A list that stands there.
    pub(super) fn list(items: Vec<Node>, source: &Arc<Source>) -> Node {
        Node { mark: Mark::start(source), value: Value::List(items) }
    }

    /// A mapping that stands there.
    pub(super) fn map(entries: Vec<Entry>, source: &Arc<Source>) -> Node {
        Node { mark: Mark::start(source), value: Value::Map(entries) }
    }

    /// A mapping of one key to this node.
    pub(super) fn under(self, key: &str) -> Node {
        Node { mark: self.mark.clone(), value: Value::Map(vec![Entry::new(key, self)]) }
    }

    /// The value of `key`, if this is a mapping that has it.
    pub(super) fn child(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            _ => None,
        }
    }

    /// Changes the value of `key`, which is nothing (`Null`) when it was not there; this is a mapping afterwards.
    pub(super) fn change(&mut self, key: &str, change: impl FnOnce(&mut Node)) {
        if !matches!(self.value, Value::Map(_)) {
            self.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut self.value else { return };
        let index = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
            let nothing = Node { mark: self.mark.clone(), value: Value::Null };
            entries.push(Entry::new(key, nothing));
            entries.len() - 1
        });
        change(&mut entries[index].node);
    }

    /// Lays `newer` over this tree: mappings merge key by key, everything else is replaced. A mapping
    /// that is left empty (`limits:` and nothing below) changes nothing.
    pub(super) fn merge(&mut self, newer: Node) {
        let newer_entries = match newer.value {
            Value::Map(newer_entries) => newer_entries,
            Value::Null if matches!(self.value, Value::Map(_)) => return,
            value => {
                *self = Node { mark: newer.mark, value };
                return;
            }
        };
        self.mark = newer.mark;
        if !matches!(self.value, Value::Map(_)) {
            self.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut self.value else { return };
        for mut entry in newer_entries {
            entry.expand_short_form();
            match entries.iter_mut().find(|old| old.key == entry.key) {
                Some(old) => {
                    old.key_mark = entry.key_mark;
                    old.node.merge(entry.node);
                }
                None => {
                    // Through `merge` as well, so that short forms below are spelled out.
                    let mut node = Node { mark: entry.node.mark.clone(), value: Value::Null };
                    node.merge(entry.node);
                    entries.push(Entry { node, ..entry });
                }
            }
        }
    }

    fn from_raw(raw: Spanned<Raw>, source: &Arc<Source>) -> Node {
        let value = match raw.value {
            Raw::Scalar(value) => value,
            Raw::List(items) => {
                Value::List(items.into_iter().map(|item| Node::from_raw(item, source)).collect())
            }
            Raw::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, node)| Entry {
                        key_mark: Mark::new(source, key.referenced),
                        key: key.value,
                        node: Node::from_raw(node, source),
                    })
                    .collect(),
            ),
        };
        Node { mark: Mark::new(source, raw.referenced), value }
    }
}

impl Entry {
    /// A key that stands where its value does.
    pub(super) fn new(key: &str, node: Node) -> Entry {
        Entry { key: key.to_owned(), key_mark: node.mark.clone(), node }
    }

    /// Spells out what may be written shorter, before a merge: a later `min_uses` must not forget the number
    /// in `open_file_cache: 1000`, and a list of one replaces a list, it does not merge into its item.
    fn expand_short_form(&mut self) {
        let scalar = matches!(self.node.value, Value::Int(_) | Value::Text(_));
        let spell: fn(Node) -> Node = match self.key.as_str() {
            "open_file_cache" if scalar => |short| short.under("entries"),
            "response_cache" | "tls_session_cache" if scalar => |short| short.under("size"),
            "listen" | "routes" if !matches!(self.node.value, Value::List(_)) => {
                |item| Node { mark: item.mark.clone(), value: Value::List(vec![item]) }
            }
            _ => return,
        };
        let mark = self.node.mark.clone();
        self.node = spell(std::mem::replace(&mut self.node, Node { mark, value: Value::Null }));
    }
}

impl fmt::Display for Value {
    /// How an error names what it found: `the text "abc"`, `a list`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_CHARS_MAX: usize = 60;
        match self {
            Value::Null => f.write_str("nothing"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value}"),
            // It may be a private key.
            Value::Text(text) if Pem::is_text(text) => f.write_str("PEM text"),
            Value::Text(text) => {
                let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
                write!(f, "the text {shown:?}{}", if shown.len() < text.len() { "..." } else { "" })
            }
            Value::List(_) => f.write_str("a list"),
            Value::Map(_) => f.write_str("a mapping"),
        }
    }
}

impl fmt::Debug for Value {
    /// Never a private key, whoever prints a configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::List(items) => f.debug_list().entries(items).finish(),
            Value::Map(entries) => f.debug_list().entries(entries).finish(),
            scalar => write!(f, "{scalar}"),
        }
    }
}

/// Parses one YAML document. An empty text is an empty mapping.
///
/// # Errors
/// Broken YAML, a repeated key, a second document, or a text past this module's bounds; all with their place.
pub(super) fn parse(text: &str, source: &Arc<Source>) -> Result<Node> {
    if text.len() > TEXT_BYTES_MAX {
        let what = format!("the text is {} bytes long, at most {TEXT_BYTES_MAX} are read", text.len());
        return Err(Mark::start(source).error(ErrorKind::Config, what));
    }
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: NODES_MAX, max_replay_stack_depth: 4 },
        budget: serde_saphyr::budget! {
            max_nodes: NODES_MAX,
            max_events: 4 * NODES_MAX,
            max_depth: DEPTH_MAX,
            max_aliases: 1_000,
            max_anchors: 1_000,
        },
    };
    let raw = serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options).map_err(|error| {
        let mark = error.location().map_or_else(|| Mark::start(source), |at| Mark::new(source, at));
        mark.error(ErrorKind::Config, reason(&error))
    })?;
    Ok(Node::from_raw(raw, source))
}

/// The parser's complaint in one line, without its own note of the place.
fn reason(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error as Yaml;
    match error.without_snippet() {
        Yaml::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key:?} is given twice"),
        Yaml::DuplicateMappingKey { key: None, .. } => String::from("a key is given twice"),
        Yaml::MultipleDocuments { .. } => String::from("a second YAML document; one is allowed"),
        Yaml::NullIntoString { .. } => String::from("a key must be text"),
        Yaml::Budget { .. } => {
            format!(
                "too large for a configuration: at most {NODES_MAX} values, nested at most {DEPTH_MAX} deep"
            )
        }
        other => {
            let text = other.to_string();
            let text = text.lines().next().unwrap_or_default();
            let text = text.find(" at line ").map_or(text, |cut| &text[..cut]);
            format!("not valid YAML: {text}")
        }
    }
}

/// A value as the parser gives it, before it is tied to its source.
enum Raw {
    Scalar(Value),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Raw, E> {
        Ok(Raw::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Raw, E> {
        Ok(Raw::Scalar(Value::Int(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Raw, E> {
        Ok(Raw::Scalar(Value::Int(value.into())))
    }

    fn visit_i128<E>(self, value: i128) -> std::result::Result<Raw, E> {
        Ok(Raw::Scalar(Value::Int(value)))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Raw, E> {
        Ok(Raw::Scalar(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Raw, E> {
        Ok(Raw::Scalar(Value::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Arc<Source> {
        Arc::new(Source { file: Some("f.yaml".into()), base: "/base".into() })
    }

    fn tree(text: &str) -> Node {
        parse(text, &source()).unwrap()
    }

    fn message(text: &str) -> String {
        parse(text, &source()).unwrap_err().to_string()
    }

    fn int(node: &Node, path: &str) -> Option<i128> {
        match path.split('.').try_fold(node, |node, key| node.child(key))?.value {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    #[test]
    fn mappings_merge_and_lists_are_replaced() {
        let mut node = tree("a: { x: 1, y: 2 }\nb: [1, 2]\n");
        node.merge(tree("a: { y: 3, z: 4 }\nb: [5]\n"));
        assert_eq!((int(&node, "a.x"), int(&node, "a.y"), int(&node, "a.z")), (Some(1), Some(3), Some(4)));
        assert!(matches!(&node.child("b").unwrap().value, Value::List(items) if items.len() == 1));
    }

    #[test]
    fn a_short_form_keeps_its_number_when_more_is_added() {
        for first in ["memory: { open_file_cache: 7 }", "memory:", "{}"] {
            let mut node = tree("{}");
            node.merge(tree(first));
            node.merge(tree("memory: { open_file_cache: 9 }"));
            node.merge(tree("memory: { open_file_cache: { min_uses: 2 } }"));
            assert_eq!(int(&node, "memory.open_file_cache.entries"), Some(9));
            assert_eq!(int(&node, "memory.open_file_cache.min_uses"), Some(2));
        }
    }

    #[test]
    fn a_list_of_one_replaces_a_list() {
        let mut node = tree("{}");
        node.merge(tree("routes: { root: a, path: /a }"));
        node.merge(tree("routes: { root: b }"));
        let Value::List(routes) = &node.child("routes").unwrap().value else { panic!("a list") };
        assert!(routes.len() == 1 && routes[0].child("path").is_none());
    }

    #[test]
    fn an_empty_section_changes_nothing() {
        let mut node = tree("a: { x: 1 }");
        node.merge(tree("a:\n"));
        assert_eq!(int(&node, "a.x"), Some(1));
    }

    #[test]
    fn broken_yaml_is_told_in_one_line_with_its_place() {
        assert_eq!(message("a: 1\na: 2\n"), "f.yaml:2:1: the key \"a\" is given twice");
        assert_eq!(message("a: [1\n"), "f.yaml:1:4: not valid YAML: unclosed bracket '['");
        assert_eq!(message("a: 1\n---\nb: 2\n"), "f.yaml:3:1: a second YAML document; one is allowed");
        assert_eq!(message("~: 1\n"), "f.yaml:1:1: a key must be text");
    }

    #[test]
    fn bounds_are_kept() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(DEPTH_MAX), &source()).is_ok());
        assert!(message(&nested(DEPTH_MAX + 1)).contains("too large"));
        assert!(parse(&" ".repeat(TEXT_BYTES_MAX), &source()).is_ok());
        assert!(parse(&" ".repeat(TEXT_BYTES_MAX + 1), &source()).is_err());
        let bomb = "a: &a [1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
                    d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\n\
                    g: [*f,*f,*f,*f,*f,*f,*f,*f]\n";
        assert!(message(bomb).contains("alias replay limit exceeded"), "{}", message(bomb));
    }
}
