//! The auditor: holds the history of the clients, Redis and Postgres against the invariants I1 to I10 of ARCHITECTURE.md.
//!
//! It believes nobody: not the gate's metrics, not its logs. Where a request's outcome is unknown it allows both.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use sqlx::Row;
use uuid::Uuid;

use crate::{
    history::{Event, History, Kind, Outcome},
    installation::{Installation, PARTITIONS, QUOTA, ask},
    load::user,
};

/// What a fault may cost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowed {
    /// Charges that were acknowledged after this time, since the load began, may be lost with Redis. None: none may.
    pub(crate) lost_since: Option<Duration>,
    /// A user may be charged beyond the quota what gates that were left behind have admitted: two Redis servers took
    /// messages at once.
    pub(crate) splits: Vec<Split>,
    /// Records may be ahead of Postgres: it was restored from an older copy.
    pub(crate) postgres_restored: bool,
    /// The highest quota that a user has had.
    pub(crate) quota_max: Option<u32>,
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
    /// Acknowledged charges that are not in Postgres.
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
}

impl Audit {
    /// Everything is quiet by now.
    pub(crate) async fn of(installation: &Installation, history: &History, allowed: &Allowed) -> anyhow::Result<Self> {
        let rows = rows(installation).await?;
        let mut audit = Self { rows: rows.len(), ..Self::default() };
        audit.no_event_twice(&rows);
        audit.acknowledged_is_logged(&rows, history, allowed);
        audit.logged_was_asked_for(&rows, history);
        audit.nobody_exceeds_the_quota(&rows, history, allowed);
        audit.holds_settle_once(history);
        audit.no_false_denial(history, allowed);
        audit.nothing_unexpected(history);
        audit.stores_agree(installation, allowed).await?;
        audit.one_generation(installation).await?;
        audit.nothing_degraded(installation).await;
        Ok(audit)
    }

    fn violated(&mut self, invariant: &str, what: impl Into<String>) {
        self.violations.push(format!("{invariant}: {}", what.into()));
    }

    fn no_event_twice(&mut self, rows: &[LogRow]) {
        let mut seen = HashSet::new();
        let twice: Vec<_> = rows.iter().filter(|row| !seen.insert(row.event)).map(|row| row.event).collect();
        if !twice.is_empty() {
            self.violated("I4", format!("{} events are in the log twice, for example {}", twice.len(), twice[0]));
        }
    }

    fn acknowledged_is_logged(&mut self, rows: &[LogRow], history: &History, allowed: &Allowed) {
        let logged: HashMap<Uuid, u32> = rows.iter().map(|row| (row.event, row.ap)).collect();
        for event in &history.0 {
            let Outcome::Charged { event: id, ap, degraded: false, .. } = event.outcome else { continue };
            match logged.get(&id) {
                Some(charged) if *charged == ap => {}
                Some(charged) => {
                    self.violated("I3", format!("{id} was acknowledged with {ap} AP, the log has {charged}"));
                }
                None if allowed.lost_since.is_some_and(|since| event.answered >= since) => {
                    self.lost += 1;
                    self.lost_ap += u64::from(ap);
                }
                None => self.violated(
                    "I3",
                    format!(
                        "{id} of {} was acknowledged at {:?} and is not in the log",
                        user(event.user),
                        event.answered
                    ),
                ),
            }
        }
    }

    /// Every row comes from a request that was acknowledged, accepted, or whose outcome nobody knows.
    fn logged_was_asked_for(&mut self, rows: &[LogRow], history: &History) {
        let mut asked: HashMap<String, u64> = HashMap::new();
        let mut acknowledged: HashSet<Uuid> = HashSet::new();
        for event in &history.0 {
            match (event.kind, event.outcome) {
                (_, Outcome::Charged { event: id, degraded: false, .. }) => {
                    acknowledged.insert(id);
                }
                (Kind::Commit(hold), Outcome::Accepted | Outcome::Unknown) => {
                    acknowledged.insert(hold);
                }
                (Kind::Consume, Outcome::Unknown | Outcome::Charged { degraded: true, .. }) => {
                    *asked.entry(user(event.user)).or_default() += u64::from(event.ap);
                }
                _ => {}
            }
        }
        let mut surplus: HashMap<&str, u64> = HashMap::new();
        for row in rows.iter().filter(|row| row.user.starts_with("user-") && !acknowledged.contains(&row.event)) {
            *surplus.entry(&row.user).or_default() += u64::from(row.ap);
        }
        for (who, ap) in surplus {
            let in_doubt = asked.get(who).copied().unwrap_or(0);
            if ap > in_doubt {
                self.violated(
                    "I3",
                    format!("{who} is charged {ap} AP that nobody asked for or only {in_doubt} are in doubt"),
                );
            }
        }
    }

    fn nobody_exceeds_the_quota(&mut self, rows: &[LogRow], history: &History, allowed: &Allowed) {
        let mut used: HashMap<(&str, i32), u64> = HashMap::new();
        for row in rows {
            *used.entry((&row.user, row.period)).or_default() += u64::from(row.ap);
        }
        let quota = u64::from(allowed.quota_max.unwrap_or(QUOTA));
        for ((who, period), used) in used {
            let beside = |event: &&Event| {
                let by = |split: &Split| {
                    event.gate == split.left_behind && event.answered >= split.from && event.sent <= split.to
                };
                user(event.user) == who && allowed.splits.iter().any(by)
            };
            let split: u64 = history.0.iter().filter(beside).map(|event| u64::from(event.ap)).sum();
            self.over_ap += used.saturating_sub(quota);
            if used > quota + split {
                self.violated(
                    "I1",
                    format!("{who} was charged {used} AP in {period}, the quota is {quota} (+{split})"),
                );
            }
        }
    }

    fn holds_settle_once(&mut self, history: &History) {
        let (mut committed, mut released) = (HashMap::new(), HashSet::new());
        for event in &history.0 {
            match (event.kind, event.outcome) {
                (Kind::Commit(hold), Outcome::Charged { ap, .. })
                    if committed.insert(hold, ap).is_some_and(|before| before != ap) =>
                {
                    self.violated("I6", format!("hold {hold} was committed twice with different charges"));
                }
                (Kind::Release(hold), Outcome::Released) => {
                    released.insert(hold);
                }
                _ => {}
            }
        }
        for hold in released.iter().filter(|hold| committed.contains_key(*hold)) {
            self.violated("I6", format!("hold {hold} was committed and released"));
        }
    }

    /// At a denial, what others had begun by then must exceed the quota together with what was denied.
    fn no_false_denial(&mut self, history: &History, allowed: &Allowed) {
        if allowed.quota_max.is_some() {
            // Levels change in this run, so the quota at that moment is not known.
            return;
        }
        let mut by_user: HashMap<usize, Vec<&Event>> = HashMap::new();
        for event in &history.0 {
            by_user.entry(event.user).or_default().push(event);
        }
        for event in &history.0 {
            let Outcome::Denied { .. } = event.outcome else { continue };
            let begun = by_user[&event.user].iter().filter(|other| other.sent < event.answered);
            let may_count: u64 = begun.map(|other| u64::from(may_charge_or_hold(other))).sum();
            if may_count + u64::from(event.ap) <= u64::from(QUOTA) {
                self.violated(
                    "I9",
                    format!(
                        "{} was denied {} AP at {:?}, when at most {may_count} of {QUOTA} were used or held",
                        user(event.user),
                        event.ap,
                        event.answered
                    ),
                );
            }
        }
    }

    fn nothing_unexpected(&mut self, history: &History) {
        for event in &history.0 {
            if let Outcome::Rejected(status) = event.outcome {
                // A commit of a hold that a longer outage has outlived is refused, and says so.
                if status != 410 {
                    self.violated("answers", format!("{:?} was answered {status}", event.kind));
                }
            }
        }
    }

    async fn stores_agree(&mut self, installation: &Installation, allowed: &Allowed) -> anyhow::Result<()> {
        let verdict = installation.verifier()?.verify().await?;
        for drift in verdict.drift.iter().take(3) {
            self.violated("I2", format!("{drift:?}"));
        }
        let differences = verdict.differences.iter();
        for difference in
            differences.filter(|difference| !allowed.postgres_restored || difference.used.0 < difference.used.1)
        {
            self.violated("I3", format!("{difference:?}"));
        }
        if verdict.unflushed > 0 {
            self.violated("I3", format!("{} events are not flushed", verdict.unflushed));
        }
        Ok(())
    }

    async fn one_generation(&mut self, installation: &Installation) -> anyhow::Result<()> {
        for partition in 0..PARTITIONS {
            let tag = format!("qg:{{{partition:02}}}");
            let fence: String = installation.redis(&["GET", &format!("{tag}:gen")]).await.unwrap_or_default();
            let streams: Vec<String> = ask(&installation.redis, &["KEYS", &format!("{tag}:ev:*")]).await?;
            let generation: i32 = sqlx::query_scalar("select generation from flush_watermarks where partition = $1")
                .bind(i16::try_from(partition)?)
                .fetch_one(&installation.pool)
                .await?;
            let open = fence.split(' ').next() == Some(generation.to_string().as_str());
            if !open || streams != [format!("{tag}:ev:{generation}")] {
                self.violated(
                    "I7",
                    format!("partition {partition}: generation {generation}, fence {fence:?}, {streams:?}"),
                );
            }
        }
        Ok(())
    }

    async fn nothing_degraded(&mut self, installation: &Installation) {
        for (number, gate) in installation.gates.iter().enumerate() {
            if gate.metric("quota_gate_breaker_open").await > 0.0 {
                self.violated("I10", format!("gate {number} still does without a store"));
            }
        }
    }
}

/// The most that a request can have taken from the quota.
fn may_charge_or_hold(event: &Event) -> u32 {
    match (event.kind, event.outcome) {
        // A commit may charge more than was held.
        (Kind::Commit(_), Outcome::Charged { ap, .. }) => ap,
        (Kind::Commit(_), Outcome::Unknown | Outcome::Accepted)
        | (Kind::Consume | Kind::Reserve, Outcome::Charged { .. } | Outcome::Held { .. } | Outcome::Unknown) => {
            event.ap
        }
        _ => 0,
    }
}

async fn rows(installation: &Installation) -> anyhow::Result<Vec<LogRow>> {
    let rows = sqlx::query("select uuid, user_uuid, period, ap_used from chat_usage_logs")
        .fetch_all(&installation.pool)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(LogRow {
                event: row.try_get("uuid")?,
                user: row.try_get("user_uuid")?,
                period: row.try_get("period")?,
                ap: u32::try_from(row.try_get::<i32, _>("ap_used")?)?,
            })
        })
        .collect()
}
