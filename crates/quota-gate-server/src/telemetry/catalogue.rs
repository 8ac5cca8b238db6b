//! Every metric: its kind, what it means, and the counters that start at 0, so that a rate is right from the first
//! increase on.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram};

use Kind::{Counter, Gauge, Histogram};

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Name, kind and meaning. docs/operations.md has the labels.
const METRICS: &[(&str, Kind, &str)] = &[
    ("quota_gate_build_info", Gauge, "1, with version and commit as labels."),
    ("quota_gate_decisions_total", Counter, "Decisions by operation, outcome, level and mode."),
    ("quota_gate_decision_seconds", Histogram, "Duration of decisions, with queue, Redis, load and opening."),
    ("quota_gate_batch_seconds", Histogram, "Time from a batch's oldest request to its answer."),
    ("quota_gate_batch_operations", Histogram, "Requests in a batch."),
    ("quota_gate_redis_call_seconds", Histogram, "Duration of script calls."),
    ("quota_gate_queue_depth", Gauge, "Requests waiting for the next batch, by partition."),
    ("quota_gate_charged_ap_total", Counter, "AP charged."),
    ("quota_gate_overage_ap_total", Counter, "AP generated beyond the quota."),
    ("quota_gate_late_ap_total", Counter, "AP charged after the hold's expiry."),
    ("quota_gate_holds_settled_total", Counter, "Holds settled, by commit or release."),
    ("quota_gate_holds_expired_total", Counter, "Holds that expired unsettled."),
    ("quota_gate_commits_expired_total", Counter, "Commits after the deadline, which charge nothing."),
    ("quota_gate_settlements_failed_total", Counter, "Messages that could not be settled."),
    ("quota_gate_cold_loads_total", Counter, "Users loaded from Postgres, known or new."),
    ("quota_gate_flush_lag_events", Gauge, "Usage events that wait for Postgres."),
    ("quota_gate_flush_lag_seconds", Gauge, "Age of the oldest usage event that waits for Postgres."),
    ("quota_gate_key_lookups_total", Counter, "Requests with an Idempotency-Key that were looked up in Postgres."),
    ("quota_gate_stream_entries", Gauge, "Entries of the usage stream, by partition."),
    ("quota_gate_stream_bytes", Gauge, "Memory of the usage stream, by partition."),
    ("quota_gate_flushed_events_total", Counter, "Rows written to the usage log."),
    ("quota_gate_flush_failures_total", Counter, "Flushes that failed."),
    ("quota_gate_dead_letters", Gauge, "Usage events that Postgres refused."),
    ("quota_gate_dead_letters_total", Counter, "Usage events refused since the start."),
    (
        "quota_gate_newer_journal_format",
        Gauge,
        "Format of waiting usage that only a newer version can read; 0 for none.",
    ),
    ("quota_gate_drift_users", Gauge, "Users whose data differs between the stores."),
    ("quota_gate_compared_users_total", Counter, "Users whose data was compared between the stores."),
    ("quota_gate_over_admitted_users", Gauge, "Users charged more than their quota."),
    ("quota_gate_breaker_open", Gauge, "1 while a store is considered unavailable."),
    ("quota_gate_breaker_opened_total", Counter, "How often a store was considered unavailable."),
    ("quota_gate_degraded_decisions_total", Counter, "Decisions without Redis."),
    ("quota_gate_generations_opened_total", Counter, "Partitions opened again."),
    ("quota_gate_partitions", Gauge, "Partitions of the installation."),
    ("quota_gate_redis_conflict", Gauge, "1 if other gates serve from another Redis, so this one does not serve."),
    ("quota_gate_inbox_waiting", Gauge, "Settlements accepted by Postgres that wait for Redis."),
    ("quota_gate_inbox_accepted_total", Counter, "Settlements accepted by Postgres."),
    ("quota_gate_inbox_settled_total", Counter, "Accepted settlements applied in Redis."),
    ("quota_gate_last_reset_timestamp_seconds", Gauge, "Time of the last successful run of the resetter."),
    ("quota_gate_due_rows", Gauge, "Users whose period is over."),
    ("quota_gate_resets_total", Counter, "Users reset."),
    ("quota_gate_job_restarts_total", Counter, "Restarts of a job that panicked or ended."),
    ("quota_gate_redis_memory_used_bytes", Gauge, "Memory that Redis uses."),
    ("quota_gate_redis_memory_max_bytes", Gauge, "Redis' maxmemory; 0 for none."),
    ("quota_gate_pool_connections", Gauge, "Pooled connections, by store and state."),
    ("quota_gate_http_requests_total", Counter, "Requests by route, method and status."),
    ("quota_gate_http_request_seconds", Histogram, "Duration of requests by route."),
    ("quota_gate_shed_requests_total", Counter, "Requests refused above the limit of concurrent requests."),
    ("quota_gate_rate_limited_total", Counter, "Requests refused by a rate limit."),
    ("quota_gate_upstream_requests_total", Counter, "Requests to the upstream, by outcome."),
    ("quota_gate_upstream_broken_answers_total", Counter, "Answers of the upstream that broke off."),
    ("quota_gate_proxy_fallbacks_total", Counter, "Messages that the model for exhausted quotas answered."),
    ("quota_gate_proxy_unread_answers_total", Counter, "Answers of the upstream that the proxy did not understand."),
    ("quota_gate_rollout_messages_total", Counter, "Messages that the rollout let pass, by outcome."),
    ("quota_gate_dual_writes_total", Counter, "Deliveries to the old credits system, by outcome."),
    ("quota_gate_dual_writes_waiting", Gauge, "Charges that wait for the old credits system."),
    ("quota_gate_notifications_total", Counter, "Deliveries of webhooks, by outcome."),
    ("quota_gate_notifications_waiting", Gauge, "Webhooks that wait for their delivery."),
    ("process_cpu_seconds_total", Gauge, "Processor time of the process."),
    ("process_open_fds", Gauge, "Open file descriptors."),
    ("process_max_fds", Gauge, "Maximum open file descriptors."),
    ("process_resident_memory_bytes", Gauge, "Resident memory."),
    ("process_virtual_memory_bytes", Gauge, "Virtual memory."),
    ("process_start_time_seconds", Gauge, "Start of the process, since 1970."),
    ("process_threads", Gauge, "Threads."),
];

/// Counters with one label, and its values.
const LABELLED: &[(&str, &str, &[&str])] = &[
    ("quota_gate_holds_settled_total", "by", &["commit", "release"]),
    ("quota_gate_cold_loads_total", "user", &["known", "new"]),
    ("quota_gate_breaker_opened_total", "store", &["redis", "postgres"]),
    ("quota_gate_degraded_decisions_total", "outcome", &["consume", "reserve", "denied"]),
    ("quota_gate_inbox_accepted_total", "kind", &["consume", "commit", "release"]),
    ("quota_gate_inbox_settled_total", "kind", &["consume", "commit", "release"]),
    ("quota_gate_rate_limited_total", "by", &["address", "unauthenticated", "token"]),
    ("quota_gate_rollout_messages_total", "outcome", &["out", "shadow_allowed", "shadow_denied", "shadow_undecided"]),
    ("quota_gate_dual_writes_total", "outcome", &["taken", "failed"]),
    ("quota_gate_notifications_total", "outcome", &["taken", "failed"]),
    ("quota_gate_upstream_requests_total", "outcome", &["unreachable", "timeout", "key_refused"]),
    ("quota_gate_proxy_unread_answers_total", "reason", &["encoding", "too_long", "form"]),
    ("quota_gate_job_restarts_total", "job", JOBS),
];

/// Jobs and workers whose restarts are counted.
#[rustfmt::skip]
const JOBS: &[&str] = &[
    "batcher", "envoy", "flusher", "gauges", "inbox_worker", "level_sync", "levels", "loader", "lookup",
    "metrics_upkeep", "partition_maker", "presence", "quota_watcher", "reload", "resetter", "rollout_sync", "dual_write", "webhooks",
];

/// Counters whose labels depend on traffic: routes, and levels of allowed messages.
const BY_TRAFFIC: &[&str] = &["quota_gate_http_requests_total", "quota_gate_decisions_total"];

/// Describes every metric, and starts the counters at 0.
pub(super) fn describe() {
    for &(name, kind, meaning) in METRICS {
        match kind {
            Counter => describe_counter!(name, meaning),
            Gauge => describe_gauge!(name, meaning),
            Histogram => describe_histogram!(name, meaning),
        }
        let labelled = LABELLED.iter().any(|(of, ..)| *of == name) || BY_TRAFFIC.contains(&name);
        if matches!(kind, Counter) && !labelled {
            counter!(name).increment(0);
        }
    }
    for &(name, label, values) in LABELLED {
        for value in values {
            counter!(name, label => *value).increment(0);
        }
    }
    // Decisions that no level has.
    for operation in ["consume", "reserve"] {
        for outcome in ["unavailable", "refused"] {
            for mode in ["enforce", "shadow"] {
                counter!(
                    "quota_gate_decisions_total",
                    "operation" => operation, "outcome" => outcome, "level" => "unknown", "mode" => mode,
                )
                .increment(0);
            }
        }
    }
}
