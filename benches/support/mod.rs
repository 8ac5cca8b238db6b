//! What every benchmark stands on: stores of its own, rounds that take turns, and a report.

pub(crate) mod callers;
pub(crate) mod gate_process;
pub(crate) mod http_client;
pub(crate) mod machine;
pub(crate) mod pipe;
pub(crate) mod plot;
pub(crate) mod report;
pub(crate) mod resp_client;
pub(crate) mod rounds;
pub(crate) mod stores;
pub(crate) mod text;
pub(crate) mod timings;

/// How much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scale {
    /// Only whether it runs, as a test. The figures mean nothing.
    Smoke,
    /// All benchmarks in three minutes. The ratios are about right.
    Quick,
    /// The figures to quote.
    Full,
}

impl Scale {
    /// One of three values.
    pub(crate) fn of<T>(self, smoke: T, quick: T, full: T) -> T {
        match self {
            Self::Smoke => smoke,
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}
