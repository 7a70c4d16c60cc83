//! `webserver plan` as people and machines read it.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use crate::process::{configure, run};

#[derive(Deserialize)]
struct Printed {
    terms: Vec<Term>,
    totals: BTreeMap<String, i64>,
    fits: BTreeMap<String, Fit>,
    kernel: Kernel,
}

#[derive(Deserialize)]
struct Term {
    name: String,
    holder: String,
    count: i64,
    unit_bytes: i64,
    bytes: i64,
    typical_bytes: i64,
    when: String,
}

#[derive(Deserialize)]
struct Fit {
    count: i64,
    unit_bytes: i64,
    bound: String,
}

#[derive(Deserialize)]
struct Kernel {
    terms: Vec<Term>,
    descriptors: i64,
    epoll_entries: i64,
}

/// Of the configuration `text`; JSON is YAML, and there is a parser for that.
fn printed(text: &str, options: &[&str]) -> Printed {
    let folder = tempfile::tempdir().unwrap();
    let file = configure(folder.path(), text);
    let (code, out, err) = run(&[&["plan", "--json", "-c", &file], options].concat());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    serde_saphyr::from_str(&out).unwrap_or_else(|error| panic!("{error}\n{out}"))
}

#[test]
fn json_has_every_term_and_sums_that_are_right() {
    let text = "shards: 2\nmemory: {budget: 64MB}\nroutes: [{root: ., listing: true}]\naccess_log: {}\n";
    let plan = printed(text, &["--connections", "500", "--tls", "50", "--h2", "10"]);
    for term in plan.terms.iter().chain(&plan.kernel.terms) {
        assert_eq!(term.bytes, term.count * term.unit_bytes, "{}", term.name);
        assert!(!term.holder.is_empty() && !term.when.is_empty(), "{}", term.name);
    }
    let sum = |bytes: fn(&Term) -> i64| plan.terms.iter().map(bytes).sum::<i64>();
    assert_eq!(plan.totals["worst_bytes"], sum(|term| term.bytes));
    assert_eq!(plan.totals["typical_bytes"], sum(|term| term.typical_bytes));
    assert_eq!(plan.totals["budget_bytes"], 64 << 20);
    assert_eq!(plan.totals["worst_left_bytes"], (64 << 20) - plan.totals["worst_bytes"]);
    assert!(plan.totals["worst_left_bytes"] < 0 && plan.totals["typical_left_bytes"] > 0);
    assert!(plan.totals["standing_bytes"] < plan.totals["worst_bytes"]);
    let tls = plan.terms.iter().find(|term| term.name == "sessions").unwrap();
    assert_eq!((tls.holder.as_str(), tls.count, tls.unit_bytes), ("tls", 250, 4096));
    let idle = &plan.fits["idle"];
    assert_eq!((idle.count, idle.unit_bytes, idle.bound.as_str()), (2048, 64, "worker_connections"));
    let worst = &plan.fits["active_worst"];
    assert!(worst.count > 0 && worst.count < 2048 && worst.bound == "budget");
    for kind in ["tls_handshake", "tls_idle", "tls_active", "h2_worst"] {
        assert!(plan.fits.contains_key(kind), "{kind}");
    }
    assert!(plan.kernel.terms.iter().all(|term| term.holder == "kernel"));
    assert_eq!((plan.kernel.descriptors, plan.kernel.epoll_entries), (500 + 2 + 1000 + 128, 500 + 2 + 6));
}

#[test]
fn a_listener_with_tls_is_planned_without_being_asked_and_its_files_are_not_looked_at() {
    let text = "shards: 2\nmemory: {budget: 512MB}\nlisten: [{address: \"127.0.0.1:0\", tls: {certificates: \
                {certificate: no.pem, key: no.key}}}]\n";
    let plan = printed(text, &[]);
    let term = |name: &str| plan.terms.iter().find(|term| term.name == name).unwrap();
    assert_eq!((term("sessions").count, term("handshakes").count), (2048, 512));
    assert_eq!(
        (term("sessions kept").holder.as_str(), term("sessions kept").bytes),
        ("tls_sessions", 5 << 20)
    );
    let without = printed(text, &["--tls", "0"]);
    assert!(without.terms.iter().all(|term| term.holder != "tls"));
}

#[test]
fn without_a_number_all_slots_are_taken() {
    let plan = printed("shards: 3\nmemory: {worker_connections: 7}\n", &[]);
    let sockets = plan.kernel.terms.iter().find(|term| term.name == "sockets").unwrap();
    assert_eq!(sockets.count, 3 * 7 + 3);
}

#[test]
fn the_table_is_at_most_100_columns_wide_and_says_what_it_assumes() {
    let folder = tempfile::tempdir().unwrap();
    let text = "shards: 1024\nmemory: {profile: large, budget: 16384GB, worker_connections: 1, response_cache: \
                1023GB, mmap: {max_total: 1023GB}}\nroutes: [{root: ., listing: true}]\naccess_log: {}\nlimits: \
                {requests_per_ip: 1}\n";
    let file = configure(folder.path(), text);
    let (code, out, err) =
        run(&["plan", "-c", &file, "--connections", "1000000000", "--tls", "100", "--h2", "50"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for line in out.lines() {
        assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
    }
    assert!(out.contains("10 % of them in a request"), "{out}");
    // What cannot come true is said, and is no error.
    assert!(out.contains("The budget holds: ") && out.contains("refused with 503"), "{out}");
    assert!(out.contains("slots for 1024 connections"), "{out}");
    let file = configure(folder.path(), "shards: 1\nmemory: {budget: 1GB}\n");
    let (_, out, _) = run(&["plan", "-c", &file, "--connections", "10"]);
    assert!(!out.contains("The budget holds: ") && !out.contains("ciphertext  "), "{out}");
}

#[test]
fn a_broken_configuration_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = configure(folder.path(), "shards: 2\nmemory:\n  budget: 32MB\n  response_cache: 64MB\n");
    let (code, out, err) = run(&["plan", "-c", &file]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("webserver.yaml:4:19: needs ") && err.contains("memory.budget is 32MB"), "{err}");
    assert_eq!(run(&["plan", "-c", "/nonexistent/webserver.yaml"]).0, Some(2));
    assert_eq!(run(&["plan", "-c", &file, "--tls", "101"]).0, Some(2));
}

#[test]
fn the_small_example_passes_both_commands() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/small.yaml");
    for command in ["check", "plan"] {
        let (code, out, err) = run(&[command, "-c", file.to_str().unwrap()]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{command}");
        assert!(out.contains("512MB"), "{out}");
    }
}
