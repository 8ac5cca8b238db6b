//! The fence: which generation of a partition is open, and in which Redis.
//!
//! It names the Redis process in which the generation was opened. Each call names the process of its connection, and
//! the script compares the two. So after a crash, a failover or a restore, Redis answers STALE until the partition is
//! opened again, even if its data looks valid (decision 0011).

use std::{fmt, sync::Arc};

use super::error::RedisError;

/// A Redis process and its data history: `<run_id>:<master_replid>`. A restart changes the first; a promotion or full
/// synchronization the second, <https://redis.io/docs/latest/operate/oss_and_stack/management/replication/>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerId(Arc<str>);

/// The value of the fence's key: `<generation> <server>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence(String);

impl ServerId {
    /// Parses the reply to `INFO server replication`.
    ///
    /// # Errors
    /// [`RedisError::Away`] if the server is a replica or not Redis.
    pub fn of_info(info: &str) -> Result<Self, RedisError> {
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .ok_or_else(|| RedisError::Away(format!("INFO contains no {name}")))
        };
        if field("role")? != "master" {
            return Err(RedisError::Away("this Redis is a replica: point redis.url to the primary".into()));
        }
        Ok(Self(format!("{}:{}", field("run_id")?, field("master_replid")?).into()))
    }

    /// As the fence and Postgres name it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Fence {
    /// The fence of a generation that was opened in this Redis.
    #[must_use]
    pub fn new(generation: u32, server: &ServerId) -> Self {
        Self(format!("{generation} {server}"))
    }

    /// The fence with this value, which was read from the fence's key or from Postgres.
    #[must_use]
    pub const fn found(text: String) -> Self {
        Self(text)
    }

    pub(super) const fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether the generation was opened in this Redis.
    #[must_use]
    pub fn is_of(&self, server: &ServerId) -> bool {
        self.process() == Some(server.as_str())
    }

    /// The process in which the generation was opened; none if the fence was not written by a gate.
    #[must_use]
    pub fn process(&self) -> Option<&str> {
        self.0.split_once(' ').map(|(_, process)| process)
    }

    /// The generation; 0 if the fence was not written by a gate.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.0.split(' ').next().and_then(|generation| generation.parse().ok()).unwrap_or(0)
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_names_the_generation_and_the_process() {
        let info = "# Server\r\nrun_id:aa\r\n# Replication\r\nrole:master\r\nmaster_replid:bb\r\nmaster_replid2:00\r\n";
        let fence = Fence::new(7, &ServerId::of_info(info).unwrap());
        assert_eq!(fence.to_string(), "7 aa:bb");
        assert_eq!(Fence::found(fence.to_string()).generation(), 7);
        assert!(fence.is_of(&ServerId::of_info(info).unwrap()));
        assert_eq!(Fence::found("12".into()).process(), None);
        assert_eq!(Fence::found("12".into()).generation(), 12, "the older format, without a process");
        assert_eq!(Fence::found("not a fence".into()).generation(), 0);
    }

    #[test]
    fn a_replica_is_refused() {
        let replica = "run_id:aa\r\nrole:slave\r\nmaster_replid:bb\r\n";
        assert!(matches!(ServerId::of_info(replica), Err(RedisError::Away(_))));
        assert!(matches!(ServerId::of_info("no info"), Err(RedisError::Away(_))));
    }
}
