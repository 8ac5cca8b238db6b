//! `GET /api/admin/usage`: usage by day, level and model, as JSON or CSV.

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use chrono::{Days, NaiveDate};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::routes::admin::{fresh, unavailable};
use crate::http::{
    answers::{
        problem::{Code, Problem},
        refusals::{Refused, RefusedParams},
    },
    auth::Admin,
    extract::Params,
};
use quota_gate::{
    audit::verify::Verifier,
    domain::{InvalidInput, level::LevelName, model_name::ModelName, user_id::UserId},
    gate::Gate,
    store::postgres::{TimeUnit, UsageQuery, UsageRow},
};

/// Days of a query: default and maximum.
const DAYS_DEFAULT: u64 = 30;
const DAYS_MAX: i64 = 400;
/// Rows of an answer: a year of days, or of a few levels and many models.
const ROWS_DEFAULT: u32 = 1_000;
const ROWS_MAX: u32 = 10_000;

/// Selects and groups usage.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UsageParams {
    /// First day; by default the range has 30 days.
    #[param(example = "2026-11-01", value_type = Option<String>, format = Date)]
    from: Option<NaiveDate>,
    /// Last day; today by default.
    #[param(example = "2026-11-30", value_type = Option<String>, format = Date)]
    to: Option<NaiveDate>,
    /// `day` or `month`, `level`, `model` and, with `user`, `session`; separated by commas. `day` by default.
    #[param(example = "day,model")]
    group_by: Option<String>,
    /// Only usage of this user, as far back as the log is kept.
    #[param(min_length = 1, max_length = 128)]
    user: Option<String>,
    /// Only usage of this level.
    level: Option<String>,
    /// Only usage of this model; empty for messages that named none.
    model: Option<String>,
    /// Rows to skip: the start of the page.
    #[serde(default)]
    offset: u32,
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<u32>,
    #[serde(default)]
    #[param(inline)]
    format: FormatWord,
}

/// Format of the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum FormatWord {
    #[default]
    Json,
    Csv,
}

/// Usage, without imports and adjustments: they are not messages.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UsageBody {
    #[schema(example = "2026-11-01")]
    from: String,
    #[schema(example = "2026-11-30")]
    to: String,
    /// Time zone of the days.
    time_zone: String,
    rows: Vec<UsageRowBody>,
    /// Sum of all rows, including those on other pages.
    total: UsageSumBody,
    /// `offset` of the next page; null at the end.
    #[schema(required = true)]
    next: Option<u32>,
}

/// A sum. Members that it is not grouped by are null.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UsageRowBody {
    /// The day, or the first day of the month.
    #[schema(required = true)]
    day: Option<String>,
    #[schema(required = true)]
    session_id: Option<String>,
    #[schema(required = true)]
    membership_level: Option<String>,
    /// Empty for messages that named none.
    #[schema(required = true)]
    model: Option<String>,
    #[serde(flatten)]
    sum: UsageSumBody,
}

#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UsageSumBody {
    /// Charged messages.
    messages: i64,
    /// Charged AP.
    ap: i64,
    /// AP that the quotas could not cover.
    overage: i64,
    /// Tokens counted by the models.
    tokens: i64,
    /// Input tokens, including cached ones, of messages whose kinds of tokens are known; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    input_tokens: Option<i64>,
    /// The part of them that the models had cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_input_tokens: Option<i64>,
    /// Output tokens of those messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens: Option<i64>,
}

/// Returns usage by day, level and model, as far as it is in Postgres.
#[utoipa::path(
    get, path = "/api/admin/usage", tag = "admin", operation_id = "getUsage",
    params(UsageParams),
    responses(
        (status = 200, description = "The sums", content((UsageBody = "application/json"), (String = "text/csv"))),
        Refused,
        RefusedParams,
    ),
    security(("admin" = [])),
)]
pub(crate) async fn usage(
    _: Admin,
    State(gate): State<Gate>,
    State(verifier): State<Arc<Verifier>>,
    Params(params): Params<UsageParams>,
) -> Result<Response, Problem> {
    let today = gate.calendar().day_at(gate.now()).date();
    let (query, by_session) = params.query(today)?;
    let user = params.user.as_deref().map(UserId::parse).transpose()?;
    let limit = params.limit.unwrap_or(ROWS_DEFAULT);
    if !(1..=ROWS_MAX).contains(&limit) {
        return Err(InvalidInput { field: "limit", rule: format!("must be 1 to {ROWS_MAX}") }.into());
    }
    let postgres = &verifier.postgres;
    let rows = match &user {
        Some(user) => postgres.usage_of(user, by_session, &query, gate.calendar()).await,
        None if by_session => {
            return Err(InvalidInput { field: "groupBy", rule: "session requires `user`".into() }.into());
        }
        None => postgres.usage(&query).await,
    };
    let rows = rows.map_err(unavailable)?;
    let total = rows.iter().fold(UsageSumBody::default(), UsageSumBody::and);
    let (offset, all) = (params.offset as usize, rows.len());
    let page: Vec<UsageRow> = rows.into_iter().skip(offset).take(limit as usize).collect();
    if params.format == FormatWord::Csv {
        return csv(&page).map_err(|error| Problem::new(Code::InternalError, error.to_string()));
    }
    Ok(fresh(UsageBody {
        from: query.from.to_string(),
        to: query.to.to_string(),
        time_zone: gate.calendar().time_zone().name().to_owned(),
        next: (offset + page.len() < all).then(|| params.offset.saturating_add(limit)),
        rows: page.into_iter().map(UsageRowBody::from).collect(),
        total,
    }))
}

impl UsageParams {
    /// The query, and whether it groups by conversation.
    fn query(&self, today: NaiveDate) -> Result<(UsageQuery<'_>, bool), InvalidInput> {
        let invalid = |field: &'static str, rule: String| InvalidInput { field, rule };
        let to = self.to.unwrap_or(today);
        let from = self.from.unwrap_or_else(|| to.checked_sub_days(Days::new(DAYS_DEFAULT - 1)).unwrap_or(to));
        if from > to || (to - from).num_days() >= DAYS_MAX {
            return Err(invalid("from", format!("must be at most {DAYS_MAX} days before `to`, and not after it")));
        }
        self.level.as_deref().map(LevelName::parse).transpose()?;
        self.model.as_deref().map(ModelName::from_column).transpose()?;
        let mut query = UsageQuery {
            from,
            to,
            by: None,
            by_level: false,
            by_model: false,
            level: self.level.as_deref(),
            model: self.model.as_deref(),
        };
        let mut by_session = false;
        for word in self.group_by.as_deref().unwrap_or("day").split(',') {
            match word.trim() {
                unit @ ("day" | "month") => {
                    let unit = if unit == "day" { TimeUnit::Day } else { TimeUnit::Month };
                    if query.by.is_some_and(|other| other != unit) {
                        return Err(invalid("groupBy", "accepts either day or month, not both".into()));
                    }
                    query.by = Some(unit);
                }
                "session" => by_session = true,
                "level" => query.by_level = true,
                "model" => query.by_model = true,
                other => {
                    return Err(invalid(
                        "groupBy",
                        format!("accepts day, month, level, model and session, not {other:?}"),
                    ));
                }
            }
        }
        Ok((query, by_session))
    }
}

impl UsageSumBody {
    fn and(self, row: &UsageRow) -> Self {
        let kinds = kinds_of(row);
        let sum = |before: Option<i64>, more: Option<i64>| before.into_iter().chain(more).reduce(|a, b| a + b);
        Self {
            messages: self.messages + row.messages,
            ap: self.ap + row.ap,
            overage: self.overage + row.overage,
            tokens: self.tokens + row.tokens,
            input_tokens: sum(self.input_tokens, kinds.map(|[input, ..]| input)),
            cached_input_tokens: sum(self.cached_input_tokens, kinds.map(|[_, cached_input, _]| cached_input)),
            output_tokens: sum(self.output_tokens, kinds.map(|[.., output]| output)),
        }
    }
}

/// Input, cached input and output tokens of a row, if they are known of some message.
fn kinds_of(row: &UsageRow) -> Option<[i64; 3]> {
    let kinds = [row.input_tokens, row.cached_input_tokens, row.output_tokens];
    kinds.iter().any(|sum| *sum != 0).then_some(kinds)
}

impl From<UsageRow> for UsageRowBody {
    fn from(row: UsageRow) -> Self {
        let sum = UsageSumBody::default().and(&row);
        Self {
            day: row.day.map(|day| day.to_string()),
            session_id: row.session,
            membership_level: row.level,
            model: row.model,
            sum,
        }
    }
}

/// Returns the rows as CSV, with a header line. The kinds of tokens have columns if they are known of some message.
fn csv(rows: &[UsageRow]) -> Result<Response, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let has_kinds = rows.iter().any(|row| kinds_of(row).is_some());
    let kinds: &[&str] = if has_kinds { &["inputTokens", "cachedInputTokens", "outputTokens"] } else { &[] };
    let columns = ["day", "sessionId", "membershipLevel", "model", "messages", "ap", "overage", "tokens"];
    writer.write_record(columns.iter().chain(kinds))?;
    for row in rows {
        let day = row.day.map(|day| day.to_string()).unwrap_or_default();
        let level = row.level.as_deref().unwrap_or_default();
        let session = plain(row.session.as_deref().unwrap_or_default());
        let model = plain(row.model.as_deref().unwrap_or_default());
        let sums = [row.messages, row.ap, row.overage, row.tokens].map(|sum| sum.to_string());
        let [messages, ap, overage, tokens] = &sums;
        let record = [&day, &session, level, &model, messages, ap, overage, tokens];
        let kinds = has_kinds.then(|| kinds_of(row).unwrap_or_default().map(|sum| sum.to_string()));
        writer.write_record(record.into_iter().chain(kinds.iter().flatten().map(String::as_str)))?;
    }
    let text = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    let head = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"usage.csv\""),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((head, text).into_response())
}

/// Escapes a name that a spreadsheet would treat as a formula. Names come from clients.
/// <https://owasp.org/www-community/attacks/CSV_Injection>
fn plain(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formula_in_a_name_is_escaped() {
        assert_eq!(plain("=HYPERLINK(\"x\")"), "'=HYPERLINK(\"x\")");
        assert_eq!(plain("gpt-4o"), "gpt-4o");
    }
}
