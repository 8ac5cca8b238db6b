//! The members of a JSON object, each read on its own: a malformed or doubled one does not invalidate the others.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The members of an object, in order, with unread values.
#[derive(Debug, Default)]
pub(crate) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads an object. Returns `None` for anything else.
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Returns the value of the last member with this name, also if it is null.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rfind(|(of, _)| of == name).map(|(_, value)| *value)
    }

    /// Returns the value of a member that is not null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.raw(name).filter(|value| value.get() != "null")
    }

    /// Returns the text of a member that is a string.
    pub(crate) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        #[derive(Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
        self.get(name).and_then(|value| serde_json::from_str(value.get()).ok()).map(|Text(text)| text)
    }

    /// Returns the members of a member that is an object.
    pub(crate) fn object(&self, name: &str) -> Option<Self> {
        self.get(name).and_then(|value| Self::of(value.get()))
    }

    /// Returns the items of a member that is an array.
    pub(crate) fn array(&self, name: &str) -> Vec<&'a RawValue> {
        self.get(name).and_then(|value| serde_json::from_str(value.get()).ok()).unwrap_or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }
}

/// Whether a value says nothing: null, false, zero, or empty.
pub(crate) fn is_empty(value: &RawValue) -> bool {
    let text = value.get();
    let within = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
    match text.as_bytes().first() {
        Some(b'{' | b'[') => within.trim().is_empty(),
        Some(b'"') => within.is_empty(),
        _ => matches!(text, "null" | "false" | "0"),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self::default())
    }
}

/// Borrowed unless it contains escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Visitor<'de> for Members<'a> {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Self, A::Error> {
        while let Some((Name(name), value)) = members.next_entry()? {
            self.0.push((name, value));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_is_read_on_its_own() {
        let members = Members::of(r#"{"a":1,"a":"é\n","b":{"c":[2, 3]},"d":null,"e":{}}"#).unwrap();
        assert_eq!(members.text("a").unwrap(), "é\n");
        assert_eq!(members.object("b").unwrap().array("c").len(), 2);
        assert!(members.get("d").is_none() && members.raw("d").is_some());
        assert!(members.object("a").is_none() && members.array("b").is_empty() && members.text("b").is_none());
        for other in ["", "[]", "7", "\"x\"", "{", "{} {}"] {
            assert!(Members::of(other).is_none(), "{other}");
        }
    }

    #[test]
    fn values_without_content_are_empty() {
        let is_empty = |text: &str| is_empty(serde_json::from_str(text).unwrap());
        for empty in ["null", "false", "0", "\"\"", "[]", "[ ]", "{}", "{\n}"] {
            assert!(is_empty(empty), "{empty}");
        }
        for full in ["true", "1", "\" \"", "\"a\"", "[0]", "{\"a\":null}"] {
            assert!(!is_empty(full), "{full}");
        }
    }
}
