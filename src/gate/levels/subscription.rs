//! Sets users' levels by billing events.
//!
//! Postgres records and applies an event in one transaction. A repeated event changes nothing, so it does not undo what
//! an administrator has changed since. Redis gets the changes afterwards, from this gate or from any level sync.

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::gate::{Gate, GateError};
use crate::{
    domain::subscription::{PriceLevels, SubscriptionEvent},
    store::postgres::{AppliedEvent, NewUser},
};

impl Gate {
    /// Gives the user the highest level that is paid for, or the lowest if none is; the same for a user who had the
    /// subscription before. Events of forgotten users are ignored. Upgrades apply immediately, downgrades at the next
    /// period. With `packs_need_plan`, what is left of packs is voided when no subscription of their user pays for a
    /// level any more. Returns true if this event changed a level or voided a pack.
    ///
    /// # Errors
    /// [`GateError::Invalid`] if no bought item pays for a level, [`GateError::Unavailable`] if Postgres is
    /// unavailable.
    pub async fn apply_subscription(
        &self,
        event: &SubscriptionEvent,
        prices: &PriceLevels,
        packs_need_plan: bool,
    ) -> Result<bool, GateError> {
        let gate = &self.0;
        let levels = self.levels();
        let state = event.terms.state(prices, &levels)?;
        // Only helps to order events: terms with an unknown price are as good as none.
        let before = event.terms_before.as_ref().and_then(|terms| terms.state(prices, &levels).ok());
        let forgotten = gate.postgres.forgotten_of(before.iter().chain([&state]).map(|state| &state.user)).await?;
        if forgotten.contains(&state.user) {
            tracing::info!(event = event.id, "a billing event of a forgotten user is ignored");
            return Ok(false);
        }
        // The state before would store the id.
        let before = before.filter(|before| !forgotten.contains(&before.user));
        let now = gate.now();
        let first = NewUser { calendar: gate.calendar, now };
        let today = gate.calendar.day_start(gate.calendar.day_at(now));
        let applied = AppliedEvent {
            id: &event.id,
            subscription: &event.subscription,
            at: event.at,
            stage: event.stage,
            state: &state,
            before: before.as_ref(),
            paid_days: event.paid_time.map(|paid| paid.days(gate.calendar)),
            packs_need_plan,
        };
        let changes = gate.postgres.apply_subscription(&applied, &levels, &first, today).await?;
        let is_change = !changes.levels.is_empty() || !changes.without_packs.is_empty();
        for user in &changes.without_packs {
            self.send_grants_soon(user).await;
        }
        let this = self.clone();
        // The event is applied: Redis must get the changes even if the sender stops waiting.
        let sending = tokio::spawn(async move {
            let sent =
                changes.levels.iter().map(|change| this.0.send_level_to_redis(&change.after.user, &change.after));
            join_all(sent).await
        });
        match timeout(gate.deadline, sending).await {
            Ok(Ok(sent)) => sent.into_iter().filter_map(Result::err).for_each(|error| {
                tracing::warn!(event = event.id, %error, "a level is changed, but not in Redis yet; the level sync sends it");
            }),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(event = event.id, "a level is changed, but not in Redis yet; the gate keeps trying");
            }
        }
        Ok(is_change)
    }
}
