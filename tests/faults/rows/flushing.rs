//! Faults between Redis and Postgres.

use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use quota_gate::domain::{calendar::Calendar, clock::Clock};
use tokio::time::{sleep, timeout};

use crate::audit::Allowed;
use crate::{
    installation::{Options, PARTITIONS},
    proxy::{Mode, Trap},
    run::{Run, Verdict},
};

/// Returns the SHA-1 of lua/partition/trim.lua, by which a proxy recognizes its call.
fn trim_sha() -> String {
    redis::Script::new(include_str!("../../../lua/partition/trim.lua")).get_hash().to_owned()
}

pub(crate) async fn killed_before_trim(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options::default(), seed).await?;
    let mut killed = 0;
    for _ in 0..3 {
        let caught = run.installation.gates[0].redis.trap(trim_sha().as_bytes(), Trap::Hold);
        if matches!(timeout(Duration::from_secs(5), caught).await, Ok(Ok(()))) {
            killed += 1;
        }
        run.installation.gates[0].kill();
        run.installation.gates[0].restart().await?;
    }
    let mut ended = run.end(Allowed::default()).await?;
    ended.figure("killed after the commit and before the trim", killed);
    ended.proves("the gate was killed at that moment", killed > 0);
    Ok(ended.verdict())
}

pub(crate) async fn paused_in_transaction(seed: u64) -> anyhow::Result<Verdict> {
    let run = Run::begin(Options::default(), seed).await?;
    let caught = run.installation.gates[0].postgres.trap(b"copy chat_usage_logs", Trap::Hold);
    timeout(Duration::from_secs(10), caught).await.context("the flusher does not flush")??;
    run.installation.gates[0].signal(Signal::SIGSTOP);
    // The paused transaction locks the watermark's row. The other gate's flusher must continue anyway.
    let before = run.installation.number("select count(*) from chat_usage_logs").await?;
    sleep(Duration::from_secs(9)).await;
    let after = run.installation.number("select count(*) from chat_usage_logs").await?;
    let blocked =
        run.installation.number("select count(*) from pg_stat_activity where wait_event_type = 'Lock'").await?;
    run.installation.gates[0].signal(Signal::SIGCONT);
    ensure!(blocked == 0, "{blocked} connections still wait for the paused gate's lock");
    let mut ended = run.end(Allowed::default()).await?;
    ended.figure("events flushed meanwhile", after - before);
    ended.proves("the other flusher continued", after > before);
    Ok(ended.verdict())
}

pub(crate) async fn unreadable_events(seed: u64) -> anyhow::Result<Verdict> {
    let run = Run::begin(Options::default(), seed).await?;
    for partition in 0..PARTITIONS {
        let gens: Vec<u32> = run.installation.redis(&["SMEMBERS", &format!("qg:{{{partition:02}}}:gens")]).await?;
        let stream = format!("qg:{{{partition:02}}}:ev:{}", gens.first().context("no stream")?);
        // Not an event, a truncated event, and an unknown format.
        for payload in ["garbage", "\u{1}\0\0", "\u{7f}whatever"] {
            run.installation.redis::<String>(&["XADD", &stream, "*", "e", payload]).await?;
        }
        run.installation.redis::<String>(&["XADD", &stream, "*", "other", "field"]).await?;
    }
    sleep(Duration::from_secs(1)).await;
    // Exactly these entries become dead letters.
    let planted = u64::from(PARTITIONS) * 4;
    let mut ended = run.end(Allowed { dead_letters: planted, ..Allowed::default() }).await?;
    ended.figure("dead letters", planted);
    Ok(ended.verdict())
}

/// Waiting events in each partition.
const BACKLOG: usize = 25_000;
const EVENTS_PER_ENTRY: usize = 250;

/// Packs a stream entry of charges of one AP, as lua/operation/journal.lua does.
fn entry(partition: u16, number: usize) -> Vec<u8> {
    let mut events = Vec::new();
    let mut last = [0; 16];
    for event in 0..EVENTS_PER_ENTRY {
        last = uuid::Uuid::new_v4().into_bytes();
        let (user, session) = (format!("backlog-{partition}-{}", (number + event) % 500), b"backlog");
        events.extend([1, 1]);
        events.extend(&period().to_be_bytes()[1..]);
        events.extend([0, 0, 0, 1, 0, 0, 0, 0]);
        events.extend(last);
        events.extend([0, 0, 0, 0]);
        events.push(u8::try_from(user.len()).unwrap_or_default());
        events.extend(user.as_bytes());
        events.push(u8::try_from(session.len()).unwrap_or_default());
        events.extend(session);
    }
    let mut entry = vec![1];
    let now_ms = u64::try_from(Clock::machine().now().timestamp_millis()).unwrap_or_default();
    entry.extend(&now_ms.to_be_bytes()[2..]);
    entry.extend(last);
    entry.extend(events);
    entry
}

fn period() -> u32 {
    Calendar::new(chrono_tz::Tz::UTC).month_at(Clock::machine().now()).id()
}

pub(crate) async fn backlog(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options::default(), seed).await?;
    for gate in &run.installation.gates {
        gate.postgres.set(Mode::Silent);
    }
    let client = redis::Client::open(run.installation.redis.operator_url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    for partition in 0..PARTITIONS {
        let stream = format!("qg:{{{partition:02}}}:ev:1");
        for number in 0..BACKLOG / EVENTS_PER_ENTRY {
            let mut add = redis::cmd("XADD");
            add.arg(&stream).arg("NOMKSTREAM").arg("*").arg("e").arg(entry(partition, number));
            add.exec_async(&mut connection).await?;
        }
    }
    for partition in 0..PARTITIONS {
        run.installation.redis::<()>(&["DEL", &format!("qg:{{{partition:02}}}:gen")]).await?;
    }
    run.fault_begins();
    for gate in &run.installation.gates {
        gate.postgres.set(Mode::Pass);
    }
    let mut ended = run.end(Allowed::default()).await?;
    let drained =
        ended.installation.number("select count(*) from chat_usage_logs where session_id = 'backlog'").await?;
    ended.figure("events of the backlog in the log", drained);
    ended.proves("the whole backlog is in the log", usize::try_from(drained)? == BACKLOG * usize::from(PARTITIONS));
    let generations = ended.installation.reopened().await?;
    ended.proves("partitions were reopened", generations > 0);
    Ok(ended.verdict())
}
