//! What a reload changes, in lines for people: the two printed configurations compared key by key.
//!
//! Decides nothing: that a key may change while the server runs is the server's to say.

use std::{fmt::Write, path::PathBuf, sync::Arc};

use super::{
    document::{self, Node, Source, Value},
    settings::{Pem, Settings, Tls},
};

/// Lines for one reload; one more says how many were left out.
const CHANGES_MAX: usize = 64;
/// Characters of a value that are shown.
const VALUE_CHARS_MAX: usize = 100;

/// One key that holds a value, or a list of plain values.
#[derive(Debug, PartialEq, Eq)]
struct Leaf {
    /// The route it belongs to, by host and path; empty for keys of no route.
    route: String,
    /// Dotted, below the route.
    key: String,
    value: String,
}

impl Settings {
    /// What is different in `newer`: `limits.body_bytes 16MB -> 32MB`, `routes: example.com/ added`. A line for each
    /// key, in the order of `webserver check`; at most 64 and one that counts the rest. Empty when nothing is.
    pub fn changes(&self, newer: &Settings) -> Vec<String> {
        let mut changes = pem_changes(self, newer);
        let (old_text, new_text) = (self.to_yaml(), newer.to_yaml());
        if old_text != new_text {
            let (Some(old), Some(new)) = (leaves(&old_text), leaves(&new_text)) else {
                return vec![String::from("the configuration, which is too large to be compared")];
            };
            changes.extend(compare(&old, &new));
        }
        if changes.len() > CHANGES_MAX {
            let more = changes.len() - CHANGES_MAX;
            changes.truncate(CHANGES_MAX);
            changes.push(format!("and {more} more"));
        }
        changes
    }
}

/// PEM in memory, which is not printed, where its length is the same and the printed text so too.
fn pem_changes(old: &Settings, new: &Settings) -> Vec<String> {
    let mut changes = Vec::new();
    let texts = |settings: &Settings| -> Vec<(String, Arc<str>)> {
        let listeners = settings.listeners.iter().enumerate();
        listeners
            .filter_map(|(index, listener)| Some((index, listener.tls.as_ref()?)))
            .flat_map(|(index, tls)| pem_texts(index, tls))
            .collect()
    };
    let new = texts(new);
    for (key, text) in texts(old) {
        let other = new.iter().find(|(other, _)| *other == key).map(|(_, other)| other);
        if other.is_some_and(|other| *other != text && other.len() == text.len()) {
            changes.push(format!("{key} (in memory) changed"));
        }
    }
    changes
}

/// The keys of one listener that are PEM in memory.
fn pem_texts(listener: usize, tls: &Tls) -> Vec<(String, Arc<str>)> {
    let certificates = tls.certificates.iter().enumerate().flat_map(|(index, certificate)| {
        let key = |name| format!("certificates[{index}].{name}");
        [(key("certificate"), &certificate.chain), (key("key"), &certificate.key)]
    });
    let ca = tls.client_auth.iter().map(|clients| (String::from("client_ca"), &clients.ca));
    certificates
        .chain(ca)
        .filter_map(|(key, pem)| match pem {
            Pem::Text(text) => Some((format!("listen[{listener}].tls.{key}"), Arc::clone(text))),
            Pem::File(_) => None,
        })
        .collect()
}

fn compare(old: &[Leaf], new: &[Leaf]) -> Vec<String> {
    let mut changes = Vec::new();
    let (old_routes, new_routes) = (routes(old), routes(new));
    for route in old_routes.iter().filter(|route| !new_routes.contains(route)) {
        changes.push(format!("routes: {route} removed"));
    }
    for route in new_routes.iter().filter(|route| !old_routes.contains(route)) {
        changes.push(format!("routes: {route} added"));
    }
    let stayed = |these: &[&str], others: &[&str]| -> Vec<String> {
        these.iter().filter(|route| others.contains(route)).map(|route| String::from(*route)).collect()
    };
    // Of several hosts that match the first one answers.
    if stayed(&old_routes, &new_routes) != stayed(&new_routes, &old_routes) {
        changes.push(String::from("routes: in another order"));
    }
    let in_both = |leaf: &&Leaf| {
        leaf.route.is_empty()
            || (old_routes.contains(&leaf.route.as_str()) && new_routes.contains(&leaf.route.as_str()))
    };
    for leaf in old.iter().filter(in_both) {
        match new.iter().find(|other| other.route == leaf.route && other.key == leaf.key) {
            Some(other) if other.value == leaf.value => {}
            Some(other) => changes.push(format!("{} {} -> {}", name(leaf), leaf.value, other.value)),
            None => changes.push(format!("{} {} -> none", name(leaf), leaf.value)),
        }
    }
    for leaf in new.iter().filter(in_both) {
        if !old.iter().any(|other| other.route == leaf.route && other.key == leaf.key) {
            changes.push(format!("{} none -> {}", name(leaf), leaf.value));
        }
    }
    changes
}

/// Routes by host and path, each once, in order.
fn routes(leaves: &[Leaf]) -> Vec<&str> {
    let mut routes: Vec<&str> = leaves.iter().map(|leaf| leaf.route.as_str()).collect();
    routes.dedup();
    routes.retain(|route| !route.is_empty());
    routes
}

fn name(leaf: &Leaf) -> String {
    if leaf.route.is_empty() { leaf.key.clone() } else { format!("routes: {} {}", leaf.route, leaf.key) }
}

/// Every leaf of a printed configuration; `None` if it is larger than what a configuration may be.
fn leaves(text: &str) -> Option<Vec<Leaf>> {
    let source = Arc::new(Source { file: None, base: PathBuf::from("/") });
    let document = document::parse(text, &source).ok()?;
    let mut leaves = Vec::new();
    let Value::Map(entries) = &document.value else { return Some(leaves) };
    for entry in entries {
        match &entry.node.value {
            Value::List(routes) if entry.key == "routes" => {
                let mut seen: Vec<String> = Vec::new();
                for route in routes {
                    let part = |key| route.child(key).map(shown).unwrap_or_default();
                    let name = format!("{}{}", part("host"), part("path"));
                    let repeated = seen.iter().filter(|other| **other == name).count();
                    seen.push(name.clone());
                    let name = if repeated == 0 { name } else { format!("{name} ({})", repeated + 1) };
                    collect(&name, "", route, &mut leaves);
                }
            }
            _ => collect("", &entry.key, &entry.node, &mut leaves),
        }
    }
    Some(leaves)
}

fn collect(route: &str, key: &str, node: &Node, leaves: &mut Vec<Leaf>) {
    let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                collect(route, &below(&entry.key), &entry.node, leaves);
            }
        }
        Value::List(items) if items.iter().any(|item| matches!(item.value, Value::Map(_))) => {
            for (index, item) in items.iter().enumerate() {
                collect(route, &format!("{key}[{index}]"), item, leaves);
            }
        }
        _ => leaves.push(Leaf { route: route.to_owned(), key: key.to_owned(), value: shown(node) }),
    }
}

/// A value on one line, cut where it is long.
fn shown(node: &Node) -> String {
    let mut text = String::new();
    show(node, &mut text);
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        // Two long values that differ behind the cut must not look the same.
        Some((cut, _)) => format!("{}... ({} bytes)", text.get(..cut).unwrap_or_default(), text.len()),
        None => text,
    }
}

fn show(node: &Node, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = match &node.value {
        Value::Null => write!(out, "nothing"),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(value) => write!(out, "{value}"),
        Value::Float(value) => write!(out, "{value}"),
        Value::Text(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '"') => {
            write!(out, "{text}")
        }
        Value::Text(text) => write!(out, "{text:?}"),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                show(item, out);
            }
            write!(out, "]")
        }
        Value::Map(_) => write!(out, "{{}}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Host};

    fn settings(text: &str) -> Settings {
        let mut config = Config::new();
        config.load_yaml(text).unwrap();
        let host = Host {
            cores: 2,
            nofile_soft: 1 << 20,
            nofile_hard: 1 << 20,
            memory_bytes: 1 << 33,
            binary: false,
        };
        config.resolve(&host).unwrap()
    }

    fn changes(old: &str, new: &str) -> Vec<String> {
        settings(old).changes(&settings(new))
    }

    #[test]
    fn each_key_is_told_with_both_values() {
        assert_eq!(
            changes(
                "limits: { body_bytes: 16MB }\ntimeouts: { idle: 75s }",
                "limits: { body_bytes: 32MB }\ntimeouts: { idle: 500ms }\naccess_log: { path: \"-\" }"
            )[..3],
            ["timeouts.idle 75s -> 500ms", "limits.body_bytes 16MB -> 32MB", "access_log.path none -> -",]
        );
        assert_eq!(changes("{}", "{}"), [""; 0]);
        assert_eq!(
            changes("memory: { budget: 1GB }", "memory: { budget: 512MB, profile: small }"),
            ["memory.budget 1GB -> 512MB"]
        );
        let told = changes("memory: { budget: 2GB }", "memory: { budget: 2GB, profile: medium }");
        assert!(told.contains(&"memory.profile small -> medium".to_owned()), "{told:?}");
        assert!(told.contains(&"memory.worker_connections 1024 -> 4096".to_owned()), "{told:?}");
        assert_eq!(changes("log: { path: /a }", "{}"), ["log.path /a -> none"]);
    }

    #[test]
    fn everything_inside_tls_is_told_and_no_key_is_repeated() {
        let tls = |text: &str| format!("listen: [{{ address: \"[::1]:1\", tls: {{ {text} }} }}]");
        let pem = |body: &str| {
            let text = format!("-----BEGIN PRIVATE KEY-----\\n{body}\\n-----END PRIVATE KEY-----");
            format!("certificates: {{ certificate: /c, key: \"{text}\" }}")
        };
        let key = "listen[0].tls.certificates[0].key";
        assert_eq!(changes(&tls(&pem("AAAA")), &tls(&pem("AAAA"))), [""; 0]);
        assert_eq!(changes(&tls(&pem("AAAA")), &tls(&pem("BBBB"))), [format!("{key} (in memory) changed")]);
        let told = changes(&tls(&pem("AAAA")), &tls(&pem("SECRET")));
        assert!(told.len() == 1 && told[0].starts_with(key) && !told[0].contains("SECRET"), "{told:?}");
        let file = "certificates: { certificate: /c, key: /k }";
        assert_eq!(
            changes(
                &tls(file),
                &tls(&format!("{file}, versions: tls1.3, client_ca: /ca, ticket_key_file: /t"))
            ),
            [
                "listen[0].tls.versions [tls1.2, tls1.3] -> [tls1.3]",
                "listen[0].tls.client_ca none -> /ca",
                "listen[0].tls.client_certificates none -> required",
                "listen[0].tls.ticket_key_file none -> /t",
            ]
        );
        let ocsp = file.replace("key: /k", "key: /k, ocsp: /o");
        assert_eq!(changes(&tls(file), &tls(&ocsp)), ["listen[0].tls.certificates[0].ocsp none -> /o"]);
    }

    #[test]
    fn routes_are_known_by_host_and_path_wherever_they_stand() {
        let one = "{ path: /, root: /a }";
        let two = "{ host: example.com, path: /, root: /b, index: [a.html, b.html] }";
        let three = "{ path: /x/, redirect: { to: /y/ } }";
        let told = |old: &[&str], new: &[&str]| {
            changes(&format!("routes: [{}]", old.join(",")), &format!("routes: [{}]", new.join(",")))
        };
        assert_eq!(told(&[one, two], &[two]), ["routes: / removed"]);
        assert_eq!(told(&[two], &[one, two, three]), ["routes: / added", "routes: /x/ added"]);
        assert_eq!(told(&[one, two], &[two, one]), ["routes: in another order"]);
        assert_eq!(
            told(&[one, two], &["{ path: /, root: /c }", &two.replace(", b.html", ", c d")]),
            ["routes: / root /a -> /c", "routes: example.com/ index [a.html, b.html] -> [a.html, \"c d\"]",]
        );
        assert_eq!(
            told(&[one], &["{ path: /, root: /a, headers: { X-A: b } }"]),
            ["routes: / headers.X-A none -> b"]
        );
    }

    #[test]
    fn lines_are_bounded_in_number_and_length() {
        let many = |count: usize| {
            let routes: Vec<String> =
                (0..count).map(|index| format!("{{ path: /{index}, root: /a }}")).collect();
            format!("routes: [{}]", routes.join(","))
        };
        let told = changes(&many(1), &many(1 + CHANGES_MAX));
        assert_eq!(told.len(), CHANGES_MAX);
        let told = changes(&many(1), &many(2 + CHANGES_MAX));
        assert_eq!((told.len(), told[CHANGES_MAX].as_str()), (CHANGES_MAX + 1, "and 1 more"));
        let long = |last: &str| format!("routes: [{{ root: /{}{last} }}]", "a".repeat(500));
        let told = changes(&long("b"), &long("cc"));
        assert!(told.len() == 1 && told[0].len() < 300 && told[0].contains("(502 bytes)"), "{told:?}");
    }
}
