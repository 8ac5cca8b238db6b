//! Name of the model that wrote an answer.

use super::{
    InvalidInput,
    text::{is_short_text, text_type},
};

text_type! {
    /// A model's name in the product: 1 to 128 bytes of text without control characters.
    pub struct ModelName;
    field: "model",
    must_be: "1 to 128 bytes of text without control characters",
    is_valid: is_short_text,
}

impl ModelName {
    /// The text for a column; empty for a charge without a model.
    #[must_use]
    pub fn column(model: Option<&Self>) -> &str {
        model.map_or("", Self::as_str)
    }

    /// Parses the text of a column.
    ///
    /// # Errors
    /// If the text is not a valid name.
    pub fn from_column(text: &str) -> Result<Option<Self>, InvalidInput> {
        if text.is_empty() { Ok(None) } else { Self::parse(text).map(Some) }
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
