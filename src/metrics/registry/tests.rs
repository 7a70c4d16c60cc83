//! The rendered text is read back with a small parser that knows the rules of the format.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::metrics::{Handshake, TlsFailure};

const LABELS: &[&str] = &["bad_request_line", "missing_host"];

/// The parsed text: kind of each family, value of each series.
struct Scrape {
    kinds: BTreeMap<String, String>,
    series: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads an exposition, and fails the test when it breaks a rule.
    fn parse(text: &str) -> Scrape {
        let (mut kinds, mut series) = (BTreeMap::new(), BTreeMap::new());
        let mut helped = BTreeSet::new();
        let mut family = String::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty(), "{name} has no help");
                assert!(helped.insert(name.to_owned()), "{name} is helped twice");
                family = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, family, "TYPE follows its HELP");
                assert!(["counter", "gauge", "histogram"].contains(&kind));
                assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} has two types");
            } else {
                let (key, value) = line.rsplit_once(' ').unwrap();
                let name = key.split('{').next().unwrap();
                let kind = kinds.get(&family).expect("a sample after its TYPE");
                let suffixes: &[&str] =
                    if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(suffixes.iter().any(|end| name == format!("{family}{end}")), "{name} in {family}");
                assert!(name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()), "{name}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
                if let Some(labels) = key.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                    let inner = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap();
                    let (_, value) = inner.split_once('=').unwrap();
                    assert!(value.len() > 2 && value.starts_with('"') && value.ends_with('"'), "{key}");
                }
                assert!(series.insert(key.to_owned(), value.parse().unwrap()).is_none(), "{key} twice");
            }
        }
        assert!(helped.iter().eq(kinds.keys()));
        Scrape { kinds, series }
    }

    fn of(registry: &Registry) -> Scrape {
        let mut text = String::new();
        registry.render(&mut text);
        Scrape::parse(&text)
    }

    fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("{series} is missing"))
    }
}

#[test]
fn text_of_a_fresh_registry_obeys_the_format() {
    let scrape = Scrape::of(&Registry::new(1, LABELS));
    assert_eq!(scrape.value("webserver_requests_total{status=\"200\"}"), 0.0);
    assert!(scrape.value("webserver_memory_total_bytes") > 0.0);
    assert!(scrape.value("webserver_start_time_seconds") > 1.7e9);
}

#[test]
fn names_are_those_of_the_interface() {
    let scrape = Scrape::of(&Registry::new(2, LABELS));
    for (name, kind) in [
        ("webserver_memory_total_bytes", "gauge"),
        ("webserver_buffer_pool_allocated", "gauge"),
        ("webserver_buffer_pool_available", "gauge"),
        ("webserver_connections_active", "gauge"),
        ("webserver_connections_idle", "gauge"),
        ("webserver_open_file_cache_entries", "gauge"),
        ("webserver_response_cache_bytes", "gauge"),
        ("webserver_tls_session_cache_entries", "gauge"),
        ("webserver_requests_total", "counter"),
        ("webserver_connections_shed_total", "counter"),
        ("webserver_request_duration_seconds", "histogram"),
    ] {
        assert_eq!(scrape.kinds.get(name).map(String::as_str), Some(kind), "{name}");
    }
    for size in BUFFER_SIZES {
        scrape.value(&format!("webserver_buffer_pool_allocated{{size=\"{size}\"}}"));
        scrape.value(&format!("webserver_buffer_pool_available{{size=\"{size}\"}}"));
    }
}

#[test]
fn heap_figures_appear_exactly_when_they_are_counted() {
    let scrape = Scrape::of(&Registry::new(1, LABELS));
    assert_eq!(scrape.kinds.contains_key("webserver_memory_heap_bytes"), heap::figures().is_some());
}

#[test]
fn sums_every_shard() {
    let registry = Registry::new(3, LABELS);
    for shard in &registry.shards {
        shard.connections_active.set(2);
        shard.requests.add(200, 5);
        shard.requests.add(404, 1);
        shard.count_shed(Shed::Descriptors);
        shard.count_timeout(Timeout::Write);
        shard.count_refusal(1);
        shard.buffers_allocated[2].set(4);
        shard.access_log_dropped.add(7);
    }
    registry.log.lines_lost.add(9);
    let scrape = Scrape::of(&registry);
    assert_eq!(scrape.value("webserver_shards"), 3.0);
    assert_eq!(scrape.value("webserver_connections_active"), 6.0);
    assert_eq!(scrape.value("webserver_requests_total{status=\"200\"}"), 15.0);
    assert_eq!(scrape.value("webserver_requests_total{status=\"404\"}"), 3.0);
    assert_eq!(scrape.value("webserver_connections_shed_total{reason=\"descriptors\"}"), 3.0);
    assert_eq!(scrape.value("webserver_connections_shed_total{reason=\"capacity\"}"), 0.0);
    assert_eq!(scrape.value("webserver_timeouts_total{kind=\"write\"}"), 3.0);
    assert_eq!(scrape.value("webserver_requests_refused_total{reason=\"missing_host\"}"), 3.0);
    assert_eq!(scrape.value("webserver_buffer_pool_allocated{size=\"large\"}"), 12.0);
    assert_eq!(scrape.value("webserver_access_log_dropped_total"), 21.0);
    assert_eq!(scrape.value("webserver_log_lines_lost_total"), 9.0);
    assert!(!scrape.series.contains_key("webserver_requests_total{status=\"500\"}"));
}

#[test]
fn tls_has_its_names_and_is_summed_but_a_session_that_every_shard_knows_is_one() {
    let registry = Registry::new(2, LABELS);
    for (shard, entries) in registry.shards.iter().zip([7, 9]) {
        let tls = &shard.tls;
        tls.handshakes[Handshake::Full12 as usize].add(1);
        tls.handshakes[Handshake::Resumed13 as usize].add(2);
        tls.failures[TlsFailure::PlainHttp as usize].add(3);
        tls.handshakes_in_progress.set(4);
        tls.handshakes_waiting.set(5);
        tls.truncated.add(6);
        tls.session_cache_entries.set(entries);
        tls.session_cache_bytes.set(100);
        tls.session_cache_hits.add(8);
        tls.session_cache_misses.add(9);
        tls.tickets_accepted.add(10);
        tls.tickets_refused.add(11);
    }
    registry.memory.used_bytes[Holder::TlsSessions as usize].set(1200);
    registry.tls.sessions.set(9);
    registry.tls.sessions_lost.add(12);
    let scrape = Scrape::of(&registry);
    for (series, value) in [
        ("handshakes_total{kind=\"1.2 full\"}", 2.0),
        ("handshakes_total{kind=\"1.2 resumed\"}", 0.0),
        ("handshakes_total{kind=\"1.3 full\"}", 0.0),
        ("handshakes_total{kind=\"1.3 resumed\"}", 4.0),
        ("failures_total{reason=\"plain_http\"}", 6.0),
        ("failures_total{reason=\"internal\"}", 0.0),
        ("handshakes_in_progress", 8.0),
        ("handshakes_waiting", 10.0),
        ("truncated_total", 12.0),
        ("session_cache_entries", 9.0),
        ("session_cache_bytes", 1200.0),
        ("session_cache_hits_total", 16.0),
        ("session_cache_misses_total", 18.0),
        ("session_cache_lost_total", 12.0),
        ("tickets_accepted_total", 20.0),
        ("tickets_refused_total", 22.0),
    ] {
        assert_eq!(scrape.value(&format!("webserver_tls_{series}")), value, "{series}");
    }
    let tree = serde_json::to_value(registry.status("accepting")).unwrap();
    let cache = serde_json::json!({ "entries": 9, "bytes": 1200, "hits": 16, "misses": 18 });
    assert_eq!(tree["tls"]["session_cache"], cache);
    assert_eq!(tree["tls"]["tickets"], serde_json::json!({ "accepted": 20, "refused": 22 }));
    assert_eq!(tree["tls"]["handshakes"]["1.3 resumed"], 4);
    assert_eq!(tree["tls"]["failures"]["plain_http"], 6);
    assert_eq!(
        (
            &tree["tls"]["handshakes_in_progress"],
            &tree["tls"]["handshakes_waiting"],
            &tree["tls"]["truncated"]
        ),
        (&8.into(), &10.into(), &12.into())
    );
    assert_eq!(tree["shards"][0]["tls"]["session_cache"]["entries"], 7);
    assert_eq!(tree["shards"][0]["tls"]["session_cache"]["bytes"], 100);
}

#[test]
fn certificates_are_told_by_names_that_may_hold_anything_and_each_once() {
    let registry = Registry::new(1, LABELS);
    let family = "webserver_tls_certificate_expiry_seconds";
    assert!(!Scrape::of(&registry).kinds.contains_key(family));
    registry.set_certificates([("old.pem".to_owned(), 1)]);
    let strange = "/a \"b\"\\n\nc.pem";
    registry.set_certificates(
        [("a.pem", 7), (strange, 8), ("a.pem", 6)].map(|(name, end)| (name.to_owned(), end)),
    );
    let scrape = Scrape::of(&registry);
    assert_eq!(scrape.value(&format!("{family}{{certificate=\"a.pem\"}}")), 6.0);
    assert_eq!(scrape.value(&format!(r#"{family}{{certificate="/a \"b\"\\n\nc.pem"}}"#)), 8.0);
    assert_eq!(scrape.series.keys().filter(|series| series.starts_with(family)).count(), 2);
}

#[test]
fn histogram_buckets_are_cumulative() {
    let registry = Registry::new(2, LABELS);
    registry.shards[0].request_duration.observe(50_000, 3);
    registry.shards[1].request_duration.observe(2_000_000, 2);
    registry.shards[1].request_duration.observe(11_000_000_000, 1);
    let mut text = String::new();
    registry.render(&mut text);
    let buckets: Vec<u64> = text
        .lines()
        .filter(|line| line.starts_with("webserver_request_duration_seconds_bucket"))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(buckets, [3, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 6]);
    let scrape = Scrape::parse(&text);
    assert_eq!(scrape.value("webserver_request_duration_seconds_bucket{le=\"+Inf\"}"), 6.0);
    assert_eq!(scrape.value("webserver_request_duration_seconds_count"), 6.0);
    assert!(text.contains("webserver_request_duration_seconds_sum 11.004150000\n"));
}

#[test]
fn totals_add_up() {
    let registry = Registry::new(2, LABELS);
    for shard in &registry.shards {
        shard.requests.add(200, 10);
        shard.requests.add(503, 1);
        shard.accept_errors.add(2);
        shard.descriptor_exhaustion.add(1);
        shard.count_shed(Shed::Capacity);
        shard.count_shed(Shed::Descriptors);
        shard.bytes_sent.add(1000);
        shard.buffers_available[0].set(3);
        shard.file_cache_entries.set(8);
    }
    registry.tls.sessions.set(5);
    let expected = Totals {
        shards: 2,
        connections_shed: 4,
        requests: 22,
        bytes_sent: 2000,
        buffers_available: [6, 0, 0],
        open_file_cache_entries: 16,
        tls_session_cache_entries: 5,
        errors: 8,
        ..Totals::default()
    };
    assert_eq!(registry.totals(), expected);
}
