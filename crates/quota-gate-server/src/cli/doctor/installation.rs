//! Checks what both stores and the running gates must agree about. What does not answer is reported by the other
//! checks.

use std::{collections::BTreeMap, time::Duration};

use quota_gate::{
    domain::journal::{Entry, StreamId},
    gate::newer_journal_reason,
};

use super::Findings;
use crate::{app, config::Config};

/// Age of a heartbeat of a running gate. It sends one every second.
const SEEN_WITHIN: Duration = Duration::from_secs(3);
/// Entries of each partition's journal that are read.
const JOURNAL_ENTRIES: usize = 1_000;

/// Whether this version can read the usage that waits in Redis.
pub(super) async fn journal(config: &Config, findings: &mut Findings) {
    let (Ok(redis), Ok(postgres), Ok(partitions)) = (app::redis(config), app::postgres(config), config.partitions())
    else {
        return;
    };
    let Ok(watermarks) = postgres.watermarks().await else { return };
    let mut newest = None;
    for (partition, watermark) in partitions.all().zip(watermarks) {
        let from = watermark.position.map_or(StreamId::GENESIS, |position| position.id);
        let Ok(entries) = redis.read_stream(partition, watermark.generation, from, JOURNAL_ENTRIES).await else {
            return;
        };
        newest = newest.max(entries.iter().filter_map(Entry::newer_format).max());
    }
    match newest {
        None => findings.good("this version can read the usage that waits in Redis"),
        Some(format) => {
            findings.wrong("usage waits in Redis that this version cannot read", &newer_journal_reason(format));
        }
    }
}

/// Compares the Redis of this configuration with those of the running gates.
pub(super) async fn one_redis(config: &Config, findings: &mut Findings) {
    let (Ok(redis), Ok(postgres)) = (app::redis(config), app::postgres(config)) else { return };
    // What does not answer has been reported.
    let (Ok(mine), Ok(gates)) = (redis.server_id().await, postgres.seen_gates(SEEN_WITHIN).await) else { return };
    let mut elsewhere: BTreeMap<&str, usize> = BTreeMap::new();
    for gate in &gates {
        if gate.redis_process.as_deref().is_some_and(|process| process != mine.as_str()) {
            *elsewhere.entry(&gate.redis_address).or_default() += 1;
        }
    }
    let servers: Vec<String> = elsewhere.iter().map(|(address, count)| format!("{address} ({count} gates)")).collect();
    findings.check(
        servers.is_empty(),
        &format!("the {} running gates use the Redis of this configuration", gates.len()),
        &format!(
            "running gates use another Redis than {}, that of this configuration: {}",
            redis.address(),
            servers.join(", ")
        ),
        "set the same REDIS_URL everywhere; docs/operations.md, \"Move Redis\"",
    );
}
