//! The auditor: holds what clients were answered, Postgres' rows and Redis' state against the invariants I1 to I10.
//!
//! It believes answers, not the gate. Where an answer was lost it allows both outcomes.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `log` | each acknowledged charge is there, once, as it was answered, and nothing else (I3, I4) |
//! | `quota` | nobody exceeds the quota (I1), nobody is denied what the quota covers (I9) |
//! | `holds` | each settles once, one way, and none is left (I6) |
//! | `stores` | log, totals, records and generations agree (I2, I3, I7), nobody does without a store any more (I10) |

mod holds;
mod log;
mod quota;
mod stores;

use std::time::Duration;

use sqlx::Row;
use uuid::Uuid;

use crate::{
    history::{History, Kind, Outcome},
    installation::Installation,
};

/// Redis had it, and a client may hear of it so much later.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// What a fault may cost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowed {
    /// Charges that were acknowledged at such a time may be lost with a store. None: none may.
    pub(crate) losses: Vec<Loss>,
    /// A user may be charged beyond the quota what gates that were left behind have admitted: two Redis servers took
    /// messages at once.
    pub(crate) splits: Vec<Split>,
    /// Records may be ahead of Postgres: it was restored from an older copy.
    pub(crate) postgres_restored: bool,
    /// Users below this number have had another quota, at most this.
    pub(crate) raised: Option<(usize, u32)>,
    /// Events that nobody can read were planted.
    pub(crate) dead_letters: u64,
}

/// A store has lost what it took between these times, since the load began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loss {
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

/// One gate talked to an old primary, the others to its successor. Times since the load began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Split {
    pub(crate) left_behind: usize,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) violations: Vec<String>,
    /// Acknowledged charges that are not in the log, where that is allowed.
    pub(crate) lost: usize,
    /// AP of them.
    pub(crate) lost_ap: u64,
    /// AP that were charged beyond quotas.
    pub(crate) over_ap: u64,
    pub(crate) rows: usize,
}

struct LogRow {
    event: Uuid,
    user: String,
    period: i32,
    ap: u32,
    overage: u32,
}

impl Allowed {
    /// A store has lost what it took between these times.
    pub(crate) fn loss(from: Duration, until: Duration) -> Self {
        Self { losses: vec![Loss { from, until }], ..Self::default() }
    }

    /// What was answered then may be lost.
    fn lost_at(&self, answered: Duration) -> bool {
        self.losses.iter().any(|loss| loss.from <= answered && answered <= loss.until + ANSWER_MAX)
    }

    /// Something was lost between these times, so that what Redis remembered before it may have forgotten after.
    fn lost_between(&self, from: Duration, to: Duration) -> bool {
        self.losses.iter().any(|loss| from <= loss.until + ANSWER_MAX && loss.from <= to)
    }
}

impl Audit {
    /// Everything is quiet by now.
    pub(crate) async fn of(installation: &Installation, history: &History, allowed: &Allowed) -> anyhow::Result<Self> {
        let rows = rows(installation).await?;
        let mut audit = Self { rows: rows.len(), ..Self::default() };
        let reopened = installation.reopened().await? > 0;
        audit.log(&rows, history, allowed);
        audit.nobody_exceeds_the_quota(&rows, history, allowed);
        audit.no_false_denial(history, allowed);
        audit.holds_settle_once(history, allowed, reopened);
        audit.no_hold_is_left(installation, history).await?;
        audit.nothing_unexpected(history);
        audit.stores_agree(installation, allowed).await?;
        audit.one_generation(installation).await?;
        audit.nothing_degraded(installation).await;
        Ok(audit)
    }

    fn violated(&mut self, invariant: &str, what: impl Into<String>) {
        self.violations.push(format!("{invariant}: {}", what.into()));
    }

    fn nothing_unexpected(&mut self, history: &History) {
        for event in &history.0 {
            match (event.outcome, event.kind) {
                // Whether 409 was justified is for the hold to say; what is extended too late holds nothing any more.
                (Outcome::Rejected(409), Kind::Commit(_) | Kind::Release(_) | Kind::Extend(_))
                | (Outcome::Rejected(410), Kind::Extend(_)) => {}
                (Outcome::Rejected(status), kind) => {
                    self.violated("answers", format!("{kind:?} was answered {status} at {:?}", event.answered));
                }
                _ => {}
            }
        }
    }
}

async fn rows(installation: &Installation) -> anyhow::Result<Vec<LogRow>> {
    let rows = sqlx::query("select uuid, user_uuid, period, ap_used, overage from chat_usage_logs")
        .fetch_all(&installation.pool)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(LogRow {
                event: row.try_get("uuid")?,
                user: row.try_get("user_uuid")?,
                period: row.try_get("period")?,
                ap: u32::try_from(row.try_get::<i32, _>("ap_used")?)?,
                overage: u32::try_from(row.try_get::<i32, _>("overage")?)?,
            })
        })
        .collect()
}
