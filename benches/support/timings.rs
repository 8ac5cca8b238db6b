//! Throughput and latency of the rounds of one side, as a table row and as a plot line.

use std::time::Duration;

use super::{callers::Work, report::Line, rounds::Rounds, text};

/// The rounds of one side at one number of callers.
#[derive(Clone, Default)]
pub(crate) struct Timings {
    pub(crate) rate: Rounds,
    pub(crate) p50_us: Rounds,
    pub(crate) p99_us: Rounds,
}

impl Timings {
    pub(crate) fn push(&mut self, done: &Work) {
        self.rate.push(done.rate);
        self.p50_us.push(done.percentile(50.0).as_secs_f64() * 1e6);
        self.p99_us.push(done.percentile(99.0).as_secs_f64() * 1e6);
    }

    /// Returns operations per second, their ratio to the baseline, p50 and p99.
    pub(crate) fn row(&self, name: String, baseline: &Self) -> Vec<String> {
        let us = |rounds: &Rounds| text::time(Duration::from_secs_f64(rounds.median() / 1e6));
        vec![
            name,
            text::whole(self.rate.median()),
            text::ratio(self.rate.over(&baseline.rate)),
            us(&self.p50_us),
            us(&self.p99_us),
        ]
    }
}

/// Plots latency over throughput, with one point per number of callers.
pub(crate) fn line<'a>(
    name: &str,
    timings: impl IntoIterator<Item = &'a Timings>,
    latency: fn(&Timings) -> &Rounds,
) -> Line {
    let point = |timings: &Timings| (timings.rate.median(), latency(timings).median());
    Line { name: name.to_owned(), points: timings.into_iter().map(point).collect() }
}
