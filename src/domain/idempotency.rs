//! Idempotency keys: a client can repeat a request whose answer it lost.

use std::{fmt, sync::Arc};

use super::InvalidInput;

/// A client's identifier of one request: 1 to 128 printable ASCII characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    /// Validates a key.
    ///
    /// # Errors
    /// If the key is not 1 to 128 printable ASCII characters without spaces.
    pub fn parse(key: &str) -> Result<Self, InvalidInput> {
        if (1..=128).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(key.into()))
        } else {
            Err(InvalidInput::new("Idempotency-Key", "must be 1 to 128 printable ASCII characters without spaces"))
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
