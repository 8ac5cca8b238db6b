//! The sections of `config/default.toml`, which describes each setting.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::Deserialize;

use crate::billing::{Cycle, PackOptions};
use crate::config::{Secret, prices::Price};
use crate::http::client_address::Network;
use crate::openai::StreamUsage;
use crate::telemetry::LogFormat;
use quota_gate::domain::{
    client_gone::ClientGone, decision::OnRedisFailure, model_costs::Unlisted, rollout::Mode, scope::Scope,
};

macro_rules! sections {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            /// A section of `config/default.toml`, which describes each setting.
            #[derive(Debug, Clone, Deserialize)]
            #[serde(deny_unknown_fields)]
            #[expect(missing_docs, reason = "config/default.toml describes each setting")]
            pub struct $name { $(pub $field: $type),* }
        )*
    };
}

sections! {
    Server {
        listen: SocketAddr,
        trusted_proxies: Vec<Network>,
        request_timeout_ms: u64,
        header_read_timeout_ms: u64,
        write_stall_timeout_ms: u64,
        stop_delay_ms: u64,
        drain_timeout_ms: u64,
        connections_max: usize,
        requests_in_flight_max: usize,
        settlements_in_flight_max: usize,
        quota_streams_max: usize,
        quota_streams_per_user_max: usize,
        body_bytes_max: usize,
        cors_origins: Vec<String>,
    }
    Redis {
        url: Secret,
        connect_timeout_ms: u64,
        response_timeout_ms: u64,
        queue_timeout_ms: u64,
        queue_length_max: usize,
        batch_operations_max: usize,
        calls_in_flight_max: usize,
        stream_bytes_max: u64,
        stream_entries_max: Option<u32>,
    }
    Postgres {
        url: Secret,
        connections_max: u32,
        acquire_timeout_ms: u64,
        statement_timeout_ms: u64,
    }
    Quota {
        partitions: u16,
        time_zone: String,
        on_redis_failure: OnRedisFailure,
        idempotency_ttl_seconds: u64,
        decision_timeout_ms: u64,
    }
    Flusher {
        enabled: bool,
        interval_ms: u64,
        batch_events_max: usize,
    }
    Resetter {
        enabled: bool,
        daily_at_utc: String,
        overdue_after_hours: u32,
        flush_lag_max_seconds: u32,
    }
    Auth {
        jwt_secret: Secret,
        jwks: String,
        jwt_issuer: String,
        jwt_audience: String,
        jwt_leeway_seconds: u64,
        tokens: BTreeMap<String, Token>,
        reservation_secret: Secret,
    }
    Token {
        sha256: Vec<String>,
        scopes: Vec<Scope>,
    }
    RateLimits {
        per_address: u32,
        unauthenticated_per_address: u32,
        per_token: u32,
    }
    DualWrite {
        url: String,
        token: Secret,
        timeout_ms: u64,
        requests_in_flight_max: usize,
    }
    Envoy {
        listen: Option<SocketAddr>,
    }
    RolloutSection {
        mode: Mode,
        percentage: f64,
        always_in: Vec<String>,
        always_out: Vec<String>,
    }
    Upstream {
        url: String,
        key: Secret,
        connect_timeout_ms: u64,
        head_timeout_ms: u64,
        idle_timeout_ms: u64,
        client_gone: ClientGone,
        stream_usage: StreamUsage,
        requests_in_flight_max: usize,
        body_bytes_max: usize,
    }
    Billing {
        webhook_secret: Secret,
        cycle: Cycle,
        user_metadata_key: String,
        paid_statuses: Vec<String>,
        paid_pauses: Vec<String>,
        pack_metadata_key: String,
        packs_need_plan: bool,
        packs: BTreeMap<String, PackOptions>,
        levels: BTreeMap<String, String>,
    }
    Transfers {
        enabled: bool,
    }
    Estimates {
        input_tokens: u32,
        output_tokens: u32,
    }
    Webhooks {
        url: String,
        secret: Secret,
        timeout_ms: u64,
        requests_in_flight_max: usize,
    }
    Telemetry {
        log_format: LogFormat,
        log_filter: String,
        access_log: bool,
        otlp_endpoint: String,
        trace_sample_ratio: f64,
    }
}

/// The section `[models]` of `config/default.toml`. All members that are not named here are models or patterns.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "config/default.toml describes each setting")]
pub struct Models {
    pub unlisted: Unlisted,
    pub when_exhausted: String,
    #[serde(flatten)]
    pub prices: BTreeMap<String, Price>,
}
