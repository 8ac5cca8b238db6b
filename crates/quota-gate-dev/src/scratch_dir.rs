//! A directory that is gone when its owner is, however the owner ended.
//!
//! For the data of servers that a test or a benchmark starts. A shell waits for the owner's end and removes the
//! directory then (`sweep.sh`, by the same means as a server's guard): nothing is left after SIGKILL either.

use std::{
    env,
    fs::DirBuilder,
    io,
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{
    account::Account,
    error::{DevError, cannot},
    password::random_hex,
};

const SWEEP: &str = include_str!("sweep.sh");

/// A directory in the system's place for temporary files, which the servers' account can use.
#[derive(Debug)]
pub struct ScratchDir {
    path: PathBuf,
    sweeper: Child,
}

impl ScratchDir {
    /// Makes an empty directory.
    ///
    /// # Errors
    /// If none can be made.
    pub fn new() -> Result<Self, DevError> {
        let account = Account::for_servers()?;
        let temporary = env::temp_dir();
        let parent = if account.reaches(&temporary) { temporary } else { "/tmp".into() };
        let name = random_hex::<8>().map_err(cannot("name a directory in", &parent))?;
        let path = parent.join(format!("quota-gate-scratch-{name}"));
        let sweeper = sweeper(&path).map_err(cannot("watch over", &path))?;
        DirBuilder::new().mode(0o700).create(&path).map_err(cannot("create", &path))?;
        account.own(&path)?;
        Ok(Self { path, sweeper })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        drop(self.sweeper.stdin.take());
        // It ends after ten seconds at the latest, and needs no more help.
        let _ = self.sweeper.wait();
    }
}

fn sweeper(path: &Path) -> io::Result<Child> {
    Command::new("/bin/sh")
        .args(["-c", SWEEP, "sweep"])
        .arg(path)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}
