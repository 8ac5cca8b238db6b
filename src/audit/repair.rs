//! Makes the stores agree again after something that the gate cannot have done, such as a restore of Postgres.
//!
//! It never takes a charge back, and never changes a number without a trace:
//!
//! - Charges that are missing in Postgres become log rows of kind `adjustment`, with what windows have counted.
//! - Totals follow the log, those of other meters too.
//! - A partition whose records lack charges is reopened, so that users are loaded from Postgres, which knows more.
//! - Users get the level that Postgres has, with its quota.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{
    error::AuditError,
    grant_difference::GrantDifference,
    verify::{RecordDifference, Verdict, Verifier},
    window_difference,
};
use crate::{
    domain::{
        ap::Ap,
        calendar::Period,
        grant::GrantPart,
        level::Levels,
        meter::MeterCode,
        partition::Partition,
        usage::{Tokens, UsageEvent, UsageKind},
        user_id::{SessionId, UserId},
    },
    gate::Gate,
};

/// Session of an adjustment.
const SESSION: &str = "verify --repair";

/// Makes the stores agree.
#[derive(Debug, Clone)]
pub struct Repairer {
    verifier: Verifier,
    gate: Gate,
}

/// What a repair did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repaired {
    /// Rows added to the log.
    pub adjustments: u64,
    /// Users whose totals were raised to the sum of the log.
    pub totals: u64,
    /// Sums by day, level and model that were corrected to those of the log.
    pub usage: u64,
    /// Grants whose charges were raised to the sum of the log.
    pub grants: u64,
    /// Periods of other meters than the chat that were raised to the sum of the log.
    pub meters: u64,
    /// Partitions reopened.
    pub reopened: u64,
    /// Users whose level or quota was corrected.
    pub levels: u64,
    /// Left to people: charges that dead letters contain or may contain, totals above the log that no period explains.
    pub left: u64,
}

impl Repairer {
    /// Creates a repairer for this gate's installation.
    #[must_use]
    pub fn new(gate: &Gate) -> Self {
        Self { verifier: Verifier::new(gate), gate: gate.clone() }
    }

    /// Repairs Postgres against itself, then Redis against Postgres. One repair runs at a time.
    ///
    /// # Errors
    /// If a store is unavailable, or another repair is running. What was repaired stays repaired; verify again to see.
    pub async fn repair(&self) -> Result<Repaired, AuditError> {
        let lock = self.gate.postgres().try_lock_repairs().await?;
        let _alone = lock.ok_or(AuditError::Repairing)?;
        // First: the total over all periods includes what grants have paid.
        let grants = self.gate.postgres().repair_grants().await?;
        let (meters, adjustments) = self.gate.postgres().repair_meters(SESSION, self.gate.now()).await?;
        let mut repaired = Repaired { adjustments, grants, meters, ..Repaired::default() };
        self.repair_totals(&mut repaired).await?;
        repaired.usage = self.gate.postgres().repair_usage().await?;
        let verdict = self.verifier.verify().await?;
        self.repair_records(&verdict, &mut repaired).await?;
        repaired.levels = self.repair_levels(&verdict).await?;
        Ok(repaired)
    }

    async fn repair_totals(&self, repaired: &mut Repaired) -> Result<(), AuditError> {
        let levels = self.gate.postgres().all_levels().await?;
        let mut raised: BTreeSet<String> = BTreeSet::new();
        for drift in self.gate.postgres().drift().await? {
            let Some(period) = drift.period else { continue };
            if drift.logged > drift.total {
                let (Ok(user), Some(period)) = (UserId::parse(&drift.user), period_of(period)) else { continue };
                let ap = drift.logged.abs_diff(drift.total);
                let event = self.adjustment((&user, MeterCode::CHAT), period, ap, &levels);
                self.gate.postgres().raise_period(&event, &levels, self.gate.calendar(), self.gate.now()).await?;
                raised.insert(drift.user);
            } else {
                // Rows are missing in the log. People see the log, so it is completed; the totals stay.
                let ap = u32::try_from(drift.total - drift.logged).unwrap_or(u32::MAX);
                self.gate.postgres().log_adjustment(&drift.user, period, ap, SESSION, self.gate.now()).await?;
                repaired.adjustments += 1;
            }
        }
        // Only now, because a completed log has a higher sum.
        for drift in self.gate.postgres().drift().await? {
            if drift.period.is_none() && drift.logged > drift.total {
                self.gate.postgres().raise_total(&drift.user, drift.logged - drift.total, self.gate.now()).await?;
                raised.insert(drift.user);
            }
        }
        repaired.totals = raised.len() as u64;
        Ok(())
    }

    async fn repair_records(&self, verdict: &Verdict, repaired: &mut Repaired) -> Result<(), AuditError> {
        let levels = self.gate.postgres().all_levels().await?;
        // No period explains the drift that is left.
        let drift = verdict.drift.len() + verdict.grant_drift.len() + verdict.transfer_drift.len();
        repaired.left += (drift + verdict.meter_drift.len()) as u64;
        let mut behind: BTreeSet<Partition> = BTreeSet::new();
        for difference in &verdict.differences {
            if difference.dead_letters > 0 {
                repaired.left += 1;
            } else if difference.is_of_record() {
                behind.insert(self.gate.partitions().of(&difference.user));
            } else if difference.unreadable {
                // An adjustment would count the charges again when a newer program reads the entry.
                repaired.left += 1;
            } else {
                repaired.adjustments += self.adjust(difference, &levels).await?;
            }
        }
        for partition in behind {
            self.gate.leave_generation(partition, self.gate.generation(partition)).await?;
            repaired.reopened += 1;
        }
        Ok(())
    }

    /// Gives users the quota of their level in Postgres, and sends it to Redis.
    async fn repair_levels(&self, verdict: &Verdict) -> Result<u64, AuditError> {
        let of_rows = verdict.quota_drift.iter().map(|drift| (&drift.user, 0));
        let of_records = verdict.level_drift.iter().map(|drift| (&drift.user, drift.level_version));
        let known: BTreeMap<&UserId, u32> = of_rows.chain(of_records).collect();
        for (user, known_version) in &known {
            let now = self.gate.now();
            self.gate.postgres().repair_level(user, *known_version, self.gate.calendar(), now).await?;
            self.gate.refresh_level(user).await?;
        }
        Ok(known.len() as u64)
    }

    /// Logs charges that Redis has and Postgres lacks: those of the record's period, those of earlier ones, and those
    /// that grants paid. One of them names what the log's windows lack.
    async fn adjust(&self, found: &RecordDifference, levels: &Levels) -> Result<u64, AuditError> {
        let of_period = found.used.0 - found.used.1;
        // What the record has less of a grant, it has charged, or has ended by a void that Postgres has lost.
        let mut unpaid = (found.total_used.0 - found.total_used.1).saturating_sub(of_period);
        let mut part = |grant: &GrantDifference| {
            let ap = (grant.left.1 - grant.left.0).min(unpaid);
            unpaid -= ap;
            GrantPart { number: grant.number, ap: Ap::new(u32::try_from(ap).unwrap_or(u32::MAX)) }
        };
        let mut parts: Vec<GrantPart> = found.grants.iter().map(&mut part).collect();
        parts.retain(|part| part.ap > Ap::ZERO);
        let of_others = unpaid;
        let mut events = Vec::new();
        if !parts.is_empty() {
            let paid = parts.iter().map(|part| u64::from(part.ap.get())).sum();
            let mut event = self.adjustment((&found.user, found.meter), found.period, paid, levels);
            event.grants = parts;
            events.push(event);
        }
        for (period, ap) in [(found.period, of_period), (found.period.month_before(), of_others)] {
            if ap == 0 {
                continue;
            }
            events.push(self.adjustment((&found.user, found.meter), period, ap, levels));
        }
        let windows = window_difference::missing_in_log(&found.windows);
        if events.is_empty() && !windows.is_empty() {
            events.push(self.adjustment((&found.user, found.meter), found.period, 0, levels));
        }
        if let Some(first) = events.first_mut() {
            first.windows = windows;
        }
        for event in &events {
            self.gate.postgres().adjust(event, levels, self.gate.calendar(), self.gate.now()).await?;
        }
        Ok(events.len() as u64)
    }

    fn adjustment(&self, (user, meter): (&UserId, MeterCode), period: Period, ap: u64, levels: &Levels) -> UsageEvent {
        UsageEvent {
            id: Uuid::new_v4(),
            user: user.clone(),
            session: SessionId::parse(SESSION).expect("a session id"),
            level: levels.lowest().code,
            period,
            ap: Ap::new(u32::try_from(ap).unwrap_or(u32::MAX)),
            overage: Ap::ZERO,
            tokens: Tokens::ZERO,
            model: None,
            kind: UsageKind::Adjustment,
            receipt: None,
            at: self.gate.now(),
            begun_at: None,
            windows: Vec::new(),
            grants: Vec::new(),
            meter,
        }
    }
}

fn period_of(id: i32) -> Option<Period> {
    Period::from_id(u32::try_from(id).ok()?).ok()
}
