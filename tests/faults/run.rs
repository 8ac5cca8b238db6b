//! One run: an installation under load, a fault, the recovery, and the audit.

use std::{fmt::Display, time::Duration};

use anyhow::{Context, ensure};
use quota_gate::domain::{partition::Partitions, user_id::UserId};
use tokio::time::{Instant, sleep};

use crate::audit::{Allowed, Audit};
use crate::{
    history::{History, Outcome},
    installation::{Installation, Options, PARTITIONS},
    load::Load,
    plans,
};

/// Longer than the flush interval of about a fifth of a second: charges acknowledged earlier are in Postgres.
pub(crate) const UNFLUSHED: Duration = Duration::from_secs(2);
/// Load before the fault. Longer than [`UNFLUSHED`], so the audit detects a loss of all data.
const WARM: Duration = Duration::from_secs(3);
/// Load after the recovery, which must succeed too.
const AFTER: Duration = Duration::from_millis(1_500);
/// Longest time to recover (I8).
pub(crate) const BACK_TO_NORMAL_MAX: Duration = Duration::from_secs(10);
/// Time after which a run stops waiting.
const GIVE_UP: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(50);

/// An installation under load.
pub(crate) struct Run {
    pub(crate) installation: Installation,
    load: Load,
    fault: Duration,
    /// End of the warm-up.
    warm: Duration,
}

/// Result of a run.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<String>,
    /// Figures for the report: name and value.
    pub(crate) figures: Vec<(String, String)>,
    /// Acknowledged charges that were lost where a loss is allowed.
    pub(crate) lost: usize,
    pub(crate) recovery: Option<Duration>,
}

/// A finished run, for the checks of its row.
pub(crate) struct Ended {
    pub(crate) history: History,
    /// Start of the fault, since the load began.
    pub(crate) fault: Duration,
    /// End of the fault, since the load began.
    pub(crate) healed: Duration,
    pub(crate) installation: Installation,
    verdict: Verdict,
}

impl Run {
    pub(crate) async fn begin(options: Options, seed: u64) -> anyhow::Result<Self> {
        let (balanced, with_plans) = (options.balanced, options.program.is_none());
        let installation = Installation::start(options).await?;
        if with_plans {
            plans::begin(&installation).await?;
        }
        Self::begin_on(installation, balanced, with_plans, seed).await
    }

    /// Starts the load on an installation.
    pub(crate) async fn begin_on(
        installation: Installation,
        balanced: bool,
        with_plans: bool,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let gates = installation.gates.iter().map(|gate| gate.url.clone()).collect();
        let load = Load::start(gates, balanced, with_plans, seed);
        sleep(WARM).await;
        let warm = load.began.elapsed();
        Ok(Self { installation, load, fault: warm, warm })
    }

    /// Marks now as the start of the fault. The default is the end of the warm-up.
    pub(crate) fn fault_begins(&mut self) {
        self.fault = self.load.began.elapsed();
    }

    /// Returns the time since the load began.
    pub(crate) fn now(&self) -> Duration {
        self.load.began.elapsed()
    }

    /// Converts a moment to the time since the load began.
    pub(crate) fn at(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.load.began)
    }

    /// Allows the loss of what Redis has and Postgres does not have now.
    pub(crate) fn lost_now(&self) -> Allowed {
        Allowed::loss(self.now().saturating_sub(UNFLUSHED), self.now())
    }

    /// Ends the fault: measures the recovery, continues the load for a moment, and audits.
    pub(crate) async fn end(self, allowed: Allowed) -> anyhow::Result<Ended> {
        let Self { installation, load, fault, warm } = self;
        let (healed, began) = (load.began.elapsed(), Instant::now());
        let recovery = normal(&installation, began).await?;
        sleep(AFTER).await;
        let (history, plans) = load.finish().await;
        let flushed = quiet(&installation).await?;
        let audit = Audit::of(&installation, (&history, &plans), &allowed, &(warm..healed + recovery)).await?;
        let mut verdict = Verdict { violations: audit.violations, lost: audit.lost, ..Verdict::default() };
        verdict.recovery = Some(recovery);
        if recovery > BACK_TO_NORMAL_MAX {
            verdict.violations.push(format!("I8: the recovery took {recovery:.1?}"));
        }
        if flushed > BACK_TO_NORMAL_MAX {
            verdict.violations.push(format!("I8: settling and flushing the waiting items took {flushed:.1?}"));
        }
        let normal = healed + recovery;
        let disturbed =
            history.count(|event| event.sent > normal && matches!(event.outcome, Outcome::Refused | Outcome::Unknown));
        if disturbed > 0 {
            verdict.violations.push(format!("I8: {disturbed} requests were refused or lost after the recovery"));
        }
        let mut figure = |name: &str, value: String| verdict.figures.push((name.to_owned(), value));
        figure("requests", history.0.len().to_string());
        figure("charges in the log", audit.rows.to_string());
        figure("packs", format!("{}, {} AP paid by them", audit.packs, audit.paid_by_grants));
        figure("denied", history.denied().to_string());
        figure("refused", history.refused().to_string());
        figure("unknown", history.unknown().to_string());
        if !allowed.losses.is_empty() {
            figure("lost", format!("{} charges, {} AP", audit.lost, audit.lost_ap));
        }
        if !allowed.splits.is_empty() {
            figure("charged beyond quotas", format!("{} AP", audit.over_ap));
        }
        figure("back to normal", format!("{:.1} s", recovery.as_secs_f64()));
        let transferred = plans.transfers.iter().filter(|transfer| transfer.accepted.is_some()).count();
        let is_used =
            !plans.begun || audit.packs > 0 && audit.paid_by_grants > 0 && plans.changes > 0 && transferred > 0;
        let mut ended = Ended { history, fault, healed, installation, verdict };
        let admitted = ended.history.admitted(|_| true);
        ended.proves("the load was served", admitted > 200);
        ended.proves("packs were bought, used and transferred, and plans changed", is_used);
        let denied =
            ended.history.count(|event| event.sent > healed && matches!(event.outcome, Outcome::Denied { .. }));
        ended.proves("quotas were reached after the fault", denied > 0 || allowed.raised.is_some());
        Ok(ended)
    }
}

impl Ended {
    /// Checks a condition without which the run proves nothing, for example that the fault happened.
    pub(crate) fn proves(&mut self, what: &str, holds: bool) {
        if !holds {
            self.verdict.violations.push(format!("the run proves nothing: expected that {what}"));
        }
    }

    pub(crate) fn figure(&mut self, name: &str, value: impl Display) {
        self.verdict.figures.push((name.to_owned(), value.to_string()));
    }

    pub(crate) fn violated(&mut self, what: impl Into<String>) {
        self.verdict.violations.push(what.into());
    }

    pub(crate) fn verdict(self) -> Verdict {
        self.verdict
    }
}

/// Waits until every gate charges users of every partition, and these charges are in the log.
async fn normal(installation: &Installation, began: Instant) -> anyhow::Result<Duration> {
    let partitions = Partitions::new(PARTITIONS)?;
    let mut charged = Vec::new();
    for gate in &installation.gates {
        for partition in partitions.all() {
            let mut names = (0..).map(|number| format!("probe-{number}"));
            let lives_there = |name: &String| UserId::parse(name).is_ok_and(|user| partitions.of(&user) == partition);
            let user = names.find(lives_there).context("no user belongs to this partition")?;
            loop {
                if let Some(event) = gate.charge(&user).await {
                    charged.push(event);
                    break;
                }
                ensure!(began.elapsed() < GIVE_UP, "a gate has not recovered after {GIVE_UP:?}");
                sleep(PAUSE).await;
            }
        }
    }
    let count = "select count(*) from chat_usage_logs where uuid = any($1)";
    let logged = async || -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(count).bind(&charged).fetch_one(&installation.pool).await
    };
    while logged().await.unwrap_or(0) < i64::try_from(charged.len())? {
        ensure!(began.elapsed() < GIVE_UP, "charges are not in the log after {GIVE_UP:?}");
        sleep(PAUSE).await;
    }
    Ok(began.elapsed())
}

/// Waits until everything is flushed and the inbox is empty.
async fn quiet(installation: &Installation) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let mut waiting = 0;
        for gate in &installation.gates {
            waiting += gate.backlog().await.unwrap_or(1);
        }
        if waiting == 0 {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < GIVE_UP, "{waiting} items still wait after {GIVE_UP:?}");
        sleep(PAUSE).await;
    }
}
