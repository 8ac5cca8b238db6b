//! The accounts of a private redis-server: those of `deploy/redis/users.acl`, as operators use it.
//!
//! Everything that `dev` and the tests do runs under the restrictions of that file, also Redis itself when it reads its
//! append-only file.

/// The file that operators install.
const SHIPPED: &str = include_str!("../../../deploy/redis/users.acl");
/// The gate's account.
pub(super) const GATE: &str = "quota_gate";
/// An account with all rights, which is not in the shipped file.
pub(super) const OPERATOR: &str = "operator";

/// Returns the text of the file, with this password for the gate's account and for the accounts to enable. They are
/// `off` in the shipped file. With `operator`, adds an account that may do everything.
pub(super) fn file(password: &str, enabled: &[String], operator: bool) -> String {
    let mut file = SHIPPED.replace(">PASSWORD", &format!(">{password}"));
    for account in enabled {
        file = file.replace(&format!("user {account} off "), &format!("user {account} on >{password} "));
    }
    let operator = if operator { format!("user {OPERATOR} on >{password} ~* &* +@all\n") } else { String::new() };
    file + &operator
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the accounts that can log in.
    fn enabled(file: &str) -> Vec<&str> {
        let words = file.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        words.filter(|words| words[2] == "on").map(|words| words[1]).collect()
    }

    #[test]
    fn only_the_gates_account_can_log_in_by_default() {
        let shipped = file("secret", &[], false);
        assert_eq!(enabled(&shipped), [GATE]);
        assert_eq!(shipped, SHIPPED.replace("PASSWORD", "secret"));
        assert_eq!(enabled(&file("secret", &["replica".into()], true)), [GATE, "replica", OPERATOR]);
    }
}
