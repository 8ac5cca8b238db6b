//! Meters: what is counted. `chat` counts messages; an operator may add others, such as images.
//!
//! A user has one level, one period and one block. Each meter has a quota, windows, holds and grants of its own.

use super::{
    level::{LevelCode, LevelName, LevelTerms},
    text::text_type,
};

text_type! {
    /// A meter's name as configured: a lower-case letter, then up to 31 characters of `a-z 0-9 -`; not `chat`.
    pub struct MeterName;
    field: "meter",
    must_be: "a lower-case letter, then up to 31 characters of a-z 0-9 -, and not `chat`",
    is_valid: |name| {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        name != "chat"
            && (1..=32).contains(&name.len())
            && name.as_bytes()[0].is_ascii_lowercase()
            && name.bytes().all(allowed)
    },
}

/// The number that stands for a meter in keys, usage events and rows. Postgres assigns it permanently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MeterCode(u8);

/// A meter of the installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    /// Number in Redis and Postgres.
    pub code: MeterCode,
    /// Name.
    pub name: MeterName,
    /// Quota and limits of each level. A level that was retired before the meter was added has none: its quota is 0.
    pub levels: Vec<(LevelCode, LevelTerms)>,
}

/// A meter as configured: quota and limits of each level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterLevels {
    /// Name.
    pub name: MeterName,
    /// Each level that is offered.
    pub levels: Vec<(LevelName, LevelTerms)>,
}

impl MeterCode {
    /// Messages of the chat: the meter that every installation has.
    pub const CHAT: Self = Self(0);

    /// The code with this number.
    #[must_use]
    pub const fn new(code: u8) -> Self {
        Self(code)
    }

    /// The code as a number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether it is the meter of the chat.
    #[must_use]
    pub const fn is_chat(self) -> bool {
        self.0 == 0
    }
}

impl From<MeterCode> for i16 {
    /// The code as a number, for Postgres.
    fn from(code: MeterCode) -> Self {
        code.0.into()
    }
}

impl Meter {
    /// Quota and limits of a level, if the meter has any for it.
    #[must_use]
    pub fn terms(&self, level: LevelCode) -> Option<&LevelTerms> {
        self.levels.iter().find(|(code, _)| *code == level).map(|(_, terms)| terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_part_of_a_path_and_never_chat() {
        for name in ["image", "video-seconds", "a", "v2", &"a".repeat(32)] {
            assert!(MeterName::parse(name).is_ok(), "{name}");
        }
        for name in ["", "chat", "Image", "2d", "-a", "a_b", "a/b", "é", &"a".repeat(33)] {
            assert!(MeterName::parse(name).is_err(), "{name}");
        }
    }
}
