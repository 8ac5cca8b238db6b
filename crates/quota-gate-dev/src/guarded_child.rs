//! A server process that does not outlive its owner.
//!
//! Dropping a handle is not enough: a killed process drops nothing. So a small shell script, the guard (`guard.sh`),
//! starts each server, watches a pipe from the owner, and stops the server when the pipe closes. A normal stop closes
//! the pipe too, so the path that is needed after a crash is used every day. This works the same on Linux and macOS,
//! and from any thread.
//!
//! The guard leads its own process group: Ctrl-C in a terminal reaches only the owner, which keeps its servers while it
//! finishes its work. If the guard itself is killed by SIGKILL, its server keeps running.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::sleep;

use super::{
    account::Account,
    error::{DevError, cannot},
    server_log::{LogSinceStart, ServerLog},
};

const GUARD: &str = include_str!("guard.sh");
/// Time for a server to end after each signal. A checkpoint of a well-filled Postgres takes a few seconds.
const PATIENCE_SECONDS: u32 = 10;
/// Maximum time to wait for a guard. It sends at most three signals, so a healthy machine never reaches this.
const STOP_MAX: Duration = Duration::from_secs(40);
/// Pause between two checks of a process. Servers start in 5 ms (Redis) to 100 ms (Postgres).
const PAUSE: Duration = Duration::from_millis(2);

/// How to run and stop a server.
#[derive(Debug)]
pub(super) struct Server<'a> {
    /// Name in messages.
    pub(super) name: &'static str,
    pub(super) program: &'a Path,
    pub(super) arguments: Vec<OsString>,
    /// Working directory.
    pub(super) dir: &'a Path,
    pub(super) account: &'a Account,
    /// Environment variables in addition to those of this process.
    pub(super) environment: &'a [(String, String)],
    /// Signals of a [`stop`](GuardedChild::stop), each sent if the one before had no effect; then SIGKILL.
    pub(super) stop_signals: &'static str,
    /// The same, for when the owner has ended or dropped the child.
    pub(super) drop_signals: &'static str,
}

/// A running server.
#[derive(Debug)]
pub(super) struct GuardedChild {
    name: &'static str,
    guard: Child,
    lifeline: Option<ChildStdin>,
    pid: Pid,
    stop_signals: &'static str,
    log: LogSinceStart,
}

impl GuardedChild {
    /// Starts the server. It keeps the log, and thereby the directory, locked until its last process has ended.
    pub(super) fn start(server: Server<'_>, log: ServerLog) -> Result<Self, DevError> {
        let (output, log) = log.hand_over();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", GUARD, "guard", &PATIENCE_SECONDS.to_string(), server.drop_signals])
            .arg(server.program)
            .args(server.arguments)
            .current_dir(server.dir)
            .env("LC_ALL", "C")
            .envs(server.environment.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output);
        server.account.run(&mut command);
        let mut guard = command.spawn().map_err(cannot("start", server.program))?;
        let lifeline = guard.stdin.take();
        let pid = first_line(&mut guard).and_then(|line| line.trim_end().parse().ok());
        let Some(pid) = pid.map(Pid::from_raw) else {
            let reason = "could not be started".into();
            return Err(DevError::NotReady { server: server.name, reason, log: log.path().into(), tail: log.tail() });
        };
        Ok(Self { name: server.name, guard, lifeline, pid, stop_signals: server.stop_signals, log })
    }

    /// Waits until `ready` returns true. Fails if the server ends before, or `patience` is over.
    pub(super) async fn until_ready(
        &mut self,
        port: u16,
        patience: Duration,
        ready: impl AsyncFn(&Self) -> bool,
    ) -> Result<(), DevError> {
        let deadline = Instant::now() + patience;
        while !ready(self).await {
            let reason = if !self.is_running() {
                "ended before it was ready".to_owned()
            } else if Instant::now() > deadline {
                format!("was not ready after {} s", patience.as_secs())
            } else {
                sleep(PAUSE).await;
                continue;
            };
            let (server, tail) = (self.name, self.log.tail());
            return Err(if tail.contains("Address already in use") {
                DevError::PortTaken { server, port }
            } else {
                DevError::NotReady { server, reason, log: self.log.path().into(), tail }
            });
        }
        Ok(())
    }

    /// Returns the server's process id. Once the server has ended, another process may have it.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.guard.try_wait(), Ok(None))
    }

    /// Stops the server cleanly and waits until it has ended.
    pub(super) async fn stop(&mut self) {
        if let Some(mut lifeline) = self.lifeline.take() {
            // This fails if the guard has ended, and then the server has ended before it.
            let _ = writeln!(lifeline, "{}", self.stop_signals);
        }
        self.until_ended().await;
    }

    /// Kills the server and its child processes with SIGKILL, like a power failure.
    pub(super) async fn kill(&mut self) {
        if self.is_running() {
            // A paused server starts no child while its children are listed. If one of them ends meanwhile, its signal
            // has no effect.
            let _ = kill(self.pid, Signal::SIGSTOP);
            let children = children_of(self.pid);
            for pid in children.into_iter().chain([self.pid]) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        self.until_ended().await;
    }

    /// Sends the server a signal, for example to pause it.
    pub(super) fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            // The server may end at this moment; then there is nothing to signal.
            let _ = kill(self.pid, signal);
        }
    }

    async fn until_ended(&mut self) {
        let deadline = Instant::now() + STOP_MAX;
        while self.is_running() && Instant::now() < deadline {
            sleep(PAUSE).await;
        }
    }
}

impl Drop for GuardedChild {
    /// Closes the lifeline and waits: afterwards the server has ended and its files can be removed.
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let deadline = Instant::now() + STOP_MAX;
        while self.is_running() && Instant::now() < deadline {
            thread::sleep(PAUSE);
        }
    }
}

/// Reads the guard's first line. It arrives within milliseconds, or the pipe closes.
fn first_line(guard: &mut Child) -> Option<String> {
    let mut line = String::new();
    BufReader::new(guard.stdout.take()?).read_line(&mut line).ok()?;
    Some(line)
}

/// Returns the direct children of a process: from `/proc` if it exists, otherwise from `ps`.
fn children_of(parent: Pid) -> Vec<Pid> {
    let listed = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let pids = |text: &str| text.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect();
    match listed {
        Ok(children) => pids(&children),
        Err(_) => Command::new("ps").args(["-A", "-o", "ppid=,pid="]).output().map_or_else(
            |_| Vec::new(),
            |output| {
                let parent = parent.to_string();
                String::from_utf8_lossy(&output.stdout)
                    .lines()
                    .filter_map(|line| line.trim().split_once(' '))
                    .filter(|(ppid, _)| *ppid == parent)
                    .flat_map(|(_, pid)| pids(pid) as Vec<Pid>)
                    .collect()
            },
        ),
    }
}
