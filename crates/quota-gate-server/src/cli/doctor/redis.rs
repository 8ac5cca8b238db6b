//! Checks Redis: its settings, its memory, and the rights of its accounts.

use quota_gate::store::redis::{RedisRights, RedisServerInfo};

use super::Findings;
use crate::{app, config::Config};

/// Used share of `maxmemory`, in percent, above which it is reported, before it is full.
const MEMORY_SHARE_MAX: u64 = 80;

pub(super) async fn check(config: &Config, findings: &mut Findings) -> Option<RedisServerInfo> {
    let answers = async {
        let redis = app::redis(config)?;
        anyhow::Ok((redis.server_info().await?, redis.rights().await?))
    };
    let server_info = match answers.await {
        Ok((server_info, answered)) => {
            rights(&answered, findings);
            server_info
        }
        Err(error) => {
            findings.wrong(
                "Redis does not answer",
                &format!("{error:#}: check REDIS_URL, and that its user has the rights of deploy/redis/users.acl"),
            );
            return None;
        }
    };
    match server_info.unfit() {
        Some(wrong) => findings.wrong("Redis is not suitable for the gate", &wrong),
        None => findings.good(&format!("{} is a primary with maxmemory-policy noeviction", server_info.product)),
    }
    findings.check(
        server_info.appendonly,
        "Redis runs with appendonly",
        "Redis runs without appendonly",
        "set appendonly yes and appendfsync everysec; otherwise a restart loses every charge that is not flushed yet",
    );
    if server_info.maxmemory == 0 {
        findings.advice(
            "Redis has no maxmemory",
            "set it below the machine's memory, so that Redis refuses writes before the system kills it",
        );
    } else if server_info.used_memory * 100 > server_info.maxmemory * MEMORY_SHARE_MAX {
        findings.wrong(
            &format!("Redis uses {} of {} bytes of maxmemory", server_info.used_memory, server_info.maxmemory),
            "raise maxmemory, or find out why the usage streams are long",
        );
    } else if let Ok(partitions) = config.partitions()
        && u64::from(partitions.count()) * config.redis.stream_bytes_max * 2 > server_info.maxmemory
    {
        findings.wrong(
            &format!(
                "the usage streams of {} partitions may take {} bytes each, more than half of maxmemory",
                partitions.count(),
                config.redis.stream_bytes_max
            ),
            "raise maxmemory or lower redis.stream_bytes_max, so that new messages are refused before Redis' memory is full",
        );
    }
    Some(server_info)
}

fn rights(rights: &RedisRights, findings: &mut Findings) {
    if !rights.missing.is_empty() {
        findings.wrong(
            &format!("the gate's Redis user may not run {}", rights.missing.join(", ")),
            "give it the rights of deploy/redis/users.acl",
        );
    }
    findings.check(
        !rights.may_administer,
        "the gate's Redis user has no more rights than the gate needs",
        "the gate's Redis user may change Redis' settings",
        "use the user of deploy/redis/users.acl",
    );
    match rights.may_replay {
        Some(may_replay) => findings.check(
            may_replay,
            "Redis may execute its append-only file at a restart",
            "the default user of Redis has no commands, with which Redis executes its append-only file: a restart drops \
             unflushed charges and stored answers without an error",
            "in the ACL file, replace the line of the default user by `user default off ~* &* +@all`, which allows no \
             login either",
        ),
        None => findings.advice(
            "the gate's Redis user may not ask for the rights of the default user",
            "add +acl|dryrun to its line, as in deploy/redis/users.acl; or see that `ACL GETUSER default` has the \
             commands +@all and the keys ~*: otherwise a restart of Redis drops its append-only file",
        ),
    }
    if !rights.may_reuse_connections {
        findings.advice(
            "the gate's Redis user may not run UNWATCH, so the gate opens a connection for each use of its pool",
            "add +unwatch to its line, as in deploy/redis/users.acl",
        );
    }
}
