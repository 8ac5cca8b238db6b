//! Faults on the way from Redis to Postgres.

use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};

use crate::{
    audit::Allowed,
    installation::{Options, PARTITIONS},
    proxy::Trap,
    run::{Run, Verdict},
};

/// The first line of lua/partition/trim.lua's work, by which its call is recognised: the script goes by its SHA-1.
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
    ended.figure("killed with the commit made and the trim not", killed);
    ended.proves("it was killed at that moment", killed > 0);
    Ok(ended.verdict())
}

pub(crate) async fn sleeps_in_transaction(seed: u64) -> anyhow::Result<Verdict> {
    let run = Run::begin(Options::default(), seed).await?;
    let caught = run.installation.gates[0].postgres.trap(b"copy chat_usage_logs", Trap::Hold);
    timeout(Duration::from_secs(10), caught).await.context("the flusher does not flush")??;
    run.installation.gates[0].signal(Signal::SIGSTOP);
    // The watermark's row is locked by a transaction that nobody ends. The other gate's flusher gets past it all the same.
    let before = run.installation.number("select count(*) from chat_usage_logs").await?;
    sleep(Duration::from_secs(9)).await;
    let after = run.installation.number("select count(*) from chat_usage_logs").await?;
    let blocked =
        run.installation.number("select count(*) from pg_stat_activity where wait_event_type = 'Lock'").await?;
    run.installation.gates[0].signal(Signal::SIGCONT);
    ensure!(blocked == 0, "{blocked} connections still wait for the sleeper's lock");
    let mut ended = run.end(Allowed::default()).await?;
    ended.figure("events flushed meanwhile", after - before);
    ended.proves("the other flusher went on", after > before);
    Ok(ended.verdict())
}

pub(crate) async fn poison(seed: u64) -> anyhow::Result<Verdict> {
    let run = Run::begin(Options::default(), seed).await?;
    for partition in 0..PARTITIONS {
        let gens: Vec<u32> = run.installation.redis(&["SMEMBERS", &format!("qg:{{{partition:02}}}:gens")]).await?;
        let stream = format!("qg:{{{partition:02}}}:ev:{}", gens.first().context("no stream")?);
        // No event, an event cut short, and another format.
        for payload in ["garbage", "\u{1}\0\0", "\u{7f}whatever"] {
            run.installation.redis::<String>(&["XADD", &stream, "*", "e", payload]).await?;
        }
        run.installation.redis::<String>(&["XADD", &stream, "*", "other", "field"]).await?;
    }
    sleep(Duration::from_secs(1)).await;
    let mut ended = run.end(Allowed::default()).await?;
    let letters = ended.installation.number("select count(*) from dead_letters").await?;
    ended.figure("dead letters", letters);
    ended.proves("the poison was kept as dead letters", letters >= i64::from(PARTITIONS) * 3);
    Ok(ended.verdict())
}
