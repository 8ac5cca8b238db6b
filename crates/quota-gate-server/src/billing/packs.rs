//! Packs: what each price, product or lookup key of the billing system gives.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use quota_gate::domain::{
    InvalidInput,
    ap::Ap,
    meter::MeterCode,
    new_grant::{ExpiresAfter, ExternalId, GrantSource, NewGrant, PACK_SOURCE, Priority},
    purchase::Purchase,
    remedy::OfferedPack,
    user_id::UserId,
};

/// A pack, as the configuration describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml describes each setting")]
pub struct PackOptions {
    pub ap: i64,
    pub expires_after: Option<String>,
    pub priority: Option<i64>,
}

/// A pack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pack {
    pub(super) ap: Ap,
    pub(super) expires_after: Option<ExpiresAfter>,
    pub(super) priority: Priority,
}

/// The packs, by price, product or lookup key.
#[derive(Debug, Clone, Default)]
pub struct Packs(BTreeMap<String, Pack>);

impl Packs {
    /// Creates the mapping from the configuration.
    ///
    /// # Errors
    /// If a pack has an invalid amount, life or priority.
    pub fn new(options: &BTreeMap<String, PackOptions>) -> Result<Self, InvalidInput> {
        let pack = |(item, options): (&String, &PackOptions)| {
            let PackOptions { ap, expires_after, priority } = options;
            let pack = Pack {
                ap: NewGrant::ap(*ap)?,
                expires_after: expires_after.as_deref().map(ExpiresAfter::parse).transpose()?,
                priority: priority.map(Priority::new).transpose()?.unwrap_or(Priority::DEFAULT),
            };
            Ok((item.clone(), pack))
        };
        options.iter().map(pack).collect::<Result<_, _>>().map(Self)
    }

    /// The packs as a denial offers them.
    pub(crate) fn offered(&self) -> Vec<OfferedPack> {
        self.0.iter().map(|(name, pack)| OfferedPack { name: name.clone(), ap: pack.ap }).collect()
    }

    /// The purchase of one pack; none if there is no such pack.
    ///
    /// # Errors
    /// If the id of the checkout is invalid.
    pub(crate) fn purchase(
        &self,
        item: &str,
        user: &UserId,
        checkout: &str,
        at: DateTime<Utc>,
    ) -> Result<Option<Purchase>, InvalidInput> {
        let Some((item, pack)) = self.find(&[item]) else { return Ok(None) };
        let grants = vec![pack.grant(user, at, 1, &format!("{checkout}/{item}"))?];
        Ok(Some(Purchase { checkout: checkout.to_owned(), payment: None, amount: None, grants }))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pack of the first of these items that is configured, and the item.
    pub(super) fn find<'a>(&self, items: &[&'a str]) -> Option<(&'a str, Pack)> {
        items.iter().find_map(|item| Some((*item, *self.0.get(*item)?)))
    }
}

impl Pack {
    /// The grant of some of these packs, bought at a time.
    ///
    /// # Errors
    /// If a grant cannot be that large, or the id is invalid.
    pub(super) fn grant(
        self,
        user: &UserId,
        at: DateTime<Utc>,
        quantity: i64,
        external_id: &str,
    ) -> Result<NewGrant, InvalidInput> {
        Ok(NewGrant {
            meter: MeterCode::CHAT,
            user: user.clone(),
            ap: NewGrant::ap(i64::from(self.ap.get()).saturating_mul(quantity))?,
            expires_at: self.expires_after.map(|life| life.after(at)),
            priority: self.priority,
            source: GrantSource::parse(PACK_SOURCE)?,
            external_id: ExternalId::parse(external_id)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_with_impossible_values_are_refused() {
        let packs = |ap, expires_after: Option<&str>, priority| {
            let options = PackOptions { ap, expires_after: expires_after.map(Into::into), priority };
            Packs::new(&[("price_1".to_owned(), options)].into())
        };
        assert!(packs(500, Some("365d"), Some(1)).is_ok() && packs(500, None, None).is_ok());
        assert!(packs(0, None, None).is_err());
        assert!(packs(500, Some("1y"), None).unwrap_err().to_string().contains("expires_after"));
        assert!(packs(500, None, Some(256)).is_err());
    }
}
