//! Partitions: fixed shares of the users.
//!
//! Each has one hash tag, one usage stream, one watermark and one generation in Redis. The number of partitions is
//! stored in Postgres at the first start and never changes (decision 0005).

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use super::{InvalidInput, user_id::UserId};

/// One share of the users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(u16);

/// Number of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitions(u16);

impl Partition {
    /// Number, starting at 0.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Index in a list of all partitions.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.into()
    }
}

impl Partitions {
    /// Maximum number of partitions: keys contain the number as two digits.
    pub const COUNT_MAX: u16 = 100;

    /// Creates a number of partitions.
    ///
    /// # Errors
    /// If `count` is not 1 to 100.
    pub fn new(count: u16) -> Result<Self, InvalidInput> {
        if (1..=Self::COUNT_MAX).contains(&count) {
            Ok(Self(count))
        } else {
            Err(InvalidInput::new("partitions", format!("must be 1 to {}, not {count}", Self::COUNT_MAX)))
        }
    }

    /// The partition of a user: XXH3-64 of the id, modulo the count.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a remainder of a u16 fits into a u16")]
    pub fn of(self, user: &UserId) -> Partition {
        Partition((xxh3_64(user.as_str().as_bytes()) % u64::from(self.0)) as u16)
    }

    /// All partitions, in order.
    pub fn all(self) -> impl Iterator<Item = Partition> {
        (0..self.0).map(Partition)
    }

    /// The number of partitions.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_never_changes_partition() {
        // Stored data depends on these numbers: if this test fails, the hash has changed and every key is lost.
        let partitions = Partitions::new(8).unwrap();
        let of = |id: &str| partitions.of(&UserId::parse(id).unwrap()).number();
        assert_eq!((of("alice"), of("bob"), of("0f8fad5b-d9cb-469f-a165-70867728950e")), (0, 5, 4));
    }

    #[test]
    fn users_spread_evenly() {
        let partitions = Partitions::new(8).unwrap();
        let mut counts = [0_u32; 8];
        for n in 0..80_000 {
            counts[partitions.of(&UserId::parse(&format!("user-{n}")).unwrap()).index()] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
