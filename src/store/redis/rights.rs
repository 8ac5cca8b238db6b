//! The rights of the gate's account and of Redis' default user, for `quota-gate doctor`.

use redis::aio::ConnectionLike;

use super::{connection::Redis, error::RedisError};

/// Commands that Redis finds in its append-only file, and executes as the default user when it starts.
const REPLAYED: [&[&str]; 6] = [
    &["MULTI"],
    &["EXEC"],
    &["SET", "qg:{00}:x", "x"],
    &["DEL", "qg:{00}:x"],
    &["XADD", "qg:{00}:x", "*", "x", "x"],
    &["FUNCTION", "LOAD", "x"],
];

/// What the accounts of a Redis server may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisRights {
    /// Whether Redis may execute its append-only file when it starts. It does so as the default user, whose commands an
    /// ACL file may have taken away. `None` if the gate's account may not ask.
    pub may_replay: Option<bool>,
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
            may_administer: is_permitted(&configure, &mut connection).await?,
            may_reuse_connections: is_permitted(&redis::cmd("UNWATCH"), &mut connection).await?,
        })
    }
}

async fn is_permitted(command: &redis::Cmd, connection: &mut impl ConnectionLike) -> Result<bool, RedisError> {
    match command.query_async::<redis::Value>(connection).await {
        Ok(_) => Ok(true),
        Err(refused) if refused.code() == Some("NOPERM") => Ok(false),
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
