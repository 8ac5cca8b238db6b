//! A replica of the installation's Redis that is promoted too early, or while the old primary is still running.

use std::time::Duration;

use anyhow::ensure;
use quota_gate_dev::RedisServer;
use tokio::time::{Instant, sleep};

use crate::{
    installation::{ASK_MAX, Installation, ask, ask_until},
    proxy::{Mode, Proxy},
};

/// How long an old primary may accept writes after it has lost its replica, as docs/operations.md sets it.
const LAG_MAX_SECONDS: u64 = 1;

pub(crate) struct Replica {
    server: RedisServer,
    link: Proxy,
}

impl Replica {
    /// Starts a replica that follows the primary through its own proxy.
    pub(crate) async fn of(installation: &Installation) -> anyhow::Result<Self> {
        let primary = &installation.redis;
        let link = Proxy::before(primary.port()).await;
        let server = installation.another_redis(&format!("replica-{}", link.port()), Vec::new()).await?;
        // Not in its configuration file: if it restarts later, it is a primary.
        ask::<()>(&server, &["CONFIG", "SET", "masteruser", "replica", "masterauth", primary.password()]).await?;
        ask::<()>(&server, &["REPLICAOF", "127.0.0.1", &link.port().to_string()]).await?;
        ask_until(&server, &["INFO", "replication"], "master_link_status:up").await?;
        Ok(Self { server, link })
    }

    /// Silences replication for this long, while the primary keeps acknowledging, and then promotes the replica.
    pub(crate) async fn take_over(self, installation: &mut Installation, behind: Duration) -> anyhow::Result<()> {
        self.link.set(Mode::Silent);
        sleep(behind).await;
        for gate in &installation.gates {
            gate.redis.set(Mode::Refuse);
        }
        installation.redis.kill().await;
        ask::<()>(&self.server, &["REPLICAOF", "NO", "ONE"]).await?;
        for gate in &installation.gates {
            gate.redis.lead_to(self.server.port());
            gate.redis.set(Mode::Pass);
        }
        installation.redis = self.server;
        Ok(())
    }

    /// Promotes the replica for all gates except one. That gate uses the old primary until it refuses writes, and three
    /// seconds longer. Returns when the old primary began to refuse writes.
    pub(crate) async fn split(self, installation: &mut Installation, left_behind: usize) -> anyhow::Result<Instant> {
        let lag = LAG_MAX_SECONDS.to_string();
        ask::<()>(&installation.redis, &["CONFIG", "SET", "min-replicas-max-lag", &lag]).await?;
        ask::<()>(&installation.redis, &["CONFIG", "SET", "min-replicas-to-write", "1"]).await?;
        self.link.set(Mode::Silent);
        ask::<()>(&self.server, &["REPLICAOF", "NO", "ONE"]).await?;
        let others = installation.gates.iter().enumerate().filter(|(number, _)| *number != left_behind);
        others.for_each(|(_, gate)| gate.redis.lead_to(self.server.port()));
        let began = Instant::now();
        while ask::<()>(&installation.redis, &["SET", "probe", "1"]).await.is_ok() {
            ensure!(began.elapsed() < ASK_MAX, "the old primary still accepts writes");
            sleep(Duration::from_millis(50)).await;
        }
        let stopped = Instant::now();
        sleep(Duration::from_secs(3)).await;
        installation.gates[left_behind].redis.lead_to(self.server.port());
        installation.redis.kill().await;
        installation.redis = self.server;
        Ok(stopped)
    }
}
