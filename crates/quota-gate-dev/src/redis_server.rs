//! A private redis-server.
//!
//! It never evicts (the gate refuses to run otherwise) and writes no snapshots: its append-only file is what survives a
//! restart. Its accounts are the shipped ones (`redis_accounts.rs`). The configuration is in files, not on the command
//! line, where every user of the machine could read the password.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    Lifetime,
    account::Account,
    error::{DevError, cannot},
    guarded_child::{GuardedChild, Server},
    password, port, program, redis_accounts,
    server_log::ServerLog,
};

/// Time for a start. Redis reads about 100 MB of its append-only file per second.
const START_MAX: Duration = Duration::from_mins(1);
/// Time limit for one PING on this machine.
const PING_MAX: Duration = Duration::from_millis(500);

/// Accounts, with their passwords.
const USERS_FILE: &str = "users.acl";

/// When a write is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppendOnly {
    /// Never: Redis is empty after a restart.
    Off,
    /// Within a second, as `docs/operations.md` requires. SIGKILL of the server loses nothing, a power failure up to a
    /// second.
    #[default]
    EverySecond,
    /// Before it is answered.
    Always,
}

/// Options of a [`RedisServer`].
#[derive(Debug, Clone, Default)]
pub struct RedisServerOptions {
    /// Mode of the append-only file.
    pub append_only: AppendOnly,
    /// Whether the data is used again.
    pub lifetime: Lifetime,
    /// The port; by default any free one.
    pub port: Option<u16>,
    /// The program; by default the `redis-server` that is found first, or a `valkey-server`.
    pub program: Option<PathBuf>,
    /// Accounts of `deploy/redis/users.acl` to enable, besides the gate's: `admin`, `replica`, `exporter`.
    pub accounts: Vec<String>,
    /// Whether there is also an account that may do everything, for tests: [`RedisServer::operator_url`].
    pub operator: bool,
    /// Environment variables of the server, for example those of libfaketime.
    pub environment: Vec<(String, String)>,
    /// More lines of `redis.conf`, for example `maxmemory 64mb`. They override the lines before them.
    pub extra: Vec<String>,
}

/// A private redis-server. Dropping it stops it.
#[derive(Debug)]
pub struct RedisServer {
    dir: PathBuf,
    options: RedisServerOptions,
    password: String,
    port: u16,
    child: GuardedChild,
}

impl RedisServer {
    /// Starts a server on the data in `dir`, which is created if necessary, and waits until it answers.
    ///
    /// # Errors
    /// If redis-server is not installed or does not start. The message has the end of its log.
    pub async fn start(dir: &Path, options: RedisServerOptions) -> Result<Self, DevError> {
        let dir = &std::path::absolute(dir).map_err(cannot("find", dir))?;
        let account = Account::for_servers()?;
        fs::create_dir_all(dir).map_err(cannot("create", dir))?;
        let password_file = dir.join("password");
        let password = password::kept_at(&password_file)?;
        account.own(dir)?;
        account.own(&password_file)?;
        let (port, child) = port::start_on(options.port, async |port| {
            Ok((port, spawn(dir, &account, &options, port, &password).await?))
        })
        .await?;
        Ok(Self { dir: dir.to_owned(), options, password, port, child })
    }

    /// Returns its URL for a gate, with the rights that it has in production:
    /// `redis://quota_gate:<password>@127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(redis_accounts::GATE)
    }

    /// Returns its URL for the account with all rights, if [`RedisServerOptions::operator`] is set.
    #[must_use]
    pub fn operator_url(&self) -> String {
        self.url_of(redis_accounts::OPERATOR)
    }

    /// Returns its URL for an account of [`RedisServerOptions::accounts`].
    #[must_use]
    pub fn url_of(&self, account: &str) -> String {
        format!("redis://{account}:{}@127.0.0.1:{}", self.password, self.port)
    }

    /// Returns the password of all its accounts.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Returns the directory of its data.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the port, which also stays the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Returns whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.is_running()
    }

    /// Stops it cleanly: the append-only file is complete and on disk.
    pub async fn stop(&mut self) {
        self.child.stop().await;
    }

    /// Kills it with SIGKILL, for crash tests.
    pub async fn kill(&mut self) {
        self.child.kill().await;
    }

    /// Pauses it, like a machine that hangs: connections stay open, and no request is answered.
    pub fn pause(&mut self) {
        self.child.signal(Signal::SIGSTOP);
    }

    /// Resumes it after a pause.
    pub fn resume(&mut self) {
        self.child.signal(Signal::SIGCONT);
    }

    /// Starts it again on the same port and data. If it runs, stops it cleanly first.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart(&mut self) -> Result<(), DevError> {
        self.stop().await;
        let account = Account::for_servers()?;
        self.child = spawn(&self.dir, &account, &self.options, self.port, &self.password).await?;
        Ok(())
    }
}

async fn spawn(
    dir: &Path,
    account: &Account,
    options: &RedisServerOptions,
    port: u16,
    password: &str,
) -> Result<GuardedChild, DevError> {
    let program = match &options.program {
        Some(program) => program.clone(),
        None => program::redis_server()?,
    };
    let log = ServerLog::claim(dir).await?;
    let users = redis_accounts::file(password, &options.accounts, options.operator);
    for (name, text) in [("redis.conf", config(options, port)), (USERS_FILE, users)] {
        let file = dir.join(name);
        password::write_private(&file, &text)?;
        account.own(&file)?;
    }
    let server = Server {
        name: "redis-server",
        program: &program,
        // Relative to its directory, so that no path needs quoting.
        arguments: vec!["redis.conf".into()],
        dir,
        account,
        environment: &options.environment,
        // With `save ""`, TERM completes the append-only file and writes no snapshot.
        stop_signals: "TERM",
        drop_signals: match options.lifetime {
            Lifetime::Kept => "TERM",
            Lifetime::Scratch => "",
        },
    };
    let mut child = GuardedChild::start(server, log)?;
    child.until_ready(port, START_MAX, async |_| answers(port, password).await).await?;
    Ok(child)
}

fn config(options: &RedisServerOptions, port: u16) -> String {
    let append_only = match options.append_only {
        AppendOnly::Off => "appendonly no",
        AppendOnly::EverySecond => "appendonly yes\nappendfsync everysec",
        AppendOnly::Always => "appendonly yes\nappendfsync always",
    };
    let extra = options.extra.join("\n");
    // hz 100: Redis reacts to TERM within 10 ms, not 100.
    format!(
        "bind 127.0.0.1\nport {port}\naclfile {USERS_FILE}\ndaemonize no\ndir ./\nsave \"\"\n{append_only}\n\
         maxmemory-policy noeviction\nhz 100\n{extra}\n"
    )
}

/// Returns whether our server answers PING: it has this password, and has finished loading its data.
async fn answers(port: u16, password: &str) -> bool {
    const ANSWER: &[u8] = b"+OK\r\n+PONG\r\n";
    let ping = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(format!("AUTH {} {password}\r\nPING\r\n", redis_accounts::GATE).as_bytes()).await?;
        let mut answer = [0; ANSWER.len()];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer == ANSWER)
    };
    matches!(timeout(PING_MAX, ping).await, Ok(Ok(true)))
}
