//! Gates whose configurations name other levels, and changes of the levels, while a month ends.

use std::time::Duration;

use anyhow::{Context, ensure};
use chrono::{DateTime, Datelike, TimeZone, Utc};
use quota_gate::domain::clock::Clock;
use tokio::time::{Instant, sleep};

use super::clocks::{MONTHS, Offset};
use crate::audit::Allowed;
use crate::{
    gate::Gate,
    installation::{ASK_MAX, Installation, Options, QUOTA},
    load::USERS,
    plans::PLAN_USERS,
    run::{Run, Verdict},
};

const RAISED: u32 = QUOTA + 50;
const LOWERED: u32 = QUOTA + 20;
const FREE: &str = "QUOTA_GATE__LEVELS__FREE";
/// Seconds until the month ends: enough for the start, a restart and a change.
const MONTH_ENDS_IN: i64 = 35;

/// One gate after the other gets a new configuration, and `levels apply` is killed and run again, in the last seconds
/// of a month. So both stores roll while gates have different configurations and a change has not reached all users.
pub(crate) async fn configured_in_turn(seed: u64) -> anyhow::Result<Verdict> {
    let clock = Offset::new()?;
    let mut options = Options { balanced: true, ..Options::default() }
        .with("QUOTA_GATE__SERVER__STOP_DELAY_MS", "2000")
        .with("QUOTA_GATE__RESETTER__ENABLED", "false");
    options.redis.environment = clock.environment();
    options.settings.extend(clock.environment());
    let now = Clock::machine().now();
    let (year, month) = if now.month() == 12 { (now.year() + 1, 1) } else { (now.year(), now.month() + 1) };
    let end: DateTime<Utc> = Utc.with_ymd_and_hms(year, month, 1, 0, 0, 0).single().context("a month begins")?;
    clock.set((end - now).num_seconds() - MONTH_ENDS_IN)?;
    let mut run = Run::begin(options, seed).await?;

    // The other gate, and both stores, keep the levels of the installation.
    reconfigure(&mut run.installation.gates[0], RAISED).await?;
    ensure!(quota_of_free(&run.installation).await? == i64::from(QUOTA), "a start has changed the levels");
    let mut killed = run.installation.gates[0].spawn(&["levels", "apply"])?;
    let began = Instant::now();
    while quota_of_free(&run.installation).await? != i64::from(RAISED) {
        ensure!(began.elapsed() < ASK_MAX, "the levels are not stored");
        sleep(Duration::from_millis(5)).await;
    }
    killed.kill()?;
    killed.wait()?;
    let unfinished = "select count(*) from level_changes where moved_at is null";
    let interrupted = run.installation.number(unfinished).await?;
    // Finishes the change, once the month has ended.
    apply(&run.installation.gates[0]).await?;
    let month_ended = Clock::machine().now() >= now + chrono::TimeDelta::seconds(MONTH_ENDS_IN);
    reconfigure(&mut run.installation.gates[1], LOWERED).await?;
    apply(&run.installation.gates[1]).await?;

    let mut ended = run.end(Allowed { raised: Some((USERS + PLAN_USERS, RAISED)), ..Allowed::default() }).await?;
    ended.proves("applying was interrupted", interrupted == 1);
    ended.proves("the month ended before all users were moved", month_ended);
    let periods = ended.installation.number(MONTHS).await?;
    ended.proves("both months were charged", periods == 2);
    let unsynced = "select count(*) from chat_quotas where synced_version < level_version";
    let began = Instant::now();
    while ended.installation.number(unsynced).await? > 0 {
        ensure!(began.elapsed() < ASK_MAX, "quotas are not sent to Redis");
        sleep(Duration::from_millis(50)).await;
    }
    let verdict = ended.installation.verifier()?.verify().await?;
    for drift in verdict.level_drift.iter().take(3) {
        ended.violated(format!("{drift:?}"));
    }
    if ended.installation.number(unfinished).await? > 0 {
        ended.violated("a change of the levels is not finished");
    }
    let moved = ended.installation.number("select count(*) from chat_quotas where level_version >= 2").await?;
    ended.figure("users with changed quotas", moved);
    ended.proves("users were moved", moved > 100);
    let free = "select count(*) from chat_quotas where membership_level = 'free'
        and monthly_quota not in (15, 120)";
    // 15 is the own quota of users that buy packs.
    let others = ended.installation.number(free).await?;
    if others > 0 {
        ended.violated(format!("{others} users do not have the {LOWERED} AP of their level"));
    }
    Ok(ended.verdict())
}

async fn reconfigure(gate: &mut Gate, quota: u32) -> anyhow::Result<()> {
    gate.stop().await?;
    gate.set(FREE, &quota.to_string());
    gate.restart().await
}

async fn quota_of_free(installation: &Installation) -> anyhow::Result<i64> {
    installation.number("select monthly_quota::bigint from membership_levels where name = 'free'").await
}

async fn apply(gate: &Gate) -> anyhow::Result<()> {
    let mut applying = gate.spawn(&["levels", "apply"])?;
    loop {
        if let Some(status) = applying.try_wait()? {
            ensure!(status.success(), "levels apply failed");
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
}
