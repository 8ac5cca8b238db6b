//! Errors of private servers. The messages are for the operator and say what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

/// An error of a private server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevError {
    /// A program is not installed.
    #[error("{program} was not found; install it ({install}), or run `make setup`")]
    NotInstalled {
        /// The program.
        program: &'static str,
        /// How to install it, for example `apt-get install redis-server`.
        install: &'static str,
    },

    /// This process is root, as which Postgres refuses to run, and there is no other account for the servers.
    #[error("the servers cannot run as root, and there is no account `postgres` or `nobody`; create one of them")]
    NoAccount,

    /// A file operation failed.
    #[error("cannot {act} {}: {source}", path.display())]
    Io {
        /// The operation, for example `create`.
        act: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },

    /// The directory is in use.
    #[error("{} is in use by {holder}; stop it, or choose another directory with --data-dir", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process or user that uses it, as far as is known.
        holder: String,
    },

    /// A directory to be emptied has files but was never used by this program.
    #[error("{} is not a directory of `quota-gate dev`, so it is not emptied; choose another one", dir.display())]
    NotOurs {
        /// The directory.
        dir: PathBuf,
    },

    /// The port is in use.
    #[error("{server} cannot listen on 127.0.0.1:{port}: the port is in use; choose another one")]
    PortTaken {
        /// The server.
        server: &'static str,
        /// The port.
        port: u16,
    },

    /// A server ended, or was not ready in time.
    #[error("{server} {reason}; the end of its log ({}):\n{tail}", log.display())]
    NotReady {
        /// The server.
        server: &'static str,
        /// What happened.
        reason: String,
        /// Path of the log.
        log: PathBuf,
        /// The last lines of the log since the server's start.
        tail: String,
    },

    /// The data was written by a major version of Postgres that is not installed.
    #[error(
        "{} has data of Postgres {data}, which is not installed; install it, or delete all data with --fresh",
        dir.display()
    )]
    DataOfOtherVersion {
        /// The directory.
        dir: PathBuf,
        /// The major version that wrote it.
        data: String,
    },

    /// A program that runs once, such as `initdb`, failed.
    #[error("{program} failed: {output}")]
    Failed {
        /// The program.
        program: &'static str,
        /// Its error output.
        output: String,
    },
}

/// Adds operation and path to an I/O error.
pub(super) fn cannot(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DevError {
    move |source| DevError::Io { act, path: path.to_owned(), source }
}
