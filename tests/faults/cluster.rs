//! A Redis Cluster of two nodes: the installation's node, which has all slots at first, and a second node.

use std::time::Duration;

use quota_gate_dev::RedisServer;
use redis::Cmd;
use tokio::time::sleep;

use crate::installation::{Installation, ask, ask_until, send};

/// Keys that one MIGRATE moves: few, so calls reach a slot that is partly moved.
const KEYS_AT_ONCE: &str = "5";
/// How long the load runs in each state of a slot.
pub(crate) const MOMENT: Duration = Duration::from_millis(700);

/// Returns the configuration lines of a node. A node that loses its last slot stays a primary.
pub(crate) fn node_settings() -> Vec<String> {
    ["cluster-enabled yes", "cluster-require-full-coverage no", "cluster-allow-replica-migration no"]
        .map(str::to_owned)
        .to_vec()
}

/// Gives a node every slot, and waits until it serves them.
pub(crate) async fn take_all_slots(node: &RedisServer) -> anyhow::Result<()> {
    ask::<()>(node, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await?;
    ask_until(node, &["CLUSTER", "INFO"], "cluster_state:ok").await
}

/// Starts a node without slots, and waits until it and the installation's node list each other.
pub(crate) async fn second_node(installation: &Installation) -> anyhow::Result<RedisServer> {
    let first = &installation.redis;
    let second = installation.another_redis("second-node", node_settings()).await?;
    ask::<()>(&second, &["CLUSTER", "MEET", "127.0.0.1", &first.port().to_string()]).await?;
    for (node, other) in [(first, &second), (&second, first)] {
        let id: String = ask(other, &["CLUSTER", "MYID"]).await?;
        ask_until(node, &["CLUSTER", "NODES"], &id).await?;
    }
    ask_until(&second, &["CLUSTER", "INFO"], "cluster_state:ok").await?;
    Ok(second)
}

/// Moves a slot as `redis-cli --cluster reshard` does.
pub(crate) async fn move_slot(slot: i64, from: &RedisServer, to: &RedisServer) -> anyhow::Result<()> {
    let slot = slot.to_string();
    let from_id: String = ask(from, &["CLUSTER", "MYID"]).await?;
    let to_id: String = ask(to, &["CLUSTER", "MYID"]).await?;
    ask::<()>(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await?;
    ask::<()>(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await?;
    sleep(MOMENT).await;
    let port = to.port().to_string();
    loop {
        let keys: Vec<Vec<u8>> = ask(from, &["CLUSTER", "GETKEYSINSLOT", &slot, KEYS_AT_ONCE]).await?;
        if keys.is_empty() {
            break;
        }
        let mut migrate = Cmd::new();
        migrate
            .arg(&["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "AUTH2", "operator", to.password(), "KEYS"])
            .arg(keys);
        send::<()>(from, &migrate).await?;
    }
    sleep(MOMENT).await;
    for node in [to, from] {
        ask::<()>(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await?;
    }
    Ok(())
}
