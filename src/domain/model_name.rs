//! Which model wrote an answer.

use std::{fmt, sync::Arc};

use super::InvalidInput;

/// The name of a model, as the product calls it: 1 to 128 bytes of text without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName(Arc<str>);

/// Longest name, in bytes. Its length is one byte in a usage event.
const BYTES_MAX: usize = 128;

impl ModelName {
    /// Checks a name that came from outside.
    ///
    /// # Errors
    /// If the name is empty, longer than 128 bytes, or has a control character in it.
    pub fn parse(name: &str) -> Result<Self, InvalidInput> {
        if (1..=BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidInput::new("model", "must be 1 to 128 bytes of text without control characters"))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a column has it, where a charge that names no model has the empty text.
    #[must_use]
    pub fn column(of: Option<&Self>) -> &str {
        of.map_or("", Self::as_str)
    }

    /// What a column says.
    ///
    /// # Errors
    /// If that is no name.
    pub fn from_column(text: &str) -> Result<Option<Self>, InvalidInput> {
        if text.is_empty() { Ok(None) } else { Self::parse(text).map(Some) }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_any_printable_text_and_a_column_may_be_empty() {
        for name in ["gpt-4o", "accounts/x/models/llama-3", "模型", &"m".repeat(128)] {
            assert_eq!(ModelName::from_column(name).unwrap(), Some(ModelName::parse(name).unwrap()));
        }
        for name in ["", "a\0", "a\n", &"m".repeat(129)] {
            assert!(ModelName::parse(name).is_err(), "{name:?}");
        }
        assert_eq!(ModelName::from_column("").unwrap(), None);
        assert_eq!(ModelName::column(None), "");
    }
}
