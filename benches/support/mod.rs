//! Shared parts of the benchmarks: separate stores, alternating rounds, and a report.

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

/// Amount of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scale {
    /// As a test: only checks that it runs. The figures mean nothing.
    Smoke,
    /// All benchmarks in three minutes. The ratios are approximate.
    Quick,
    /// The figures to quote.
    Full,
}

impl Scale {
    /// Selects one of three values.
    pub(crate) fn of<T>(self, smoke: T, quick: T, full: T) -> T {
        match self {
            Self::Smoke => smoke,
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}
