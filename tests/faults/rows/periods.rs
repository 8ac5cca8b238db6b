//! Periods that end on anchor days under load.

use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Datelike, Months, NaiveDate, TimeDelta, Utc};
use quota_gate::domain::clock::Clock;
use serde_json::json;
use tokio::time::sleep;

use super::clocks::Offset;
use crate::audit::Allowed;
use crate::{
    installation::{Installation, Options},
    load::user,
    plans::{self, ANCHORED, set_plan},
    run::{Run, Verdict},
};

/// The anchor day of some users.
const ANCHOR: u32 = 15;
/// Seconds from the start of the load until their period ends.
const ENDS_IN: i64 = 6;

/// The users get their anchor day in one month, when it ends no period, because that would have less than 28 days. The
/// load begins in the next month, seconds before the period ends. Meanwhile the client of `plans` goes on changing
/// levels and other users' anchor days.
pub(crate) async fn end_under_load(seed: u64) -> anyhow::Result<Verdict> {
    let clock = Offset::new()?;
    let mut options = Options::default().with("QUOTA_GATE__RESETTER__ENABLED", "false");
    options.redis.environment = clock.environment();
    options.settings.extend(clock.environment());
    let now = Clock::machine().now();
    let month = now.date_naive().with_day(1).context("a month begins")? + Months::new(1);
    clock.set((noon(month, 20)? - now).num_seconds())?;
    let installation = Installation::start(options).await?;
    plans::begin(&installation).await?;
    for number in ANCHORED {
        set_plan(&installation, number, &json!({"membershipLevel": "free", "anchorDay": ANCHOR})).await?;
        installation.gates[0].held(&user(number)).await.context("a user has no quota")?;
    }
    let end = noon(month + Months::new(1), ANCHOR)? - TimeDelta::hours(12);
    clock.set((end - Clock::machine().now()).num_seconds() - ENDS_IN)?;
    let run = Run::begin_on(installation, false, true, seed).await?;
    let machine_end = Clock::machine().now() + TimeDelta::seconds(ENDS_IN);
    while Clock::machine().now() < machine_end {
        sleep(Duration::from_millis(50)).await;
    }
    let mut ended = run.end(Allowed::default()).await?;
    let second = "select count(distinct user_uuid) from chat_usage_logs where period > 1000000 and period % 100 = 15";
    let second = ended.installation.number(second).await?;
    ended.figure("users charged in a second period", second);
    ended.proves("periods ended under load", second > 0);
    Ok(ended.verdict())
}

/// Noon of a day of a month.
fn noon(month: NaiveDate, day: u32) -> anyhow::Result<DateTime<Utc>> {
    let noon = month.with_day(day).and_then(|date| date.and_hms_opt(12, 0, 0));
    Ok(noon.context("each month has this day")?.and_utc())
}
