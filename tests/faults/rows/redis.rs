//! Faults of Redis: it dies, stands still, forgets, comes back as somebody else.

use std::time::Duration;

use anyhow::{Context, ensure};
use quota_gate::dev::{AppendOnly, Lifetime, RedisServer, RedisServerOptions};
use tokio::time::{sleep, timeout};

use crate::{
    audit::Allowed,
    history::Outcome,
    installation::{Options, ask, copy_dir},
    proxy::{Mode, Proxy, Trap},
    run::{Ended, Run, Verdict},
};

/// Longer than a flush takes to come round: what was acknowledged before is in Postgres.
const UNFLUSHED: Duration = Duration::from_secs(3);

fn with_appendfsync(append_only: AppendOnly) -> Options {
    let redis = RedisServerOptions { append_only, lifetime: Lifetime::Scratch, ..RedisServerOptions::default() };
    Options { redis, ..Options::default() }
}

pub(crate) async fn killed(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(with_appendfsync(AppendOnly::EverySecond), seed).await?;
    run.installation.redis.kill().await;
    sleep(Duration::from_secs(1)).await;
    run.installation.redis.restart().await?;
    // Allowed by the setting, reported, and normally none: what was answered is with the operating system.
    let since = run.now().saturating_sub(UNFLUSHED);
    let ended = run.end(Allowed { lost_since: Some(since), ..Allowed::default() }).await?;
    reopened(ended).await
}

pub(crate) async fn killed_always(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(with_appendfsync(AppendOnly::Always), seed).await?;
    for _ in 0..3 {
        run.installation.redis.kill().await;
        run.installation.redis.restart().await?;
        sleep(Duration::from_secs(1)).await;
    }
    reopened(run.end(Allowed::default()).await?).await
}

/// The fault was one only if the partitions had to be opened anew and clients noticed.
async fn reopened(mut ended: Ended) -> anyhow::Result<Verdict> {
    let generations = ended.installation.reopened().await?;
    ended.figure("generations opened", generations);
    ended.proves("partitions were opened anew", generations > 0);
    let disturbed = ended.history.refused() + ended.history.unknown();
    ended.proves("clients noticed", disturbed > 0);
    Ok(ended.verdict())
}

pub(crate) async fn stands_still(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options::default(), seed).await?;
    run.installation.redis.pause();
    sleep(Duration::from_secs(10)).await;
    run.installation.redis.resume();
    let mut ended = run.end(Allowed::default()).await?;
    let (known, healed) = (ended.fault + Duration::from_secs(1), ended.healed);
    let mut refusals: Vec<Duration> = ended
        .history
        .0
        .iter()
        .filter(|event| event.sent > known && event.answered < healed && event.outcome == Outcome::Refused)
        .map(crate::history::Event::took)
        .collect();
    refusals.sort();
    ended.proves("messages were refused", refusals.len() > 100);
    let accepted = ended.history.count(|event| event.outcome == Outcome::Accepted);
    ended.proves("settlements were accepted", accepted > 0);
    ended.figure("settlements accepted", accepted);
    if let Some(median) = refusals.get(refusals.len() / 2) {
        ended.figure("median refusal after the first second", format!("{:.1} ms", median.as_secs_f64() * 1e3));
        let slow = refusals.iter().filter(|took| **took > Duration::from_millis(400)).count();
        // A breaker that does not open makes each of them wait for Redis.
        ended.proves("hardly anybody waited for Redis", slow * 20 < refusals.len());
    }
    Ok(ended.verdict())
}

/// Redis has carried the call out, and nobody hears of it.
pub(crate) async fn answers_lost(seed: u64) -> anyhow::Result<Verdict> {
    let run = Run::begin(Options::default(), seed).await?;
    let mut lost = 0;
    for round in 0..20 {
        let caught = run.installation.gates[round % 2].redis.trap(b"FCALL", Trap::CutAnswer);
        lost += usize::from(matches!(timeout(Duration::from_secs(3), caught).await, Ok(Ok(()))));
        sleep(Duration::from_millis(100)).await;
    }
    let mut ended = run.end(Allowed::default()).await?;
    ended.figure("calls without an answer", lost);
    ended.proves("answers were lost", lost >= 10 && ended.history.unknown() > 0);
    Ok(ended.verdict())
}

pub(crate) async fn flushed(seed: u64) -> anyhow::Result<Verdict> {
    let run = Run::begin(Options::default(), seed).await?;
    run.installation.redis::<()>(&["FLUSHALL"]).await?;
    sleep(Duration::from_millis(500)).await;
    let since = run.now().saturating_sub(UNFLUSHED);
    let mut ended = run.end(Allowed { lost_since: Some(since), ..Allowed::default() }).await?;
    let generations = ended.installation.reopened().await?;
    ended.proves("partitions were opened anew", generations > 0);
    Ok(ended.verdict())
}

pub(crate) async fn comes_back_empty(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options::default(), seed).await?;
    run.installation.redis.kill().await;
    let data = run.installation.redis.dir().join("appendonlydir");
    std::fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    run.installation.redis.restart().await?;
    let since = run.now().saturating_sub(UNFLUSHED);
    reopened(run.end(Allowed { lost_since: Some(since), ..Allowed::default() }).await?).await
}

pub(crate) async fn comes_back_older(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options::default(), seed).await?;
    let data = run.installation.redis.dir().join("appendonlydir");
    let copy = run.installation.redis.dir().join("copy");
    copy_dir(&data, &copy)?;
    sleep(Duration::from_secs(4)).await;
    run.fault_begins();
    run.installation.redis.kill().await;
    std::fs::remove_dir_all(&data)?;
    copy_dir(&copy, &data)?;
    run.installation.redis.restart().await?;
    let since = run.now().saturating_sub(UNFLUSHED);
    reopened(run.end(Allowed { lost_since: Some(since), ..Allowed::default() }).await?).await
}

/// A replica of the run's Redis, behind a proxy of its own.
async fn replica(run: &Run) -> anyhow::Result<(RedisServer, Proxy)> {
    let link = Proxy::before(run.installation.redis.port()).await;
    // The same password, so that the gates' URL is good for both.
    let dir = run.installation.scratch.path().join("replica");
    std::fs::create_dir_all(&dir)?;
    std::fs::copy(run.installation.redis.dir().join("password"), dir.join("password"))?;
    let password = std::fs::read_to_string(dir.join("password"))?;
    let options = RedisServerOptions {
        lifetime: Lifetime::Scratch,
        extra: vec![format!("replicaof 127.0.0.1 {}", link.port()), format!("masterauth {}", password.trim())],
        ..RedisServerOptions::default()
    };
    let replica = RedisServer::start(&dir, options).await?;
    for _ in 0..200 {
        let info: String = ask(&replica, &["INFO", "replication"]).await?;
        if info.contains("master_link_status:up") {
            return Ok((replica, link));
        }
        sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("the replica does not follow")
}

pub(crate) async fn fails_over(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options::default(), seed).await?;
    let (replica, link) = replica(&run).await?;
    sleep(Duration::from_millis(500)).await;
    // The replica hears nothing any more, while the primary goes on acknowledging.
    link.set(Mode::Silent);
    let silent_since = run.now();
    sleep(Duration::from_millis(500)).await;
    run.fault_begins();
    for gate in &run.installation.gates {
        gate.redis.set(Mode::Refuse);
    }
    run.installation.redis.kill().await;
    ask::<()>(&replica, &["REPLICAOF", "NO", "ONE"]).await?;
    for gate in &run.installation.gates {
        gate.redis.lead_to(replica.port());
        gate.redis.set(Mode::Pass);
    }
    // From here on the replica is the installation's Redis, for the auditor too.
    run.installation.redis = replica;
    reopened(run.end(Allowed { lost_since: Some(silent_since), ..Allowed::default() }).await?).await
}

pub(crate) async fn splits(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options::default(), seed).await?;
    let (replica, link) = replica(&run).await?;
    // What docs/operations.md asks for where there is a replica: a primary that has lost it stops within two seconds.
    for server in [&run.installation.redis, &replica] {
        ask::<()>(server, &["CONFIG", "SET", "min-replicas-max-lag", "1"]).await?;
    }
    ask::<()>(&run.installation.redis, &["CONFIG", "SET", "min-replicas-to-write", "1"]).await?;
    sleep(Duration::from_millis(500)).await;
    link.set(Mode::Silent);
    run.fault_begins();
    let split = run.now();
    // One gate follows the new primary, the other one still talks to the old one.
    ask::<()>(&replica, &["REPLICAOF", "NO", "ONE"]).await?;
    run.installation.gates[1].redis.lead_to(replica.port());
    sleep(Duration::from_secs(6)).await;
    let refused: String =
        ask(&run.installation.redis, &["SET", "probe", "1"]).await.unwrap_or_else(|error| error.to_string());
    ensure!(refused.contains("NOREPLICAS"), "the old primary still takes writes: {refused}");
    run.installation.gates[0].redis.lead_to(replica.port());
    run.installation.redis.kill().await;
    run.installation.redis = replica;
    let allowed = Allowed { lost_since: Some(split), split: Some((0, split)), ..Allowed::default() };
    let mut ended = run.end(allowed).await?;
    let (fault, healed) = (ended.fault, ended.healed);
    let old = ended.history.admitted(|event| event.gate == 0 && event.sent > fault && event.answered < healed);
    let new = ended.history.admitted(|event| event.gate == 1 && event.sent > fault && event.answered < healed);
    ended.figure("admitted by the old primary after the split", old);
    ended.proves("both primaries took messages", old > 0 && new > 0);
    let stopped =
        ended.history.count(|event| event.gate == 0 && event.sent > fault && event.outcome == Outcome::Refused);
    ended.proves("the old primary stopped", stopped > 0);
    Ok(ended.verdict())
}

pub(crate) async fn forgets_functions(seed: u64) -> anyhow::Result<Verdict> {
    let run = Run::begin(Options::default(), seed).await?;
    for _ in 0..5 {
        run.installation.redis::<()>(&["FUNCTION", "FLUSH"]).await?;
        run.installation.redis::<()>(&["SCRIPT", "FLUSH"]).await?;
        sleep(Duration::from_millis(200)).await;
    }
    let before = run.now();
    run.installation.redis::<()>(&["ACL", "SETUSER", "default", "-fcall"]).await?;
    sleep(Duration::from_secs(1)).await;
    run.installation.redis::<()>(&["ACL", "SETUSER", "default", "+fcall"]).await?;
    let mut ended = run.end(Allowed::default()).await?;
    let fault = ended.fault;
    let quiet = ended.history.count(|event| {
        event.sent > fault && event.answered < before && matches!(event.outcome, Outcome::Refused | Outcome::Unknown)
    });
    ended.figure("refused while functions were taken away", quiet);
    let refused = ended.history.count(|event| event.sent > before && event.outcome == Outcome::Refused);
    ended.proves("messages were refused without the permission", refused > 0);
    let unknown = ended.history.unknown();
    if unknown > 0 {
        ended.violated(format!("{unknown} outcomes are unknown, though nothing was carried out"));
    }
    Ok(ended.verdict())
}
