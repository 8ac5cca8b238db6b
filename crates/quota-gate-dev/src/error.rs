//! Why a private server is not there, in words that a person can act upon.

use std::{
    io,
    path::{Path, PathBuf},
};

/// What went wrong around a private server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevError {
    /// A program is missing.
    #[error("{program} was not found; install it ({install}), or run `make setup`")]
    NotInstalled {
        /// What was looked for.
        program: &'static str,
        /// How to get it, for example `apt-get install redis-server`.
        install: &'static str,
    },

    /// No account to run the servers as: Postgres refuses to run as root.
    #[error("running as root, and there is no account `postgres` or `nobody` to run the servers as; create one")]
    NoAccount,

    /// A file or directory could not be used.
    #[error("cannot {act} {}: {source}", path.display())]
    Io {
        /// What was tried, for example `create`.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },

    /// Somebody else works in the directory.
    #[error("{} is in use by {holder}; stop it, or name another directory with --data-dir", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who has it, as far as is known.
        holder: String,
    },

    /// A directory that was to be emptied holds what was not put there by this program.
    #[error("{} was not made by `quota-gate dev`, so it is not emptied; name another directory", dir.display())]
    NotOurs {
        /// The directory.
        dir: PathBuf,
    },

    /// The port is taken.
    #[error("{server} cannot listen on 127.0.0.1:{port}: the port is taken")]
    PortTaken {
        /// Which server.
        server: &'static str,
        /// The port.
        port: u16,
    },

    /// A server ended, or did not answer in time.
    #[error("{server} {reason}; the end of its log ({}):\n{tail}", log.display())]
    NotReady {
        /// Which server.
        server: &'static str,
        /// What happened.
        reason: String,
        /// Where to read on.
        log: PathBuf,
        /// The last lines of the log since the start.
        tail: String,
    },

    /// The data was written by another major version of Postgres.
    #[error(
        "{} holds data of Postgres {data}, which is not installed; install it, or begin anew with --fresh",
        dir.display()
    )]
    DataOfOtherVersion {
        /// The directory.
        dir: PathBuf,
        /// The major version that wrote it.
        data: String,
    },

    /// A program that should do one thing and end has failed.
    #[error("{program} failed: {output}")]
    Failed {
        /// Which program.
        program: &'static str,
        /// What it printed.
        output: String,
    },
}

/// Names the act and the path of a failed file operation.
pub(super) fn cannot(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DevError {
    move |source| DevError::Io { act, path: path.to_owned(), source }
}
