//! The accounts of `deploy/redis/users.acl`: each may do what docs/operations.md says, and little else.

use std::{fs, path::Path};

use quota_gate_dev::{RedisServer, RedisServerOptions};
use redis::{RedisError, Value};

use crate::support::{World, eventually, redis, redis_options, scratch};

async fn run(url: &str, command: &str) -> Result<Value, RedisError> {
    let words: Vec<&str> = command.split(' ').collect();
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
}

/// Returns the accounts of the table in docs/operations.md, with the commands in its last column.
fn documented() -> Vec<(String, Vec<String>)> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md"));
    let text = fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("\n## Redis accounts\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.trim_matches('|').split('|').collect::<Vec<_>>());
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    cells.map(|cells| (quoted(cells[0]).remove(0), quoted(cells[cells.len() - 1]))).collect()
}

#[tokio::test]
async fn each_account_may_run_the_commands_that_the_documentation_gives_it() {
    let server = redis().await;
    let mut count = 0;
    for (account, commands) in documented().iter().filter(|(account, _)| account != "default") {
        for command in commands {
            count += 1;
            if let Err(error) = run(&server.url_of(account), command).await {
                assert_ne!(error.code(), Some("NOPERM"), "{account}: {command}: {error}");
            }
        }
    }
    assert!(count > 20, "{count}");
}

#[tokio::test]
async fn no_account_but_the_gates_may_write_its_keys_and_none_may_grant_rights() {
    let server = redis().await;
    let writes = ["SET qg:{00}:x x", "DEL qg:{00}:x", "FLUSHALL", "FCALL x 0", "EVAL x 0", "XADD qg:{00}:x * x x"];
    let grants = ["ACL SETUSER admin +@all", "ACL SETUSER default on nopass", "ACL SAVE", "CONFIG RESETSTAT"];
    for account in ["admin", "replica", "exporter"] {
        for command in writes.iter().chain(&grants) {
            let refused = run(&server.url_of(account), command).await.unwrap_err();
            assert_eq!(refused.code(), Some("NOPERM"), "{account}: {command}: {refused}");
        }
    }
    for (account, command) in [
        ("replica", "GET qg:{00}:x"),
        ("exporter", "GET qg:{00}:x"),
        ("exporter", "CONFIG GET masterauth"),
        ("replica", "INFO"),
    ] {
        let refused = run(&server.url_of(account), command).await.unwrap_err();
        assert_eq!(refused.code(), Some("NOPERM"), "{account}: {command}: {refused}");
    }
}

#[tokio::test]
async fn an_account_that_is_not_enabled_cannot_log_in() {
    let options = RedisServerOptions { accounts: vec![], ..redis_options() };
    let server = RedisServer::start(&scratch("redis"), options).await.unwrap();
    for account in ["admin", "replica", "exporter", "default"] {
        assert!(run(&server.url_of(account), "PING").await.is_err(), "{account}");
    }
    assert!(run(&server.url(), "PING").await.is_ok());
}

#[tokio::test]
async fn a_replica_follows_and_is_promoted_with_the_shipped_accounts() {
    let primary = redis().await;
    run(&primary.url(), "SET qg:{00}:x before").await.unwrap();
    let extra = vec![
        "masteruser replica".to_owned(),
        format!("masterauth {}", primary.password()),
        format!("replicaof 127.0.0.1 {}", primary.port()),
    ];
    let options = RedisServerOptions { extra, ..redis_options() };
    let replica = RedisServer::start(&scratch("replica"), options).await.unwrap();
    let admin = replica.url_of("admin");
    let value = async || run(&admin, "GET qg:{00}:x").await.ok();
    eventually("the replica has the data", async || value().await == Some(text("before"))).await;
    run(&primary.url(), "SET qg:{00}:x after").await.unwrap();
    eventually("the replica follows", async || value().await == Some(text("after"))).await;
    run(&admin, "REPLICAOF NO ONE").await.unwrap();
    assert!(run(&replica.url(), "SET qg:{00}:x promoted").await.is_ok());
}

fn text(text: &str) -> Value {
    Value::BulkString(text.into())
}

#[tokio::test]
async fn the_gate_uses_a_connection_again_and_is_refused_nothing() {
    let world = World::new().await;
    let gate = world.gate().await;
    let operator = world.redis.operator_url();
    let connections = async || {
        let Value::BulkString(info) = run(&operator, "INFO stats").await.unwrap() else { panic!("no text") };
        let info = String::from_utf8(info).unwrap();
        let count = info.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap();
        count.trim().parse::<u32>().unwrap()
    };
    let before = connections().await;
    for _ in 0..50 {
        gate.redis.ping().await.unwrap();
    }
    // The second question is a connection, too.
    let opened = connections().await - before - 1;
    assert!(opened <= 1, "50 uses of the pool opened {opened} connections");
    assert!(gate.charges("alice", 5).await);
    gate.flush_and_verify().await;
    gate.redis.server_info().await.unwrap();
    assert_eq!(run(&operator, "ACL LOG").await.unwrap(), Value::Array(vec![]));
}
