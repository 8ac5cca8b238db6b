//! Log lines, metrics and traces. The commands `serve` and `dev` set them up once.

mod catalogue;
mod process;
mod traces;

use std::{io::IsTerminal, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use quota_gate::jobs::job::{Job, Next, Pace, StepError};
use serde::Deserialize;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

pub use self::traces::Traces;

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Text,
}

/// Latency buckets in seconds. A decision takes well under a millisecond; for a cold user, a few.
const LATENCY_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Buckets for the number of requests in one script call.
const BATCH_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Target of the log lines of requests.
pub(crate) const ACCESS: &str = "access";

/// The filter of log lines, which can be replaced.
#[derive(Debug, Clone)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogFilter {
    /// Replaces the filter.
    pub fn replace(&self, filter: EnvFilter) {
        // This fails only if there is no subscriber any more.
        let _ = self.0.reload(filter);
    }
}

/// Adds or leaves out the log lines of requests.
#[must_use]
pub fn with_access_log(filter: EnvFilter, access_log: bool) -> EnvFilter {
    let level = if access_log { LevelFilter::INFO } else { LevelFilter::OFF };
    match format!("{ACCESS}={level}").parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}

/// Writes log lines to standard error, and exports traces if `traces` is given. A second call has no effect.
pub fn log(format: LogFormat, filter: EnvFilter, traces: Option<&Traces>) -> LogFilter {
    let (filter, handle) = reload::Layer::new(filter);
    let writer = std::io::stderr;
    let lines = match format {
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(writer).boxed(),
        LogFormat::Text => {
            fmt::layer().with_writer(writer).with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed()
        }
    };
    let spans = traces.map(|traces| {
        let ours = Targets::new().with_target("quota_gate", LevelFilter::DEBUG);
        tracing_opentelemetry::layer().with_tracer(traces.tracer()).with_filter(ours)
    });
    // A second subscriber is refused; the first one stays.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).try_init();
    LogFilter(handle)
}

/// Starts to collect metrics. The handle renders them for Prometheus.
///
/// # Errors
/// If another recorder is installed already.
pub fn metrics() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full("quota_gate_batch_operations".to_owned()), &BATCH_BUCKETS)?
        .install_recorder()?;
    catalogue::describe();
    process::update();
    let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("QUOTA_GATE_COMMIT"));
    metrics::gauge!("quota_gate_build_info", "version" => version, "commit" => commit).set(1);
    Ok(handle)
}

/// Updates the metrics of the process, and aggregates the samples of histograms, so they do not accumulate while no
/// client scrapes `/metrics`.
#[derive(Clone)]
pub struct MetricsUpkeep(pub PrometheusHandle);

impl Job for MetricsUpkeep {
    fn name(&self) -> &'static str {
        "metrics_upkeep"
    }

    fn pace(&self) -> Pace {
        let pause = Duration::from_secs(5);
        Pace { pause, retry_pause_max: pause, step_max: pause }
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        process::update();
        self.0.run_upkeep();
        Ok(Next::AfterPause)
    }
}
