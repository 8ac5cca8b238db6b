//! What the rounds of one side came to: how often, and how long it took; as a table's row and as a plot's line.

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

    /// Times a second, the same ÷ the baseline's, p50 and p99.
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

/// Latency over throughput: one point for each number of callers.
pub(crate) fn line<'a>(
    name: &str,
    timings: impl IntoIterator<Item = &'a Timings>,
    latency: fn(&Timings) -> &Rounds,
) -> Line {
    let point = |timings: &Timings| (timings.rate.median(), latency(timings).median());
    Line { name: name.to_owned(), points: timings.into_iter().map(point).collect() }
}
