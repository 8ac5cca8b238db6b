//! I2, I3, I7 and I10: the stores agree, one generation is open, and no gate still runs without a store.

use super::{Allowed, Audit};
use crate::installation::{Installation, PARTITIONS, ask};

impl Audit {
    pub(super) async fn stores_agree(&mut self, installation: &Installation, allowed: &Allowed) -> anyhow::Result<()> {
        let verdict = installation.verifier()?.verify().await?;
        for drift in verdict.drift.iter().take(3) {
            self.violated("I2", format!("{drift:?}"));
        }
        for drift in verdict.usage_drift.iter().take(3) {
            self.violated("I2", format!("{drift:?}"));
        }
        for drift in verdict.grant_drift.iter().take(3) {
            self.violated("I11", format!("{drift:?}"));
        }
        for drift in verdict.transfer_drift.iter().take(3) {
            self.violated("I11", format!("{drift:?}"));
        }
        for drift in verdict.meter_drift.iter().take(3) {
            self.violated("I2", format!("{drift:?}"));
        }
        let differences = verdict.differences.iter();
        let unexplained = differences.filter(|found| !allowed.postgres_restored || found.used.0 < found.used.1);
        for difference in unexplained.take(3) {
            self.violated("I3", format!("{difference:?}"));
        }
        for drift in verdict.quota_drift.iter().take(3) {
            self.violated("I2", format!("{drift:?}"));
        }
        for drift in verdict.level_drift.iter().take(3) {
            self.violated("I3", format!("{drift:?}"));
        }
        if verdict.unflushed > 0 {
            self.violated("I3", format!("{} events are not flushed", verdict.unflushed));
        }
        if verdict.dead_letters != allowed.dead_letters {
            let expected = allowed.dead_letters;
            self.violated("I3", format!("{} events are dead letters, expected {expected}", verdict.dead_letters));
        }
        if verdict.inbox > 0 {
            self.violated("I3", format!("{} settlements still wait", verdict.inbox));
        }
        Ok(())
    }

    pub(super) async fn one_generation(&mut self, installation: &Installation) -> anyhow::Result<()> {
        for partition in 0..PARTITIONS {
            let tag = format!("qg:{{{partition:02}}}");
            let fence: String = installation.redis(&["GET", &format!("{tag}:gen")]).await.unwrap_or_default();
            let streams: Vec<String> = ask(&installation.redis, &["KEYS", &format!("{tag}:ev:*")]).await?;
            let generation: i32 = sqlx::query_scalar("select generation from flush_watermarks where partition = $1")
                .bind(i16::try_from(partition)?)
                .fetch_one(&installation.pool)
                .await?;
            let open = fence.split(' ').next() == Some(generation.to_string().as_str());
            if !open || streams != [format!("{tag}:ev:{generation}")] {
                self.violated(
                    "I7",
                    format!("partition {partition}: generation {generation}, fence {fence:?}, {streams:?}"),
                );
            }
        }
        Ok(())
    }

    /// The account that the gates have in production is sufficient. 0.1.0 also asks for Redis' configuration, and goes
    /// on without.
    pub(super) async fn nothing_forbidden(&mut self, installation: &Installation) -> anyhow::Result<()> {
        let log: Vec<redis::Value> = installation.redis(&["ACL", "LOG"]).await?;
        if let Some(refused) = log.first() {
            self.violated("accounts", format!("Redis refused {} calls, the last one: {refused:?}", log.len()));
        }
        Ok(())
    }

    pub(super) async fn nothing_degraded(&mut self, installation: &Installation) {
        for (number, gate) in installation.gates.iter().enumerate() {
            match gate.metric("quota_gate_breaker_open").await {
                Some(0.0) => {}
                Some(_) => self.violated("I10", format!("gate {number} still runs without a store: a breaker is open")),
                None => self.violated("I10", format!("gate {number} does not report its breakers")),
            }
        }
    }
}
