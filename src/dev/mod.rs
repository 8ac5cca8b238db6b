//! Private servers for development and tests: a real redis-server and a real Postgres as child processes.
//!
//! They listen on 127.0.0.1 at ports that are free, keep their data where they are told to, run as an unprivileged
//! account (Postgres refuses root), and never outlive the process that started them.

mod account;
mod data_dir;
mod guarded_server;
mod postgres_server;
mod redis_server;

use std::{io, net::TcpListener, path::PathBuf};

pub use self::{
    account::Account,
    data_dir::DataDir,
    postgres_server::{Durability, PostgresServer},
    redis_server::RedisServer,
};

/// Why a private server does not run.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The program is not installed.
    #[error("{program} is not installed: run `make setup`, or install {package} yourself")]
    NotInstalled {
        /// What was looked for.
        program: &'static str,
        /// Where it usually comes from.
        package: &'static str,
    },
    /// It started and ended, or did not answer in time.
    #[error("{program} did not start; its log ends in:\n{log}")]
    DidNotStart {
        /// The server.
        program: &'static str,
        /// The last lines that it wrote.
        log: String,
    },
    /// Another process uses the folder.
    #[error("{} is in use by process {pid}: stop it, or name another folder by --data-dir", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Who has it.
        pid: i32,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Its answer.
        source: io::Error,
    },
}

impl DevError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// A port that was free a moment ago. Whoever starts a server on it tries another one if it is taken meanwhile.
fn free_port() -> Result<u16, DevError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(DevError::io("finding a free port"))?;
    Ok(listener.local_addr().map_err(DevError::io("finding a free port"))?.port())
}

/// A password for a private server: 128 random bits in hexadecimal.
fn random_password() -> Result<String, DevError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| DevError::Io { what: "reading random bytes".into(), source: io::Error::other(error) })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The end of a log, for an error message.
fn log_tail(path: &std::path::Path) -> String {
    let log = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
