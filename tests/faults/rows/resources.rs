//! Full disks and full memory.
//!
//! The disks are small in-memory file systems, so their rows need root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::time::sleep;

use crate::audit::Allowed;
use crate::{
    history::Outcome,
    installation::Options,
    run::{Ended, Run, Verdict},
};

/// A small file system in memory, unmounted on drop.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(name: &str, megabytes: u32) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("quota-gate-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=0777"), "tmpfs"])
            .arg(&dir)
            .status()
            .is_ok_and(|status| status.success());
        let disk = Self(dir);
        ensure!(mounted, "cannot mount a small disk: run this row as root");
        Ok(disk)
    }

    /// Fills the disk with a file. Removing the file frees the space.
    fn fill(&self) -> anyhow::Result<PathBuf> {
        let file = self.0.join("ballast");
        // It fails when the disk is full.
        let _ = Command::new("dd")
            .args(["if=/dev/zero", "bs=64k", "status=none"])
            .stderr(std::process::Stdio::null())
            .arg(format!("of={}", file.display()))
            .status();
        ensure!(fs::metadata(&file)?.len() > 0, "the disk had no free space");
        Ok(file)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

fn refused(mut ended: Ended) -> Verdict {
    let (fault, healed) = (ended.fault, ended.healed);
    let refused =
        ended.history.count(|event| event.sent > fault && event.sent < healed && event.outcome == Outcome::Refused);
    ended.proves("messages were refused", refused > 20);
    ended.verdict()
}

pub(crate) async fn redis_disk(seed: u64) -> anyhow::Result<Verdict> {
    let disk = SmallDisk::mount("redis", 48)?;
    let options = Options { redis_dir: Some(disk.path().join("redis")), ..Options::default() };
    let run = Run::begin(options, seed).await?;
    let ballast = disk.fill()?;
    sleep(Duration::from_secs(5)).await;
    let info: String = run.installation.redis(&["INFO", "persistence"]).await?;
    fs::remove_file(ballast)?;
    let mut ended = run.end(Allowed::default()).await?;
    ended.proves("Redis could not write", info.contains("aof_last_write_status:err"));
    let verdict = refused(ended);
    drop(disk);
    Ok(verdict)
}

pub(crate) async fn postgres_disk(seed: u64) -> anyhow::Result<Verdict> {
    let disk = SmallDisk::mount("postgres", 160)?;
    let mut options = Options { postgres_dir: Some(disk.path().join("postgres")), ..Options::default() };
    options.postgres.extra = vec!["max_wal_size=48MB".into(), "min_wal_size=32MB".into()];
    let mut run = Run::begin(options, seed).await?;
    let ballast = disk.fill()?;
    sleep(Duration::from_secs(6)).await;
    let failures: usize = run.installation.gates.iter().map(|gate| gate.logged("the flusher failed")).sum();
    fs::remove_file(ballast)?;
    // Postgres has stopped if it could not write its write-ahead log.
    if !run.installation.postgres.is_running() || run.installation.number("select 1").await.is_err() {
        run.installation.postgres.kill().await;
        run.installation.postgres.restart().await?;
    }
    let mut ended = run.end(Allowed::default()).await?;
    ended.figure("flushes that failed", failures);
    ended.proves("flushes failed", failures > 0);
    let verdict = ended.verdict();
    drop(disk);
    Ok(verdict)
}

pub(crate) async fn redis_memory(seed: u64) -> anyhow::Result<Verdict> {
    let run = Run::begin(Options::default(), seed).await?;
    let gate = &run.installation.gates[0];
    let body = json!({"userUuid": "holder", "sessionId": "s", "ap": 2, "ttlSeconds": 60});
    let mut holds = Vec::new();
    for _ in 0..10 {
        holds.push(gate.post("/api/chat/quota/reservations", &body).await?.1);
    }
    run.installation.redis::<()>(&["CONFIG", "SET", "maxmemory", "1mb"]).await?;
    for hold in holds {
        let id = hold["reservationId"].as_str().context("a reservation has no id")?;
        let (status, answer) = gate.post(&format!("/api/chat/quota/reservations/{id}/commit"), &json!({})).await?;
        ensure!(status == 200, "a commit while the memory is full got {status}: {answer}");
    }
    sleep(Duration::from_secs(3)).await;
    run.installation.redis::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await?;
    let ended = run.end(Allowed::default()).await?;
    let unknown = ended.history.unknown();
    let mut ended = ended;
    if unknown > 0 {
        ended.violated(format!("{unknown} outcomes are unknown, though a full Redis refuses before it writes"));
    }
    Ok(refused(ended))
}
