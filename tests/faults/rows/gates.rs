//! Faults of a gate process.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::sleep;

use crate::audit::Allowed;
use crate::{
    history::Outcome,
    installation::{Options, PARTITIONS, ask},
    run::{Run, Verdict},
};

pub(crate) async fn killed(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options::default(), seed).await?;
    run.installation.gates[0].kill();
    sleep(Duration::from_secs(1)).await;
    run.installation.gates[0].restart().await?;
    let mut ended = run.end(Allowed::default()).await?;
    let (fault, healed) = (ended.fault, ended.healed);
    let cut = ended.history.count(|event| {
        event.gate == 0 && event.sent >= fault && matches!(event.outcome, Outcome::Unknown | Outcome::Refused)
    });
    ended.proves("clients sent requests to the killed gate", cut > 0);
    let served = ended.history.admitted(|event| event.gate == 1 && event.sent > fault && event.answered < healed);
    ended.proves("the other gate continued to serve", served > 30);
    Ok(ended.verdict())
}

pub(crate) async fn paused(seed: u64) -> anyhow::Result<Verdict> {
    let run = Run::begin(Options::default(), seed).await?;
    run.installation.gates[0].signal(Signal::SIGSTOP);
    sleep(Duration::from_secs(15)).await;
    run.installation.gates[0].signal(Signal::SIGCONT);
    let mut ended = run.end(Allowed::default()).await?;
    let fault = ended.fault;
    let waited = ended.history.count(|event| event.gate == 0 && event.took() > Duration::from_secs(5));
    ended.proves("clients waited for the paused gate", waited > 0);
    let served = ended.history.admitted(|event| event.gate == 1 && event.sent > fault);
    ended.proves("the other gate continued to serve", served > 30);
    Ok(ended.verdict())
}

/// Behind a load balancer, clients must not notice a restart.
pub(crate) async fn restarted_in_turn(seed: u64) -> anyhow::Result<Verdict> {
    // Long enough for the load balancer to notice, even on a busy machine.
    let options = Options { balanced: true, ..Options::default() }.with("QUOTA_GATE__SERVER__STOP_DELAY_MS", "2000");
    let mut run = Run::begin(options, seed).await?;
    for gate in [0, 1, 0, 1] {
        run.installation.gates[gate].stop().await?;
        run.installation.gates[gate].restart().await?;
        sleep(Duration::from_millis(200)).await;
    }
    let mut ended = run.end(Allowed::default()).await?;
    let disturbed = ended.history.refused() + ended.history.unknown();
    if disturbed > 0 {
        ended.violated(format!("{disturbed} requests were refused or lost their answer"));
    }
    Ok(ended.verdict())
}

/// Its clients are refused. The other gate serves, and neither opens a generation.
pub(crate) async fn moved_to_another_redis(seed: u64) -> anyhow::Result<Verdict> {
    let mut run = Run::begin(Options::default(), seed).await?;
    let other = run.installation.another_redis("other", Vec::new()).await?;
    run.fault_begins();
    run.installation.gates[0].redis.lead_to(other.port());
    sleep(Duration::from_secs(10)).await;
    // The serving gate's Redis restarts. The moved gate must not take its place.
    run.installation.redis.kill().await;
    sleep(Duration::from_secs(2)).await;
    run.installation.redis.restart().await?;
    sleep(Duration::from_secs(2)).await;
    let written: i64 = ask(&other, &["DBSIZE"]).await?;
    run.installation.gates[0].redis.lead_to(run.installation.redis.port());
    let mut ended = run.end(Allowed::default()).await?;
    let (fault, healed) = (ended.fault, ended.healed);
    let during = move |event: &crate::history::Event| event.sent > fault && event.answered < healed;
    let refused = ended.history.count(|event| event.gate == 0 && during(event) && event.outcome == Outcome::Refused);
    ended.figure("refused by the moved gate", refused);
    ended.proves("the moved gate refused messages", refused > 100);
    let served = ended.history.admitted(|event| event.gate == 1 && during(event));
    ended.proves("the other gate continued to serve", served > 30);
    if ended.history.admitted(|event| event.gate == 0 && during(event) && event.sent > fault + Duration::from_secs(1))
        > 0
    {
        ended.violated("the moved gate served");
    }
    if written > 0 {
        ended.violated(format!("the other Redis has {written} keys"));
    }
    let generations = ended.installation.reopened().await?;
    ended.figure("generations opened", generations);
    // One for each partition: the restart.
    if generations > i64::from(PARTITIONS) {
        ended.violated(format!("{generations} generations were opened"));
    }
    Ok(ended.verdict())
}
