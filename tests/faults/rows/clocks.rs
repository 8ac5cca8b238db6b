//! Clock jumps, and the end of a month under load: Redis and the gates use a clock that the row sets.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use chrono::{DateTime, Datelike, TimeZone, Utc};
use quota_gate::domain::clock::Clock;
use quota_gate_dev::ScratchDir;
use reqwest::Client;
use serde_json::json;
use tokio::time::sleep;

use crate::audit::Allowed;
use crate::{
    installation::{CRON_TOKEN, Installation, Options, QUOTA, SERVICE_TOKEN},
    proxy::Mode,
    run::{Run, Verdict},
};

const HOUR: i64 = 3_600;
/// Counts the calendar months that were charged. Periods of users with an anchor day begin on other days.
pub(super) const MONTHS: &str = "select count(distinct period) from chat_usage_logs where period < 1000000";

/// Offset of the processes' clocks from the machine's: a file that they read whenever they read the clock.
pub(super) struct Offset {
    dir: ScratchDir,
    file: PathBuf,
}

impl Offset {
    pub(super) fn new() -> anyhow::Result<Self> {
        let dir = ScratchDir::new()?;
        let file = dir.path().join("offset");
        fs::write(&file, 0_i64.to_ne_bytes())?;
        let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/faults/clock.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(dir.path().join("clock.so"))
            .arg(source)
            .status()
            .context("clock.c needs a C compiler")?;
        ensure!(built.success(), "clock.c does not compile");
        // The servers run under another account.
        for path in [dir.path(), &file, &dir.path().join("clock.so")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { dir, file })
    }

    pub(super) fn set(&self, seconds: i64) -> anyhow::Result<()> {
        // In place, because the processes have mapped the file.
        let mut file = fs::OpenOptions::new().write(true).open(&self.file)?;
        Ok(file.write_all(&seconds.to_ne_bytes())?)
    }

    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let set = |name: &str, path: &Path| (name.to_owned(), path.display().to_string());
        vec![set("LD_PRELOAD", &self.dir.path().join("clock.so")), set("CLOCK_OFFSET_FILE", &self.file)]
    }
}

pub(crate) async fn jump(seed: u64) -> anyhow::Result<Verdict> {
    let (redis, gates) = (Offset::new()?, Offset::new()?);
    let mut options = Options::default();
    options.redis.environment = redis.environment();
    options.settings = gates.environment();
    // Without changes of plans: one made by a gate whose clock is a month ahead begins the user's next period.
    let installation = Installation::start(options).await?;
    let run = Run::begin_on(installation, false, false, seed).await?;
    for jump in [HOUR, -HOUR, 31 * 24 * HOUR, -31 * 24 * HOUR] {
        redis.set(jump)?;
        sleep(Duration::from_millis(700)).await;
        redis.set(0)?;
        sleep(Duration::from_millis(300)).await;
        gates.set(jump)?;
        sleep(Duration::from_millis(700)).await;
        gates.set(0)?;
        sleep(Duration::from_millis(300)).await;
    }
    let mut ended = run.end(Allowed { clocks_jump: true, ..Allowed::default() }).await?;
    let refused = ended.history.refused();
    ended.proves("messages were refused while the clocks disagreed", refused > 50);
    let periods = ended.installation.number(MONTHS).await?;
    if periods != 1 {
        ended.violated(format!("I5: clock jumps opened {} more months", periods - 1));
    }
    Ok(ended.verdict())
}

pub(crate) async fn month_ends(seed: u64) -> anyhow::Result<Verdict> {
    let clock = Offset::new()?;
    let mut options = Options::default().with("QUOTA_GATE__RESETTER__ENABLED", "false");
    options.redis.environment = clock.environment();
    options.settings.extend(clock.environment());
    // The month ends 25 seconds from now, so the load begins in the old month.
    let machine = Clock::machine();
    let now = machine.now();
    let (year, month) = if now.month() == 12 { (now.year() + 1, 1) } else { (now.year(), now.month() + 1) };
    let end: DateTime<Utc> = Utc.with_ymd_and_hms(year, month, 1, 0, 0, 0).single().context("a month begins")?;
    clock.set((end - now).num_seconds() - 25)?;
    let run = Run::begin(options, seed).await?;
    // One user uses up the old month's quota, and then has the new month's whole quota, once.
    let client = Client::new();
    let admitted_of = async |messages: u32| -> anyhow::Result<u32> {
        let mut admitted = 0;
        for _ in 0..messages {
            let request = client
                .post(format!("{}/api/chat/quota/consume", run.installation.gates[0].url))
                .bearer_auth(SERVICE_TOKEN)
                .json(&json!({"userUuid": "spender", "sessionId": "s"}));
            admitted += u32::from(request.send().await?.status() == 200);
        }
        Ok(admitted)
    };
    let before = admitted_of(QUOTA + 5).await?;
    // The flushers cannot reach Postgres while the month ends, so charges of the old month arrive late.
    for gate in &run.installation.gates {
        gate.postgres.set(Mode::Silent);
    }
    while machine.now() < now + chrono::TimeDelta::seconds(27) {
        sleep(Duration::from_millis(50)).await;
    }
    for gate in &run.installation.gates {
        gate.postgres.set(Mode::Pass);
    }
    let resets = (0..99).map(|number| {
        let gate = &run.installation.gates[number % 2];
        client.post(format!("{}/api/chat/quota/reset", gate.url)).bearer_auth(CRON_TOKEN).send()
    });
    let mut done = 0;
    for reset in futures_util::future::join_all(resets).await {
        done += usize::from(reset.is_ok_and(|answer| answer.status().is_success()));
    }
    let after = admitted_of(QUOTA + 5).await?;
    let mut ended = run.end(Allowed::default()).await?;
    ended.figure("reset runs", done);
    ended.proves("the resetter ran", done > 0);
    if (before, after) != (QUOTA, QUOTA) {
        ended.violated(format!("I5: {before} of {QUOTA} AP were granted in the old month, {after} in the new one"));
    }
    let periods = ended.installation.number(MONTHS).await?;
    ended.figure("months", periods);
    ended.proves("both months were charged", periods == 2);
    let late = ended.installation.number("select count(*) from chat_quota_months where used > 0").await?;
    ended.proves("closed months were charged", late > 0);
    Ok(ended.verdict())
}
