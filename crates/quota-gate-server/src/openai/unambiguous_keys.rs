//! Rejects member names that only some parsers distinguish: Go's JSON treats `Model` as `model`, and the last one wins.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};

/// The members of a request that the gate reads, as in `request`.
const FIELDS: [&str; 9] = [
    "model",
    "n",
    "stream",
    "stream_options",
    "background",
    "models",
    "fallbacks",
    "context_window_fallbacks",
    "content_policy_fallbacks",
];

/// An object without a member that an upstream could mistake for one of [`FIELDS`].
pub(crate) struct UnambiguousKeys;

/// Borrowed unless it contains escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for UnambiguousKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for UnambiguousKeys {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        while let Some((Name(name), IgnoredAny)) = members.next_entry::<Name<'de>, IgnoredAny>()? {
            if let Some(field) = FIELDS.iter().find(|field| name != **field && differs_only_in_case(&name, field)) {
                return Err(A::Error::custom(format!("a member's name differs from `{field}` only in case")));
            }
        }
        Ok(self)
    }
}

/// Compares with Unicode case folding, which maps the long s to s.
fn differs_only_in_case(name: &str, field: &str) -> bool {
    let folded = |letter: char| if letter == 'ſ' { 's' } else { letter.to_ascii_lowercase() };
    name.chars().map(folded).eq(field.chars())
}
