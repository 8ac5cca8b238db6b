//! The auditor: checks the answers to clients, Postgres' rows and Redis' state against the invariants I1 to I11.
//!
//! It trusts answers, not the gate. If an answer was lost, it allows both outcomes.
//!
//! | file | what it checks |
//! | --- | --- |
//! | `log` | the log has each acknowledged charge once, as answered, and nothing else (I3, I4) |
//! | `quota` | no user exceeds the quota (I1) or is denied AP that it covers (I9) |
//! | `limits` | no window counts too much, no user holds too many, and periods last (I1, I5) |
//! | `grants` | grants conserve, and each that was acknowledged exists once (I11) |
//! | `transfers` | each transfer arrives once and whole, or not at all (I11) |
//! | `holds` | each hold settles once and one way, and none remains (I6) |
//! | `stores` | log, totals, records and generations agree (I2, I3, I7), and no gate still runs without a store (I10) |

mod grants;
mod holds;
mod limits;
mod log;
mod quota;
mod stores;
mod transfers;

use std::{ops::Range, time::Duration};

use sqlx::Row;
use uuid::Uuid;

use crate::{
    history::{History, Kind, Outcome},
    installation::Installation,
    plans::Plans,
};

/// Longest time from a decision in Redis to its answer at the client.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Deviations that a fault may cause.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowed {
    /// Times at which acknowledged charges may be lost with a store. If empty, no charge may be lost.
    pub(crate) losses: Vec<Loss>,
    /// Splits in which two Redis servers accepted messages. A user may exceed the quota by what the gate left behind
    /// admitted.
    pub(crate) splits: Vec<Split>,
    /// Users whose commits Postgres accepted, beside those of the clients, and their AP.
    pub(crate) accepted: Vec<(String, u32)>,
    /// Postgres was restored from an older copy, so records may be ahead of it.
    pub(crate) postgres_restored: bool,
    /// Users below this number had other quotas, at most this many AP.
    pub(crate) raised: Option<(usize, u32)>,
    /// The clocks of the stores jump, so windows and holds end at other times.
    pub(crate) clocks_jump: bool,
    /// Gates of 0.1.0 served, too.
    pub(crate) older_gates: bool,
    /// Number of unreadable events that were planted.
    pub(crate) dead_letters: u64,
}

/// A store has lost what it accepted between these times, measured since the load began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loss {
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

/// One gate used the old primary, the others the new one. Times are measured since the load began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Split {
    pub(crate) left_behind: usize,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

/// Findings of the audit.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) violations: Vec<String>,
    /// Acknowledged charges that are not in the log, where a loss is allowed.
    pub(crate) lost: usize,
    /// AP of the lost charges.
    pub(crate) lost_ap: u64,
    /// AP charged beyond quotas.
    pub(crate) over_ap: u64,
    pub(crate) rows: usize,
    with_plans: bool,
    /// Packs whose purchase was acknowledged.
    pub(crate) packs: usize,
    /// AP that grants paid.
    pub(crate) paid_by_grants: u64,
}

struct LogRow {
    event: Uuid,
    user: String,
    period: i32,
    ap: u32,
    overage: u32,
    /// What the plan paid of `ap`.
    plan: u32,
    /// Number and AP of each grant that paid the rest.
    grants: Vec<(i64, u32)>,
}

impl Allowed {
    /// Allows the loss of what a store accepted between these times.
    pub(crate) fn loss(from: Duration, until: Duration) -> Self {
        Self { losses: vec![Loss { from, until }], ..Self::default() }
    }

    /// Returns whether a charge answered at this time may be lost.
    fn lost_at(&self, answered: Duration) -> bool {
        self.losses.iter().any(|loss| loss.from <= answered && answered <= loss.until + ANSWER_MAX)
    }

    /// Returns whether Redis may have lost state between these times.
    fn lost_between(&self, from: Duration, to: Duration) -> bool {
        self.losses.iter().any(|loss| from <= loss.until + ANSWER_MAX && loss.from <= to)
    }
}

impl Audit {
    /// Audits a finished run, with no work in flight.
    ///
    /// `disturbed`: from the first fault to the recovery.
    pub(crate) async fn of(
        installation: &Installation,
        (history, plans): (&History, &Plans),
        allowed: &Allowed,
        disturbed: &Range<Duration>,
    ) -> anyhow::Result<Self> {
        let rows = rows(installation).await?;
        let mut audit = Self { rows: rows.len(), with_plans: plans.begun, ..Self::default() };
        let reopened = installation.reopened().await? > 0;
        audit.log(&rows, history, allowed);
        audit.no_user_exceeds_the_quota(&rows, history, allowed);
        audit.no_false_denial(history, allowed);
        audit.no_window_is_exceeded(&rows, history, allowed, reopened);
        audit.no_user_holds_too_many(history, allowed);
        audit.periods_last(&rows)?;
        audit.grants_conserve(installation, &rows, (history, plans), allowed, disturbed).await?;
        audit.transfers_arrive(installation, plans, allowed).await?;
        audit.holds_settle_once(&rows, history, allowed, reopened);
        audit.no_hold_is_left(installation, history).await?;
        audit.nothing_unexpected(history);
        audit.stores_agree(installation, allowed).await?;
        audit.one_generation(installation).await?;
        audit.nothing_degraded(installation).await;
        if !allowed.older_gates {
            audit.nothing_forbidden(installation).await?;
        }
        Ok(audit)
    }

    fn violated(&mut self, invariant: &str, what: impl Into<String>) {
        self.violations.push(format!("{invariant}: {}", what.into()));
    }

    fn nothing_unexpected(&mut self, history: &History) {
        for event in &history.0 {
            match (event.outcome, event.kind) {
                // `holds` checks whether a 409 is justified. 410: the hold was extended after it had expired.
                (Outcome::Rejected(409), Kind::Commit(_) | Kind::Release(_) | Kind::Extend(_))
                | (Outcome::Rejected(410), Kind::Extend(_)) => {}
                (Outcome::Rejected(status), kind) => {
                    self.violated("answers", format!("{kind:?} got status {status} at {:?}", event.answered));
                }
                _ => {}
            }
        }
    }
}

async fn rows(installation: &Installation) -> anyhow::Result<Vec<LogRow>> {
    let columns = "select uuid, user_uuid, period, ap_used, overage, coalesce(plan_ap, ap_used) as plan_ap,
        coalesce(grant_numbers, '{}') as grant_numbers, coalesce(grant_aps, '{}') as grant_aps
        from chat_usage_logs
        where kind <> 'transfer'";
    let rows = sqlx::query(columns).fetch_all(&installation.pool).await?;
    rows.iter()
        .map(|row| {
            let numbers: Vec<i64> = row.try_get("grant_numbers")?;
            let aps: Vec<i32> = row.try_get("grant_aps")?;
            let aps = aps.into_iter().map(u32::try_from).collect::<Result<Vec<_>, _>>()?;
            Ok(LogRow {
                event: row.try_get("uuid")?,
                user: row.try_get("user_uuid")?,
                period: row.try_get("period")?,
                ap: u32::try_from(row.try_get::<i32, _>("ap_used")?)?,
                overage: u32::try_from(row.try_get::<i32, _>("overage")?)?,
                plan: u32::try_from(row.try_get::<i32, _>("plan_ap")?)?,
                grants: numbers.into_iter().zip(aps).collect(),
            })
        })
        .collect()
}
