//! The result of a price replay.

use std::collections::BTreeMap;

use chrono::NaiveDate;

use super::AffectedUser;
use crate::domain::{
    level::{LevelName, LevelTerms},
    window::Window,
};

/// What a proposal would have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The levels, those with the lowest quota first; then levels of the log that the installation does not know.
    pub levels: Vec<LevelReport>,
    /// Sums over all levels. A user of several levels counts once.
    pub total: Sums,
    /// Users with the most denied messages, most first.
    pub most_affected: Vec<AffectedUser>,
    /// Messages with a price by tokens, of whose tokens only the total is known: it was priced as output.
    pub tokens_as_output: u64,
    /// Messages with a price by tokens, whose tokens are unknown: they cost the minimum.
    pub tokens_unknown: u64,
}

/// A level in the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelReport {
    /// Name.
    pub name: String,
    /// AP per period; none for a level that the installation does not know, which has no limits.
    pub quota: Option<u32>,
    /// Windows, shortest first.
    pub windows: Vec<Window>,
    /// Sums.
    pub sums: Sums,
    /// Every limit of the level. A message that several limits deny counts for each.
    pub limits: Vec<LimitReport>,
    /// Number of users by the day of their first denial, which was at this level.
    pub first_denials: BTreeMap<NaiveDate, u64>,
}

/// Sums of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Users who sent a message.
    pub users: u64,
    /// Messages.
    pub messages: u64,
    /// AP that were charged.
    pub ap: u64,
    /// AP that the quota did not cover.
    pub overage: u64,
    /// AP that would have been charged.
    pub proposed_ap: u64,
    /// AP of allowed messages that the limits would not have covered.
    pub proposed_overage: u64,
    /// Users who would have been denied at least once.
    pub denied_users: u64,
    /// Messages that would have been denied.
    pub denied_messages: u64,
    /// AP that the denied messages would have cost.
    pub denied_ap: u64,
}

/// What denies messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The level's quota.
    Quota,
    /// The model, which is not listed.
    Model,
    /// A window of the level.
    Window(Window),
}

/// How often a limit denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitReport {
    /// The limit.
    pub limit: Limit,
    /// Users whom it denied.
    pub users: u64,
    /// Messages that it denied.
    pub messages: u64,
}

impl LevelReport {
    pub(super) fn new(name: &LevelName, terms: &LevelTerms) -> Self {
        Self { quota: Some(terms.quota.get()), ..Self::with_windows(name.as_str(), terms.limits.windows()) }
    }

    pub(super) fn unknown(name: &str) -> Self {
        Self::with_windows(name, &[])
    }

    fn with_windows(name: &str, windows: &[Window]) -> Self {
        let limits = [Limit::Quota, Limit::Model].into_iter().chain(windows.iter().copied().map(Limit::Window));
        Self {
            name: name.to_owned(),
            quota: None,
            windows: windows.to_vec(),
            sums: Sums::default(),
            limits: limits.map(|limit| LimitReport { limit, users: 0, messages: 0 }).collect(),
            first_denials: BTreeMap::new(),
        }
    }
}

impl Sums {
    /// Adds the sums of others.
    pub fn add(&mut self, other: &Self) {
        self.users += other.users;
        self.messages += other.messages;
        self.ap += other.ap;
        self.overage += other.overage;
        self.proposed_ap += other.proposed_ap;
        self.proposed_overage += other.proposed_overage;
        self.denied_users += other.denied_users;
        self.denied_messages += other.denied_messages;
        self.denied_ap += other.denied_ap;
    }
}

impl std::fmt::Display for Limit {
    /// Formats as `quota`, `model` or `5h ap`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Quota => f.write_str("quota"),
            Self::Model => f.write_str("model"),
            Self::Window(Window { key, .. }) => write!(f, "{} {}", key.every(), key.unit.as_str()),
        }
    }
}
