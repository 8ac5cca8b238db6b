//! A server's log, which is also the proof that no earlier server is alive in the same directory.
//!
//! The log is locked and handed to the server as its standard error. A lock of `flock` belongs to the open file, so
//! it is held by the server and all its children for as long as one of them lives, and by nobody after that: no
//! number of a process to go stale, nothing to clean up. Whoever gets the lock may start a server on the data, and
//! only then: two redis-servers would write into one append-only file.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::error::{DevError, cannot};

/// An earlier server that is being stopped needs up to as long as its guard lets it (twice 10 s, then it is killed).
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Between two looks at the lock.
const PAUSE: Duration = Duration::from_millis(10);
/// A log that has grown past this begins anew with the next start.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// The end of the log that a message shows.
const TAIL_LINES: usize = 15;

/// A log whose lock is held.
#[derive(Debug)]
pub(super) struct ServerLog {
    file: File,
    written: LogSinceStart,
}

/// Where to read what a server has said since it was started.
#[derive(Debug, Clone)]
pub(super) struct LogSinceStart {
    path: PathBuf,
    start: usize,
}

impl ServerLog {
    /// Waits until every process of an earlier server in `dir` is gone, and takes the lock.
    pub(super) async fn claim(dir: &Path) -> Result<Self, DevError> {
        let path = dir.join("server.log");
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(cannot("open", &path))?;
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(PAUSE).await,
                Err(TryLockError::WouldBlock) => {
                    return Err(DevError::InUse { dir: dir.to_owned(), holder: "a server that does not end".into() });
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

    /// Gives the log and its lock away, to the process that gets this as its output.
    pub(super) fn hand_over(self) -> (Stdio, LogSinceStart) {
        (self.file.into(), self.written)
    }
}

impl LogSinceStart {
    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The last lines that were written since the start.
    pub(super) fn tail(&self) -> String {
        let bytes = fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes.get(self.start..).unwrap_or_default()).into_owned();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}
