//! The author of a change and the reason. Both are stored with the change.

use super::InvalidInput;

/// Maximum length of a reason, in bytes.
const REASON_BYTES_MAX: usize = 500;

/// Who makes a change, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The id of the token, or the command.
    pub by: String,
    /// Reason as text; empty if a program gave none.
    pub reason: String,
}

impl Author {
    /// A person, who must give a reason.
    ///
    /// # Errors
    /// If the reason is empty, longer than 500 bytes or contains a control character.
    pub fn person(by: &str, reason: &str) -> Result<Self, InvalidInput> {
        let reason = reason.trim();
        if !(1..=REASON_BYTES_MAX).contains(&reason.len()) || reason.chars().any(char::is_control) {
            let rule = format!("must be 1 to {REASON_BYTES_MAX} bytes of text without control characters");
            return Err(InvalidInput::new("reason", rule));
        }
        Ok(Self { by: by.to_owned(), reason: reason.to_owned() })
    }

    /// A program of the product. The reason is optional.
    ///
    /// # Errors
    /// If a reason is given and is invalid.
    pub fn program(by: &str, reason: Option<&str>) -> Result<Self, InvalidInput> {
        match reason {
            Some(reason) => Self::person(by, reason),
            None => Ok(Self { by: by.to_owned(), reason: String::new() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_must_give_a_reason() {
        assert_eq!(Author::person("ops", " a refund ").unwrap().reason, "a refund");
        for reason in ["", "  ", "a\0", "a\nb", &"x".repeat(501)] {
            assert!(Author::person("ops", reason).is_err(), "{reason:?}");
        }
        assert_eq!(Author::program("shop", None).unwrap().reason, "");
        assert!(Author::program("shop", Some("")).is_err());
    }
}
