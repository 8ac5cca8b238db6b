//! A server's log. Its lock proves that no earlier server still runs in the same directory.
//!
//! The log is locked and becomes the server's standard error. A `flock` lock belongs to the open file, so the server
//! and its children hold it until the last of them has ended. Unlike a file with a process id, it cannot become stale
//! and needs no cleanup. Only the holder of the lock may start a server on the data: two redis-servers would write into
//! one append-only file.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::error::{DevError, cannot};

/// An earlier server that is stopping takes at most as long as its guard allows (twice 10 s, then it is killed).
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Pause between two attempts to lock.
const PAUSE: Duration = Duration::from_millis(10);
/// A larger log is emptied at the next start.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// Lines of the log that a message shows.
const TAIL_LINES: usize = 15;

/// A log, with its lock.
#[derive(Debug)]
pub(super) struct ServerLog {
    file: File,
    written: LogSinceStart,
}

/// The lines that a server has logged since its start.
#[derive(Debug, Clone)]
pub(super) struct LogSinceStart {
    path: PathBuf,
    start: usize,
}

impl ServerLog {
    /// Waits until every process of an earlier server in `dir` has ended, and takes the lock.
    pub(super) async fn claim(dir: &Path) -> Result<Self, DevError> {
        let path = dir.join("server.log");
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(cannot("open", &path))?;
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(PAUSE).await,
                Err(TryLockError::WouldBlock) => {
                    return Err(DevError::InUse { dir: dir.to_owned(), holder: "a server that does not stop".into() });
                }
                Err(TryLockError::Error(error)) => return Err(cannot("lock", &path)(error)),
            }
        }
        let mut bytes = file.metadata().map_err(cannot("read", &path))?.len();
        if bytes > LOG_BYTES_MAX {
            file.set_len(0).map_err(cannot("shorten", &path))?;
            bytes = 0;
        }
        Ok(Self { file, written: LogSinceStart { path, start: usize::try_from(bytes).unwrap_or(0) } })
    }

    /// Passes the log and its lock to the process that gets this as its output.
    pub(super) fn hand_over(self) -> (Stdio, LogSinceStart) {
        (self.file.into(), self.written)
    }
}

impl LogSinceStart {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the last lines since the start.
    pub(super) fn tail(&self) -> String {
        let bytes = fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes.get(self.start..).unwrap_or_default()).into_owned();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}
