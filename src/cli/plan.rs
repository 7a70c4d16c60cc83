//! `webserver plan`: the plan of a configuration as a table for people or as JSON.
//!
//! What it comes to is computed in [`webserver::server::plan`]; here it is only laid out.

use std::fmt::{self, Write};

use serde_json::{Map, Value, json};
use webserver::{
    config::Settings,
    server::plan::{ACTIVE_PERCENT, Bound, Fit, Load, Plan, Term},
};

use super::{Failure, arguments::PlanOptions, print};

pub(super) fn plan(options: &PlanOptions) -> Result<(), Failure> {
    let settings = super::settings(options.config.clone())?;
    let default = Plan::load(&settings);
    let load = Load {
        connections: options.connections.unwrap_or(default.connections),
        tls_percent: options.tls_percent.unwrap_or(default.tls_percent),
        h2_percent: options.h2_percent,
    };
    let plan = Plan::new(&settings, load);
    if options.json {
        return print(&format!("{:#}\n", to_json(&plan)));
    }
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_table(&mut text, &plan, &settings);
    print(&text)
}

/// At most 100 columns.
fn write_table(out: &mut String, plan: &Plan, settings: &Settings) -> fmt::Result {
    let Load { connections, tls_percent, h2_percent } = plan.load;
    writeln!(
        out,
        "{} shards, {connections} connections, {tls_percent} % TLS, {h2_percent} % HTTP/2, budget {}\n",
        plan.shards,
        size(plan.budget_bytes)
    )?;
    row(out, ["", "count", "each", "at worst", "typically", "when"])?;
    let mut holder = None;
    for term in &plan.terms {
        if term.holder != holder {
            holder = term.holder;
            writeln!(out, "{}", holder.map_or("", |holder| holder.label()))?;
        }
        write_term(out, term)?;
    }
    let mut sum = |name: &str, worst: &str, typical: &str| row(out, [name, "", "", worst, typical, ""]);
    sum("sum", &size(plan.worst_bytes()), &size(plan.typical_bytes()))?;
    sum("budget", &size(plan.budget_bytes), &size(plan.budget_bytes))?;
    sum("left", &left(plan, plan.worst_bytes()), &left(plan, plan.typical_bytes()))?;
    if plan.worst_bytes() > plan.budget_bytes {
        out.push_str(
            "\nThe worst case is more than the budget. The budget holds: from 70 % of it on caches give way,\n\
             from 85 % idle connections are closed, from 95 % new connections are refused with 503.\n",
        );
    }
    let slots = Plan::load(settings).connections;
    if connections > slots {
        writeln!(
            out,
            "\nThe shards have slots for {slots} connections; others are refused with 503: see\n\
             memory.worker_connections."
        )?;
    }
    writeln!(
        out,
        "\nConnections that fit beside {} of what always stands and full caches and pools, up to 95 % of\n\
         the budget, if all are",
        size(plan.standing_bytes())
    )?;
    for fit in &plan.fits {
        let bound = match fit.bound {
            Bound::Slots => "as many as there are slots",
            Bound::Memory => "the budget has room for no more",
        };
        let each = size(fit.unit_bytes as u64);
        writeln!(out, "  {:<42}{:>10} of {each:>7}  {bound}", fit.name, fit.count)?;
    }
    out.push_str("\nMemory of the kernel's, in no budget\n");
    for term in &plan.kernel {
        write_term(out, term)?;
    }
    writeln!(out, "  {} descriptors at worst, {} epoll entries", plan.descriptors, plan.epoll_entries)?;
    out.push_str("\nTypically means here that\n");
    out.push_str(&ASSUMPTIONS.join("\n"));
    out.push('\n');
    Ok(())
}

/// What "typically" stands for.
const ASSUMPTIONS: [&str; 4] = [
    "all connections are open, 10 % of them in a request that waits for its client or a file, with an",
    "exchange and a buffer of 4 KB, and with ciphertext that waits; what is answered at once holds its",
    "slot and its TLS session alone. No TLS handshake is in progress. Caches are full;",
    "files are not mapped, bodies not gathered, medium and large buffers not needed.",
];
const _: () = assert!(ACTIVE_PERCENT == 10);

fn write_term(out: &mut String, term: &Term) -> fmt::Result {
    let name = format!("  {}", term.name);
    let (worst, typical) = (size(term.bytes()), size(term.typical_bytes()));
    row(out, [&name, &term.count.to_string(), &size(term.unit_bytes as u64), &worst, &typical, term.when])
}

fn row(out: &mut String, cells: [&str; 6]) -> fmt::Result {
    let [name, count, each, worst, typical, when] = cells;
    let line = format!("{name:<26}{count:>9}{each:>8}{worst:>10}{typical:>10}  {when}");
    writeln!(out, "{}", line.trim_end())
}

fn left(plan: &Plan, bytes: u64) -> String {
    match plan.budget_bytes.checked_sub(bytes) {
        Some(left) => size(left),
        None => format!("-{}", size(bytes - plan.budget_bytes)),
    }
}

/// Three digits or so: `64`, `1.3KB`, `512MB`.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)];
    let Some((suffix, unit)) = UNITS.iter().find(|(_, unit)| bytes >= *unit) else {
        return bytes.to_string();
    };
    let tenths = (u128::from(bytes) * 10).div_ceil(u128::from(*unit));
    if tenths >= 1000 || tenths % 10 == 0 {
        return format!("{}{suffix}", tenths.div_ceil(10));
    }
    format!("{}.{}{suffix}", tenths / 10, tenths % 10)
}

/// The same for machines.
fn to_json(plan: &Plan) -> Value {
    let Load { connections, tls_percent, h2_percent } = plan.load;
    // As far as a JSON number goes everywhere.
    let left =
        |bytes: u64| i64::try_from(i128::from(plan.budget_bytes) - i128::from(bytes)).unwrap_or(i64::MIN);
    let (worst, typical) = (plan.worst_bytes(), plan.typical_bytes());
    let fits: Map<String, Value> = plan.fits.iter().map(|fit| (fit.kind.to_owned(), fit_json(fit))).collect();
    json!({
        "load": {
            "shards": plan.shards,
            "connections": connections,
            "tls_percent": tls_percent,
            "h2_percent": h2_percent,
        },
        "terms": plan.terms.iter().map(term_json).collect::<Vec<Value>>(),
        "totals": {
            "budget_bytes": plan.budget_bytes,
            "always_bytes": plan.always_bytes(),
            "standing_bytes": plan.standing_bytes(),
            "worst_bytes": worst,
            "typical_bytes": typical,
            "worst_left_bytes": left(worst),
            "typical_left_bytes": left(typical),
        },
        "fits": fits,
        "kernel": {
            "terms": plan.kernel.iter().map(term_json).collect::<Vec<Value>>(),
            "descriptors": plan.descriptors,
            "epoll_entries": plan.epoll_entries,
        },
        "typical": ASSUMPTIONS.join(" "),
    })
}

fn term_json(term: &Term) -> Value {
    json!({
        "name": term.name,
        "holder": term.holder.map_or("kernel", |holder| holder.label()),
        "count": term.count,
        "unit_bytes": term.unit_bytes,
        "bytes": term.bytes(),
        "typical_count": term.typical_count,
        "typical_bytes": term.typical_bytes(),
        "when": term.when,
    })
}

fn fit_json(fit: &Fit) -> Value {
    let bound = match fit.bound {
        Bound::Slots => "worker_connections",
        Bound::Memory => "budget",
    };
    json!({ "count": fit.count, "unit_bytes": fit.unit_bytes, "bound": bound })
}
