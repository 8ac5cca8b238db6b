//! Name of the model that wrote an answer.

use std::{fmt, sync::Arc};

use super::InvalidInput;

/// A model's name in the product: 1 to 128 bytes of text without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName(Arc<str>);

/// Maximum length, in bytes. A usage event stores the length in one byte.
const BYTES_MAX: usize = 128;

impl ModelName {
    /// Validates a name.
    ///
    /// # Errors
    /// If the name is empty, longer than 128 bytes or contains a control character.
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

    /// The text for a column; empty for a charge without a model.
    #[must_use]
    pub fn column(of: Option<&Self>) -> &str {
        of.map_or("", Self::as_str)
    }

    /// Parses the text of a column.
    ///
    /// # Errors
    /// If the text is not a valid name.
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
