//! I1 and I9: no user exceeds the quota, and no user is denied AP that it covers.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use uuid::Uuid;

use super::{Allowed, Audit, LogRow};
use crate::{
    history::{Event, History, Kind, Outcome},
    installation::QUOTA,
    load::{TTL, USERS, user},
    plans::{BUYER_QUOTA, BUYERS, MOVERS, PLUS_QUOTA, WINDOWED},
};

/// How much longer than its time to live after the answer a hold can last, because clocks differ.
const EXPIRY_SLACK: Duration = Duration::from_secs(2);
/// The same for a request whose answer was lost, because it may have been executed late.
const UNKNOWN_SLACK: Duration = Duration::from_secs(15);

/// Most AP of the levels that movers have: the soak raises `basic`.
const MOVED_QUOTA_MAX: u32 = QUOTA + 150;

impl Allowed {
    /// Returns the AP that a user may have been charged beyond any limit: by a gate that was left behind, or by commits
    /// that Postgres accepted.
    pub(super) fn beside(&self, who: &str, history: &History) -> u64 {
        let left_behind = self.splits.iter().map(|split| {
            let by = |event: &&Event| {
                event.gate == split.left_behind && event.answered >= split.from && event.sent <= split.to
            };
            history.of(who).filter(by).map(|event| u64::from(may_charge(event))).sum::<u64>()
        });
        left_behind.sum::<u64>() + accepted(who, history, self)
    }
}

impl Audit {
    pub(super) fn no_user_exceeds_the_quota(&mut self, rows: &[LogRow], history: &History, allowed: &Allowed) {
        let mut used: HashMap<(&str, i32), u64> = HashMap::new();
        for row in rows {
            *used.entry((&row.user, row.period)).or_default() += u64::from(row.plan);
        }
        // In runs without plans, these users are like the others.
        let own = if self.with_plans { BUYER_QUOTA } else { QUOTA };
        let mut quotas: HashMap<String, u32> = BUYERS.map(|number| (user(number), own)).collect();
        quotas.extend(WINDOWED.map(|number| (user(number), PLUS_QUOTA)));
        quotas.extend(MOVERS.map(|number| (user(number), MOVED_QUOTA_MAX)));
        let raised =
            allowed.raised.into_iter().flat_map(|(below, quota)| (0..below).map(move |number| (number, quota)));
        for (number, quota) in raised {
            let most = quotas.entry(user(number)).or_default();
            *most = quota.max(*most);
        }
        for ((who, period), used) in used {
            let quota = u64::from(quotas.get(who).copied().unwrap_or(QUOTA));
            self.over_ap += used.saturating_sub(quota);
            let beside = allowed.beside(who, history);
            if used > quota + beside {
                self.violated("I1", format!("{who} was charged {used} AP of {quota} (+{beside}) in {period}"));
            }
        }
    }

    /// Checks at each denial that the denied AP and what may have been used or held by then exceed the quota.
    pub(super) fn no_false_denial(&mut self, history: &History, allowed: &Allowed) {
        let raised = allowed.raised.map_or(0, |(below, _)| below);
        let mut by_user: HashMap<usize, Vec<&Event>> = HashMap::new();
        for event in &history.0 {
            by_user.entry(event.user).or_default().push(event);
        }
        // What users with packs, windows or other levels have left is not known from their own messages.
        by_user.retain(|number, _| *number < USERS);
        for (number, events) in by_user {
            for denied in &events {
                let Outcome::Denied { remaining } = denied.outcome else { continue };
                if remaining >= denied.ap {
                    self.violated("I9", format!("{} was denied {} AP with {remaining} left", user(number), denied.ap));
                }
                // If levels change, the quota at that moment is unknown.
                if number < raised {
                    continue;
                }
                let taken = may_be_taken(&events, denied);
                if taken + u64::from(denied.ap) <= u64::from(QUOTA) {
                    let (who, ap, at) = (user(number), denied.ap, denied.answered);
                    self.violated(
                        "I9",
                        format!("{who} was denied {ap} AP at {at:?}, when at most {taken} of {QUOTA} were taken"),
                    );
                }
            }
        }
    }
}

/// Returns the AP of commits that Postgres accepted. The AP of their holds may have been used again in between.
fn accepted(who: &str, history: &History, allowed: &Allowed) -> u64 {
    let by_clients = history.of(who).filter(|event| event.outcome == Outcome::Accepted).map(|event| match event.kind {
        Kind::Commit(_) => u64::from(event.ap),
        _ => 0,
    });
    let by_row = allowed.accepted.iter().filter(|(user, _)| user == who).map(|(_, ap)| u64::from(*ap));
    by_clients.chain(by_row).sum()
}

/// Returns the most AP that a user's requests can have used and held when this request was denied.
fn may_be_taken(events: &[&Event], denied: &Event) -> u64 {
    let begun = || events.iter().filter(|event| event.sent < denied.answered);
    // A hold released or charged before this request was sent holds nothing any more.
    let settled: HashSet<Uuid> = begun()
        .filter(|event| event.answered < denied.sent)
        .filter_map(|event| match (event.kind, event.outcome) {
            (Kind::Commit(hold), Outcome::Charged { .. }) | (Kind::Release(hold), Outcome::Released) => Some(hold),
            _ => None,
        })
        .collect();
    // A hold is charged once, however often its commit is repeated.
    let mut committed: HashMap<Uuid, u32> = HashMap::new();
    let mut taken = 0;
    for event in begun() {
        let held_until = |slack: Duration| event.answered + TTL + slack;
        taken += u64::from(match (event.kind, event.outcome) {
            (Kind::Reserve, Outcome::Held { hold, .. }) => {
                let is_over =
                    settled.contains(&hold) || event.is_last_extended(events, hold, denied.sent, EXPIRY_SLACK);
                if is_over { 0 } else { event.ap }
            }
            (Kind::Reserve, Outcome::Unknown) if held_until(UNKNOWN_SLACK) < denied.sent => 0,
            (Kind::Commit(hold), _) => {
                let most = committed.entry(hold).or_default();
                *most = may_charge(event).max(*most);
                0
            }
            _ => may_charge(event),
        });
    }
    taken + committed.into_values().map(u64::from).sum::<u64>()
}

impl Event {
    /// Returns whether this hold and all its extensions had expired at that time.
    fn is_last_extended(&self, events: &[&Event], hold: Uuid, at: Duration, slack: Duration) -> bool {
        let extended = events.iter().filter(|event| event.kind == Kind::Extend(hold)).map(|event| event.answered);
        let last = extended.fold(self.answered, Duration::max);
        last + TTL + slack < at
    }
}

/// Returns the most AP that a request can have charged or held.
fn may_charge(event: &Event) -> u32 {
    match (event.kind, event.outcome) {
        (Kind::Commit(_), Outcome::Charged { ap, .. }) => ap,
        (Kind::Commit(_), Outcome::Unknown | Outcome::Accepted)
        | (Kind::Consume | Kind::Reserve, Outcome::Charged { .. } | Outcome::Held { .. } | Outcome::Unknown) => {
            event.ap
        }
        _ => 0,
    }
}
