//! Traces by OTLP (HTTP, protobuf), if an endpoint is configured: requests with their `traceparent`, the batches that
//! carry them to Redis, loads from Postgres, flushes.

use std::time::Duration;

use opentelemetry::{global, trace::TracerProvider};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};

/// Time limit for one export.
const EXPORT_MAX: Duration = Duration::from_secs(5);

/// Exports traces until it is shut down.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Exports to `endpoint`, for example `http://localhost:4318/v1/traces`. `sample_ratio` is the share of the traces
    /// that start here; traces that a caller has sampled are always exported.
    ///
    /// # Errors
    /// If the endpoint is not a URL.
    pub fn new(endpoint: &str, sample_ratio: f64) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_MAX)
            .build()?;
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample_ratio)));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .with_resource(Resource::builder().with_service_name("quota-gate").build())
            .build();
        global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Self(provider))
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.0.tracer("quota-gate")
    }

    /// Exports the remaining traces. It blocks on the endpoint, so do not call it on a thread that others need.
    pub fn shut_down(&self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last traces were not exported");
        }
    }
}
