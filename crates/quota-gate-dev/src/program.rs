//! Finds the servers' programs: on `PATH`, or where packages install them.
//!
//! Debian installs Postgres' server programs outside `PATH`, in one directory per major version; Homebrew does so for
//! all but its main version. A directory at the beginning of `PATH` chooses other servers, as `scripts/test-servers`
//! does.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::error::DevError;

/// Directories outside `PATH`. `*` stands for the rest of one name.
const POSTGRES_DIRS: [&str; 5] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];
const PGBOUNCER_DIRS: [&str; 3] = ["/usr/sbin", "/opt/homebrew/bin", "/usr/local/bin"];
const REDIS_DIRS: [&str; 3] = ["/usr/bin", "/opt/homebrew/bin", "/usr/local/bin"];
/// In order of preference. Packages of Valkey may also install it under the name of Redis.
const REDIS_PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

pub(super) fn redis_server() -> Result<PathBuf, DevError> {
    REDIS_PROGRAMS
        .iter()
        .flat_map(|name| path_dirs().chain(REDIS_DIRS.map(PathBuf::from)).map(move |dir| dir.join(name)))
        .find(|program| program.is_file())
        .ok_or(DevError::NotInstalled {
            program: "redis-server",
            install: "apt-get install redis-server, or brew install redis",
        })
}

pub(super) fn pgbouncer() -> Result<PathBuf, DevError> {
    path_dirs()
        .chain(PGBOUNCER_DIRS.map(PathBuf::from))
        .map(|dir| dir.join("pgbouncer"))
        .find(|program| program.is_file())
        .ok_or(DevError::NotInstalled {
            program: "pgbouncer",
            install: "apt-get install pgbouncer, or brew install pgbouncer",
        })
}

/// Returns the directory of Postgres' programs: of the major version that wrote the data, or of any if there is none.
pub(super) fn postgres_bin(data: &Path) -> Result<PathBuf, DevError> {
    let installed: Vec<_> = postgres_dirs().collect();
    if installed.is_empty() {
        return Err(DevError::NotInstalled {
            program: "the Postgres server (initdb, postgres, psql)",
            install: "apt-get install postgresql, or brew install postgresql@17",
        });
    }
    let written_by = fs::read_to_string(data.join("PG_VERSION")).unwrap_or_default();
    let written_by = written_by.trim();
    installed
        .into_iter()
        .find(|bin| written_by.is_empty() || major_version(bin).as_deref() == Some(written_by))
        .ok_or_else(|| DevError::DataOfOtherVersion { dir: data.to_owned(), data: written_by.to_owned() })
}

/// Returns the directories with a complete Postgres: first those of `PATH`, then the one that `pg_config` names, last
/// the oldest.
fn postgres_dirs() -> impl Iterator<Item = PathBuf> {
    let configured = output(Command::new("pg_config").arg("--bindir")).map(PathBuf::from);
    path_dirs()
        .chain(configured)
        .chain(POSTGRES_DIRS.into_iter().flat_map(matching))
        .filter(|dir| ["initdb", "postgres", "psql"].iter().all(|program| dir.join(program).is_file()))
}

/// `postgres (PostgreSQL) 15.14 (Debian …)` → `15`.
fn major_version(bin: &Path) -> Option<String> {
    let version = output(Command::new(bin.join("postgres")).arg("--version"))?;
    let digits = version.split(' ').find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    Some(digits.chars().take_while(char::is_ascii_digit).collect())
}

/// Returns the directories that match a pattern with one `*`, the highest version first.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return Vec::new() };
    let Some((parent, prefix)) = before.rsplit_once('/') else { return Vec::new() };
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort_by_key(|name| {
        let digits: String = name.chars().filter(char::is_ascii_digit).collect();
        std::cmp::Reverse(digits.parse::<u32>().unwrap_or(0))
    });
    names.iter().map(|name| PathBuf::from(format!("{parent}/{name}{after}"))).collect()
}

fn path_dirs() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).filter(|dir| dir.is_absolute()).collect::<Vec<_>>().into_iter()
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
