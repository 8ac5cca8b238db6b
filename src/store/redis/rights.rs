//! The rights of the gate's account and of Redis' default user, for the start of a gate and `quota-gate doctor`.

use redis::aio::ConnectionLike;

use super::{connection::Redis, error::RedisError};

/// Commands that Redis finds in its append-only file, and executes as the default user when it starts.
const REPLAYED: [&[&str]; 7] = [
    &["MULTI"],
    &["EXEC"],
    &["SET", "qg:{00}:x", "x"],
    &["DEL", "qg:{00}:x"],
    &["XADD", "qg:{00}:x", "*", "x", "x"],
    &["HSET", "qg:{00}:x", "x", "x"],
    &["FUNCTION", "LOAD", "x"],
];

/// Commands that newer versions of the gate need, on a key that never exists: they change nothing. They show whether
/// the account was made from an older deploy/redis/users.acl.
const HARMLESS_COMMANDS: &[(&str, &[&str])] = &[
    ("MEMORY USAGE", &["MEMORY", "USAGE", "qg:{00}:nothing"]),
    // Redis checks the right before it counts the fields.
    ("HSET", &["HSET", "qg:{00}:nothing", "field", "value", "field without a value"]),
    ("HMGET", &["HMGET", "qg:{00}:nothing", "none"]),
    ("HLEN", &["HLEN", "qg:{00}:nothing"]),
    ("PEXPIRE", &["PEXPIRE", "qg:{00}:nothing", "1"]),
];

/// What the accounts of a Redis server may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisRights {
    /// Whether Redis may execute its append-only file when it starts. It does so as the default user, whose commands an
    /// ACL file may have taken away. `None` if the gate's account may not ask.
    pub may_replay: Option<bool>,
    /// Commands that the gate needs and its account may not run.
    pub missing: Vec<&'static str>,
    /// Whether the gate's account may change the configuration of Redis.
    pub may_administer: bool,
    /// Whether the gate's account may run what precedes each use of a pooled connection. If not, each use opens one.
    pub may_reuse_connections: bool,
}

impl Redis {
    /// Reads the rights. Redis logs what it refuses (`ACL LOG`), so this is not for regular use.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn rights(&self) -> Result<RedisRights, RedisError> {
        let mut connection = self.connection().await?;
        let mut configure = redis::cmd("CONFIG");
        configure.arg("GET").arg("maxmemory");
        Ok(RedisRights {
            may_replay: may_replay(&mut connection).await?,
            missing: self.missing_rights().await?,
            may_administer: is_permitted(&configure, &mut connection).await?,
            may_reuse_connections: is_permitted(&redis::cmd("UNWATCH"), &mut connection).await?,
        })
    }

    /// Returns the commands that the gate needs and its account may not run.
    pub(super) async fn missing_rights(&self) -> Result<Vec<&'static str>, RedisError> {
        let mut connection = self.connection().await?;
        let mut missing = Vec::new();
        for (name, words) in HARMLESS_COMMANDS {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            if !is_permitted(&command, &mut connection).await? {
                missing.push(*name);
            }
        }
        Ok(missing)
    }
}

async fn is_permitted(command: &redis::Cmd, connection: &mut impl ConnectionLike) -> Result<bool, RedisError> {
    match command.query_async::<redis::Value>(connection).await {
        Ok(_) => Ok(true),
        Err(refused) if refused.code() == Some("NOPERM") => Ok(false),
        // It was permitted, and failed.
        Err(refused) if refused.code().is_some() => Ok(true),
        Err(error) => Err(RedisError::not_executed(error)),
    }
}

async fn may_replay(connection: &mut impl ConnectionLike) -> Result<Option<bool>, RedisError> {
    for command in REPLAYED {
        let mut ask = redis::cmd("ACL");
        ask.arg("DRYRUN").arg("default").arg(command);
        match ask.query_async::<String>(connection).await {
            Ok(answer) if answer == "OK" => {}
            Ok(_) => return Ok(Some(false)),
            Err(refused) if refused.code() == Some("NOPERM") => return Ok(None),
            Err(error) => return Err(RedisError::not_executed(error)),
        }
    }
    Ok(Some(true))
}
