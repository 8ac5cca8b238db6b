//! `user_changes`: changes of users other than by messages, with author and reason; read together with
//! `rollout_changes`.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{
    ap::Ap,
    author::Author,
    calendar::{AnchorDay, Period},
    level::LevelName,
    user_id::UserId,
};
use crate::store::postgres::{Postgres, PostgresError, connections::Transaction, integers::integer};

/// A change of a user or of the rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Position in the list.
    pub place: Place,
    /// Token id, or the command.
    pub by: String,
    /// Reason in words; empty if none was given.
    pub reason: String,
    /// `level`, `quota`, `blocked`, `unblocked`, `hold_released`, `granted`, `grant_voided`, `forgotten` or `rollout`.
    pub kind: String,
    /// User id; `None` for the rollout.
    pub user: Option<String>,
    /// Level before the change.
    pub level_before: Option<String>,
    /// Level after the change.
    pub level_after: Option<String>,
    /// Anchor day before the change, if it changed.
    pub anchor_before: Option<i16>,
    /// Anchor day after the change, if it changed.
    pub anchor_after: Option<i16>,
    /// First period of a change that is not immediate.
    pub effective_period: Option<i32>,
    /// Id of the released hold.
    pub hold: Option<Uuid>,
    /// Id of the grant that was given or voided.
    pub grant: Option<Uuid>,
    /// AP of the hold or the grant; of a void, what was left.
    pub ap: Option<i32>,
    /// The user's own quota before the change; `None` for that of the level.
    pub quota_before: Option<i32>,
    /// The user's own quota after the change.
    pub quota_after: Option<i32>,
    /// Mode of the rollout.
    pub mode: Option<String>,
    /// Percentage of the rollout.
    pub percentage: Option<f64>,
}

/// Position of a change in the list of all changes, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Time of the change.
    pub at: DateTime<Utc>,
    /// Number of the source table.
    pub source: i32,
    /// Id in that table.
    pub id: i64,
}

/// A recorded release whose transaction [`made`](Self::made) commits. If it is dropped, nothing is recorded.
#[derive(Debug)]
pub struct NotedRelease(Transaction<'static>);

impl Postgres {
    /// Returns changes after a position, newest first, optionally only those of one user.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn changes(
        &self,
        user: Option<&UserId>,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<Change>, PostgresError> {
        let after = after.unwrap_or(Place { at: DateTime::<Utc>::MAX_UTC, source: i32::MAX, id: i64::MAX });
        let rows = sqlx::query!(
            r#"select * from (
                 (
                     select changed_at as "at!", 0 as "source!", id as "id!", changed_by as "by!", reason as "reason!",
                            kind as "kind!", user_uuid as "user", level_before, level_after, anchor_before, anchor_after,
                            effective_period, hold, ap, grant_id, quota_before, quota_after,
                            null::text as mode, null::double precision as percentage
                     from user_changes
                     where ($1::text is null or user_uuid = $1)
                       and (changed_at, id) < ($2, case when $3 > 0 then $5::bigint else $4 end)
                     order by changed_at desc, id desc
                     limit $6
                 )
                 union all
                 (
                     select changed_at, 1, id, changed_by, reason, 'rollout', null, null, null, null, null, null, null, null, null, null, null, mode, percentage
                     from rollout_changes
                     where $1::text is null
                       and (changed_at, id) < ($2, case when $3 > 1 then $5::bigint when $3 = 1 then $4 else 0 end)
                     order by changed_at desc, id desc
                     limit $6
                 )
             ) as changes
             order by 1 desc, 2 desc, 3 desc
             limit $6"#,
            user.map(UserId::as_str),
            after.at,
            after.source,
            after.id,
            i64::MAX,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        let change = rows.into_iter().map(|row| Change {
            place: Place { at: row.at, source: row.source, id: row.id },
            by: row.by,
            reason: row.reason,
            kind: row.kind,
            user: row.user,
            level_before: row.level_before,
            level_after: row.level_after,
            anchor_before: row.anchor_before,
            anchor_after: row.anchor_after,
            effective_period: row.effective_period,
            hold: row.hold,
            ap: row.ap,
            grant: row.grant_id,
            quota_before: row.quota_before,
            quota_after: row.quota_after,
            mode: row.mode,
            percentage: row.percentage,
        });
        Ok(change.collect())
    }

    /// Records that a hold is being released.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn note_release(
        &self,
        user: &UserId,
        (hold, ap): (Uuid, Ap),
        author: &Author,
        now: DateTime<Utc>,
    ) -> Result<NotedRelease, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "insert into user_changes (changed_at, changed_by, reason, user_uuid, kind, hold, ap)
             values ($1, $2, $3, $4, 'hold_released', $5, $6)",
            now,
            author.by,
            author.reason,
            user.as_str(),
            hold,
            integer(ap.get()),
        )
        .execute(&mut transaction)
        .await?;
        Ok(NotedRelease(transaction))
    }
}

impl NotedRelease {
    /// Commits the record after the release.
    ///
    /// # Errors
    /// If Postgres is unavailable: the hold is released, but not recorded.
    pub async fn made(self) -> Result<(), PostgresError> {
        Ok(self.0.commit().await?)
    }
}

/// A change of a user's level or anchor day.
pub(in crate::store::postgres) struct ChangedLevel<'a> {
    /// Before and after.
    pub(in crate::store::postgres) levels: (&'a str, &'a LevelName),
    /// Before and after, if they differ.
    pub(in crate::store::postgres) anchors: Option<(AnchorDay, AnchorDay)>,
    /// First period of a change that is not immediate.
    pub(in crate::store::postgres) effective: Option<Period>,
}

pub(in crate::store::postgres) async fn note_level(
    connection: &mut Transaction<'_>,
    user: &UserId,
    changed: &ChangedLevel<'_>,
    author: &Author,
    now: DateTime<Utc>,
) -> Result<(), PostgresError> {
    sqlx::query!(
        "insert into user_changes
             (changed_at, changed_by, reason, user_uuid, kind, level_before, level_after, effective_period, anchor_before,
              anchor_after)
         values ($1, $2, $3, $4, 'level', $5, $6, $7, $8, $9)",
        now,
        author.by,
        author.reason,
        user.as_str(),
        changed.levels.0,
        changed.levels.1.as_str(),
        changed.effective.map(i32::from),
        changed.anchors.map(|(before, _)| i16::from(before.day())),
        changed.anchors.map(|(_, after)| i16::from(after.day())),
    )
    .execute(connection)
    .await?;
    Ok(())
}
