//! The directory of `quota-gate dev`: who has it, and where the servers' data is.
//!
//! | path | what |
//! | --- | --- |
//! | `DIR/dev.lock` | locked by the one process that uses DIR |
//! | `DIR/servers/redis/` | data, log and password of redis-server |
//! | `DIR/servers/postgres/` | the same of Postgres |
//!
//! As root the servers run as another account, which cannot get to a DIR below, say, `/root`. Then `DIR/servers` is a
//! symbolic link to a directory under `/var/tmp`, named after DIR.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, symlink},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::xxh3_64;

use super::{
    account::Account,
    error::{DevError, cannot},
    server_log::ServerLog,
};

/// Where servers' data goes that their account cannot get to. Unlike `/tmp`, it is kept over a reboot.
const REACHABLE: &str = "/var/tmp";
const LOCK: &str = "dev.lock";
const SERVERS: &str = "servers";

/// A directory in use by this process; it is free again when this is dropped, or the process ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Without links in it: the servers' account may not be able to follow them.
    servers: PathBuf,
    lock: File,
}

impl DataDir {
    /// Takes the directory, which is made if need be.
    ///
    /// # Errors
    /// [`DevError::InUse`] while another process has it.
    pub fn open(dir: &Path) -> Result<Self, DevError> {
        Self::take(dir)?.place_servers()
    }

    /// Takes the directory and removes all that is in it. Waits for servers that are still ending.
    ///
    /// # Errors
    /// [`DevError::InUse`] while another process has it; [`DevError::NotOurs`] if it holds files but was never opened
    /// before: an option mistyped must not cost anybody's home.
    pub async fn open_fresh(dir: &Path) -> Result<Self, DevError> {
        if !dir.join(LOCK).exists() && fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(DevError::NotOurs { dir: dir.to_owned() });
        }
        let data = Self::take(dir)?;
        data.empty().await?;
        data.place_servers()
    }

    /// The directory itself, an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where the servers' data is, if it could not be in the directory itself.
    #[must_use]
    pub fn elsewhere(&self) -> Option<&Path> {
        (!self.servers.starts_with(&self.path)).then_some(&self.servers)
    }

    /// The directory of redis-server.
    #[must_use]
    pub fn redis(&self) -> PathBuf {
        self.servers.join("redis")
    }

    /// The directory of Postgres.
    #[must_use]
    pub fn postgres(&self) -> PathBuf {
        self.servers.join("postgres")
    }

    fn take(dir: &Path) -> Result<Self, DevError> {
        fs::create_dir_all(dir).map_err(cannot("create", dir))?;
        let path = dir.canonicalize().map_err(cannot("find", dir))?;
        let lock_file = path.join(LOCK);
        let mut options = OpenOptions::new();
        let mut lock = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_file)
            .map_err(cannot("open", &lock_file))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&lock_file).unwrap_or_default();
                return Err(DevError::InUse { dir: path, holder: format!("process {}", pid.trim()) });
            }
            Err(TryLockError::Error(error)) => return Err(cannot("lock", &lock_file)(error)),
        }
        // The number is for people; the lock is with the open file, and goes when its process does.
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(cannot("write", &lock_file))?;
        Ok(Self { servers: path.join(SERVERS), path, lock })
    }

    async fn empty(&self) -> Result<(), DevError> {
        for dir in [self.redis(), self.postgres()] {
            if dir.exists() {
                ServerLog::claim(&dir).await?;
            }
        }
        let elsewhere = self.reachable();
        if self.servers.is_symlink() && elsewhere.exists() {
            fs::remove_dir_all(&elsewhere).map_err(cannot("remove", &elsewhere))?;
        }
        for entry in fs::read_dir(&self.path).map_err(cannot("read", &self.path))? {
            let path = entry.map_err(cannot("read", &self.path))?.path();
            if path.ends_with(LOCK) {
                continue;
            }
            let removed =
                if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(cannot("remove", &path))?;
        }
        Ok(())
    }

    /// Makes the directory of the servers, where their account can use it.
    fn place_servers(mut self) -> Result<Self, DevError> {
        let account = Account::for_servers()?;
        if account.reaches(&self.path) {
            make_private(&self.servers)?;
            self.servers = self.servers.canonicalize().map_err(cannot("find", &self.servers))?;
            account.own(&self.servers)?;
            return Ok(self);
        }
        let elsewhere = self.reachable();
        make_private(&elsewhere)?;
        // Everybody may write to /var/tmp: what is there already must be ours.
        let metadata = fs::symlink_metadata(&elsewhere).map_err(cannot("read", &elsewhere))?;
        let owners = match account {
            Account::Oneself => [nix::unistd::geteuid().as_raw(); 2],
            Account::Other { uid, .. } => [0, uid],
        };
        if !metadata.is_dir() || !owners.contains(&metadata.uid()) {
            return Err(DevError::InUse { dir: elsewhere, holder: format!("user {}", metadata.uid()) });
        }
        account.own(&elsewhere)?;
        match symlink(&elsewhere, &self.servers) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(cannot("create", &self.servers)(error));
            }
            _ => self.servers = elsewhere,
        }
        Ok(self)
    }

    /// Where the link leads, so that DIR may be moved; if it leads where none was made to, or there is none, where
    /// a new one would.
    fn reachable(&self) -> PathBuf {
        let ours = |target: &PathBuf| {
            let name = target.file_name().unwrap_or_default().as_encoded_bytes();
            target.parent() == Some(Path::new(REACHABLE)) && name.starts_with(b"quota-gate-")
        };
        fs::read_link(&self.servers).ok().filter(ours).unwrap_or_else(|| {
            let name = format!("quota-gate-{:016x}", xxh3_64(self.path.as_os_str().as_encoded_bytes()));
            Path::new(REACHABLE).join(name)
        })
    }
}

impl Drop for DataDir {
    /// Unlocks rather than closes: a child process that is just being started has a copy of the open file.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

/// Makes a directory for its owner alone; one that is there is left as it is.
fn make_private(dir: &Path) -> Result<(), DevError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(cannot("create", dir)(error)),
        _ => Ok(()),
    }
}
