//! What a dead letter keeps of a transfer beside its charge.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::domain::{
    InvalidInput,
    author::Author,
    transfer::{PartTerms, Receipt},
    user_id::UserId,
};

/// The receipt of a transfer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredReceipt {
    receiver: String,
    by: String,
    reason: String,
    /// Expiry and priority of each part.
    terms: Vec<(Option<DateTime<Utc>>, u8)>,
}

impl StoredReceipt {
    pub(super) fn of(receipt: &Receipt) -> Self {
        let Receipt { receiver, author, terms } = receipt;
        let terms = terms.iter().map(|terms| (terms.expires_at, terms.priority)).collect();
        Self { receiver: receiver.to_string(), by: author.by.clone(), reason: author.reason.clone(), terms }
    }

    pub(super) fn receipt(self) -> Result<Receipt, InvalidInput> {
        let terms = |(expires_at, priority)| PartTerms { expires_at, priority };
        Ok(Receipt {
            receiver: UserId::parse(&self.receiver)?,
            author: Author { by: self.by, reason: self.reason },
            terms: self.terms.into_iter().map(terms).collect(),
        })
    }
}
