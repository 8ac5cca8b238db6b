//! A server that never outlives us, however we end.
//!
//! A small shell stands between: it starts the server and waits for the end of its standard input, which is a pipe that
//! only we hold. When we end, by whatever signal, the pipe closes, and the shell stops the server. Both are in a
//! process group of their own, so Ctrl-C in a terminal reaches us alone and the last charges can still be flushed.
//! (The kernel's own way, a parent-death signal, is bound to the thread that started the child and to Linux.)

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Account, DevError};

/// Starts "$@" and says its process id. When stdin ends, stops it: by $STOP_SIGNAL, after ten seconds by SIGKILL. Then
/// removes $REMOVE, if that is set, and unless the last word was to keep it.
const GUARD: &str = r#"
trap '' INT HUP TERM
"$@" </dev/null >>"$LOG" 2>&1 &
server=$!
echo "$server"
exec >/dev/null
word=$(cat)
kill -"$STOP_SIGNAL" "$server" 2>/dev/null
tenths=0
while kill -0 "$server" 2>/dev/null && [ "$tenths" -lt 100 ]; do
  sleep 0.1
  tenths=$((tenths + 1))
done
kill -KILL "$server" 2>/dev/null
if [ -n "$REMOVE" ] && [ "$word" != keep ]; then rm -rf "$REMOVE"; fi
"#;

/// How to run a server.
#[derive(Debug, Clone)]
pub(super) struct ServerCommand {
    /// The program, whole.
    pub(super) program: PathBuf,
    /// What it is told.
    pub(super) arguments: Vec<OsString>,
    /// Who it runs as.
    pub(super) account: Account,
    /// What it writes goes here.
    pub(super) log: PathBuf,
    /// The signal of an orderly stop.
    pub(super) stop_signal: Signal,
    /// A folder to remove once it has stopped.
    pub(super) remove: Option<PathBuf>,
}

/// A running server and the shell that guards it.
#[derive(Debug)]
pub(super) struct GuardedServer {
    guard: Child,
    lifeline: Option<ChildStdin>,
    server: Pid,
}

impl ServerCommand {
    pub(super) fn start(&self) -> Result<GuardedServer, DevError> {
        let what = || format!("starting {}", self.program.display());
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", GUARD, "guard"])
            .arg(&self.program)
            .args(&self.arguments)
            .env("LOG", &self.log)
            .env("STOP_SIGNAL", self.stop_signal.as_str().trim_start_matches("SIG"))
            .env("REMOVE", self.remove.as_deref().unwrap_or(Path::new("")))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        if let Some((user, group)) = self.account.drop_to() {
            command.uid(user).gid(group);
        }
        OpenOptions::new().create(true).append(true).open(&self.log).map_err(DevError::io(what()))?;
        self.account.give(&self.log)?;
        let mut guard = command.spawn().map_err(DevError::io(what()))?;
        let lifeline = guard.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = guard.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(DevError::io(what()))?;
        }
        let pid = line.trim().parse().map_err(|_| DevError::Io {
            what: what(),
            source: std::io::Error::other(format!("the guard said {line:?} instead of a process id")),
        })?;
        Ok(GuardedServer { guard, lifeline, server: Pid::from_raw(pid) })
    }
}

impl GuardedServer {
    /// Does the server run?
    pub(super) fn is_running(&self) -> bool {
        kill(self.server, None).is_ok()
    }

    /// Ends the server as a crash would. Its data stays.
    pub(super) fn kill(mut self) {
        let _ = kill(self.server, Signal::SIGKILL);
        self.wait(b"keep");
    }

    /// Sends the server a signal, for example to stand still.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill(self.server, signal);
    }

    /// Stops the server in order and waits for its end. Its data stays.
    pub(super) fn stop(mut self) {
        self.wait(b"keep");
    }

    fn wait(&mut self, last_word: &[u8]) {
        if let Some(mut lifeline) = self.lifeline.take() {
            let _ = lifeline.write_all(last_word);
        }
        let _ = self.guard.wait();
    }
}

impl Drop for GuardedServer {
    fn drop(&mut self) {
        self.wait(b"");
    }
}

/// Waits for a server that has just been started.
pub(super) fn wait_until(
    server: &GuardedServer,
    program: &'static str,
    log: &Path,
    answers: impl Fn() -> bool,
) -> Result<(), DevError> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let started = Instant::now();
    while !answers() {
        if !server.is_running() || started.elapsed() > PATIENCE {
            return Err(DevError::DidNotStart { program, log: super::log_tail(log) });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
