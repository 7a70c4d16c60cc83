//! The Prometheus text exposition format, version 0.0.4, as far as this server needs it.
//!
//! Names, help and most label values come from this crate's own constants; others are wrapped in [`Escaped`].

use std::fmt::{self, Display, Write};

use super::histogram::{BOUNDS, Merged};

/// A label value that may hold anything.
pub(super) struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            char => f.write_char(char),
        })
    }
}

/// Writes families of metrics into a string.
pub(super) struct Exposition<'a> {
    out: &'a mut String,
}

impl<'a> Exposition<'a> {
    /// Appends to `out`.
    pub(super) fn new(out: &'a mut String) -> Self {
        Exposition { out }
    }

    /// A family of one gauge.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.describe(name, "gauge", help);
        self.line(format_args!("{name} {value}"));
    }

    /// A family of one counter.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.describe(name, "counter", help);
        self.line(format_args!("{name} {value}"));
    }

    /// A family of gauges told apart by one label.
    pub(super) fn gauges<L: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (L, u64)>,
    ) {
        self.describe(name, "gauge", help);
        self.labelled(name, label, values);
    }

    /// A family of counters told apart by one label.
    pub(super) fn counters<L: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (L, u64)>,
    ) {
        self.describe(name, "counter", help);
        self.labelled(name, label, values);
    }

    /// A histogram with cumulative buckets. Its count is the last bucket, so the two always agree, whatever
    /// was counted while the buckets were read.
    pub(super) fn histogram(&mut self, name: &str, help: &str, merged: &Merged) {
        self.describe(name, "histogram", help);
        let bounds = BOUNDS.iter().map(|(_, label)| *label).chain(["+Inf"]);
        let mut sum = 0_u64;
        for (bound, count) in bounds.zip(merged.counts) {
            sum = sum.wrapping_add(count);
            self.line(format_args!("{name}_bucket{{le=\"{bound}\"}} {sum}"));
        }
        let (seconds, nanos) = (merged.sum_nanos / 1_000_000_000, merged.sum_nanos % 1_000_000_000);
        self.line(format_args!("{name}_sum {seconds}.{nanos:09}"));
        self.line(format_args!("{name}_count {sum}"));
    }

    fn describe(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn labelled<L: Display>(&mut self, name: &str, label: &str, values: impl Iterator<Item = (L, u64)>) {
        for (of, value) in values {
            self.line(format_args!("{name}{{{label}=\"{of}\"}} {value}"));
        }
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a String fails only when a Display implementation does, and those used here do not.
        let _ = self.out.write_fmt(line);
        self.out.push('\n');
    }
}
