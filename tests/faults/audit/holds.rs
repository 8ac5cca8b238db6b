//! I6: a hold settles once and one way, covers what it held, and does not remain after the run.

use std::{collections::HashMap, time::Duration};

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{Allowed, Audit, LogRow};
use crate::{
    history::{Event, History, Kind, Outcome},
    installation::Installation,
    load::{TTL, user},
};

/// Longest wait until every hold has expired and Redis reports it.
const UNHELD_MAX: Duration = Duration::from_secs(15);

impl Audit {
    pub(super) fn holds_settle_once(&mut self, rows: &[LogRow], history: &History, allowed: &Allowed, reopened: bool) {
        let logged: HashMap<Uuid, &LogRow> = rows.iter().map(|row| (row.event, row)).collect();
        let mut holds: HashMap<Uuid, Vec<&Event>> = HashMap::new();
        for event in &history.0 {
            match (event.kind, event.outcome) {
                (Kind::Commit(hold) | Kind::Release(hold) | Kind::Extend(hold), _)
                | (Kind::Reserve, Outcome::Held { hold, .. }) => holds.entry(hold).or_default().push(event),
                _ => {}
            }
        }
        for (hold, events) in holds {
            let (Some(first), Some(last)) = (events.first(), events.last()) else { continue };
            // Redis may have lost a settlement without a charge, or one whose charge was lost too.
            if allowed.lost_between(first.sent, last.answered) {
                continue;
            }
            self.settles_one_way(hold, &events);
            if !reopened {
                self.is_covered(hold, &events);
            }
            self.is_covered_when_accepted(hold, &events, &logged);
        }
    }

    fn settles_one_way(&mut self, hold: Uuid, events: &[&Event]) {
        let mut charged: Vec<(u32, u32)> = Vec::new();
        let mut released = false;
        for event in events {
            match (event.kind, event.outcome) {
                (Kind::Commit(_), Outcome::Charged { ap, overage, .. }) => charged.push((ap, overage)),
                (Kind::Release(_), Outcome::Released) => released = true,
                (Kind::Commit(_) | Kind::Release(_), Outcome::Rejected(409)) => {
                    let other = |before: &&&Event| {
                        let contrary = matches!(before.kind, Kind::Commit(_)) != matches!(event.kind, Kind::Commit(_));
                        let settles = matches!(before.kind, Kind::Commit(_) | Kind::Release(_));
                        settles && contrary && before.sent < event.answered
                    };
                    if !events.iter().any(|before| other(&before)) {
                        self.violated(
                            "I6",
                            format!("hold {hold} was reported as settled, but no request had settled it"),
                        );
                    }
                }
                _ => {}
            }
        }
        if charged.windows(2).any(|two| two[0] != two[1]) {
            self.violated("I6", format!("hold {hold} was committed more than once: {charged:?}"));
        }
        if released && !charged.is_empty() {
            self.violated("I6", format!("hold {hold} was committed and released"));
        }
    }

    /// Checks that a commit in time of at most the held AP is charged in full, whatever else was used meanwhile.
    fn is_covered(&mut self, hold: Uuid, events: &[&Event]) {
        let Some(reserved) = events.iter().find(|event| matches!(event.outcome, Outcome::Held { degraded: false, .. }))
        else {
            return;
        };
        for event in events {
            let (Kind::Commit(_), Outcome::Charged { overage, .. }) = (event.kind, event.outcome) else { continue };
            let in_time = event.answered < reserved.sent + TTL;
            if in_time && event.ap <= reserved.ap && overage > 0 {
                self.violated("I6", format!("hold {hold} of {} AP did not cover {} AP", reserved.ap, event.ap));
            }
        }
    }

    /// Checks that a commit that Postgres accepted in time is charged in full, whatever its user charged since.
    fn is_covered_when_accepted(&mut self, hold: Uuid, events: &[&Event], logged: &HashMap<Uuid, &LogRow>) {
        let Some(reserved) = events.iter().find(|event| matches!(event.outcome, Outcome::Held { degraded: false, .. }))
        else {
            return;
        };
        let accepted = events.iter().find(|event| {
            matches!(event.kind, Kind::Commit(_))
                && event.outcome == Outcome::Accepted
                && event.answered < reserved.sent + TTL
        });
        if let (Some(event), Some(row)) = (accepted, logged.get(&hold))
            && event.ap <= reserved.ap
            && row.overage > 0
        {
            let (ap, overage) = (event.ap, row.overage);
            self.violated("I6", format!("hold {hold}: {overage} of {ap} AP accepted in time were not charged"));
        }
    }

    /// Checks that unsettled holds give their AP back.
    pub(super) async fn no_hold_is_left(
        &mut self,
        installation: &Installation,
        history: &History,
    ) -> anyhow::Result<()> {
        let mut users: Vec<usize> = history
            .0
            .iter()
            .filter(|event| {
                event.kind == Kind::Reserve && matches!(event.outcome, Outcome::Held { .. } | Outcome::Unknown)
            })
            .map(|event| event.user)
            .collect();
        users.sort_unstable();
        users.dedup();
        let began = Instant::now();
        while let Some(number) = users.last().copied() {
            match installation.gates[0].held(&user(number)).await {
                Some(0) => {
                    users.pop();
                }
                held if began.elapsed() > UNHELD_MAX => {
                    self.violated("I6", format!("{} still holds {held:?} AP", user(number)));
                    return Ok(());
                }
                _ => sleep(Duration::from_millis(100)).await,
            }
        }
        Ok(())
    }
}
