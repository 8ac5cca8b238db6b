//! Commit: charges what was generated and gives back the rest of the hold.

use chrono::{DateTime, Utc};

use crate::gate::{
    Commit, Gate, GateError, Inner, decision_metrics::Settlement, error::unexpected, message::settle::Settling,
};
use crate::{
    domain::{
        decision::{Committed, Settled},
        hold::Reservation,
    },
    store::{
        postgres::InboxKind,
        redis::{Idempotency, Operation, ReplyStatus},
    },
};

impl Gate {
    /// Settles a hold by charging it. What the quota no longer covers is recorded as overage and never charged.
    /// Repeating a commit is safe: it returns the same answer, with `replayed`. While Redis is unavailable, Postgres
    /// accepts it.
    ///
    /// # Errors
    /// [`GateError::AlreadySettled`] after a release, [`GateError::Mismatch`] after a commit of another cost,
    /// [`GateError::ReservationExpired`] after the settle window, [`GateError::UnknownReservation`] for an id that no
    /// gate has signed.
    pub async fn commit(&self, reservation_id: &str, commit: Commit) -> Result<Settled<Committed>, GateError> {
        let reservation = self.read_reservation(reservation_id)?;
        match self.commit_now(&reservation, &commit, None, None).await {
            Err(failed) if failed.is_transient() => {
                self.accept_settlement(InboxKind::Commit, &reservation, commit, failed).await?;
                Ok(Settled::Later)
            }
            outcome => outcome.map(Settled::Now),
        }
    }

    /// Commits in Redis only. `accepted_at` is when Postgres accepted the commit, if it did; `idempotency` is how
    /// repeats of the message are recognized, if it was allowed while Redis was unavailable.
    pub(in crate::gate) async fn commit_now(
        &self,
        reservation: &Reservation,
        commit: &Commit,
        accepted_at: Option<DateTime<Utc>>,
        idempotency: Option<Idempotency>,
    ) -> Result<Committed, GateError> {
        let gate = &self.0;
        let ap = commit.ap.unwrap_or(reservation.ap);
        let expiry_day = gate.calendar.day_at(reservation.expires_at);
        let operation = |adopt| Operation::Commit {
            reservation: reservation.clone(),
            ap,
            tokens: commit.tokens,
            model: commit.model.clone(),
            expiry_day,
            adopt,
            accepted_at,
            idempotency: idempotency.clone(),
        };
        let answer = match gate.settle(reservation, accepted_at, operation).await? {
            Settling::Answered(answer) => answer,
            Settling::CommittedBefore(logged) => {
                if logged.ap.saturating_add(logged.overage) != ap {
                    return Err(GateError::Mismatch(OTHER_COST));
                }
                return Ok(Committed {
                    charged: logged.ap,
                    overage: logged.overage,
                    late: logged.late,
                    replayed: true,
                    quota: self.of_meter(reservation.meter).quota(&reservation.user).await?,
                });
            }
        };
        match answer.status {
            ReplyStatus::Ok => {
                let (charged, overage, late) = (answer.charged, answer.overage, answer.late);
                if !answer.replayed {
                    gate.decision_metrics.settled(Settlement::Committed { charged, overage, late });
                }
                Ok(Committed {
                    charged: answer.charged,
                    overage: answer.overage,
                    late: answer.late,
                    replayed: answer.replayed,
                    quota: Inner::quota_of(&reservation.user, &answer),
                })
            }
            ReplyStatus::Settled => Err(GateError::AlreadySettled("it was released")),
            ReplyStatus::Mismatch => Err(GateError::Mismatch(OTHER_COST)),
            ReplyStatus::Expired => {
                metrics::counter!("quota_gate_commits_expired_total").increment(1);
                tracing::warn!(user = %reservation.user, ap = ap.get(), hold = %reservation.hold,
                    "a commit arrived after its settle window: nothing was charged");
                Err(GateError::ReservationExpired("its settle window is over, so this commit charged nothing"))
            }
            other => Err(unexpected("commit", other)),
        }
    }
}

pub(in crate::gate) const OTHER_COST: &str = "this reservation was committed with another cost";
