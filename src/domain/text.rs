//! Text types: validated when they are created, immutable, cheap to clone.

/// Defines a text type: its field in error messages, its rule in words, and the rule itself.
macro_rules! text_type {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident;
        field: $field:literal,
        must_be: $rule:literal,
        is_valid: $is_valid:expr,
    ) => {
        $(#[$attribute])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Validates a text.
            ///
            /// # Errors
            #[doc = concat!("If `text` is not ", $rule, ".")]
            pub fn parse(text: &str) -> Result<Self, $crate::domain::InvalidInput> {
                let is_valid: fn(&str) -> bool = $is_valid;
                if is_valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err($crate::domain::InvalidInput::new($field, concat!("must be ", $rule)))
                }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

pub(crate) use text_type;

/// Returns whether a text has 1 to 128 bytes and no control characters.
pub(crate) fn is_short_text(text: &str) -> bool {
    has_id_length(text) && !text.chars().any(char::is_control)
}

/// Returns whether a text has 1 to 128 bytes. A usage event stores each length in one byte.
pub(crate) fn has_id_length(text: &str) -> bool {
    (1..=128).contains(&text.len())
}
