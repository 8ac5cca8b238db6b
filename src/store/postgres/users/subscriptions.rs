//! `subscriptions`: the state of each subscription, and the levels that follow from it.
//!
//! An event is recorded and applied in one transaction, which locks the subscription first and then the rows of its
//! users. So an event is applied entirely or not at all, and a level always follows from all events that were applied.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time::sleep;

use crate::domain::{
    author::Author,
    calendar::Period,
    level::{Level, Levels},
    level_change::Effective,
    subscription::{PaidDays, Stage, SubscriptionState},
    user_id::UserId,
};
use crate::store::postgres::{
    NewLevel, NewUser, Postgres, PostgresError,
    connections::Transaction,
    users::{
        change_level::{self, LevelChange},
        packs,
        subscription_events::{Deciding, deciding, parse_user, record},
    },
};

/// Distinguishes locks of subscriptions from the gate's other advisory locks.
const LOCK_CLASS: i32 = 0x7173; // "qs"
/// SQLSTATE of `nowait` for a locked row.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// Attempts to lock both users of a subscription that moves from one to the other.
const TRIES: u32 = 50;
const TRY_PAUSE: Duration = Duration::from_millis(20);

/// An event whose levels are known.
#[derive(Debug, Clone, Copy)]
pub struct AppliedEvent<'a> {
    /// Id of the event.
    pub id: &'a str,
    /// Id of the subscription.
    pub subscription: &'a str,
    /// Time of the event.
    pub at: DateTime<Utc>,
    /// Part of the subscription's life.
    pub stage: Stage,
    /// State after the event.
    pub state: &'a SubscriptionState,
    /// State before the event, if known.
    pub before: Option<&'a SubscriptionState>,
    /// The days that the subscription is paid for, if they determine the user's periods.
    pub paid_days: Option<PaidDays>,
    /// Whether packs are voided when no subscription of their user pays for a level any more.
    pub packs_need_plan: bool,
}

/// What an event changed.
#[derive(Debug, Default)]
pub struct EventChanges {
    /// Changes of levels.
    pub levels: Vec<LevelChange>,
    /// Users whose packs were voided.
    pub without_packs: Vec<UserId>,
}

/// The row of a subscription.
struct Known {
    event_id: String,
    event_at: DateTime<Utc>,
    applied: bool,
    user: UserId,
}

/// What the deciding event says that the user has paid for.
struct Paid<'a> {
    level: Option<&'a str>,
    days: Option<PaidDays>,
}

enum Attempt {
    /// The event is recorded, and this changed.
    Done(EventChanges),
    /// A row that may not be waited for is locked.
    Busy(PostgresError),
}

impl Postgres {
    /// Records an event once, and gives each user that it concerns the highest level that the user's subscriptions pay
    /// for, or the lowest. Returns the changes.
    ///
    /// # Errors
    /// If Postgres is unavailable; nothing is changed, and the event may be applied again.
    pub async fn apply_subscription(
        &self,
        event: &AppliedEvent<'_>,
        levels: &Levels,
        first: &NewUser,
        today_start: DateTime<Utc>,
    ) -> Result<EventChanges, PostgresError> {
        // Not in the transaction: it would lock a new row before those of other users.
        change_level::create(&self.pool, &event.state.user, first).await?;
        let mut tries = 0;
        loop {
            match self.try_apply(event, levels, first, today_start).await? {
                Attempt::Done(changes) => return Ok(changes),
                Attempt::Busy(error) if tries == TRIES => return Err(error),
                Attempt::Busy(_) => {
                    tries += 1;
                    sleep(TRY_PAUSE).await;
                }
            }
        }
    }

    async fn try_apply(
        &self,
        event: &AppliedEvent<'_>,
        levels: &Levels,
        first: &NewUser,
        today_start: DateTime<Utc>,
    ) -> Result<Attempt, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("select pg_advisory_xact_lock($1, hashtext($2))", LOCK_CLASS, event.subscription)
            .execute(&mut transaction)
            .await?;
        let known = known(&mut transaction, event.subscription).await?;
        if known.as_ref().is_some_and(|known| known.applied && known.event_id == event.id) {
            return Ok(Attempt::Done(EventChanges::default()));
        }
        if !record(&mut transaction, event, first.now).await? {
            return Ok(Attempt::Done(EventChanges::default()));
        }
        // An older event may decide too: it can be the state in which the latest second began.
        let second = known.as_ref().map_or(event.at, |known| known.event_at.max(event.at));
        let deciding = deciding(&mut transaction, event.subscription, second).await?;
        let Some(deciding) = deciding.filter(|deciding| !known.as_ref().is_some_and(|known| known.decided(deciding)))
        else {
            transaction.commit().await?;
            return Ok(Attempt::Done(EventChanges::default()));
        };
        let users: BTreeSet<&UserId> = known.iter().map(|known| &known.user).chain([&deciding.user]).collect();
        if let Some(error) = lock(&mut transaction, &users).await? {
            return Ok(Attempt::Busy(error));
        }
        let mut had_plan = Vec::new();
        for user in &users {
            had_plan.push(!paid_levels(&mut transaction, user).await?.is_empty());
        }
        store(&mut transaction, event, &deciding).await?;
        let mut changes = EventChanges::default();
        for (user, had_plan) in users.into_iter().zip(had_plan) {
            let author = author(event, &deciding, user);
            // Those of another event were applied with it.
            let paid_days = event.paid_days.filter(|_| *user == deciding.user && deciding.event_id == event.id);
            let paid = Paid { level: deciding.level.as_deref(), days: paid_days };
            let paid_levels = paid_levels(&mut transaction, user).await?;
            let target = levels.highest_of(paid_levels.iter().map(String::as_str)).unwrap_or_else(|| levels.lowest());
            changes.levels.extend(follow(&mut transaction, user, &author, (&paid, target), first, today_start).await?);
            if event.packs_need_plan && had_plan && paid_levels.is_empty() {
                let lapsed = packs::void_left(&mut transaction, user, &author, first.now).await?;
                changes.without_packs.extend(lapsed.then(|| user.clone()));
            }
        }
        transaction.commit().await?;
        Ok(Attempt::Done(changes))
    }
}

impl Known {
    /// Whether this state is the one that the event gives.
    fn decided(&self, deciding: &Deciding) -> bool {
        self.applied && self.event_id == deciding.event_id
    }
}

async fn known(connection: &mut Transaction<'_>, subscription: &str) -> Result<Option<Known>, PostgresError> {
    let row = sqlx::query!(
        "select user_uuid, event_id, event_at, applied from subscriptions where subscription = $1",
        subscription,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.applied {
        // A gate of an older version records no events, and the resetter deletes old ones.
        sqlx::query!(
            "insert into subscription_events
                 (event_id, subscription, event_at, stage, user_uuid, membership_level, received_at)
             select event_id, subscription, event_at, $2, user_uuid, membership_level, event_at
             from subscriptions
             where subscription = $1
             on conflict (event_id) do nothing",
            subscription,
            Stage::Running as i16,
        )
        .execute(connection)
        .await?;
    }
    Ok(Some(Known {
        event_id: row.event_id,
        event_at: row.event_at,
        applied: row.applied,
        user: parse_user(&row.user_uuid, subscription)?,
    }))
}

/// Locks the rows of these users. Waits only for the first one: a flush locks rows in another order. Returns the error
/// if another row is locked.
async fn lock(
    connection: &mut Transaction<'_>,
    users: &BTreeSet<&UserId>,
) -> Result<Option<PostgresError>, PostgresError> {
    for (index, user) in users.iter().enumerate() {
        if index == 0 {
            sqlx::query!("select from chat_quotas where user_uuid = $1 for update", user.as_str())
                .execute(&mut *connection)
                .await?;
            continue;
        }
        let locked = sqlx::query!("select from chat_quotas where user_uuid = $1 for update nowait", user.as_str())
            .execute(&mut *connection)
            .await;
        match locked {
            Ok(_) => {}
            Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == LOCK_NOT_AVAILABLE) => {
                return Ok(Some(sqlx::Error::Database(error).into()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

async fn store(
    connection: &mut Transaction<'_>,
    event: &AppliedEvent<'_>,
    deciding: &Deciding,
) -> Result<(), PostgresError> {
    sqlx::query!(
        "insert into subscriptions (subscription, user_uuid, membership_level, event_id, event_at, applied)
         values ($1, $2, $3, $4, $5, true)
         on conflict (subscription) do update
         set user_uuid = excluded.user_uuid,
             membership_level = excluded.membership_level,
             event_id = excluded.event_id,
             event_at = excluded.event_at,
             applied = true",
        event.subscription,
        deciding.user.as_str(),
        deciding.level,
        deciding.event_id,
        deciding.event_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the levels that the user's subscriptions pay for.
async fn paid_levels(connection: &mut Transaction<'_>, user: &UserId) -> Result<Vec<String>, PostgresError> {
    let paid = sqlx::query_scalar!(
        r#"select membership_level as "level!"
         from subscriptions
         where user_uuid = $1
           and membership_level is not null"#,
        user.as_str(),
    );
    Ok(paid.fetch_all(connection).await?)
}

/// Gives a user, whose row is locked, the level that the user's subscriptions pay for.
async fn follow(
    connection: &mut Transaction<'_>,
    user: &UserId,
    author: &Author,
    (subscribed, target): (&Paid<'_>, &Level),
    first: &NewUser,
    today_start: DateTime<Utc>,
) -> Result<Option<LevelChange>, PostgresError> {
    let row = change_level::roll(connection, user, first, today_start).await?;
    // Of several subscriptions, the one that pays for the level determines the periods.
    let days = subscribed.days.filter(|_| subscribed.level == Some(target.name.as_str()));
    let begins = days.map(|days| Period::beginning_on(days.first)).filter(|period| row.may_begin(*period, first));
    let is_same_anchor = days.is_none_or(|days| days.anchor_day == row.anchor_day);
    if row.pending.unwrap_or(row.level) == target.code && is_same_anchor && begins.is_none() {
        return Ok(None);
    }
    // A period that began after the last paid day was not paid for.
    let is_unpaid = subscribed.days.is_some_and(|days| Period::beginning_on(days.end) <= row.period);
    let effective = if is_unpaid { Effective::Now } else { Effective::Fair };
    let new = NewLevel { level: &target.name, effective, anchor_day: days.map(|days| days.anchor_day), begins };
    change_level::change(connection, row, new, author, first, today_start).await.map(Some)
}

fn author(event: &AppliedEvent<'_>, deciding: &Deciding, user: &UserId) -> Author {
    let state = if *user != deciding.user {
        "has moved to another user"
    } else if deciding.level.is_some() {
        "is live"
    } else if deciding.stage == Stage::Ended as i16 {
        "has ended"
    } else {
        "is not paid for"
    };
    Author { by: "billing".into(), reason: format!("{}: subscription {} {state}", event.id, event.subscription) }
}
