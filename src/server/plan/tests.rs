use super::*;
use crate::config::{Config, Host};

const HOST: Host =
    Host { cores: 2, nofile_soft: 1 << 20, nofile_hard: 1 << 20, memory_bytes: 64 << 30, binary: false };

fn settings(text: &str) -> Settings {
    let mut config = Config::new();
    config.load_yaml(text).unwrap();
    config.resolve(&HOST).unwrap()
}

fn plan(text: &str) -> Plan {
    let settings = settings(text);
    Plan::new(&settings, Plan::load(&settings))
}

fn plan_of(text: &str, connections: usize, tls_percent: u8, h2_percent: u8) -> Plan {
    Plan::new(&settings(text), Load { connections, tls_percent, h2_percent })
}

fn term<'a>(plan: &'a Plan, name: &str) -> &'a Term {
    plan.terms.iter().find(|term| term.name == name).unwrap_or_else(|| panic!("no term {name}"))
}

fn fit(plan: &Plan, kind: &str) -> Fit {
    *plan.fits.iter().find(|fit| fit.kind == kind).unwrap()
}

#[test]
fn tiers_are_as_large_as_the_pool_s() {
    assert_eq!(TIER_BYTES, memory::Tier::ALL.map(memory::Tier::bytes));
}

#[test]
fn the_sum_is_that_of_its_terms() {
    let plan = plan("shards: 2\nmemory: { budget: 512MB }");
    let sum: u64 = plan.terms.iter().map(|term| (term.count * term.unit_bytes) as u64).sum();
    assert_eq!(plan.worst_bytes(), sum);
    let sum: u64 = plan.terms.iter().map(|term| (term.typical_count * term.unit_bytes) as u64).sum();
    assert_eq!(plan.typical_bytes(), sum);
    assert!(plan.typical_bytes() < plan.worst_bytes());
    assert_eq!(plan.budget_bytes, 512 << 20);
    assert!(plan.terms.is_sorted_by_key(|term| term.holder.map(|holder| holder as usize)));
}

#[test]
fn what_stands_is_what_the_configuration_was_made_to_fit() {
    for text in ["memory: { budget: 32MB }", "memory: { profile: medium, budget: 256MB }"] {
        let settings = settings(text);
        let plan = Plan::new(&settings, Plan::load(&settings));
        assert!(plan.standing_bytes() <= plan.budget_bytes * 60 / 100, "{text}");
        let of = |holder| {
            let terms = plan.terms.iter().filter(|term| term.holder == Some(holder));
            total(terms, Term::bytes)
        };
        let sizes = crate::config::sizes::substrate_bytes(&settings);
        assert_eq!(of(Holder::Substrate), sizes as u64);
        let slots = crate::config::sizes::slots_bytes(&settings) as u64;
        let in_requests = term(&plan, "requests").bytes() + term(&plan, "answers").bytes();
        assert_eq!(of(Holder::Connections) - in_requests, slots);
        assert_eq!(plan.always_bytes(), of(Holder::Substrate) + slots);
        assert_eq!(of(Holder::ResponseCache), settings.memory.response_cache.size_bytes as u64);
        assert_eq!(of(Holder::MappedFiles), settings.memory.mmap.total_bytes_max as u64);
    }
}

#[test]
fn an_idle_connection_costs_nothing_but_its_slot() {
    let text = "shards: 2\nmemory: { budget: 64MB }";
    let (none, many) = (plan_of(text, 0, 0, 0), plan_of(text, 2000, 0, 0));
    assert_eq!(none.standing_bytes(), many.standing_bytes());
    assert_eq!(term(&none, "connection slots").bytes(), 2 * (1024 + 80) * 64);
    assert_eq!(term(&none, "requests").bytes(), 0);
    assert_eq!((none.kernel[0].count, many.kernel[0].count), (2, 2002));
    assert_eq!(many.descriptors, 2000 + 2 + 1000 + 128);
    assert_eq!(many.epoll_entries, 2000 + 2 + 6);
}

#[test]
fn a_request_holds_an_exchange_a_head_and_output_at_worst() {
    let plan = plan_of("limits: { header_bytes: 16KB }", 100, 0, 0);
    for (name, count, typical, unit) in [
        ("requests", 100, 100, EXCHANGE_BYTES),
        ("answers", 100, 0, (2 << 10) + (16 << 10)),
        ("small buffers", 0, 10, 4 << 10),
        ("heads", 100, 0, 16 << 10),
        ("output", 100, 0, 64 << 10),
    ] {
        let term = term(&plan, name);
        assert_eq!((term.count, term.typical_count, term.unit_bytes), (count, typical, unit), "{name}");
    }
    let many = plan_of("{}", 10_000, 0, 0);
    assert_eq!((term(&many, "requests").typical_count, term(&many, "answers").count), (1000, 1028));
}

#[test]
fn http2_is_the_profile_s_figures_and_part_of_the_connections() {
    let plan = plan_of("{}", 1000, 50, 10);
    assert_eq!(
        term(&plan, "HTTP/2 state").bytes() + term(&plan, "HTTP/2 streams").bytes(),
        100 * (100 << 10)
    );
    assert_eq!(term(&plan, "HTTP/2 state").typical_bytes(), 100 * (30 << 10));
    assert_eq!(term(&plan, "requests").count, 900);
    let later = plan.terms.iter().filter(|term| term.name.contains("HTTP/2"));
    assert!(later.clone().count() == 2 && later.into_iter().all(|term| term.when.contains("not in")));
    let none = plan_of("{}", 1000, 0, 0);
    assert!(none.terms.iter().all(|term| !term.name.contains("HTTP/2")));
    let all = plan_of("{}", 1000, 100, 100);
    assert_eq!((term(&all, "requests").count, term(&all, "HTTP/2 state").count), (0, 1000));
}

const TLS: &str = "listen: [{ address: \"[::1]:1\", tls: { certificates: { certificate: c, key: k } } }]";

#[test]
fn tls_is_a_session_each_handshakes_up_to_their_limit_and_records_on_their_way() {
    let plan = plan_of(TLS, 2000, 50, 0);
    for (name, holder, count, typical, unit) in [
        ("sessions", Holder::Tls, 1000, 1000, 4 << 10),
        ("handshakes", Holder::Tls, 512, 0, 8 << 10),
        ("records", Holder::BuffersInUse, 1000, 0, 64 << 10),
        ("ciphertext", Holder::BuffersInUse, 1000, 100, 28 << 10),
    ] {
        let term = term(&plan, name);
        assert_eq!(term.holder, Some(holder), "{name}");
        assert_eq!((term.count, term.typical_count, term.unit_bytes), (count, typical, unit), "{name}");
    }
    assert_eq!(term(&plan_of(TLS, 100, 100, 0), "handshakes").count, 100);
    let few = format!("{TLS}\nlimits: {{ handshakes: 7 }}");
    assert_eq!(term(&plan_of(&few, 100, 100, 0), "handshakes").count, 7);
    let none = plan_of(TLS, 1000, 0, 0);
    assert!(none.terms.iter().all(|term| term.holder != Some(Holder::Tls)));
    // What is asked for is planned, whatever the listeners speak.
    assert_eq!(term(&plan_of("{}", 1000, 50, 0), "sessions").count, 500);
}

#[test]
fn sessions_are_kept_where_a_listener_speaks_tls() {
    let plan = plan_of(&format!("{TLS}\nmemory: {{ tls_session_cache: 3MB }}"), 0, 0, 0);
    let kept = term(&plan, "sessions kept");
    assert_eq!(
        (kept.holder, kept.bytes(), kept.typical_bytes()),
        (Some(Holder::TlsSessions), 3 << 20, 3 << 20)
    );
    let plain = plan_of("memory: { tls_session_cache: 3MB }", 0, 100, 0);
    assert!(plain.terms.iter().all(|term| term.holder != Some(Holder::TlsSessions)));
    let of_tls =
        ["shards, for TLS", "certificates"].map(|name| term(&plan, name).bytes()).iter().sum::<u64>();
    assert_eq!(plan.standing_bytes() - plain.standing_bytes(), (3 << 20) + of_tls);
}

#[test]
fn all_connections_speak_tls_where_a_listener_does_unless_told() {
    assert_eq!(self::plan(TLS).load.tls_percent, 100);
    assert_eq!(self::plan("{}").load.tls_percent, 0);
}

#[test]
fn terms_are_there_for_what_is_configured() {
    let plain = plan("{}");
    let names = ["access log batches", "requests of clients", "listings"];
    assert!(plain.terms.iter().all(|term| !names.contains(&term.name)));
    let whole = plan(
        "shards: 2\naccess_log: {}\nlimits: { requests_per_ip: 5 }\nroutes: [{ root: /srv, listing: true }]",
    );
    assert_eq!(term(&whole, "access log batches").bytes(), 2 * 8 * (64 << 10));
    assert_eq!(term(&whole, "requests of clients").bytes(), 1 << 20);
    assert_eq!(term(&whole, "listings").bytes(), 2 * 16 * (8 << 20));
}

#[test]
fn what_fits_fills_the_budget_to_95_percent_or_every_slot() {
    let plan = plan("shards: 2\nmemory: { budget: 32MB, worker_connections: 2000 }");
    let limit = (plan.budget_bytes * 95).div_ceil(100);
    let room = limit + 4000 * 64 - plan.standing_bytes();
    for fit in &plan.fits {
        let (count, unit) = (fit.count as u64, fit.unit_bytes as u64);
        assert!(count * unit <= room, "{fit:?}");
        match fit.bound {
            Bound::Memory => assert!((count + 1) * unit > room && count < 4000, "{fit:?}"),
            Bound::Slots => assert_eq!(count, 4000, "{fit:?}"),
        }
    }
    assert_eq!((fit(&plan, "idle").bound, fit(&plan, "idle").unit_bytes), (Bound::Slots, 64));
    assert_eq!(fit(&plan, "active").unit_bytes, 64 + EXCHANGE_BYTES + 4096);
    assert_eq!(fit(&plan, "active_worst").bound, Bound::Memory);
    assert_eq!(fit(&plan, "tls_handshake").unit_bytes, 64 + (12 << 10));
    assert_eq!(fit(&plan, "tls_idle").unit_bytes, 64 + (4 << 10));
    assert_eq!(fit(&plan, "tls_active").unit_bytes, 64 + EXCHANGE_BYTES + (32 << 10));
    assert_eq!(fit(&plan, "h2_worst").unit_bytes, 64 + (100 << 10));
    // Given values may leave no room at all.
    let full = self::plan("shards: 2\nmemory: { budget: 32MB, response_cache: 24MB }");
    assert!(fit(&full, "idle").count > 0);
    let full = self::plan("shards: 2\nmemory: { budget: 32MB, response_cache: 28MB }");
    assert_eq!((fit(&full, "h2_worst").count, fit(&full, "h2_worst").bound), (0, Bound::Memory));
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let text =
        "shards: 1024\nmemory: { budget: 16384GB, worker_connections: 1000000, open_file_cache: 1000000 }";
    let mut config = Config::new();
    config.load_yaml(text).unwrap();
    let host = Host { nofile_soft: u64::MAX, nofile_hard: u64::MAX, ..HOST };
    let settings = config.resolve(&host).unwrap();
    let load = Load { connections: CONNECTIONS_MAX, tls_percent: 100, h2_percent: 100 };
    let plan = Plan::new(&settings, load);
    assert!(plan.worst_bytes() > 100 * u64::try_from(CONNECTIONS_MAX).unwrap());
    assert_eq!(percent(usize::MAX, 100), usize::MAX);
    assert_eq!((percent(1, 1), percent(0, 100), percent(100, 0)), (1, 0, 0));
}
