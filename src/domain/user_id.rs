//! Ids of users and conversations. They come from the product and become part of keys, rows and log lines.

use std::{fmt, sync::Arc};

use uuid::Uuid;

use super::InvalidInput;

/// A user of the chat product: 1 to 128 characters of `A-Z a-z 0-9 . _ : @ -`.
///
/// None of these characters can change a Redis hash tag, a log line or a URL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

/// The conversation that a message belongs to: 1 to 128 bytes of text without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Arc<str>);

/// Maximum length of a user or session id, in bytes. A usage event stores each length in one byte.
pub const ID_BYTES_MAX: usize = 128;

impl UserId {
    /// Validates an id.
    ///
    /// # Errors
    /// If the id does not match `^[A-Za-z0-9._:@-]{1,128}$`.
    pub fn parse(id: &str) -> Result<Self, InvalidInput> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'@' | b'-');
        if (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(allowed) {
            Ok(Self(id.into()))
        } else {
            Err(InvalidInput::new("userUuid", "must be 1 to 128 characters of A-Z a-z 0-9 . _ : @ -"))
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a UUID, if it is one in lower case with hyphens.
    #[must_use]
    pub fn as_uuid(&self) -> Option<Uuid> {
        plain_uuid(&self.0)
    }
}

impl SessionId {
    /// The id for messages that name no conversation.
    #[must_use]
    pub fn unnamed() -> Self {
        Self("none".into())
    }

    /// Validates an id.
    ///
    /// # Errors
    /// If the id is empty, longer than 128 bytes or contains a control character.
    pub fn parse(id: &str) -> Result<Self, InvalidInput> {
        if (1..=ID_BYTES_MAX).contains(&id.len()) && !id.chars().any(char::is_control) {
            Ok(Self(id.into()))
        } else {
            Err(InvalidInput::new("sessionId", "must be 1 to 128 bytes of text without control characters"))
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a UUID, if it is one in lower case with hyphens.
    #[must_use]
    pub fn as_uuid(&self) -> Option<Uuid> {
        plain_uuid(&self.0)
    }
}

/// Parses a UUID in lower case with hyphens. Any other spelling is a different id.
fn plain_uuid(id: &str) -> Option<Uuid> {
    if id.len() != uuid::fmt::Hyphenated::LENGTH || id.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    // Of the forms that `try_parse` accepts, only the hyphenated one has this length.
    Uuid::try_parse(id).ok()
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_with_unsafe_characters_are_refused() {
        for id in ["a", "0f8fad5b-d9cb-469f-a165-70867728950e", "x.y_z:1@host", &"a".repeat(128)] {
            assert_eq!(UserId::parse(id).unwrap().as_str(), id);
        }
        for id in ["", " ", "a b", "{a}", "a\0", "a\n", "ä", "a/b", &"a".repeat(129)] {
            assert!(UserId::parse(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn a_session_id_is_any_printable_text() {
        for id in ["s", "会话 1", &"s".repeat(128)] {
            assert!(SessionId::parse(id).is_ok(), "{id:?}");
        }
        for id in ["", "a\0", "a\tb", "\u{85}", &"s".repeat(129)] {
            assert!(SessionId::parse(id).is_err(), "{id:?}");
        }
    }
}
