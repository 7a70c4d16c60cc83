//! What was seen, as tables, and whether it is what was promised.

use std::time::Duration;

use crate::{
    Run,
    attack::Fate,
    common::{
        behaved::{self, Behaved, Request},
        quantile, table,
    },
    watch::{CRITICAL, LEVELS, Said, level_between},
};

/// What a server may have resident beyond its budget: program and libraries (5 MB), and what the allocator keeps of
/// memory that was given back to it.
const OVERHEAD_BYTES: u64 = 8 << 20;
/// How long the level may take to be Normal again.
const NORMAL_WITHIN: Duration = Duration::from_secs(5);

/// Prints the figures of one server in every case.
pub fn print_tables(title: &str, runs: &[Run]) {
    println!("\n{title}: what the server held, MB, and after how many seconds it was again what it was");
    let head = [
        "attack",
        "levels",
        "used",
        "peak",
        "heap",
        "RSS before",
        "most",
        "after",
        "RSS back",
        "Normal",
        "alone",
    ];
    table::print(&head, &runs.iter().map(memory_row).collect::<Vec<_>>());
    println!("\n{title}: what became of the attacking connections, and how the server helped itself");
    let fates = Fate::ALL.map(|(_, name)| name);
    let head = [&["attack", "at once"][..], &fates, &["shed", "idle closed", "active closed"]].concat();
    table::print(&head, &runs.iter().map(connections_row).collect::<Vec<_>>());
    println!(
        "\n{title}: well-behaved clients; answered, failed and reconnected at each level ({}); milliseconds",
        LEVELS.join(" / ")
    );
    let head = [
        "attack",
        "client",
        "answered",
        "failed",
        "reconnected",
        "alone p50",
        "p99",
        "attacked p50",
        "p99",
        "max",
    ];
    table::print(
        &head,
        &runs.iter().flat_map(|run| run.clients.iter().map(|c| client_row(run, c))).collect::<Vec<_>>(),
    );
}

/// Prints whether each promise was kept; whether all were.
pub fn judge(title: &str, budget_bytes: u64, runs: &[Run]) -> bool {
    println!("\n{title}: promises");
    let verdicts: Vec<Vec<Verdict>> = runs.iter().map(|run| run.verdicts(budget_bytes)).collect();
    let mut head = vec!["promise"];
    head.extend(runs.iter().map(|run| run.case.name));
    let row = |index: usize, name: &str| {
        let of = |verdicts: &Vec<Verdict>| {
            let verdict = &verdicts[index];
            format!("{} {}", if verdict.kept { "ok" } else { "MISS" }, verdict.seen)
        };
        [vec![name.to_owned()], verdicts.iter().map(of).collect()].concat()
    };
    let names = verdicts.first().into_iter().flatten().map(|verdict| verdict.promise).enumerate();
    table::print(&head, &names.map(|(index, name)| row(index, name)).collect::<Vec<_>>());
    verdicts.iter().flatten().all(|verdict| verdict.kept)
}

/// One promise in one case.
struct Verdict {
    promise: &'static str,
    kept: bool,
    seen: String,
}

impl Run {
    fn verdicts(&self, budget_bytes: u64) -> Vec<Verdict> {
        let last = self.said().last().unwrap_or_default();
        let used = self.most(|said| said.used_bytes).max(last.peak_bytes);
        let told = self.said().all(|said| said.budget_bytes == budget_bytes);
        let over = self.resident_max.saturating_sub(budget_bytes);
        let lost = self.tally.of(Fate::Hung) + self.tally.of(Fate::Unconnected);
        let silent = self.samples.iter().filter(|sample| sample.said.is_none()).count();
        let below = |levels: &[usize]| levels[..CRITICAL].iter().sum::<usize>();
        let failed: usize = self.clients.iter().map(|client| below(&self.failed(client))).sum();
        let answered: usize = self.clients.iter().map(|client| below(&self.answered(client))).sum();
        let reached = self.levels()[CRITICAL];
        let recovery = &self.recovery;
        let verdict = |promise, kept, seen: String| Verdict { promise, kept, seen };
        vec![
            verdict("accounted within the budget", told && used <= budget_bytes, megabytes(used)),
            verdict(
                "resident within budget + 8 MB",
                over <= OVERHEAD_BYTES,
                format!("{} + {}", megabytes(self.resident_max - over), megabytes(over)),
            ),
            verdict(
                "each connection answered or closed",
                lost == 0 && self.tally.sum() > 0,
                format!("{} of {}", self.tally.sum() - lost, self.tally.sum()),
            ),
            verdict("nobody left behind", recovery.alone.is_some(), seconds(recovery.alone)),
            verdict(
                "Normal within 5 s",
                recovery.normal.is_some_and(|after| after <= NORMAL_WITHIN),
                seconds(recovery.normal),
            ),
            verdict(
                "resident back within 20 %",
                recovery.resident.is_some(),
                format!("{} to {}", megabytes(self.resident_before), megabytes(self.resident_after())),
            ),
            verdict(
                "only 200 below Critical",
                failed == 0 && answered > 0,
                format!("{failed} of {}", failed + answered),
            ),
            verdict(
                "admin answers",
                silent == 0 && !self.samples.is_empty(),
                format!("{silent} of {} not", self.samples.len()),
            ),
            verdict(
                "to Critical and back",
                !self.case.critical || (reached && recovery.normal.is_some()),
                if self.case.critical { self.level_names() } else { "not asked".to_owned() },
            ),
        ]
    }

    fn said(&self) -> impl DoubleEndedIterator<Item = Said> {
        self.samples.iter().filter_map(|sample| sample.said)
    }

    fn most(&self, figure: impl Fn(Said) -> u64) -> u64 {
        self.said().map(figure).max().unwrap_or(0)
    }

    fn resident_after(&self) -> u64 {
        self.samples.last().map_or(0, |sample| sample.resident_bytes)
    }

    /// Which levels were reached.
    fn levels(&self) -> [bool; LEVELS.len()] {
        let mut reached = [false; LEVELS.len()];
        self.said().for_each(|said| reached[said.level] = true);
        reached[CRITICAL] |= self.most(|said| said.criticals) > 0;
        reached
    }

    fn level_names(&self) -> String {
        let initials = ["N", "E", "H", "C"];
        let reached = initials.iter().zip(self.levels()).filter(|(_, reached)| *reached);
        reached.map(|(initial, _)| *initial).collect()
    }

    /// Requests of a client that `wanted` is true of, by the level at their time.
    fn by_level(&self, client: &Behaved, wanted: impl Fn(&Request) -> bool) -> [usize; LEVELS.len()] {
        let mut counts = [0; LEVELS.len()];
        for request in client.requests.iter().filter(|request| wanted(request)) {
            counts[level_between(&self.samples, request.asked, request.asked + request.took)] += 1;
        }
        counts
    }

    fn answered(&self, client: &Behaved) -> [usize; LEVELS.len()] {
        self.by_level(client, |request| request.fate == behaved::Fate::Answered)
    }

    fn failed(&self, client: &Behaved) -> [usize; LEVELS.len()] {
        self.by_level(client, |request| request.fate != behaved::Fate::Answered)
    }
}

fn memory_row(run: &Run) -> Vec<String> {
    let ours = run.said().next().is_some();
    let only = |figure: String| if ours { figure } else { "-".to_owned() };
    let last = run.said().last().unwrap_or_default();
    vec![
        run.case.name.to_owned(),
        only(run.level_names()),
        only(megabytes(run.most(|said| said.used_bytes))),
        only(megabytes(last.peak_bytes)),
        only(megabytes(run.most(|said| said.heap_bytes))),
        megabytes(run.resident_before),
        megabytes(run.resident_max),
        megabytes(run.resident_after()),
        seconds(run.recovery.resident),
        only(seconds(run.recovery.normal)),
        only(seconds(run.recovery.alone)),
    ]
}

fn connections_row(run: &Run) -> Vec<String> {
    let last = run.said().last();
    let said = |figure: fn(Said) -> u64| last.map_or("-".to_owned(), |said| figure(said).to_string());
    let mut row = vec![run.case.name.to_owned(), run.held.to_string()];
    row.extend(Fate::ALL.map(|(fate, _)| run.tally.of(fate).to_string()));
    row.extend([said(|said| said.shed), said(|said| said.idle_closed), said(|said| said.active_closed)]);
    row
}

fn client_row(run: &Run, client: &Behaved) -> Vec<String> {
    let (alone, attacked) = client.latencies_around(run.begun);
    let figure = |latencies: &[f64], share| format!("{:.2}", quantile(latencies, share) / 1e3);
    let slashes = |counts: [usize; LEVELS.len()]| counts.map(|count| count.to_string()).join("/");
    vec![
        run.case.name.to_owned(),
        client.name.to_owned(),
        slashes(run.answered(client)),
        slashes(run.failed(client)),
        slashes(run.by_level(client, |request| request.reconnected)),
        figure(&alone, 0.5),
        figure(&alone, 0.99),
        figure(&attacked, 0.5),
        figure(&attacked, 0.99),
        figure(&attacked, 1.0),
    ]
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

fn seconds(after: Option<Duration>) -> String {
    after.map_or("never".to_owned(), |after| format!("{:.1}", after.as_secs_f64()))
}
