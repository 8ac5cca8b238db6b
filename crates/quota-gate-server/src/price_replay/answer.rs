//! The result of a price replay as JSON.

use serde::Serialize;
use utoipa::ToSchema;

use crate::http::answers::time::Millis;
use quota_gate::{
    audit::price_replay::ReplayedDays,
    domain::{
        calendar::Calendar,
        clock::instant,
        level::Levels,
        price_replay::{AffectedUser, LevelReport, Limit, Report, Sums},
        window::WindowUnit,
    },
};

/// What a proposal would have changed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PriceReplayBody {
    #[schema(example = "2026-11-01")]
    pub(crate) from: String,
    #[schema(example = "2026-11-30")]
    pub(crate) to: String,
    /// Time zone of the days.
    pub(crate) time_zone: String,
    /// Sums over all levels. A user of several levels counts once.
    pub(crate) total: SumsBody,
    pub(crate) levels: Vec<ReplayedLevelBody>,
    /// Users with the most denied messages, most first.
    pub(crate) most_affected: Vec<AffectedUserBody>,
    /// What the result does not show.
    pub(crate) notes: Vec<String>,
}

/// A level, as proposed or as now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReplayedLevelBody {
    pub(crate) membership_level: String,
    /// AP per period; null for a level that the installation does not know.
    #[schema(required = true)]
    pub(crate) quota: Option<u32>,
    pub(crate) windows: Vec<WindowBody>,
    #[serde(flatten)]
    pub(crate) sums: SumsBody,
    /// Denials by limit. A message that several limits deny counts for each.
    pub(crate) limits: Vec<DenyingLimitBody>,
    /// Users by the day of their first denial, which was at this level.
    pub(crate) first_denials: Vec<FirstDenialsBody>,
}

/// Sums of messages.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SumsBody {
    /// Users who sent a message.
    pub(crate) users: u64,
    pub(crate) messages: u64,
    /// AP that were charged.
    pub(crate) ap: u64,
    /// AP that the quotas could not cover.
    pub(crate) overage: u64,
    /// AP that would have been charged.
    pub(crate) proposed_ap: u64,
    /// AP of allowed messages that the limits would not have covered.
    pub(crate) proposed_overage: u64,
    /// Users who would have been denied at least once.
    pub(crate) denied_users: u64,
    /// Messages that would have been denied.
    pub(crate) denied_messages: u64,
    /// AP that the denied messages would have cost.
    pub(crate) denied_ap: u64,
}

/// A window of a level.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WindowBody {
    #[schema(example = "5h")]
    pub(crate) every: String,
    pub(crate) unit: WindowUnitWord,
    pub(crate) limit: u32,
}

/// What a window counts.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WindowUnitWord {
    Ap,
    Requests,
}

/// Denials by a limit.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DenyingLimitBody {
    /// `quota`, `model` (it is not listed), or a window's length and unit.
    #[schema(example = "5h ap")]
    pub(crate) limit: String,
    pub(crate) users: u64,
    pub(crate) messages: u64,
}

/// Users who would have been denied for the first time on a day.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FirstDenialsBody {
    #[schema(example = "2026-11-23")]
    pub(crate) day: String,
    pub(crate) users: u64,
}

/// A user who would have been denied.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AffectedUserBody {
    pub(crate) user_uuid: String,
    /// Level at the first denied message.
    pub(crate) membership_level: String,
    pub(crate) first_denied_at: String,
    pub(crate) messages: u64,
    pub(crate) ap: u64,
    pub(crate) proposed_ap: u64,
    pub(crate) denied_messages: u64,
    pub(crate) denied_ap: u64,
}

impl PriceReplayBody {
    pub(crate) fn new(days: ReplayedDays, calendar: Calendar, present: &Levels, report: Report) -> Self {
        let notes = notes(present, &report);
        Self {
            from: days.from().to_string(),
            to: days.to().to_string(),
            time_zone: calendar.time_zone().name().to_owned(),
            total: report.total.into(),
            levels: report.levels.into_iter().map(ReplayedLevelBody::from).collect(),
            most_affected: report.most_affected.into_iter().map(AffectedUserBody::from).collect(),
            notes,
        }
    }
}

fn notes(present: &Levels, report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    for level in &report.levels {
        if level.quota.is_none() {
            notes.push(format!("level {} of the log is unknown: its messages had no limits", level.name));
        } else if present.named(&level.name).is_none() {
            notes.push(format!("levels.{} is not a level of this installation: no message has it", level.name));
        }
    }
    if report.tokens_as_output > 0 {
        notes.push(format!(
            "of {} messages with a price by tokens, the log has only the total: all their tokens were priced as output",
            report.tokens_as_output
        ));
    }
    if report.tokens_unknown > 0 {
        notes.push(format!(
            "of {} messages with a price by tokens, the log has no tokens: they cost the minimum",
            report.tokens_unknown
        ));
    }
    notes
}

impl From<LevelReport> for ReplayedLevelBody {
    fn from(level: LevelReport) -> Self {
        let windows = level.windows.iter().map(|window| WindowBody {
            every: window.key.every(),
            unit: window.key.unit.into(),
            limit: window.limit,
        });
        // Few proposals refuse models.
        let limits = level.limits.iter().filter(|found| found.limit != Limit::Model || found.messages > 0);
        let limits = limits.map(|found| DenyingLimitBody {
            limit: found.limit.to_string(),
            users: found.users,
            messages: found.messages,
        });
        let first_denials = level.first_denials.iter();
        let first_denials = first_denials.map(|(day, users)| FirstDenialsBody { day: day.to_string(), users: *users });
        Self {
            quota: level.quota,
            windows: windows.collect(),
            sums: level.sums.into(),
            limits: limits.collect(),
            first_denials: first_denials.collect(),
            membership_level: level.name,
        }
    }
}

impl From<Sums> for SumsBody {
    fn from(sums: Sums) -> Self {
        let Sums { users, messages, ap, overage, proposed_ap, proposed_overage, .. } = sums;
        let Sums { denied_users, denied_messages, denied_ap, .. } = sums;
        Self { users, messages, ap, overage, proposed_ap, proposed_overage, denied_users, denied_messages, denied_ap }
    }
}

impl From<WindowUnit> for WindowUnitWord {
    fn from(unit: WindowUnit) -> Self {
        match unit {
            WindowUnit::Ap => Self::Ap,
            WindowUnit::Requests => Self::Requests,
        }
    }
}

impl From<AffectedUser> for AffectedUserBody {
    fn from(user: AffectedUser) -> Self {
        Self {
            user_uuid: user.user,
            membership_level: user.level,
            first_denied_at: Millis(instant(user.first_denied_ms)).to_string(),
            messages: user.sums.messages,
            ap: user.sums.ap,
            proposed_ap: user.sums.proposed_ap,
            denied_messages: user.sums.denied_messages,
            denied_ap: user.sums.denied_ap,
        }
    }
}
