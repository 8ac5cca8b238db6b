//! Sets a user's level by billing events.
//!
//! An event is first recorded, then applied. So an event that could not be applied is applied when it is sent again,
//! and an old event that is sent again does not undo what an administrator has changed since.

use crate::gate::{ChangeLevel, Gate, GateError};
use crate::{
    domain::{
        author::Author,
        level::{Level, Levels},
        level_change::Effective,
        subscription::{PriceLevels, SubscriptionEvent},
    },
    store::postgres::Noted,
};

impl Gate {
    /// Gives the user the highest level that is paid for, or the lowest if none is. Upgrades apply immediately,
    /// downgrades at the next period. Returns true if this event changed something.
    ///
    /// # Errors
    /// [`GateError::Invalid`] if no bought item pays for a level, [`GateError::Unavailable`] if Postgres or Redis is
    /// unavailable.
    pub async fn apply_subscription(&self, event: &SubscriptionEvent, prices: &PriceLevels) -> Result<bool, GateError> {
        let postgres = &self.0.postgres;
        let levels = self.levels();
        let bought = if event.is_live {
            let names = prices.of(&event.items)?;
            let highest = highest(&levels, names.iter().map(|name| name.as_str()));
            Some(highest.ok_or_else(|| unknown_level(names[0].as_str()))?.name.clone())
        } else {
            None
        };
        if postgres.note_subscription(event, bought.as_ref()).await? == Noted::Known {
            return Ok(false);
        }
        let paid = postgres.subscribed_levels(&event.user).await?;
        let target = highest(&levels, paid.iter().map(String::as_str)).unwrap_or_else(|| levels.lowest());
        let today = self.0.calendar.day_start(self.0.calendar.day_at(self.now()));
        let row = postgres.find(&event.user, today).await?;
        let changes = row.is_none_or(|row| row.pending.unwrap_or(row.level) != target.code);
        if changes {
            let state = if event.is_live { "is live" } else { "has ended" };
            let reason = format!("{}: subscription {} {state}", event.id, event.subscription);
            self.change_level(ChangeLevel {
                user: event.user.clone(),
                level: target.name.clone(),
                effective: Effective::Fair,
                if_version: None,
                author: Author { by: "billing".into(), reason },
            })
            .await?;
        }
        postgres.subscription_applied(event).await?;
        Ok(changes)
    }
}

fn highest<'a, 'b>(levels: &'a Levels, names: impl Iterator<Item = &'b str>) -> Option<&'a Level> {
    names.filter_map(|name| levels.named(name)).max_by_key(|level| level.quota)
}

fn unknown_level(name: &str) -> crate::domain::InvalidInput {
    crate::domain::InvalidInput { field: "billing.levels", rule: format!("{name} is not a level of this installation") }
}
