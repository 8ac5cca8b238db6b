//! Who changes something by hand, and why. Both are kept with the change.

use super::InvalidInput;

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 500;

/// Who asks for a change, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The id of the token, or the command.
    pub by: String,
    /// In words; empty where a program does what it always does.
    pub reason: String,
}

impl Author {
    /// A person, who has to say why.
    ///
    /// # Errors
    /// If the reason is empty, longer than 500 bytes, or has a control character in it.
    pub fn person(by: &str, reason: &str) -> Result<Self, InvalidInput> {
        let reason = reason.trim();
        if !(1..=REASON_BYTES_MAX).contains(&reason.len()) || reason.chars().any(char::is_control) {
            let rule = format!("must be 1 to {REASON_BYTES_MAX} bytes of text without control characters");
            return Err(InvalidInput::new("reason", rule));
        }
        Ok(Self { by: by.to_owned(), reason: reason.to_owned() })
    }

    /// A program of the product, which may say why.
    ///
    /// # Errors
    /// If the reason is given and is none.
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
    fn a_person_says_why() {
        assert_eq!(Author::person("ops", " a refund ").unwrap().reason, "a refund");
        for reason in ["", "  ", "a\0", "a\nb", &"x".repeat(501)] {
            assert!(Author::person("ops", reason).is_err(), "{reason:?}");
        }
        assert_eq!(Author::program("shop", None).unwrap().reason, "");
        assert!(Author::program("shop", Some("")).is_err());
    }
}
