//! Idempotency keys: a client can repeat a request whose answer it lost.

use super::text::{has_id_length, text_type};

text_type! {
    /// A client's identifier of one request: 1 to 128 printable ASCII characters.
    pub struct IdempotencyKey;
    field: "Idempotency-Key",
    must_be: "1 to 128 printable ASCII characters without spaces",
    is_valid: |key| has_id_length(key) && key.bytes().all(|b| b.is_ascii_graphic()),
}
