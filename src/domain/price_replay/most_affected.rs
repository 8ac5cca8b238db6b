//! The users with the most denied messages.

use super::Sums;

/// A user in the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffectedUser {
    /// Id.
    pub user: String,
    /// Level at the user's first denied message.
    pub level: String,
    /// The user's sums; `users` is 1.
    pub sums: Sums,
    /// Time of the first denied message, in ms since 1970.
    pub first_denied_ms: i64,
}

/// A list with a maximum length, which keeps those with the most denied messages; of equals, those with the most denied
/// AP, then the first in the order of ids.
#[derive(Debug)]
pub(super) struct MostAffected {
    users: Vec<AffectedUser>,
    max: usize,
}

impl MostAffected {
    pub(super) const fn new(max: usize) -> Self {
        Self { users: Vec::new(), max }
    }

    pub(super) fn add(&mut self, user: AffectedUser) {
        self.users.push(user);
        // Sorting rarely keeps each addition cheap.
        if self.users.len() >= self.max * 2 {
            self.trim();
        }
    }

    pub(super) fn finish(mut self) -> Vec<AffectedUser> {
        self.trim();
        self.users
    }

    fn trim(&mut self) {
        let rank = |user: &AffectedUser| (user.sums.denied_messages, user.sums.denied_ap);
        self.users.sort_by(|one, other| rank(other).cmp(&rank(one)).then_with(|| one.user.cmp(&other.user)));
        self.users.truncate(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_denied_users_stay() {
        let mut most = MostAffected::new(3);
        for (number, denied_messages) in [(1, 5), (2, 1), (3, 9), (4, 2), (5, 9), (6, 1), (7, 3), (8, 1)] {
            let sums = Sums { denied_messages, denied_ap: 1, ..Sums::default() };
            most.add(AffectedUser { user: format!("u{number}"), level: "free".into(), sums, first_denied_ms: 0 });
        }
        let users: Vec<String> = most.finish().into_iter().map(|user| user.user).collect();
        assert_eq!(users, ["u3", "u5", "u1"]);
    }
}
