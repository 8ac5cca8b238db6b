//! Random faults from a seed. Each episode starts an installation, injects several faults, and audits it.

use std::time::Duration;

use anyhow::ensure;
use fastrand::Rng;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::audit::{Allowed, Loss, Split};
use crate::{
    installation::{Installation, Options, QUOTA},
    load::TTL,
    proxy::{Mode, Trap},
    replica::Replica,
    run::{Run, UNFLUSHED},
};

/// Faults on one installation. Few, because its users soon use up their quotas.
const FAULTS: usize = 7;

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillGate,
    StopGate,
    KillRedis,
    StopRedis,
    StopRedisBeyondHolds,
    RestartRedisUnflushed,
    FlushRedis,
    FailOver,
    Split,
    KillPostgres,
    StopPostgres,
    CutConnections,
    SilentRedis,
    SilentPostgres,
    SlowPostgres,
    CutAtCommit,
    ForgetFunctions,
    LongReader,
    MoveGate,
    ApplyLevels,
}

impl Fault {
    const ALL: [Self; 20] = [
        Self::KillGate,
        Self::StopGate,
        Self::KillRedis,
        Self::StopRedis,
        Self::StopRedisBeyondHolds,
        Self::RestartRedisUnflushed,
        Self::FlushRedis,
        Self::FailOver,
        Self::Split,
        Self::KillPostgres,
        Self::StopPostgres,
        Self::CutConnections,
        Self::SilentRedis,
        Self::SilentPostgres,
        Self::SlowPostgres,
        Self::CutAtCommit,
        Self::ForgetFunctions,
        Self::LongReader,
        Self::MoveGate,
        Self::ApplyLevels,
    ];

    /// Returns whether the fault may lose what is not flushed.
    const fn loses(self) -> bool {
        matches!(self, Self::KillRedis | Self::FlushRedis | Self::FailOver | Self::Split)
    }

    /// Returns whether the fault delays flushing.
    const fn delays(self) -> bool {
        matches!(
            self,
            Self::KillPostgres
                | Self::StopPostgres
                | Self::SilentPostgres
                | Self::SlowPostgres
                | Self::RestartRedisUnflushed
        )
    }
}

/// Runs episodes for this many minutes.
pub(crate) async fn soak(minutes: u64, seed: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60 * minutes);
    let (mut episodes, mut requests, mut charges, mut lost) = (0, 0, 0, 0);
    while Instant::now() < deadline {
        let episode = seed + episodes;
        let (faults, ended) = episode_of(episode).await?;
        let verdict_lost = ended.lost;
        println!("episode {episode}: {faults:?}, {:?}", ended.figures);
        ensure!(
            ended.violations.is_empty(),
            "episode {episode}, repeat with --soak 1 --seed {episode}: {:#?}",
            ended.violations
        );
        let figure = |name: &str| {
            ended
                .figures
                .iter()
                .find(|(of, _)| of == name)
                .and_then(|(_, value)| value.parse::<usize>().ok())
                .unwrap_or(0)
        };
        requests += figure("requests");
        charges += figure("charges in the log");
        lost += verdict_lost;
        episodes += 1;
    }
    println!(
        "soak: {minutes} minutes, {episodes} installations, {} faults, {requests} requests, {charges} charges, {lost} \
         acknowledged charges lost with Redis, I1 to I11 hold",
        episodes * FAULTS as u64
    );
    Ok(())
}

async fn episode_of(seed: u64) -> anyhow::Result<(Vec<Fault>, crate::run::Verdict)> {
    let mut random = Rng::with_seed(seed);
    let mut options = Options::default();
    // With fewer connections than partitions, openings compete for them.
    if random.bool() {
        options = options.with("QUOTA_GATE__POSTGRES__CONNECTIONS_MAX", "3");
    }
    let mut run = Run::begin(options, seed).await?;
    let faults: Vec<Fault> = (0..FAULTS).filter_map(|_| random.choice(Fault::ALL)).collect();
    let mut allowed = Allowed::default();
    let mut delayed_since: Option<Duration> = None;
    for fault in &faults {
        let began = run.now();
        // With a lag of 0, all usage is flushed again.
        if run.installation.gates[0].lag_seconds().await.is_some_and(|seconds| seconds == 0) {
            delayed_since = None;
        }
        if fault.delays() {
            delayed_since = delayed_since.or(Some(began));
        }
        let which = random.usize(..run.installation.gates.len());
        let stopped = strike(*fault, which, &mut run.installation, &mut random).await?;
        if fault.loses() {
            let from = delayed_since.unwrap_or(began).saturating_sub(UNFLUSHED);
            allowed.losses.push(Loss { from, until: run.now() });
        }
        if let Some(stopped) = stopped {
            allowed.splits.push(Split { left_behind: which, from: began, to: run.at(stopped) });
        }
        sleep(Duration::from_millis(random.u64(100..2_500))).await;
    }
    run.fault_begins();
    Ok((faults, run.end(allowed).await?.verdict()))
}

/// Injects a fault. Returns when an old primary began to refuse writes, if there was one.
async fn strike(
    fault: Fault,
    which: usize,
    installation: &mut Installation,
    random: &mut Rng,
) -> anyhow::Result<Option<Instant>> {
    let moment = Duration::from_millis(random.u64(50..3_000));
    match fault {
        Fault::KillGate => {
            installation.gates[which].kill();
            sleep(moment).await;
            installation.gates[which].restart().await?;
        }
        Fault::StopGate => {
            installation.gates[which].signal(Signal::SIGSTOP);
            sleep(moment * 3).await;
            installation.gates[which].signal(Signal::SIGCONT);
        }
        Fault::KillRedis => {
            installation.redis.kill().await;
            sleep(moment).await;
            installation.redis.restart().await?;
        }
        Fault::StopRedis => {
            installation.redis.pause();
            sleep(moment).await;
            installation.redis.resume();
        }
        Fault::StopRedisBeyondHolds => {
            installation.redis.pause();
            sleep(TTL + moment).await;
            installation.redis.resume();
        }
        Fault::RestartRedisUnflushed => {
            installation.signal_postgres(Signal::SIGSTOP);
            sleep(moment).await;
            installation.redis.stop().await;
            installation.signal_postgres(Signal::SIGCONT);
            installation.redis.restart().await?;
        }
        Fault::FlushRedis => installation.redis::<()>(&["FLUSHALL"]).await?,
        Fault::FailOver => Replica::of(installation).await?.take_over(installation, moment / 3).await?,
        Fault::Split => return Ok(Some(Replica::of(installation).await?.split(installation, which).await?)),
        Fault::KillPostgres => {
            installation.postgres.kill().await;
            sleep(moment).await;
            installation.postgres.restart().await?;
        }
        Fault::StopPostgres => {
            installation.signal_postgres(Signal::SIGSTOP);
            sleep(moment).await;
            installation.signal_postgres(Signal::SIGCONT);
        }
        Fault::CutConnections => {
            for gate in &installation.gates {
                gate.redis.cut();
                gate.postgres.cut();
            }
        }
        Fault::SilentRedis | Fault::SilentPostgres | Fault::SlowPostgres => {
            let gate = &installation.gates[which];
            let proxy = if matches!(fault, Fault::SilentRedis) { &gate.redis } else { &gate.postgres };
            let mode = if matches!(fault, Fault::SlowPostgres) {
                Mode::Delay(Duration::from_millis(100))
            } else {
                Mode::Silent
            };
            proxy.set(mode);
            sleep(moment).await;
            proxy.set(Mode::Pass);
        }
        Fault::CutAtCommit => {
            let postgres = &installation.gates[which].postgres;
            let caught = postgres.trap_after(b"copy chat_usage_logs", b"COMMIT", Trap::CutAnswer);
            let _ = tokio::time::timeout(moment, caught).await;
            postgres.disarm();
        }
        Fault::ForgetFunctions => installation.redis::<()>(&["FUNCTION", "FLUSH"]).await?,
        Fault::LongReader => {
            let reader = installation.long_reader().await?;
            installation.gates[which].reset().await;
            sleep(moment).await;
            reader.rollback().await?;
        }
        Fault::ApplyLevels => {
            // Another quota for a level that few users have. Every user is visited; the command may be killed halfway.
            let gate = &mut installation.gates[which];
            gate.set("QUOTA_GATE__LEVELS__BASIC", &(QUOTA + random.u32(50..150)).to_string());
            let mut applying = gate.spawn(&["levels", "apply"])?;
            sleep(moment).await;
            applying.kill()?;
            applying.wait()?;
        }
        Fault::MoveGate => {
            let other = installation.another_redis(&format!("other-{}", random.u32(..)), Vec::new()).await?;
            installation.gates[which].redis.lead_to(other.port());
            sleep(moment * 3).await;
            installation.gates[which].redis.lead_to(installation.redis.port());
            is_back(installation, which).await?;
        }
    }
    Ok(None)
}

/// Waits until a gate that was moved has reported the first Redis again. Before that, moving the other gate would move
/// the whole installation, and lose what the other server has when it goes.
async fn is_back(installation: &Installation, which: usize) -> anyhow::Result<()> {
    let elsewhere = "select count(distinct redis_process) - 1 + count(*) filter (where is_refused)
        from gates where seen_at > now() - interval '3 seconds'";
    let deadline = Instant::now() + Duration::from_secs(20);
    while installation.number(elsewhere).await? > 0 || !installation.gates[which].is_ready().await {
        ensure!(Instant::now() < deadline, "a gate that was moved back does not serve");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
