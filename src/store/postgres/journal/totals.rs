//! The users' totals: adds a batch of log rows to `chat_quotas` and `chat_quota_months`, and what grants paid to
//! `grants`. `meter_totals` adds what was used on other meters, `received_grants` makes the grants of transfers.
//!
//! Events are first summed per user and period, so a user with a hundred messages costs one update. Nearly all events
//! are in their row's period and need one statement. For the others, the row rolls first, or a closed month is updated.
//!
//! Locks are taken in one order: the partition's watermark, users' rows, closed months. The resetter skips locked rows,
//! and a change of level locks one row, so there are no deadlocks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};

use crate::domain::{
    calendar::{AnchorDay, Calendar, Period},
    level::{LevelCode, Levels},
    usage::UsageEvent,
    user_id::UserId,
};
use crate::store::postgres::{
    PostgresError,
    connections::Transaction,
    journal::{grant_charges, meter_totals, received_grants},
    users::roll::{Rolls, parse_anchor_day},
};

#[derive(Debug, Default)]
struct Sum {
    /// What the plan paid: it counts in the period.
    ap: i64,
    /// What the plan and grants paid.
    total: i64,
    overage: i64,
    level: Option<LevelCode>,
}

#[derive(Debug, Default)]
struct Batch<'a> {
    users: Vec<&'a str>,
    periods: Vec<i32>,
    aps: Vec<i64>,
    totals: Vec<i64>,
    overages: Vec<i64>,
}

/// Adds events that are in the log and were not counted before.
pub(in crate::store::postgres) async fn add(
    connection: &mut Transaction<'_>,
    events: &[&UsageEvent],
    levels: &Levels,
    calendar: Calendar,
    now: DateTime<Utc>,
) -> Result<(), PostgresError> {
    let mut sums: BTreeMap<(&UserId, Period), Sum> = BTreeMap::new();
    let mut at = now;
    for event in events {
        // An event of another meter adds nothing here, but brings the row to its period.
        let sum = sums.entry((&event.user, event.period)).or_default();
        if event.meter.is_chat() {
            sum.ap += i64::from(event.plan_ap().get());
            sum.total += i64::from(event.ap.get());
            sum.overage += i64::from(event.overage.get());
        }
        sum.level = Some(event.level);
        at = at.max(event.at);
    }
    let added = add_to_current(connection, &Batch::of(&sums, |_| true), at).await?;
    // Keep what was not added. Reading the periods again would be wrong: a row may have rolled since, or while the
    // update waited for it.
    sums.retain(|(user, period), _| added.get(user.as_str()) != Some(&i32::from(*period)));
    let periods: BTreeSet<Period> = sums.keys().map(|(_, period)| *period).collect();
    for period in periods {
        let batch = Batch::of(&sums, |other| other == period);
        create_missing(connection, &sums, period, calendar, levels, at).await?;
        // From here on the rows do not change period: after the roll, each is in this period or a later one.
        let mut rolls = Rolls::default();
        for (user, anchor_day) in lock(connection, &batch).await? {
            rolls.add(&user, period, anchor_day, calendar);
        }
        rolls.roll(connection, at).await?;
        add_to_current(connection, &batch, at).await?;
        add_to_closed(connection, &batch, at).await?;
    }
    meter_totals::add(connection, events, at).await?;
    grant_charges::add(connection, events, now).await?;
    received_grants::add(connection, events).await
}

impl<'a> Batch<'a> {
    fn of(sums: &BTreeMap<(&'a UserId, Period), Sum>, wanted: impl Fn(Period) -> bool) -> Self {
        let mut batch = Self::default();
        for ((user, period), sum) in sums.iter().filter(|((_, period), _)| wanted(*period)) {
            batch.users.push(user.as_str());
            batch.periods.push((*period).into());
            batch.aps.push(sum.ap);
            batch.totals.push(sum.total);
            batch.overages.push(sum.overage);
        }
        batch
    }
}

/// Adds to rows that are in the period of the charge. Returns the users whose rows it found, and their periods.
async fn add_to_current(
    connection: &mut Transaction<'_>,
    batch: &Batch<'_>,
    at: DateTime<Utc>,
) -> Result<HashMap<String, i32>, PostgresError> {
    let rows = sqlx::query!(
        "update chat_quotas as quotas
         set monthly_used = quotas.monthly_used + batch.ap,
             monthly_overage = quotas.monthly_overage + batch.overage,
             total_used = quotas.total_used + batch.total,
             updated_at = greatest(quotas.updated_at, $5)
         from unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $6::bigint[]) as batch (user_uuid, period, ap, overage, total)
         where quotas.user_uuid = batch.user_uuid
           and quotas.period = batch.period
         returning quotas.user_uuid, quotas.period",
        &batch.users as &[&str],
        &batch.periods,
        &batch.aps,
        &batch.overages,
        at,
        &batch.totals,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.user_uuid, row.period)).collect())
}

/// Adds to rows that are in a later period: the month of the charge is closed or never began.
async fn add_to_closed(
    connection: &mut Transaction<'_>,
    batch: &Batch<'_>,
    at: DateTime<Utc>,
) -> Result<(), PostgresError> {
    sqlx::query!(
        "with late as (
             select batch.*, quotas.membership_level, quotas.monthly_quota
             from unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $6::bigint[]) as batch (user_uuid, period, ap, overage, total)
             join chat_quotas as quotas
               on quotas.user_uuid = batch.user_uuid
              and period_begins(quotas.period) > period_begins(batch.period)
         ),
         closed as (
             insert into chat_quota_months as months (user_uuid, period, membership_level, monthly_quota, used, overage)
             select user_uuid, period, membership_level, monthly_quota, ap, overage
             from late
             order by user_uuid
             on conflict (user_uuid, period) do update
             set used = months.used + excluded.used,
                 overage = months.overage + excluded.overage
         )
         update chat_quotas as quotas
         set total_used = quotas.total_used + late.total,
             updated_at = greatest(quotas.updated_at, $5)
         from late
         where quotas.user_uuid = late.user_uuid",
        &batch.users as &[&str],
        &batch.periods,
        &batch.aps,
        &batch.overages,
        at,
        &batch.totals,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Creates missing rows: Postgres was restored from a time before the user was seen.
async fn create_missing(
    connection: &mut Transaction<'_>,
    sums: &BTreeMap<(&UserId, Period), Sum>,
    period: Period,
    calendar: Calendar,
    levels: &Levels,
    at: DateTime<Utc>,
) -> Result<(), PostgresError> {
    let of_period = sums.iter().filter(|((_, other), _)| *other == period);
    let (users, names): (Vec<&str>, Vec<&str>) = of_period
        .map(|((user, _), sum)| {
            let level = sum.level.and_then(|code| levels.coded(code)).unwrap_or_else(|| levels.lowest());
            (user.as_str(), level.name.as_str())
        })
        .unzip();
    sqlx::query!(
        "insert into chat_quotas (user_uuid, membership_level, period, monthly_quota, quota_reset_at, created_at, updated_at)
         select batch.user_uuid, levels.name, $3, levels.monthly_quota, $4, $5, $5
         from unnest($1::text[], $2::text[]) as batch (user_uuid, level)
         join membership_levels as levels on levels.name = batch.level
         order by batch.user_uuid
         on conflict (user_uuid) do nothing",
        &users as &[&str],
        &names as &[&str],
        i32::from(period),
        calendar.period_end(period, AnchorDay::FIRST),
        at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Locks the rows of a batch, and returns the anchors of their users.
async fn lock(connection: &mut Transaction<'_>, batch: &Batch<'_>) -> Result<Vec<(String, AnchorDay)>, PostgresError> {
    let rows = sqlx::query!(
        "select user_uuid, anchor_day
         from chat_quotas
         where user_uuid = any ($1)
         order by user_uuid
         for update",
        &batch.users as &[&str],
    )
    .fetch_all(connection)
    .await?;
    let anchor_of = |row: i16, user: &str| {
        parse_anchor_day(row).ok_or_else(|| PostgresError::inconsistent("chat_quotas", "anchor_day", user))
    };
    rows.into_iter()
        .map(|row| anchor_of(row.anchor_day, &row.user_uuid).map(|anchor_day| (row.user_uuid, anchor_day)))
        .collect()
}
