//! A private redis-server: append-only file on, no eviction, a random password.

use std::{
    ffi::OsString,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;

use super::{
    Account, DevError, free_port,
    guarded_server::{GuardedServer, ServerCommand, wait_until},
    random_password,
};

/// A private redis-server. Stops when dropped.
#[derive(Debug)]
pub struct RedisServer {
    dir: PathBuf,
    account: Account,
    port: u16,
    password: String,
    remove: bool,
    server: Option<GuardedServer>,
}

impl RedisServer {
    /// Starts a server with its data in `dir`, which is made if need be.
    ///
    /// # Errors
    /// If redis-server is not installed or does not start.
    pub fn start(dir: &Path) -> Result<Self, DevError> {
        Self::start_with(dir, false)
    }

    /// The same, but the data goes when the server does.
    ///
    /// # Errors
    /// If redis-server is not installed or does not start.
    pub fn start_temporary(dir: &Path) -> Result<Self, DevError> {
        Self::start_with(dir, true)
    }

    fn start_with(dir: &Path, remove: bool) -> Result<Self, DevError> {
        let account = Account::for_servers()?;
        account.create_dir(dir)?;
        let mut this =
            Self { dir: dir.to_owned(), account, port: 0, password: random_password()?, remove, server: None };
        // Somebody else may take the port between our look and the server's.
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
        let config = self.dir.join("redis.conf");
        let text = format!(
            "bind 127.0.0.1\nport {}\nprotected-mode yes\nrequirepass {}\ndir {}\nappendonly yes\nappendfsync everysec\nsave \"\"\nmaxmemory-policy noeviction\n",
            self.port,
            self.password,
            self.dir.display(),
        );
        std::fs::write(&config, text).map_err(DevError::io(format!("writing {}", config.display())))?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&config, private).map_err(DevError::io(format!("writing {}", config.display())))?;
        self.account.give(&config)?;
        let log = self.dir.join("redis.log");
        let command = ServerCommand {
            program: find_redis_server()?,
            arguments: vec![OsString::from(&config)],
            account: self.account,
            log: log.clone(),
            stop_signal: Signal::SIGTERM,
            remove: self.remove.then(|| self.dir.clone()),
        };
        let server = command.start()?;
        wait_until(&server, "redis-server", &log, || self.answers())?;
        self.server = Some(server);
        Ok(())
    }

    /// `redis://:password@127.0.0.1:port`
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://:{}@127.0.0.1:{}", self.password, self.port)
    }

    /// Where the data is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends the server as a crash would. The data stays.
    pub fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }

    /// Stops the server in order.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }

    /// Lets the server stand still, and go on.
    pub fn pause(&self, still: bool) {
        if let Some(server) = &self.server {
            server.signal(if still { Signal::SIGSTOP } else { Signal::SIGCONT });
        }
    }

    /// Does it say PONG? Spoken by hand, so that no runtime is needed here.
    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut connection = TcpStream::connect(("127.0.0.1", self.port))?;
            connection.set_read_timeout(Some(Duration::from_secs(1)))?;
            write!(connection, "AUTH {}\r\nPING\r\n", self.password)?;
            let mut said = Vec::new();
            let mut chunk = [0; 64];
            while !said.ends_with(b"+PONG\r\n") {
                let count = connection.read(&mut chunk)?;
                if count == 0 || said.starts_with(b"-") || said.len() > 200 {
                    return Ok(false);
                }
                said.extend_from_slice(&chunk[..count]);
            }
            Ok(true)
        };
        ask().unwrap_or(false)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if self.server.is_none() && self.remove {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn find_redis_server() -> Result<PathBuf, DevError> {
    ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/usr/local/opt/redis/bin"]
        .iter()
        .map(|dir| Path::new(dir).join("redis-server"))
        .find(|path| path.exists())
        .ok_or(DevError::NotInstalled { program: "redis-server", package: "redis-server (Debian) or redis (Homebrew)" })
}
