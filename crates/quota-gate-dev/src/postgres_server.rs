//! A private Postgres.
//!
//! Its settings are on the command line, so a start is the same with new and with old data. It listens on 127.0.0.1 and
//! on no socket file: the path of a deep directory would be too long for one.

use std::{
    ffi::OsString,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use super::{
    Lifetime,
    error::{DevError, cannot},
    guarded_child::{GuardedChild, Server},
    port,
    postgres_cluster::{PostgresCluster, SUPERUSER, failed, without_settings},
    server_log::ServerLog,
};

/// After a crash Postgres first replays up to a gigabyte of its log.
const START_MAX: Duration = Duration::from_mins(2);

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A power failure: each commit is on disk.
    #[default]
    Disk,
    /// SIGKILL of the server: the operating system has each commit. For tests.
    Memory,
}

/// Options of a [`PostgresServer`].
#[derive(Debug, Clone, Default)]
pub struct PostgresServerOptions {
    /// What a commit survives.
    pub durability: Durability,
    /// Whether the data is used again.
    pub lifetime: Lifetime,
    /// The port; by default any free one.
    pub port: Option<u16>,
    /// The directory of the programs; by default the first one that is found.
    pub programs: Option<PathBuf>,
    /// More settings, for example `log_statement=all`. They override the built-in ones.
    pub extra: Vec<String>,
}

/// A private Postgres. Dropping it stops it.
#[derive(Debug)]
pub struct PostgresServer {
    cluster: PostgresCluster,
    options: PostgresServerOptions,
    port: u16,
    child: GuardedChild,
}

impl PostgresServer {
    /// Starts a server on the data in `dir` and waits until it accepts connections. Creates the data if necessary, in
    /// about a second.
    ///
    /// # Errors
    /// If Postgres is not installed or does not start. The message has the end of its log.
    pub async fn start(dir: &Path, options: PostgresServerOptions) -> Result<Self, DevError> {
        let dir = std::path::absolute(dir).map_err(cannot("find", dir))?;
        let (lifetime, programs) = (options.lifetime, options.programs.clone());
        let open = tokio::task::spawn_blocking(move || PostgresCluster::open(&dir, lifetime, programs));
        let cluster = match open.await {
            Ok(cluster) => cluster?,
            Err(aborted) => std::panic::resume_unwind(aborted.into_panic()),
        };
        let (port, child) =
            port::start_on(options.port, async |port| Ok((port, spawn(&cluster, &options, port).await?))).await?;
        Ok(Self { cluster, options, port, child })
    }

    /// Returns the URL of a database: `postgres://postgres:<password>@127.0.0.1:<port>/<database>`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{database}", self.cluster.password(), self.port)
    }

    /// Returns the port, which also stays the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.cluster.data()
    }

    /// Returns the process id of its main process, while it runs.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Returns whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.is_running()
    }

    /// Creates a database, unless it exists.
    ///
    /// # Errors
    /// If the server is unavailable.
    pub async fn create_database(&self, name: &str) -> Result<(), DevError> {
        self.psql(
            "select format('create database %I', :'name')\n\
             where not exists (select from pg_database where datname = :'name') \\gexec\n",
            &[("name", name)],
        )
        .await
    }

    /// Creates a database as a copy of `template`, in about 50 ms. No client may be connected to the template.
    ///
    /// # Errors
    /// If the database exists, the template does not, or the server is unavailable.
    pub async fn create_database_from(&self, name: &str, template: &str) -> Result<(), DevError> {
        self.psql(
            "select format('create database %I template %I', :'name', :'template') \\gexec\n",
            &[("name", name), ("template", template)],
        )
        .await
    }

    /// Runs a psql script in the database `postgres` as the superuser. Values are variables of the script, set on its
    /// standard input, because every user can read a command line.
    ///
    /// # Errors
    /// If a statement fails. The message is psql's.
    pub async fn run_script(&self, script: &str, values: &[(&str, &str)]) -> Result<(), DevError> {
        let set = values.iter().fold(String::new(), |set, (name, value)| set + &format!("\\set {name} '{value}'\n"));
        self.psql(&(set + script), &[]).await
    }

    /// Returns the URL of a database for another role.
    #[must_use]
    pub fn url_of(&self, role: &str, password: &str, database: &str) -> String {
        format!("postgres://{role}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// Stops it cleanly: closes its connections and writes everything to disk.
    pub async fn stop(&mut self) {
        self.child.stop().await;
    }

    /// Kills all its processes with SIGKILL, for crash tests.
    pub async fn kill(&mut self) {
        self.child.kill().await;
    }

    /// Starts it again on the same port and data. If it runs, stops it cleanly first.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart(&mut self) -> Result<(), DevError> {
        self.stop().await;
        self.child = spawn(&self.cluster, &self.options, self.port).await?;
        Ok(())
    }

    /// Runs statements with psql, which quotes the values. Only the store runs SQL over a connection.
    async fn psql(&self, statements: &str, values: &[(&str, &str)]) -> Result<(), DevError> {
        let program = self.cluster.program("psql");
        let mut command = without_settings(&program);
        command.env("PGPASSWORD", self.cluster.password());
        command.args(["--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"]);
        command.args(["--host=127.0.0.1", "--dbname=postgres", &format!("--username={SUPERUSER}")]);
        command.arg(format!("--port={}", self.port));
        for (name, value) in values {
            command.arg(format!("--set={name}={value}"));
        }
        let statements = statements.to_owned();
        let run = move || -> std::io::Result<Output> {
            let mut psql = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
            if let Some(mut stdin) = psql.stdin.take() {
                stdin.write_all(statements.as_bytes())?;
            }
            psql.wait_with_output()
        };
        let output = tokio::task::spawn_blocking(run).await.map_err(std::io::Error::other);
        let output = output.flatten().map_err(cannot("run", &program))?;
        if output.status.success() { Ok(()) } else { Err(failed("psql", &output.stderr)) }
    }
}

async fn spawn(
    cluster: &PostgresCluster,
    options: &PostgresServerOptions,
    port: u16,
) -> Result<GuardedChild, DevError> {
    let log = ServerLog::claim(cluster.dir()).await?;
    cluster.remove_stale_pid_file()?;
    let server = Server {
        name: "postgres",
        program: &cluster.program("postgres"),
        arguments: arguments(options, port),
        dir: cluster.dir(),
        account: cluster.account(),
        environment: &[],
        // INT closes the connections and stops cleanly; QUIT leaves the rest to recovery at the next start.
        stop_signals: "INT QUIT",
        drop_signals: match options.lifetime {
            Lifetime::Kept => "INT QUIT",
            Lifetime::Scratch => "QUIT",
        },
    };
    let mut child = GuardedChild::start(server, log)?;
    let pid_file = cluster.pid_file();
    child.until_ready(port, START_MAX, async |child| accepts(&pid_file, child.pid())).await?;
    Ok(child)
}

fn arguments(options: &PostgresServerOptions, port: u16) -> Vec<OsString> {
    let port = format!("port={port}");
    let always = [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        // Each gate of a test has its own connection pool.
        "max_connections=200",
        "timezone=UTC",
        "log_timezone=UTC",
        "log_checkpoints=off",
        &port,
    ];
    let durability: &[&str] = match options.durability {
        Durability::Disk => &["shared_buffers=128MB"],
        Durability::Memory => &["shared_buffers=32MB", "fsync=off", "full_page_writes=off", "max_wal_size=4GB"],
    };
    let settings = always.iter().chain(durability).copied().chain(options.extra.iter().map(String::as_str));
    ["-D", "data"].into_iter().chain(settings.flat_map(|setting| ["-c", setting])).map(OsString::from).collect()
}

/// Returns whether the server accepts connections: line 8 of the pid file is then `ready`. `pg_ctl` waits for the same.
fn accepts(pid_file: &Path, pid: u32) -> bool {
    let note = fs::read_to_string(pid_file).unwrap_or_default();
    let mut lines = note.lines();
    lines.next() == Some(&pid.to_string()) && lines.nth(6).map(str::trim) == Some("ready")
}
