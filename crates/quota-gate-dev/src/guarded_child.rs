//! A server process that does not outlive its owner.
//!
//! Dropping a handle is not enough: a process that is killed drops nothing. So each server is started by a small
//! shell, its guard, that watches a pipe from the owner and ends the server when the pipe closes (`guard.sh`). To stop
//! a server is to close that pipe, so that the way out after a crash is the one that is taken every day. It works the
//! same on Linux and macOS, and whichever thread starts the server.
//!
//! The guard leads a process group of its own: Ctrl-C in a terminal reaches the owner only, which then still has its
//! servers while it finishes its work. If somebody kills the guard itself with SIGKILL, its server stays behind.

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
/// How long a server may take after each signal. A checkpoint of a well-filled Postgres takes a few seconds.
const PATIENCE_SECONDS: u32 = 10;
/// When to stop waiting for a guard. It sends at most three signals, so this is never reached on a sound machine.
const STOP_MAX: Duration = Duration::from_secs(40);
/// Between two looks at a process. Servers start in 5 ms (Redis) to 100 ms (Postgres).
const PAUSE: Duration = Duration::from_millis(2);

/// What to run, and how to end it.
#[derive(Debug)]
pub(super) struct Server<'a> {
    /// The name for people.
    pub(super) name: &'static str,
    /// The executable.
    pub(super) program: &'a Path,
    /// Its arguments.
    pub(super) arguments: Vec<OsString>,
    /// Where it runs.
    pub(super) dir: &'a Path,
    /// As whom it runs.
    pub(super) account: &'a Account,
    /// Variables besides those of this process.
    pub(super) environment: &'a [(String, String)],
    /// The signals of a [`stop`](GuardedChild::stop), each sent if the one before did not help; then SIGKILL.
    pub(super) stop_signals: &'static str,
    /// The same, for when the owner has gone or dropped the child.
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
    /// Starts the server. It holds the log, and with it the directory, until its last process has ended.
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

    /// Waits until the server is ready for work, as `ready` tells, or gives its reason why not.
    pub(super) async fn until_ready(
        &mut self,
        port: u16,
        patience: Duration,
        ready: impl AsyncFn(&Self) -> bool,
    ) -> Result<(), DevError> {
        let deadline = Instant::now() + patience;
        while !ready(self).await {
            let reason = if !self.is_running() {
                "ended at once".to_owned()
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

    /// The server's process id, which may be another's once the server has ended.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Whether the server runs.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.guard.try_wait(), Ok(None))
    }

    /// Ends the server in good order and waits until it has ended.
    pub(super) async fn stop(&mut self) {
        if let Some(mut lifeline) = self.lifeline.take() {
            // This fails when the guard has gone, and then the server has gone before it.
            let _ = writeln!(lifeline, "{}", self.stop_signals);
        }
        self.until_ended().await;
    }

    /// Ends the server and its child processes with SIGKILL, as a power cut would.
    pub(super) async fn kill(&mut self) {
        if self.is_running() {
            // Stopped, it starts no child while its children are being listed. Each of them may end by itself
            // meanwhile: a signal that arrives nowhere is as good.
            let _ = kill(self.pid, Signal::SIGSTOP);
            let children = children_of(self.pid);
            for pid in children.into_iter().chain([self.pid]) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        self.until_ended().await;
    }

    /// Sends the server a signal, for example to stand still.
    pub(super) fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            // The server may end at this very moment: then there is nothing to signal.
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
    /// Closes the lifeline and waits: when the owner goes on, the server has ended and its files can be removed.
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let deadline = Instant::now() + STOP_MAX;
        while self.is_running() && Instant::now() < deadline {
            thread::sleep(PAUSE);
        }
    }
}

/// What the guard says first. It comes within milliseconds, or the pipe closes.
fn first_line(guard: &mut Child) -> Option<String> {
    let mut line = String::new();
    BufReader::new(guard.stdout.take()?).read_line(&mut line).ok()?;
    Some(line)
}

/// The direct children of a process: from `/proc` where there is one, else from `ps`.
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
