//! I3 and I4: each acknowledged charge is in the log once, as answered, and every row in the log was requested.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use uuid::Uuid;

use super::{Allowed, Audit, LogRow};
use crate::{
    history::{Event, History, Kind, Outcome},
    load::user,
};

impl Audit {
    pub(super) fn log(&mut self, rows: &[LogRow], history: &History, allowed: &Allowed) {
        let mut logged: HashMap<Uuid, &LogRow> = HashMap::new();
        for row in rows {
            if logged.insert(row.event, row).is_some() {
                self.violated("I4", format!("{} is in the log twice", row.event));
            }
        }
        for event in &history.0 {
            self.amounts_add_up(event);
            self.acknowledged_is_logged(event, &logged, allowed);
        }
        self.accepted_is_made(history, &logged, allowed);
        self.logged_was_asked_for(rows, history);
    }

    /// Checks that the answered amounts match the request.
    fn amounts_add_up(&mut self, event: &Event) {
        let Outcome::Charged { ap, overage, .. } = event.outcome else { return };
        let right = match event.kind {
            Kind::Commit(_) => ap + overage == event.ap,
            _ => ap == event.ap && overage == 0,
        };
        if !right {
            let what = format!("{:?} of {} AP got the answer {ap} AP, overage {overage}", event.kind, event.ap);
            self.violated("I3", what);
        }
    }

    fn acknowledged_is_logged(&mut self, event: &Event, logged: &HashMap<Uuid, &LogRow>, allowed: &Allowed) {
        let Outcome::Charged { event: id, ap, overage, degraded } = event.outcome else { return };
        if let Kind::Again(first) = event.kind
            && first != id
        {
            self.violated("I4", format!("a repeated request has event {id}, the first one {first}"));
        }
        match logged.get(&id) {
            Some(row) => {
                // A message admitted without Redis is charged up to the quota, and the rest is overage.
                let same = if degraded { row.ap + row.overage == ap } else { (row.ap, row.overage) == (ap, overage) };
                if !same || row.user != user(event.user) {
                    let (ap_logged, overage_logged, whose) = (row.ap, row.overage, &row.user);
                    let who = user(event.user);
                    self.violated(
                        "I3",
                        format!("{id} of {who}: acknowledged {ap} AP, overage {overage}; in the log {whose}: {ap_logged} AP, overage {overage_logged}"),
                    );
                }
            }
            None if allowed.lost_at(event.answered) => {
                self.lost += 1;
                self.lost_ap += u64::from(ap);
            }
            None => {
                let who = user(event.user);
                self.violated("I3", format!("{id} of {who}, acknowledged at {:?}, is not in the log", event.answered));
            }
        }
    }

    /// Checks that commits accepted while Redis was unavailable are applied, and released holds are not charged.
    fn accepted_is_made(&mut self, history: &History, logged: &HashMap<Uuid, &LogRow>, allowed: &Allowed) {
        let mut settled: HashMap<Uuid, Vec<&Event>> = HashMap::new();
        for event in &history.0 {
            if let Kind::Commit(hold) | Kind::Release(hold) = event.kind {
                settled.entry(hold).or_default().push(event);
            }
        }
        for (hold, events) in settled {
            let of = |commit: bool| events.iter().filter(move |event| matches!(event.kind, Kind::Commit(_)) == commit);
            let released = of(false).any(|event| matches!(event.outcome, Outcome::Released | Outcome::Accepted));
            let accepted = of(true).find(|event| event.outcome == Outcome::Accepted);
            let row = logged.get(&hold);
            match (accepted, row) {
                // A loss after the commit was applied and before it was flushed includes it.
                (Some(event), None) if !released && !allowed.lost_between(event.answered, Duration::MAX) => {
                    let who = user(event.user);
                    self.violated("I3", format!("the commit of {hold} of {who} was accepted but never applied"));
                }
                (Some(event), Some(row)) if row.ap + row.overage != event.ap => {
                    self.violated(
                        "I3",
                        format!("{hold} was accepted with {} AP, but applied with {}", event.ap, row.ap),
                    );
                }
                _ => {}
            }
            if released && of(true).next().is_none() && row.is_some() {
                self.violated("I6", format!("{hold} was released, but is in the log"));
            }
        }
    }

    /// Checks that every row comes from a request that was acknowledged, accepted, or has an unknown outcome.
    fn logged_was_asked_for(&mut self, rows: &[LogRow], history: &History) {
        let mut asked: HashMap<String, u64> = HashMap::new();
        let mut acknowledged: HashSet<Uuid> = HashSet::new();
        for event in &history.0 {
            match (event.kind, event.outcome) {
                (_, Outcome::Charged { event: id, .. }) => {
                    acknowledged.insert(id);
                }
                (Kind::Commit(hold), Outcome::Accepted | Outcome::Unknown) => {
                    acknowledged.insert(hold);
                }
                (Kind::Consume, Outcome::Unknown) => {
                    *asked.entry(user(event.user)).or_default() += u64::from(event.ap);
                }
                _ => {}
            }
        }
        let mut surplus: HashMap<&str, u64> = HashMap::new();
        for row in rows.iter().filter(|row| row.user.starts_with("user-") && !acknowledged.contains(&row.event)) {
            *surplus.entry(&row.user).or_default() += u64::from(row.ap + row.overage);
        }
        for (who, ap) in surplus {
            let in_doubt = asked.get(who).copied().unwrap_or(0);
            if ap > in_doubt {
                let what = format!(
                    "{who} is charged {ap} AP without acknowledgement, but only {in_doubt} AP have an unknown outcome"
                );
                self.violated("I3", what);
            }
        }
    }
}
