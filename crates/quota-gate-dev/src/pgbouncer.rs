//! A private PgBouncer in front of a private Postgres, for tests of gates behind a pooler.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::net::TcpStream;

use super::{
    account::Account,
    error::{DevError, cannot},
    guarded_child::{GuardedChild, Server},
    password::write_private,
    port, program,
    server_log::ServerLog,
};

const START_MAX: Duration = Duration::from_secs(30);

/// When a server session goes to another client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// When the client disconnects.
    Session,
    /// After each transaction.
    Transaction,
}

/// Options of a [`PgBouncer`].
#[derive(Debug, Clone)]
pub struct PgBouncerOptions {
    /// When a server session goes to another client.
    pub pool_mode: PoolMode,
    /// More lines of the section `[pgbouncer]`, for example `default_pool_size = 3`.
    pub extra: Vec<String>,
}

/// A private PgBouncer. Dropping it stops it.
#[derive(Debug)]
pub struct PgBouncer {
    dir: PathBuf,
    account: Account,
    config: String,
    port: u16,
    child: GuardedChild,
}

impl PgBouncer {
    /// Starts one in `dir` for the server, user and password of a URL of [`PostgresServer`](super::PostgresServer).
    ///
    /// # Errors
    /// If PgBouncer is not installed or does not start. The message has the end of its log.
    pub async fn start(dir: &Path, server_url: &str, options: PgBouncerOptions) -> Result<Self, DevError> {
        let dir = std::path::absolute(dir).map_err(cannot("find", dir))?;
        let account = Account::for_servers()?;
        fs::create_dir_all(&dir).map_err(cannot("create", &dir))?;
        account.own(&dir)?;
        let (user, password, server_port) = parts(server_url).ok_or_else(|| DevError::Failed {
            program: "pgbouncer",
            output: "the URL has no user, password and port".into(),
        })?;
        let users = dir.join("users.txt");
        write_private(&users, &format!("\"{user}\" \"{password}\"\n"))?;
        account.own(&users)?;
        let mode = match options.pool_mode {
            PoolMode::Session => "session",
            PoolMode::Transaction => "transaction",
        };
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = users.txt\npool_mode = {mode}\n\
             max_client_conn = 200\n{}\n",
            options.extra.join("\n")
        );
        let (port, child) =
            port::start_on(None, async |port| Ok((port, spawn(&dir, &account, &config, port).await?))).await?;
        Ok(Self { dir, account, config, port, child })
    }

    /// Returns the URL of the same database through PgBouncer.
    #[must_use]
    pub fn url(&self, server_url: &str) -> String {
        let (before, rest) = server_url.rsplit_once(':').unwrap_or((server_url, ""));
        let database = rest.split_once('/').map_or("", |(_, database)| database);
        format!("{before}:{}/{database}", self.port)
    }

    /// Starts it again on the same port. Its clients and server sessions are disconnected.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart(&mut self) -> Result<(), DevError> {
        self.child.kill().await;
        self.child = spawn(&self.dir, &self.account, &self.config, self.port).await?;
        Ok(())
    }
}

async fn spawn(dir: &Path, account: &Account, config: &str, port: u16) -> Result<GuardedChild, DevError> {
    let program = program::pgbouncer()?;
    let log = ServerLog::claim(dir).await?;
    let file = dir.join("pgbouncer.ini");
    write_private(&file, &format!("{config}listen_port = {port}\n"))?;
    account.own(&file)?;
    let server = Server {
        name: "pgbouncer",
        program: &program,
        arguments: vec!["pgbouncer.ini".into()],
        dir,
        account,
        environment: &[],
        // TERM ends it without waiting for its clients.
        stop_signals: "TERM",
        drop_signals: "TERM",
    };
    let mut child = GuardedChild::start(server, log)?;
    child.until_ready(port, START_MAX, async |_| TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await?;
    Ok(child)
}

/// `postgres://user:password@host:port/database` → user, password and port.
fn parts(url: &str) -> Option<(&str, &str, &str)> {
    let (credentials, address) = url.strip_prefix("postgres://")?.split_once('@')?;
    let (user, password) = credentials.split_once(':')?;
    let (_, port) = address.split_once('/')?.0.rsplit_once(':')?;
    Some((user, password, port))
}
