//! A private Postgres: its own cluster, password authentication, 127.0.0.1 only.

use std::{
    ffi::OsString,
    net::TcpStream,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;

use super::{
    Account, DevError, free_port,
    guarded_server::{GuardedServer, ServerCommand, wait_until},
    random_password,
};

/// How much a crash of the machine may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was committed.
    Durable,
    /// Everything: for tests, which is what makes them fast. The data goes when the server is dropped.
    Temporary,
}

/// A private Postgres. Stops when dropped.
#[derive(Debug)]
pub struct PostgresServer {
    dir: PathBuf,
    account: Account,
    port: u16,
    password: String,
    durability: Durability,
    server: Option<GuardedServer>,
}

impl PostgresServer {
    /// Starts a server with its data in `dir`, which is made if need be.
    ///
    /// # Errors
    /// If Postgres is not installed or does not start.
    pub fn start(dir: &Path, durability: Durability) -> Result<Self, DevError> {
        let account = Account::for_servers()?;
        account.create_dir(dir)?;
        let password = password_of(dir)?;
        let mut this = Self { dir: dir.to_owned(), account, port: 0, password, durability, server: None };
        if !this.data().join("PG_VERSION").exists() {
            this.init()?;
        }
        let mut outcome = Ok(());
        for _ in 0..5 {
            this.port = free_port()?;
            outcome = this.restart();
            if outcome.is_ok() {
                break;
            }
        }
        outcome.map(|()| this)
    }

    /// Starts the server again, on the same port with the same data, after [`kill`](Self::kill) or [`stop`](Self::stop).
    ///
    /// # Errors
    /// If it does not start.
    pub fn restart(&mut self) -> Result<(), DevError> {
        let mut arguments: Vec<OsString> = vec!["-D".into(), self.data().into()];
        let mut set = |name: &str, value: &str| arguments.extend(["-c".into(), format!("{name}={value}").into()]);
        set("port", &self.port.to_string());
        set("listen_addresses", "127.0.0.1");
        set("unix_socket_directories", "");
        set("max_connections", "200");
        set("timezone", "UTC");
        if self.durability == Durability::Temporary {
            set("fsync", "off");
            set("full_page_writes", "off");
            set("max_wal_size", "4GB");
        }
        let log = self.dir.join("postgres.log");
        let command = ServerCommand {
            program: program("postgres")?,
            arguments,
            account: self.account,
            log: log.clone(),
            stop_signal: Signal::SIGINT, // "fast": does not wait for clients
            remove: (self.durability == Durability::Temporary).then(|| self.dir.clone()),
        };
        let server = command.start()?;
        wait_until(&server, "postgres", &log, || self.answers())?;
        self.server = Some(server);
        Ok(())
    }

    /// `postgres://postgres:password@127.0.0.1:port/database`
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Ends the server as a crash would. Its children notice and end too. The data stays.
    pub fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }

    /// Stops the server in order, cutting its connections.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn init(&self) -> Result<(), DevError> {
        let password_file = self.dir.join("password");
        self.account.give(&password_file)?;
        let mut command = Command::new(program("initdb")?);
        command
            .arg("-D")
            .arg(self.data())
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
            .arg(format!("--pwfile={}", password_file.display()))
            .current_dir("/");
        if self.durability == Durability::Temporary {
            command.arg("--no-sync");
        }
        if let Some((user, group)) = self.account.drop_to() {
            command.uid(user).gid(group);
        }
        let output = command.output().map_err(DevError::io("running initdb"))?;
        if output.status.success() {
            return Ok(());
        }
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(DevError::DidNotStart { program: "initdb", log })
    }

    /// Postgres listens before it serves, so the log has to say so as well.
    fn answers(&self) -> bool {
        let log = std::fs::read_to_string(self.dir.join("postgres.log")).unwrap_or_default();
        let last_start = log.rfind("starting PostgreSQL").unwrap_or(0);
        log[last_start..].contains("database system is ready to accept connections")
            && TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.server.is_none() && self.durability == Durability::Temporary {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// The password of this folder's cluster, made at the first start.
fn password_of(dir: &Path) -> Result<String, DevError> {
    let file = dir.join("password");
    if let Ok(password) = std::fs::read_to_string(&file) {
        return Ok(password.trim().to_owned());
    }
    let password = random_password()?;
    std::fs::write(&file, &password).map_err(DevError::io(format!("writing {}", file.display())))?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, private).map_err(DevError::io(format!("writing {}", file.display())))?;
    Ok(password)
}

/// Debian keeps the server's programs out of the path, in a folder per version: the newest counts.
fn program(name: &str) -> Result<PathBuf, DevError> {
    let mut folders: Vec<PathBuf> = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"]
        .iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("bin"))
        .collect();
    folders.sort();
    folders.insert(0, PathBuf::from("/usr/bin"));
    folders
        .into_iter()
        .rev()
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
        .ok_or(DevError::NotInstalled { program: "postgres", package: "postgresql" })
}
