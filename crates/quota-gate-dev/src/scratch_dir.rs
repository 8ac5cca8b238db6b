//! A directory that is removed when its owner ends, however it ends.
//!
//! For the data of servers that a test or a benchmark starts. A shell script (`sweep.sh`) waits for the owner's end, as
//! a server's guard does, and then removes the directory, also after SIGKILL.

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

/// A temporary directory that the servers' account can use.
#[derive(Debug)]
pub struct ScratchDir {
    path: PathBuf,
    sweeper: Child,
}

impl ScratchDir {
    /// Creates an empty directory.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn new() -> Result<Self, DevError> {
        let account = Account::for_servers()?;
        let temporary = env::temp_dir();
        let parent = if account.reaches(&temporary) { temporary } else { "/tmp".into() };
        let name = random_hex::<8>().map_err(cannot("name a directory in", &parent))?;
        let path = parent.join(format!("quota-gate-scratch-{name}"));
        let sweeper = sweeper(&path).map_err(cannot("watch", &path))?;
        DirBuilder::new().mode(0o700).create(&path).map_err(cannot("create", &path))?;
        account.own(&path)?;
        Ok(Self { path, sweeper })
    }

    /// Returns the path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        drop(self.sweeper.stdin.take());
        // The sweeper ends within ten seconds, with or without success.
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
