//! A transfer: AP of a user's grants that become grants of another user.
//!
//! It is journalled as a charge of the sender's grants, which costs no AP of the period. The flush that writes the
//! charge makes the receiver's grants, one for each part, with the expiry and priority of the grant that paid it.

use chrono::{DateTime, Utc};

use super::{InvalidInput, author::Author, user_id::UserId};

/// Maximum length of the author and the reason of a transfer, in bytes. Both are part of the usage event.
const TEXT_BYTES_MAX: usize = 255;

/// Who receives the parts of a transfer, and on what terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The user who receives them.
    pub receiver: UserId,
    /// Who transferred them, and why.
    pub author: Author,
    /// The terms of each part, in the order of the event's grants. Empty until the script has chosen the grants.
    pub terms: Vec<PartTerms>,
}

/// What a part of a transfer keeps of the grant that paid it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartTerms {
    /// When it expires; none for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// Order in which it pays.
    pub priority: u8,
}

impl Receipt {
    /// What `receiver` is to get from `sender`.
    ///
    /// # Errors
    /// If both are the same user, or the reason or the author's token id is longer than 255 bytes.
    pub fn new(sender: &UserId, receiver: UserId, author: Author) -> Result<Self, InvalidInput> {
        if *sender == receiver {
            return Err(InvalidInput::new("toUserUuid", "must be another user than fromUserUuid"));
        }
        for (field, text) in [("reason", &author.reason), ("token", &author.by)] {
            if text.len() > TEXT_BYTES_MAX {
                return Err(InvalidInput::new(field, format!("must be at most {TEXT_BYTES_MAX} bytes")));
            }
        }
        Ok(Self { receiver, author, terms: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_goes_to_another_user_and_its_reason_has_a_bound() {
        let to = |receiver: &str, reason: &str| {
            let author = Author::program("shop", Some(reason)).unwrap();
            Receipt::new(&UserId::parse("ann").unwrap(), UserId::parse(receiver).unwrap(), author)
        };
        assert!(to("bob", &"x".repeat(255)).is_ok());
        assert_eq!(to("ann", "a gift").unwrap_err().field, "toUserUuid");
        assert_eq!(to("bob", &"x".repeat(256)).unwrap_err().field, "reason");
    }
}
