//! The files of a private Postgres: its programs, its data directory, its superuser's password.
//!
//! `initdb` works in a directory that gets its final name only when it is complete, so an interrupted run is not
//! mistaken for a database. `postgres_server.rs` runs the server on these files.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    Lifetime,
    account::Account,
    error::{DevError, cannot},
    password, program,
};

/// The superuser. It has the usual name and a random password.
pub(super) const SUPERUSER: &str = "postgres";
/// Sorts by bytes and supports Unicode. On macOS it exists only as `C`, with UTF-8 as the encoding.
const LOCALE: &str = if cfg!(target_os = "macos") { "C" } else { "C.UTF-8" };

/// A directory with everything that Postgres needs to start.
#[derive(Debug)]
pub(super) struct PostgresCluster {
    dir: PathBuf,
    bin: PathBuf,
    account: Account,
    password: String,
}

impl PostgresCluster {
    /// Opens the cluster in `dir`, or creates one there.
    pub(super) fn open(dir: &Path, lifetime: Lifetime, programs: Option<PathBuf>) -> Result<Self, DevError> {
        let account = Account::for_servers()?;
        fs::create_dir_all(dir).map_err(cannot("create", dir))?;
        let password_file = dir.join("password");
        let password = password::kept_at(&password_file)?;
        account.own(dir)?;
        account.own(&password_file)?;
        let data = dir.join("data");
        let bin = match programs {
            Some(bin) => bin,
            None => program::postgres_bin(&data)?,
        };
        let cluster = Self { dir: dir.to_owned(), bin, account, password };
        if !data.exists() {
            cluster.initialise(&password_file, lifetime)?;
        }
        Ok(cluster)
    }

    /// Returns the path of a program of the Postgres version that the data belongs to.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Returns the path of the pid file, in which the running server describes itself.
    pub(super) fn pid_file(&self) -> PathBuf {
        self.data().join("postmaster.pid")
    }

    /// Removes the pid file of a killed server. Postgres does that itself, unless another process has the process id in
    /// it by now: then it refuses to start. The caller must hold the lock of the server's log, which proves that no
    /// server of ours runs here. A server that was started by hand is recognized by its name.
    pub(super) fn remove_stale_pid_file(&self) -> Result<(), DevError> {
        let path = self.pid_file();
        let Ok(note) = fs::read_to_string(&path) else { return Ok(()) };
        let holder = note.lines().next().unwrap_or_default();
        let command = Command::new("ps").args(["-o", "command=", "-p", holder]).output();
        let proc = fs::read(format!("/proc/{holder}/cmdline")).or_else(|_| command.map(|output| output.stdout));
        if proc.is_ok_and(|command| String::from_utf8_lossy(&command).contains("postgres")) {
            return Ok(());
        }
        fs::remove_file(&path).map_err(cannot("remove", &path))
    }

    fn initialise(&self, password_file: &Path, lifetime: Lifetime) -> Result<(), DevError> {
        let unfinished = self.dir.join("data.new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(cannot("remove", &unfinished))?;
        }
        let mut initdb = without_settings(&self.program("initdb"));
        initdb.arg("--pgdata").arg(&unfinished).arg("--pwfile").arg(password_file).args([
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-instructions",
            &format!("--username={SUPERUSER}"),
            &format!("--locale={LOCALE}"),
        ]);
        if lifetime == Lifetime::Scratch {
            initdb.arg("--no-sync");
        }
        self.account.run(&mut initdb);
        let output = initdb
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .output()
            .map_err(cannot("run", &self.program("initdb")))?;
        if !output.status.success() {
            return Err(failed("initdb", &output.stderr));
        }
        let data = self.data();
        fs::rename(&unfinished, &data).map_err(cannot("create", &data))
    }
}

/// Returns a command without the `PG…` variables of this process' environment: they name another server.
pub(super) fn without_settings(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C");
    command
}

/// Returns the error of a failed program, with its error output.
pub(super) fn failed(program: &'static str, stderr: &[u8]) -> DevError {
    DevError::Failed { program, output: String::from_utf8_lossy(stderr).trim().to_owned() }
}
