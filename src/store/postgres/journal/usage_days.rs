//! `usage_days`: usage by day, level and model, added in the transaction that writes the log.

use std::collections::BTreeMap;

use chrono::NaiveDate;

use crate::domain::{calendar::Calendar, level::Levels, model_name::ModelName, usage::UsageEvent, user_id::UserId};
use crate::store::postgres::{Postgres, PostgresError, connections::Transaction, journal::chat_usage_logs::level_name};

/// A query for usage.
#[derive(Debug, Clone, Copy)]
pub struct UsageQuery<'a> {
    /// First day.
    pub from: NaiveDate,
    /// Last day.
    pub to: NaiveDate,
    /// Group by day or month.
    pub by: Option<TimeUnit>,
    /// Group by level.
    pub by_level: bool,
    /// Group by model.
    pub by_model: bool,
    /// Only this level.
    pub level: Option<&'a str>,
    /// Only this model; empty for messages that named none.
    pub model: Option<&'a str>,
}

/// Unit of time of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// A day.
    Day,
    /// A month.
    Month,
}

/// Sums of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// Day, or first day of the month; `None` if not grouped by time.
    pub day: Option<NaiveDate>,
    /// Conversation.
    pub session: Option<String>,
    /// Level.
    pub level: Option<String>,
    /// Model; empty for messages that named none.
    pub model: Option<String>,
    /// Messages charged.
    pub messages: i64,
    /// AP charged.
    pub ap: i64,
    /// AP that the quota did not cover.
    pub overage: i64,
    /// Tokens that the models counted.
    pub tokens: i64,
    /// Input tokens, including cached ones, of messages whose kinds of tokens are known.
    pub input_tokens: i64,
    /// The part of them that the models had cached.
    pub cached_input_tokens: i64,
    /// Output tokens of those messages.
    pub output_tokens: i64,
}

/// A day, level and model whose sums differ from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageDrift {
    /// Day.
    pub day: NaiveDate,
    /// Level.
    pub level: String,
    /// Model; empty for messages that named none.
    pub model: String,
    /// Messages and AP of the log minus those of the table.
    pub missing: (i64, i64),
}

#[derive(Default)]
struct Sum {
    messages: i64,
    ap: i64,
    overage: i64,
    tokens: i64,
    input_tokens: i64,
    cached_input_tokens: i64,
    output_tokens: i64,
}

impl Postgres {
    /// Returns usage between two days, ordered by day, level and model.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn usage(&self, query: &UsageQuery<'_>) -> Result<Vec<UsageRow>, PostgresError> {
        let rows = sqlx::query_as!(
            UsageRow,
            r#"select case when $3 then day when $8 then date_trunc('month', day)::date end as day,
                    null::text as session,
                    case when $4 then membership_level end as level,
                    case when $5 then model end as model,
                    sum(messages)::bigint as "messages!",
                    sum(ap)::bigint as "ap!",
                    sum(overage)::bigint as "overage!",
                    sum(tokens)::bigint as "tokens!",
                    sum(input_tokens)::bigint as "input_tokens!",
                    sum(cached_input_tokens)::bigint as "cached_input_tokens!",
                    sum(output_tokens)::bigint as "output_tokens!"
             from usage_days
             where day between $1 and $2
               and ($6::text is null or membership_level = $6)
               and ($7::text is null or model = $7)
             group by 1, 2, 3, 4
             order by 1, 2, 3, 4"#,
            query.from,
            query.to,
            query.by == Some(TimeUnit::Day),
            query.by_level,
            query.by_model,
            query.level,
            query.model,
            query.by == Some(TimeUnit::Month),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }

    /// Returns one user's usage, optionally also by conversation, as far back as the log is kept. Reads only the user's
    /// rows of the log, whose number the quota bounds.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn usage_of(
        &self,
        user: &UserId,
        by_session: bool,
        query: &UsageQuery<'_>,
        calendar: Calendar,
    ) -> Result<Vec<UsageRow>, PostgresError> {
        let rows = sqlx::query_as!(
            UsageRow,
            r#"with messages as (
                 select (created_at at time zone $10)::date as day, session_id, membership_level, model, ap_used, overage, tokens_used,
                        input_tokens, cached_input_tokens, output_tokens
                 from chat_usage_logs
                 where user_uuid = $1
                   and created_at >= $2::date::timestamp at time zone $10
                   and created_at < ($3::date + 1)::timestamp at time zone $10
                   and kind in ('consume', 'commit', 'late_commit')
                   and meter = 0
                   and ($4::text is null or membership_level = $4)
                   and ($5::text is null or model = $5)
             )
             select case when $6 then day when $7 then date_trunc('month', day)::date end as day,
                    case when $11 then session_id end as session,
                    case when $8 then membership_level end as level,
                    case when $9 then model end as model,
                    count(*) as "messages!",
                    sum(ap_used)::bigint as "ap!",
                    sum(overage)::bigint as "overage!",
                    sum(tokens_used)::bigint as "tokens!",
                    coalesce(sum(input_tokens), 0)::bigint as "input_tokens!",
                    coalesce(sum(cached_input_tokens), 0)::bigint as "cached_input_tokens!",
                    coalesce(sum(output_tokens), 0)::bigint as "output_tokens!"
             from messages
             group by 1, 2, 3, 4
             order by 1, 2, 3, 4"#,
            user.as_str(),
            query.from,
            query.to,
            query.level,
            query.model,
            query.by == Some(TimeUnit::Day),
            query.by == Some(TimeUnit::Month),
            query.by_level,
            query.by_model,
            calendar.time_zone().name(),
            by_session,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }

    /// Returns where the sums differ from the log, in one statement and so in one snapshot.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn usage_drift(&self) -> Result<Vec<UsageDrift>, PostgresError> {
        let mut snapshot = self.unhurried_snapshot().await?;
        let rows = sqlx::query!(
            r#"select day as "day!", membership_level as "level!", model as "model!", messages as "messages!", ap as "ap!"
             from usage_drift()
             order by 1, 2, 3"#
        )
        .fetch_all(&mut snapshot)
        .await?;
        let drift = rows.into_iter().map(|row| UsageDrift {
            day: row.day,
            level: row.level,
            model: row.model,
            missing: (row.messages, row.ap),
        });
        Ok(drift.collect())
    }

    /// Sets the sums to those of the log. Returns how many differed. Flushes wait while this reads the log.
    ///
    /// # Errors
    /// If Postgres is unavailable; nothing is changed.
    pub async fn repair_usage(&self) -> Result<u64, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        // Block flushes until the commit.
        sqlx::query!("lock table usage_days in share row exclusive mode").execute(&mut transaction).await?;
        sqlx::query!("set local statement_timeout = 0").execute(&mut transaction).await?;
        let done = sqlx::query!(
            "insert into usage_days as usage
                 (day, membership_level, model, partition, messages, ap, overage, tokens, input_tokens, cached_input_tokens, output_tokens)
             select day, membership_level, model, 0, messages, ap, overage, tokens, input_tokens, cached_input_tokens, output_tokens
             from usage_drift()
             on conflict (day, membership_level, model, partition) do update
             set messages = usage.messages + excluded.messages,
                 ap = usage.ap + excluded.ap,
                 overage = usage.overage + excluded.overage,
                 tokens = usage.tokens + excluded.tokens,
                 input_tokens = usage.input_tokens + excluded.input_tokens,
                 cached_input_tokens = usage.cached_input_tokens + excluded.cached_input_tokens,
                 output_tokens = usage.output_tokens + excluded.output_tokens"
        )
        .execute(&mut transaction)
        .await?;
        transaction.commit().await?;
        Ok(done.rows_affected())
    }
}

/// Adds messages of the chat that are in the log and were not counted before. A transfer is no message. Takes the last
/// locks of a transaction: rows of one partition, in one order.
pub(in crate::store::postgres) async fn add(
    connection: &mut Transaction<'_>,
    partition: i16,
    events: &[&UsageEvent],
    levels: &Levels,
    calendar: Calendar,
) -> Result<(), PostgresError> {
    let mut sums: BTreeMap<(NaiveDate, &str, &str), Sum> = BTreeMap::new();
    for event in events.iter().filter(|event| event.meter.is_chat() && event.receipt.is_none()) {
        let day = calendar.day_at(event.at).date();
        let key = (day, level_name(event, levels), ModelName::column(event.model.as_ref()));
        let sum = sums.entry(key).or_default();
        sum.messages += 1;
        sum.ap += i64::from(event.ap.get());
        sum.overage += i64::from(event.overage.get());
        sum.tokens += i64::from(event.tokens.get());
        if let Some(kinds) = event.tokens.kinds() {
            sum.input_tokens += i64::from(kinds.input());
            sum.cached_input_tokens += i64::from(kinds.cached_input());
            sum.output_tokens += i64::from(kinds.output());
        }
    }
    if sums.is_empty() {
        return Ok(());
    }
    let days: Vec<NaiveDate> = sums.keys().map(|(day, ..)| *day).collect();
    let level_names: Vec<&str> = sums.keys().map(|(_, level, _)| *level).collect();
    let models: Vec<&str> = sums.keys().map(|(.., model)| *model).collect();
    let column = |field: fn(&Sum) -> i64| -> Vec<i64> { sums.values().map(field).collect() };
    sqlx::query!(
        "insert into usage_days as usage
             (day, membership_level, model, partition, messages, ap, overage, tokens, input_tokens, cached_input_tokens, output_tokens)
         select day, level, model, $4, messages, ap, overage, tokens, input, cached_input, output
         from unnest($1::date[], $2::text[], $3::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
             as batch (day, level, model, messages, ap, overage, tokens, input, cached_input, output)
         on conflict (day, membership_level, model, partition) do update
         set messages = usage.messages + excluded.messages,
             ap = usage.ap + excluded.ap,
             overage = usage.overage + excluded.overage,
             tokens = usage.tokens + excluded.tokens,
             input_tokens = usage.input_tokens + excluded.input_tokens,
             cached_input_tokens = usage.cached_input_tokens + excluded.cached_input_tokens,
             output_tokens = usage.output_tokens + excluded.output_tokens",
        &days,
        &level_names as &[&str],
        &models as &[&str],
        partition,
        &column(|sum| sum.messages),
        &column(|sum| sum.ap),
        &column(|sum| sum.overage),
        &column(|sum| sum.tokens),
        &column(|sum| sum.input_tokens),
        &column(|sum| sum.cached_input_tokens),
        &column(|sum| sum.output_tokens),
    )
    .execute(connection)
    .await?;
    Ok(())
}
