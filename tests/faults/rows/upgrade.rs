//! A rolling upgrade from the real program of the last release. `scripts/rolling-upgrade` builds it and runs this row.

use std::{env, path::PathBuf, time::Duration};

use anyhow::Context;
use tokio::time::sleep;

use crate::audit::Allowed;
use crate::{
    installation::{Options, migrate},
    run::{Run, Verdict},
};

/// Environment variable: the path of the older program.
const PROGRAM: &str = "PREVIOUS_QUOTA_GATE";
/// How long gates of both versions serve together.
const TOGETHER: Duration = Duration::from_secs(4);

/// Under load, the tables are brought up to date, then one gate after the other is replaced, and one goes back to the
/// old program in between.
pub(crate) async fn rolling(seed: u64) -> anyhow::Result<Verdict> {
    let program = env::var_os(PROGRAM).with_context(|| format!("{PROGRAM} is not set; run scripts/rolling-upgrade"))?;
    let old = PathBuf::from(program);
    // The old program does not know windows.
    let options = Options { balanced: true, program: Some(old.clone()), ..Options::default() }
        .with("QUOTA_GATE__LEVELS__PLUS", "300")
        .with("QUOTA_GATE__SERVER__STOP_DELAY_MS", "2000");
    let mut run = Run::begin(options, seed).await?;
    let new = PathBuf::from(env!("CARGO_BIN_EXE_quota-gate"));
    migrate(&new, &run.installation.postgres.url("postgres"))?;
    sleep(TOGETHER).await;
    for (number, program) in [(0, &new), (0, &old), (0, &new), (1, &new)] {
        let gate = &mut run.installation.gates[number];
        gate.stop().await?;
        gate.runs(program);
        gate.restart().await?;
        sleep(TOGETHER).await;
    }
    let replaced = run.now();
    let mut ended = run.end(Allowed { older_gates: true, ..Allowed::default() }).await?;
    let disturbed = ended.history.refused() + ended.history.unknown();
    if disturbed > 0 {
        ended.violated(format!("{disturbed} requests were refused or lost their answer"));
    }
    let admitted = ended.history.admitted(|event| event.answered < replaced);
    ended.figure("admitted during the upgrade", admitted);
    Ok(ended.verdict())
}
