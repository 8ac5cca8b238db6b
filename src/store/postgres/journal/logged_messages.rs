//! Reads the messages of the usage log for a price replay, user by user.
//!
//! Postgres sorts the rows, in memory of a fixed size and in temporary files, so this process keeps one row at a time.
//! The transaction reads one snapshot on a connection of its own: it takes none of the pool, and blocks no writer.

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::PgConnection;

use super::{
    chat_usage_logs::MICROS_1970_TO_2000,
    copied_rows::{CopiedRows, unexpected},
};
use crate::domain::price_replay::{LoggedMessage, LoggedTokens};
use crate::store::postgres::{Postgres, PostgresError, installation::repair_lock::CLASS};

/// Number of the lock of price replays. Only one runs at a time, because each sorts a large part of the log.
const REPLAYS: i32 = -2;

/// Settings of the transaction:
///
/// - A replay may take minutes, and the server notices within seconds that its reader has gone.
/// - `work_mem` lets Postgres merge the sorted parts of a hundred million rows in one pass.
/// - Sorting all rows takes a third of the time of an index scan in this order, which reads a page for each row.
const SETTINGS: &str = "set local statement_timeout = 0; \
                        set local client_connection_check_interval = '5s'; \
                        set local work_mem = '64MB'; \
                        set local enable_indexscan = off";

impl Postgres {
    /// Calls `each` for each message of the chat from one time to another (exclusive), all messages of a user after
    /// each other, in order of time. Returns false, and reads nothing, if another replay is running.
    ///
    /// # Errors
    /// If Postgres is unavailable, or its temporary files have no space.
    pub async fn read_messages(
        &self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        each: impl FnMut(&LoggedMessage<'_>),
    ) -> Result<bool, PostgresError> {
        let mut connection = self.pool.begin_snapshot_alone().await?;
        sqlx::raw_sql(SETTINGS).execute(&mut connection).await?;
        let locked: bool = sqlx::query_scalar("select pg_try_advisory_xact_lock($1, $2)")
            .bind(CLASS)
            .bind(REPLAYS)
            .persistent(false)
            .fetch_one(&mut connection)
            .await?;
        if locked {
            read(&mut connection, from, to, each).await?;
        }
        // Ends the lock now: of a closed connection, the server may notice later.
        sqlx::raw_sql("rollback").execute(&mut connection).await?;
        Ok(locked)
    }

    /// Whether the periods of a user begin on another day than the first of a month.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn has_anchor_days(&self) -> Result<bool, PostgresError> {
        let found = sqlx::query_scalar!(r#"select exists (select from chat_quotas where anchor_day <> 1) as "found!""#);
        Ok(found.fetch_one(&self.pool).await?)
    }
}

async fn read(
    connection: &mut PgConnection,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    mut each: impl FnMut(&LoggedMessage<'_>),
) -> Result<(), sqlx::Error> {
    // `copy` accepts no parameters. The times are formatted here, so they are safe.
    let statement = format!(
        "copy (
             select user_uuid, membership_level, model, created_at, period, ap_used, ap_used - coalesce(plan_ap, ap_used), overage, tokens_used,
                    coalesce(input_tokens, -1), coalesce(cached_input_tokens, 0), coalesce(output_tokens, 0)
             from chat_usage_logs
             where created_at >= '{}'
               and created_at < '{}'
               and kind in ('consume', 'commit', 'late_commit')
               and meter = 0
             order by user_uuid, created_at, uuid
         ) to stdout (format binary)",
        from.to_rfc3339(),
        to.to_rfc3339(),
    );
    let mut pieces = connection.copy_out_raw(&statement).await?;
    let mut rows = CopiedRows::<12>::default();
    while let Some(piece) = pieces.try_next().await? {
        rows.read(&piece, |fields| {
            each(&message(fields)?);
            Ok(())
        })?;
    }
    if rows.has_ended() { Ok(()) } else { Err(unexpected("no end")) }
}

fn message(fields: [&[u8]; 12]) -> Result<LoggedMessage<'_>, sqlx::Error> {
    let [user, level, model, at, period, ap, granted, overage, tokens, input, cached_input, output] = fields;
    let at = at.try_into().map(i64::from_be_bytes).map_err(|_| unexpected("no time in created_at"))?;
    Ok(LoggedMessage {
        user: text(user)?,
        level: text(level)?,
        model: text(model)?,
        at_ms: (at + MICROS_1970_TO_2000).div_euclid(1_000),
        period: integer(period)?,
        ap: integer(ap)?.unsigned_abs(),
        granted: integer(granted)?.unsigned_abs(),
        overage: integer(overage)?.unsigned_abs(),
        tokens: logged_tokens(integer(tokens)?, [integer(input)?, integer(cached_input)?, integer(output)?]),
    })
}

/// Tokens of a message. Without kinds, `input` is negative.
fn logged_tokens(total: i32, [input, cached_input, output]: [i32; 3]) -> LoggedTokens {
    let number = i32::unsigned_abs;
    if input < 0 {
        return LoggedTokens::total(number(total));
    }
    LoggedTokens { input: number(input), cached_input: number(cached_input), output: number(output), is_total: false }
}

fn text(field: &[u8]) -> Result<&str, sqlx::Error> {
    std::str::from_utf8(field).map_err(|_| unexpected("a text that is not UTF-8"))
}

fn integer(field: &[u8]) -> Result<i32, sqlx::Error> {
    field.try_into().map(i32::from_be_bytes).map_err(|_| unexpected("a number of another size"))
}
