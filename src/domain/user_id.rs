//! Ids of users and conversations. They come from the product and become part of keys, rows and log lines.

use uuid::Uuid;

use super::text::{has_id_length, is_short_text, text_type};

text_type! {
    /// A user of the chat product: 1 to 128 characters of `A-Z a-z 0-9 . _ : @ -`.
    ///
    /// None of these characters can change a Redis hash tag, a log line or a URL.
    pub struct UserId;
    field: "userUuid",
    must_be: "1 to 128 characters of A-Z a-z 0-9 . _ : @ -",
    is_valid: |id| has_id_length(id) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:@-".contains(&b)),
}

text_type! {
    /// The conversation that a message belongs to: 1 to 128 bytes of text without control characters.
    pub struct SessionId;
    field: "sessionId",
    must_be: "1 to 128 bytes of text without control characters",
    is_valid: is_short_text,
}

impl UserId {
    /// The id as a UUID, if it is one in lower case with hyphens.
    #[must_use]
    pub fn as_uuid(&self) -> Option<Uuid> {
        plain_uuid(&self.0)
    }

    /// Whether the id is a UUID with upper-case digits or the prefix `urn:uuid:`. It is another user than the same UUID
    /// in lower case (decision 0017).
    #[must_use]
    pub fn is_unusual_uuid(&self) -> bool {
        self.0.contains('-') && plain_uuid(&self.0).is_none() && Uuid::try_parse(&self.0).is_ok()
    }
}

impl SessionId {
    /// The id for messages that name no conversation.
    #[must_use]
    pub fn unnamed() -> Self {
        Self("none".into())
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
    fn each_spelling_of_a_uuid_is_an_id_of_its_own() {
        let lower = "0f8fad5b-d9cb-469f-a165-70867728950e";
        let unusual = [lower.to_uppercase(), lower.replace('f', "F"), format!("urn:uuid:{lower}")];
        for id in &unusual {
            let id = UserId::parse(id).unwrap();
            assert!(id.is_unusual_uuid() && id.as_uuid().is_none() && id.as_str() != lower, "{id}");
        }
        // 32 digits may be anything.
        for id in [lower, &lower.replace('-', ""), "alice", "ABC-DEF"] {
            assert!(!UserId::parse(id).unwrap().is_unusual_uuid(), "{id}");
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
