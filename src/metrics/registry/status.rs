//! All figures of one moment as a tree: of the server as a whole, and the same of each shard. What it looks like as JSON
//! is what `docs/architecture.md` says of `/status.json`; names are only ever added.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{Registry, heap, resident_bytes, tls::Tls};
use crate::metrics::{
    BUFFER_SIZES, Counter, Gauge, Holder, LEVELS, Relief, ShardMetrics, Shed, Timeout,
    histogram::{BOUNDS, BUCKETS, Merged},
};

/// Classes of status codes as labels; `requests.by_class` is in their order.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The figures of a server at one moment, to be serialized.
#[derive(Debug, Serialize)]
pub struct Status {
    version: &'static str,
    /// Whether it accepts, as the caller says.
    state: &'static str,
    started_unix_seconds: u64,
    /// On a clock that nobody sets: what rates are computed by.
    uptime_millis: u64,
    budget: Budget,
    pressure: Pressure,
    process: Process,
    logs: Logs,
    /// Upper bounds of `requests.duration.counts`, which have one element more.
    duration_bounds_nanos: [u64; BOUNDS.len()],
    #[serde(flatten)]
    figures: Figures,
    shards: Vec<Shard>,
}

#[derive(Debug, Serialize)]
struct Budget {
    bytes: u64,
    taken_bytes: u64,
    peak_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Pressure {
    level: u64,
    name: &'static str,
    entered: Labelled<{ LEVELS.len() }>,
}

/// What the kernel and the allocator say; `None` is that they do not.
#[derive(Debug, Serialize)]
struct Process {
    rss_bytes: Option<u64>,
    heap_bytes: Option<u64>,
    heap_peak_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Logs {
    lines_lost: u64,
    write_errors: u64,
    diagnostics_dropped: u64,
}

#[derive(Debug, Serialize)]
struct Shard {
    shard: usize,
    #[serde(flatten)]
    figures: Figures,
}

/// What is counted by shards.
#[derive(Debug, Serialize)]
struct Figures {
    memory: Memory,
    connections: Connections,
    requests: Requests,
    bytes_received: u64,
    bytes_sent: u64,
    buffers_in_use: Labelled<{ BUFFER_SIZES.len() }>,
    buffers_free: Labelled<{ BUFFER_SIZES.len() }>,
    open_file_cache: OpenFileCache,
    response_cache_bytes: u64,
    mapped_bytes: u64,
    tls: Tls,
    access_lines_dropped: u64,
    responses_cut: u64,
    panics: u64,
}

#[derive(Debug, Serialize)]
struct Memory {
    used_bytes: u64,
    /// What shards may use without asking again.
    granted_bytes: u64,
    used_by_holder: Labelled<{ Holder::COUNT }>,
    refused_by_holder: Labelled<{ Holder::COUNT }>,
    relief: Labelled<{ Relief::COUNT }>,
}

#[derive(Debug, Serialize)]
struct Connections {
    active: u64,
    idle: u64,
    accepted: u64,
    closed: u64,
    shed: Labelled<{ Shed::COUNT }>,
    timeouts: Labelled<{ Timeout::COUNT }>,
}

#[derive(Debug, Serialize)]
struct Requests {
    total: u64,
    by_class: Labelled<{ CLASSES.len() }>,
    limited: u64,
    duration: Duration,
}

#[derive(Debug, Serialize)]
struct Duration {
    /// Not cumulative.
    counts: [u64; BUCKETS],
    sum_nanos: u64,
}

#[derive(Debug, Serialize)]
struct OpenFileCache {
    entries: u64,
    hits: u64,
    misses: u64,
}

/// Numbers told apart by a label: an object in JSON.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<const N: usize>(pub [(&'static str, u64); N]);

impl<const N: usize> Labelled<N> {
    fn sum(&self) -> u64 {
        self.0.iter().map(|(_, value)| value).sum()
    }
}

impl<const N: usize> Serialize for Labelled<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0)
    }
}

impl Registry {
    /// The figures of this moment; `state` is one word of the caller's. Takes no lock, reads `/proc/self/status`; as JSON
    /// about 4 KB for one shard, and less than 3 KB more for each other.
    pub fn status(&self, state: &'static str) -> Status {
        let memory = &self.memory;
        let heap = heap::figures();
        let level = memory.pressure.value();
        let mut figures = Figures::sum(&self.shards);
        for holder in Holder::ALL {
            figures.memory.used_by_holder.0[holder as usize].1 += memory.used_bytes[holder as usize].value();
            figures.memory.refused_by_holder.0[holder as usize].1 += memory.refused[holder as usize].value();
        }
        figures.tls.session_cache.entries = self.tls.sessions.value();
        figures.tls.session_cache.bytes = self.memory_used_bytes(Holder::TlsSessions);
        figures.memory.used_bytes = figures.memory.used_by_holder.sum();
        let shard = |(shard, metrics): (usize, &Arc<ShardMetrics>)| Shard {
            shard,
            figures: Figures::sum(std::slice::from_ref(metrics)),
        };
        Status {
            version: env!("CARGO_PKG_VERSION"),
            state,
            started_unix_seconds: self.started_unix_seconds(),
            uptime_millis: u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX),
            budget: Budget {
                bytes: memory.budget_bytes.value(),
                taken_bytes: memory.taken_bytes.value(),
                peak_bytes: memory.peak_bytes.value(),
            },
            pressure: Pressure {
                level,
                name: usize::try_from(level).ok().and_then(|level| LEVELS.get(level)).unwrap_or(&"unknown"),
                entered: Labelled(std::array::from_fn(|level| {
                    (LEVELS[level], memory.entered[level].value())
                })),
            },
            process: Process {
                rss_bytes: resident_bytes(),
                heap_bytes: heap.map(|heap| heap.bytes),
                heap_peak_bytes: heap.map(|heap| heap.peak_bytes),
            },
            logs: Logs {
                lines_lost: self.log.lines_lost.value(),
                write_errors: self.log.write_errors.value(),
                diagnostics_dropped: self.log.diagnostics_dropped.value(),
            },
            duration_bounds_nanos: BOUNDS.map(|(nanos, _)| nanos),
            figures,
            shards: self.shards.iter().enumerate().map(shard).collect(),
        }
    }
}

impl Figures {
    /// What these shards have counted together.
    fn sum(shards: &[Arc<ShardMetrics>]) -> Self {
        let count =
            |of: &dyn Fn(&ShardMetrics) -> &Counter| -> u64 { shards.iter().map(|s| of(s).value()).sum() };
        let gauge =
            |of: &dyn Fn(&ShardMetrics) -> &Gauge| -> u64 { shards.iter().map(|s| of(s).value()).sum() };
        let mut durations = Merged::default();
        let mut by_class = Labelled(CLASSES.map(|class| (class, 0)));
        for shard in shards {
            durations.add(&shard.request_duration);
            for (status, count) in shard.requests.iter() {
                by_class.0[usize::from(status / 100).clamp(1, CLASSES.len()) - 1].1 += count;
            }
        }
        let used_by_holder =
            Labelled(Holder::ALL.map(|h| (h.label(), gauge(&|s| &s.memory.used_bytes[h as usize]))));
        Figures {
            memory: Memory {
                used_bytes: used_by_holder.sum(),
                granted_bytes: gauge(&|s| &s.memory.granted_bytes),
                used_by_holder,
                refused_by_holder: Labelled(
                    Holder::ALL.map(|h| (h.label(), count(&|s| &s.memory.refused[h as usize]))),
                ),
                relief: Labelled(Relief::ALL.map(|r| (r.label(), count(&|s| &s.memory.relief[r as usize])))),
            },
            connections: Connections {
                active: gauge(&|s| &s.connections_active),
                idle: gauge(&|s| &s.connections_idle),
                accepted: count(&|s| &s.connections_accepted),
                closed: count(&|s| &s.connections_closed),
                shed: Labelled(Shed::ALL.map(|r| (r.label(), count(&|s| &s.shed[r as usize])))),
                timeouts: Labelled(Timeout::ALL.map(|k| (k.label(), count(&|s| &s.timeouts[k as usize])))),
            },
            requests: Requests {
                total: by_class.sum(),
                by_class,
                limited: count(&|s| &s.requests_limited),
                duration: Duration { counts: durations.counts, sum_nanos: durations.sum_nanos },
            },
            bytes_received: count(&|s| &s.bytes_received),
            bytes_sent: count(&|s| &s.bytes_sent),
            buffers_in_use: by_size(|size| gauge(&|s| &s.buffers_allocated[size])),
            buffers_free: by_size(|size| gauge(&|s| &s.buffers_available[size])),
            open_file_cache: OpenFileCache {
                entries: gauge(&|s| &s.file_cache_entries),
                hits: count(&|s| &s.file_cache_hits),
                misses: count(&|s| &s.file_cache_misses),
            },
            response_cache_bytes: gauge(&|s| &s.response_cache_bytes),
            mapped_bytes: gauge(&|s| &s.mapped_bytes),
            tls: Tls::sum(shards),
            access_lines_dropped: count(&|s| &s.access_log_dropped),
            responses_cut: count(&|s| &s.responses_cut),
            panics: count(&|s| &s.panics),
        }
    }
}

fn by_size(of: impl Fn(usize) -> u64) -> Labelled<{ BUFFER_SIZES.len() }> {
    Labelled(std::array::from_fn(|size| (BUFFER_SIZES[size], of(size))))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn tree(registry: &Registry) -> Value {
        serde_json::to_value(registry.status("accepting")).unwrap()
    }

    #[test]
    fn the_server_is_the_sum_of_its_shards_and_of_what_belongs_to_none() {
        let registry = Registry::new(2, &[]);
        let (first, second) = (&registry.shards[0], &registry.shards[1]);
        first.memory.used_bytes[Holder::Connections as usize].set(100);
        second.memory.used_bytes[Holder::Connections as usize].set(20);
        second.memory.granted_bytes.set(64);
        registry.memory.used_bytes[Holder::Host as usize].set(3);
        registry.memory.budget_bytes.set(1000);
        registry.memory.pressure.set(2);
        registry.memory.entered[2].add(5);
        first.requests.add(200, 7);
        second.requests.add(503, 1);
        second.count_shed(Shed::Memory);
        first.request_duration.observe(1, 7);
        second.buffers_allocated[2].set(9);
        let tree = tree(&registry);
        assert_eq!(tree["memory"]["used_bytes"], 123);
        assert_eq!(tree["memory"]["used_by_holder"]["connections"], 120);
        assert_eq!(tree["memory"]["used_by_holder"]["host"], 3);
        assert_eq!(tree["memory"]["granted_bytes"], 64);
        assert_eq!(tree["budget"]["bytes"], 1000);
        let entered = json!({ "normal": 0, "elevated": 0, "high": 5, "critical": 0 });
        assert_eq!(tree["pressure"], json!({ "level": 2, "name": "high", "entered": entered }));
        let by_class = json!({ "1xx": 0, "2xx": 7, "3xx": 0, "4xx": 0, "5xx": 1 });
        assert_eq!((&tree["requests"]["total"], &tree["requests"]["by_class"]), (&json!(8), &by_class));
        assert_eq!(tree["connections"]["shed"]["memory"], 1);
        assert_eq!(tree["requests"]["duration"]["counts"][0], 7);
        assert_eq!(tree["buffers_in_use"], json!({ "small": 0, "medium": 0, "large": 9 }));
        let shards = tree["shards"].as_array().unwrap();
        assert_eq!(shards.len(), 2);
        assert_eq!(
            (&shards[0]["memory"]["used_bytes"], &shards[0]["requests"]["total"]),
            (&json!(100), &json!(7))
        );
        assert_eq!(
            (&shards[1]["shard"], &shards[1]["connections"]["shed"]["memory"]),
            (&json!(1), &json!(1))
        );
    }

    #[test]
    fn there_is_a_bucket_behind_the_last_bound() {
        let tree = tree(&Registry::new(1, &[]));
        let bounds = tree["duration_bounds_nanos"].as_array().unwrap().len();
        assert_eq!(tree["requests"]["duration"]["counts"].as_array().unwrap().len(), bounds + 1);
    }

    #[test]
    fn a_level_without_a_name_is_unknown() {
        let registry = Registry::new(1, &[]);
        registry.memory.pressure.set(u64::MAX);
        assert_eq!(tree(&registry)["pressure"]["name"], "unknown");
    }

    #[test]
    fn it_is_as_long_as_it_says() {
        let length =
            |shards| serde_json::to_string(&Registry::new(shards, &[]).status("accepting")).unwrap().len();
        assert!((3000..5000).contains(&length(1)), "{}", length(1));
        assert!((1500..3000).contains(&(length(2) - length(1))), "{}", length(2) - length(1));
    }
}
