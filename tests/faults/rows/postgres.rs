//! Faults of Postgres: it is killed, slow or paused, loses a connection at COMMIT, or is restored from an older copy.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};

use crate::audit::Allowed;
use crate::{
    history::Outcome,
    installation::{Installation, Options, PARTITIONS, copy_dir},
    load::{HOT_USERS, USERS},
    proxy::{Mode, Trap},
    run::{Ended, Run, UNFLUSHED, Verdict},
};

pub(crate) async fn killed(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options::default(), seed).await?;
    let mut caught_at_copy = 0;
    for _ in 0..2 {
        let caught = run.installation.gates[0].postgres.trap(b"copy chat_usage_logs", Trap::Hold);
        caught_at_copy += usize::from(matches!(timeout(Duration::from_secs(5), caught).await, Ok(Ok(()))));
        run.installation.postgres.kill().await;
        sleep(Duration::from_millis(700)).await;
        run.installation.postgres.restart().await?;
        sleep(Duration::from_millis(700)).await;
    }
    let mut ended = run.end(Allowed::default()).await?;
    let (fault, healed) = (ended.fault, ended.healed);
    let hot = ended.history.count(|event| {
        event.sent > fault
            && event.answered < healed
            && event.user < HOT_USERS
            && !matches!(event.outcome, Outcome::Refused | Outcome::Unknown)
    });
    ended.proves("users known to Redis were served", hot > 50);
    ended.proves("Postgres was killed during a batch", caught_at_copy > 0);
    let failures: usize = ended.installation.gates.iter().map(|gate| gate.logged("the flusher failed")).sum();
    ended.figure("flushes that failed", failures);
    ended.proves("flushes failed", failures > 0);
    Ok(ended.verdict())
}

pub(crate) async fn cut_at_commit(seed: u64) -> anyhow::Result<Verdict> {
    let run = Run::begin(Options::default(), seed).await?;
    let mut cut = 0;
    for round in 0..8 {
        let gate = &run.installation.gates[round % 2];
        let caught = gate.postgres.trap_after(b"copy chat_usage_logs", b"COMMIT", Trap::CutAnswer);
        cut += usize::from(matches!(timeout(Duration::from_secs(3), caught).await, Ok(Ok(()))));
        sleep(Duration::from_millis(150)).await;
    }
    let mut ended = run.end(Allowed::default()).await?;
    ended.figure("commits without an answer", cut);
    ended.proves("connections ended at the COMMIT of a flush", cut >= 4);
    Ok(ended.verdict())
}

pub(crate) async fn slow(seed: u64) -> anyhow::Result<Verdict> {
    let run = Run::begin(Options::default(), seed).await?;
    // Each round trip takes a fifth of a second, so a flush takes two seconds.
    for gate in &run.installation.gates {
        gate.postgres.set(Mode::Delay(Duration::from_millis(100)));
    }
    sleep(Duration::from_secs(5)).await;
    for gate in &run.installation.gates {
        gate.postgres.set(Mode::Pass);
    }
    run.installation.signal_postgres(Signal::SIGSTOP);
    sleep(Duration::from_secs(15)).await;
    let grown = run.installation.gates[0].metric("quota_gate_stream_entries").await;
    run.installation.signal_postgres(Signal::SIGCONT);
    Ok(served(run.end(Allowed::default()).await?, grown))
}

/// Checks that users known to Redis noticed nothing.
fn served(mut ended: Ended, grown: Option<f64>) -> Verdict {
    let (fault, healed) = (ended.fault, ended.healed);
    let during = |event: &crate::history::Event| event.sent > fault && event.answered < healed;
    let hot = ended.history.count(|event| during(event) && event.user < HOT_USERS);
    let disturbed = ended.history.count(|event| {
        during(event) && event.user < HOT_USERS && matches!(event.outcome, Outcome::Refused | Outcome::Unknown)
    });
    ended.figure("messages of users known to Redis", format!("{hot}, of them refused or unknown {disturbed}"));
    ended.figure("maximum stream entries", grown.unwrap_or_default());
    ended.proves("users known to Redis were served", hot > 200);
    ended.proves("usage waited", grown.is_some_and(|entries| entries > 50.0));
    if disturbed > 0 {
        ended.violated(format!("{disturbed} messages of users known to Redis were refused or have unknown outcomes"));
    }
    ended.verdict()
}

const ENOUGH: u32 = 1_000_000;

/// For users known to Redis, an outage of ten minutes is no different from one of ten seconds.
pub(crate) async fn unavailable_for_long(seed: u64) -> anyhow::Result<Verdict> {
    // A quota that no user reaches, whatever the level of new users.
    let options = ["FREE", "BASIC", "PLUS", "PRO"].into_iter().fold(Options::default(), |options, level| {
        options.with(&format!("QUOTA_GATE__LEVELS__{level}"), &ENOUGH.to_string())
    });
    let run = Run::begin(options, seed).await?;
    run.installation.signal_postgres(Signal::SIGSTOP);
    sleep(Duration::from_mins(10)).await;
    let grown = run.installation.gates[0].metric("quota_gate_stream_entries").await;
    run.installation.signal_postgres(Signal::SIGCONT);
    let mut ended = run.end(Allowed { raised: Some((USERS, ENOUGH)), ..Allowed::default() }).await?;
    let denied = ended.history.denied();
    if denied > 0 {
        ended.violated(format!("I9: {denied} messages were denied, but no user had used up a quota"));
    }
    Ok(served(ended, grown))
}

/// A backup reads the log while its next partition is due. New users, whose loads read the log too, notice nothing.
pub(crate) async fn partition_behind_reader(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options::default(), seed).await?;
    run.fault_begins();
    let reader = run.installation.long_reader().await?;
    let gates = &run.installation.gates;
    let blocked = async {
        let (mut blocked, mut resets) = (0, 0);
        while resets < 3 {
            let (reset, waiting) = tokio::join!(gates[0].reset(), async {
                let mut waiting = 0;
                for _ in 0..20 {
                    waiting += run.installation.waiting_for_tables().await?;
                    sleep(Duration::from_millis(20)).await;
                }
                anyhow::Ok(waiting)
            });
            resets += usize::from(reset);
            blocked += waiting?;
        }
        anyhow::Ok(blocked)
    };
    let new_users = async {
        let (mut served, mut refused) = (0, 0);
        for number in 0..100 {
            let charged = gates[number % 2].charge(&format!("new-{number}")).await;
            if charged.is_some() { served += 1 } else { refused += 1 }
        }
        (served, refused)
    };
    let (blocked, (served, refused)) = tokio::join!(blocked, new_users);
    let blocked = blocked?;
    reader.rollback().await?;
    let partition = "select count(*) from pg_inherits where inhparent = 'chat_usage_logs'::regclass";
    let during = run.installation.number(partition).await?;
    let reset = run.installation.gates[1].reset().await;
    let after = run.installation.number(partition).await?;
    let mut ended = run.end(Allowed::default()).await?;
    ended.figure("new users served meanwhile", format!("{served}, refused {refused}"));
    ended.proves("the creation of a partition waited for the reader", blocked > 0);
    ended.proves("the partition was created after it", reset && after == during + 1);
    if refused > 0 {
        ended.violated(format!("{refused} messages of new users were refused while a partition was due"));
    }
    Ok(ended.verdict())
}

pub(crate) async fn restored_from_older_copy(seed: u64) -> anyhow::Result<Verdict> {
    // Without voids of grants: one that the copy lacks has ended in Redis only.
    let installation = Installation::start(Options::default()).await?;
    let mut run = Run::begin_on(installation, false, false, seed).await?;
    let (data, copy) = (run.installation.postgres.data(), run.installation.scratch.path().join("older"));
    let copied = run.now().saturating_sub(UNFLUSHED);
    run.installation.postgres.stop().await;
    copy_dir(&data, &copy)?;
    run.installation.postgres.restart().await?;
    sleep(Duration::from_secs(1)).await;
    // Moves half of the partitions to a later generation than in the copy.
    for partition in 0..PARTITIONS / 2 {
        run.installation.redis::<()>(&["DEL", &format!("qg:{{{partition:02}}}:gen")]).await?;
    }
    sleep(Duration::from_secs(2)).await;
    let ahead = run.installation.reopened().await?;
    run.fault_begins();
    run.installation.postgres.kill().await;
    let lost = Allowed::loss(copied, run.now());
    std::fs::remove_dir_all(&data)?;
    copy_dir(&copy, &data)?;
    run.installation.postgres.restart().await?;
    // Postgres has lost what was flushed after the copy. Redis still counts it, so nothing is granted twice.
    let mut ended = run.end(Allowed { postgres_restored: true, ..lost }).await?;
    let differences = ended.installation.verifier()?.verify().await?.differences.len();
    ended.figure("records ahead of Postgres", differences);
    ended.proves("Redis has charges that Postgres has lost", differences > 0);
    let (printed, agrees) = ended.installation.gates[0].command(&["verify", "--repair"])?;
    let adjusted = "select count(*) from chat_usage_logs where kind = 'adjustment'";
    ended.figure("adjustments by verify --repair", ended.installation.number(adjusted).await?);
    if !agrees {
        ended.violated(format!("the stores still differ after verify --repair: {printed}"));
    }
    let generations = ended.installation.reopened().await?;
    ended.proves("the copy had earlier generations", ahead >= i64::from(PARTITIONS / 2));
    ended.proves("partitions were reopened", generations > ahead);
    Ok(ended.verdict())
}
