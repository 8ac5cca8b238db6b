//! Faults of Redis: it is killed or paused, loses data, or is replaced by another server.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use quota_gate_dev::{AppendOnly, RedisServerOptions};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::audit::{Allowed, Split};
use crate::{
    cluster,
    history::Outcome,
    installation::{Options, QUOTA, copy_dir, redis_options},
    proxy::Trap,
    replica::Replica,
    run::{Ended, Run, Verdict},
};

fn with_appendfsync(append_only: AppendOnly) -> Options {
    let redis = RedisServerOptions { append_only, ..redis_options() };
    Options { redis, ..Options::default() }
}

pub(crate) async fn killed(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(with_appendfsync(AppendOnly::EverySecond), seed).await?;
    let lost = run.lost_now();
    run.installation.redis.kill().await;
    sleep(Duration::from_secs(1)).await;
    run.installation.redis.restart().await?;
    // This setting allows a loss, which is reported. Normally nothing is lost: the operating system has what was
    // answered.
    reopened(run.end(lost).await?).await
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

/// Each gate opens four partitions with two connections to Postgres. An opener that keeps one and waits for another
/// would never end.
pub(crate) async fn killed_with_few_connections(seed: u64) -> anyhow::Result<Verdict> {
    let options = with_appendfsync(AppendOnly::Always).with("QUOTA_GATE__POSTGRES__CONNECTIONS_MAX", "2");
    let mut run = Run::begin(options, seed).await?;
    for _ in 0..3 {
        run.installation.redis.kill().await;
        run.installation.redis.restart().await?;
        sleep(Duration::from_secs(1)).await;
    }
    reopened(run.end(Allowed::default()).await?).await
}

/// Proves the fault: partitions were reopened, and clients noticed.
async fn reopened(mut ended: Ended) -> anyhow::Result<Verdict> {
    let generations = ended.installation.reopened().await?;
    ended.figure("generations opened", generations);
    ended.proves("partitions were reopened", generations > 0);
    let disturbed = ended.history.refused() + ended.history.unknown();
    ended.proves("clients noticed", disturbed > 0);
    Ok(ended.verdict())
}

/// Redis restarts while Postgres has none of the last charges: stopped cleanly, then killed. It has the accounts of the
/// shipped file, so it executes its append-only file as a user who cannot log in.
pub(crate) async fn restarts_unflushed(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(with_appendfsync(AppendOnly::EverySecond), seed).await?;
    let mut waiting = Vec::new();
    for is_killed in [false, true] {
        run.installation.signal_postgres(Signal::SIGSTOP);
        sleep(Duration::from_secs(3)).await;
        if is_killed {
            // Otherwise the kill may lose what is not written yet, which is no fault.
            run.installation.redis::<()>(&["CONFIG", "SET", "appendfsync", "always"]).await?;
        }
        waiting.push(stream_entries(&run).await?);
        if is_killed {
            run.installation.redis.kill().await;
        } else {
            run.installation.redis.stop().await;
        }
        run.installation.signal_postgres(Signal::SIGCONT);
        run.installation.redis.restart().await?;
        sleep(Duration::from_secs(2)).await;
    }
    let mut ended = run.end(Allowed::default()).await?;
    ended.figure("stream entries at the restarts", format!("{waiting:?}"));
    ended.proves("charges waited for Postgres", waiting.iter().all(|entries| *entries > 50));
    reopened(ended).await
}

async fn stream_entries(run: &Run) -> anyhow::Result<u64> {
    let mut entries = 0;
    for stream in run.installation.redis::<Vec<String>>(&["KEYS", "qg:*:ev:*"]).await? {
        entries += run.installation.redis::<u64>(&["XLEN", &stream]).await?;
    }
    Ok(entries)
}

pub(crate) async fn paused(seed: u64) -> anyhow::Result<Verdict> {
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
        // If the breaker did not open, each refusal would wait for Redis.
        ended.proves("few refusals waited for Redis", slow * 20 < refusals.len());
    }
    Ok(ended.verdict())
}

/// Redis is away for longer than holds live. Commits that Postgres accepted in time are charged in full, although their
/// users have used the AP again before the commits are applied.
pub(crate) async fn away_beyond_holds(seed: u64) -> anyhow::Result<Verdict> {
    const HOLDERS: usize = 10;
    const LIFE: Duration = Duration::from_secs(5);
    let mut run = Run::begin(Options::default(), seed).await?;
    let holder = |number: usize| format!("holder-{number}");
    let mut holds = Vec::new();
    for number in 0..HOLDERS {
        let body = json!({"userUuid": holder(number), "sessionId": "s", "ap": QUOTA, "ttlSeconds": LIFE.as_secs()});
        let (status, answer) = run.installation.gates[0].post("/api/chat/quota/reservations", &body).await?;
        ensure!(status == 201, "a reservation got {status}: {answer}");
        holds.push(answer["reservationId"].as_str().context("a reservation has no id")?.to_owned());
    }
    run.fault_begins();
    run.installation.redis.pause();
    // From here on no commit is sent to Redis, which would execute it when it resumes.
    while run.installation.gates[1].metric("quota_gate_breaker_open").await.unwrap_or(0.0) < 1.0 {
        sleep(Duration::from_millis(20)).await;
    }
    let committed = async |id: &String| {
        run.installation.gates[1].post(&format!("/api/chat/quota/reservations/{id}/commit"), &json!({})).await
    };
    for answer in join_all(holds.iter().map(committed)).await {
        let (status, answer) = answer?;
        ensure!(status == 202, "a commit during the outage got {status}: {answer}");
    }
    sleep(LIFE).await;
    // Inbox workers skip items that another transaction has locked: the users spend their AP first.
    let mut first = run.installation.pool.begin().await?;
    sqlx::query("select id from inbox where user_uuid like 'holder-%' for update").execute(&mut *first).await?;
    run.installation.redis.resume();
    for number in 0..HOLDERS {
        let body = json!({"userUuid": holder(number), "sessionId": "s", "ap": QUOTA});
        let (status, answer) = run.installation.gates[0].post("/api/chat/quota/consume", &body).await?;
        ensure!(status == 200, "a message after the hold's expiry got {status}: {answer}");
    }
    first.rollback().await?;
    let accepted = (0..HOLDERS).map(|number| (holder(number), QUOTA)).collect();
    let mut ended = run.end(Allowed { accepted, ..Allowed::default() }).await?;
    let (charged, overage): (i64, i64) = sqlx::query_as(
        "select coalesce(sum(ap_used), 0)::bigint, coalesce(sum(overage), 0)::bigint
         from chat_usage_logs where user_uuid like 'holder-%'",
    )
    .fetch_one(&ended.installation.pool)
    .await?;
    let promised = i64::from(QUOTA) * i64::try_from(HOLDERS)?;
    ended.figure("accepted in time and charged after the expiry", format!("{} AP", charged - promised));
    if (charged, overage) != (2 * promised, 0) {
        ended.violated(format!(
            "I6: {charged} AP and {overage} AP of overage, though {promised} AP were accepted in time"
        ));
    }
    Ok(ended.verdict())
}

/// Redis executes calls, but their answers are lost.
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
    let lost = run.lost_now();
    run.installation.redis::<()>(&["FLUSHALL"]).await?;
    let mut ended = run.end(lost).await?;
    let generations = ended.installation.reopened().await?;
    ended.proves("partitions were reopened", generations > 0);
    Ok(ended.verdict())
}

pub(crate) async fn restarts_empty(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options::default(), seed).await?;
    let lost = run.lost_now();
    run.installation.redis.kill().await;
    let data = run.installation.redis.dir().join("appendonlydir");
    std::fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    run.installation.redis.restart().await?;
    reopened(run.end(lost).await?).await
}

pub(crate) async fn restarts_from_older_copy(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options::default(), seed).await?;
    let data = run.installation.redis.dir().join("appendonlydir");
    let copy = run.installation.redis.dir().join("copy");
    copy_dir(&data, &copy)?;
    sleep(Duration::from_secs(4)).await;
    run.fault_begins();
    let lost = run.lost_now();
    run.installation.redis.kill().await;
    std::fs::remove_dir_all(&data)?;
    copy_dir(&copy, &data)?;
    run.installation.redis.restart().await?;
    reopened(run.end(lost).await?).await
}

pub(crate) async fn fails_over(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options::default(), seed).await?;
    let replica = Replica::of(&run.installation).await?;
    sleep(Duration::from_millis(500)).await;
    let silent_since = run.now();
    replica.take_over(&mut run.installation, Duration::from_millis(500)).await?;
    run.fault_begins();
    let lost = Allowed::loss(silent_since, run.now());
    reopened(run.end(lost).await?).await
}

pub(crate) async fn splits(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options::default(), seed).await?;
    let replica = Replica::of(&run.installation).await?;
    sleep(Duration::from_millis(500)).await;
    run.fault_begins();
    let from = run.now();
    let stopped = replica.split(&mut run.installation, 0).await?;
    let split = Split { left_behind: 0, from, to: run.at(stopped) };
    let mut ended = run.end(Allowed { splits: vec![split], ..Allowed::loss(from, split.to) }).await?;
    let old = ended.history.admitted(|event| event.gate == 0 && event.sent > from && event.answered < split.to);
    let new = ended.history.admitted(|event| event.gate == 1 && event.sent > from && event.answered < split.to);
    ended.figure("admitted by the old primary after the split", old);
    ended.proves("both primaries accepted messages", old > 0 && new > 0);
    let stopped =
        ended.history.count(|event| event.gate == 0 && event.sent > from && event.outcome == Outcome::Refused);
    ended.proves("the old primary stopped accepting messages", stopped > 0);
    Ok(ended.verdict())
}

pub(crate) async fn functions_removed(seed: u64) -> anyhow::Result<Verdict> {
    let run = Run::begin(Options::default(), seed).await?;
    for _ in 0..5 {
        run.installation.redis::<()>(&["FUNCTION", "FLUSH"]).await?;
        run.installation.redis::<()>(&["SCRIPT", "FLUSH"]).await?;
        sleep(Duration::from_millis(200)).await;
    }
    let before = run.now();
    run.installation.redis::<()>(&["ACL", "SETUSER", "quota_gate", "-fcall"]).await?;
    sleep(Duration::from_secs(1)).await;
    run.installation.redis::<()>(&["ACL", "SETUSER", "quota_gate", "+fcall"]).await?;
    run.installation.redis::<()>(&["ACL", "LOG", "RESET"]).await?;
    let mut ended = run.end(Allowed::default()).await?;
    let fault = ended.fault;
    let quiet = ended.history.count(|event| {
        event.sent > fault && event.answered < before && matches!(event.outcome, Outcome::Refused | Outcome::Unknown)
    });
    ended.figure("refused while functions were removed", quiet);
    let refused = ended.history.count(|event| event.sent > before && event.outcome == Outcome::Refused);
    ended.proves("messages were refused without the permission", refused > 0);
    let unknown = ended.history.unknown();
    if unknown > 0 {
        ended.violated(format!("{unknown} outcomes are unknown, though nothing was executed"));
    }
    Ok(ended.verdict())
}

pub(crate) async fn slot_moves(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options { cluster: true, ..Options::default() }, seed).await?;
    let other = cluster::second_node(&run.installation).await?;
    let slot: i64 = run.installation.redis(&["CLUSTER", "KEYSLOT", "qg:{00}:gen"]).await?;
    run.fault_begins();
    cluster::move_slot(slot, &run.installation.redis, &other).await?;
    sleep(cluster::MOMENT).await;
    cluster::move_slot(slot, &other, &run.installation.redis).await?;
    let errors: String = run.installation.redis(&["INFO", "errorstats"]).await?;
    let mut ended = run.end(Allowed::default()).await?;
    for code in ["TRYAGAIN", "ASK", "MOVED"] {
        ended.proves(&format!("Redis answered {code}"), errors.contains(&format!("errorstat_{code}:")));
    }
    let (fault, healed) = (ended.fault, ended.healed);
    let refused =
        ended.history.count(|event| event.sent > fault && event.sent < healed && event.outcome == Outcome::Refused);
    ended.proves("messages of the slot's users were refused", refused > 20);
    let served = ended.history.admitted(|event| event.sent > fault && event.answered < healed);
    ended.proves("messages of other users were served", served > 20);
    let unknown = ended.history.unknown();
    if unknown > 0 {
        ended.violated(format!("{unknown} outcomes are unknown, though nothing was executed"));
    }
    let reopened = ended.installation.reopened().await?;
    if reopened > 0 {
        ended.violated(format!("{reopened} partitions were reopened, though nothing was lost"));
    }
    Ok(ended.verdict())
}

/// Configured to allow messages while Redis is unavailable. Each is charged in the end.
pub(crate) async fn messages_allowed(seed: u64) -> anyhow::Result<Verdict> {
    let options = Options::default().with("QUOTA_GATE__QUOTA__ON_REDIS_FAILURE", "allow");
    let mut run = Run::begin(options, seed).await?;
    run.installation.redis.pause();
    sleep(Duration::from_secs(6)).await;
    run.installation.redis.resume();
    let mut ended = run.end(Allowed::default()).await?;
    let degraded = ended.history.count(|event| matches!(event.outcome, Outcome::Charged { degraded: true, .. }));
    ended.figure("messages allowed without Redis", degraded);
    ended.proves("messages were allowed without Redis", degraded > 50);
    Ok(ended.verdict())
}
