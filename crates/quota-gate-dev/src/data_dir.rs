//! The directory of `quota-gate dev`: its lock, and the place of the servers' data.
//!
//! | path | what |
//! | --- | --- |
//! | `DIR/dev.lock` | locked by the only process that uses DIR |
//! | `DIR/servers/redis/` | data, log and password of redis-server |
//! | `DIR/servers/postgres/` | the same for Postgres |
//!
//! If this process is root, the servers run as another account, which cannot enter a DIR below, for example, `/root`.
//! Then `DIR/servers` is a symbolic link to a directory under `/var/tmp`, named by a hash of DIR.

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

/// Parent of the servers' data if their account cannot enter DIR. Unlike `/tmp`, it survives a reboot.
const REACHABLE: &str = "/var/tmp";
const LOCK: &str = "dev.lock";
const SERVERS: &str = "servers";

/// A directory that this process uses. It is released when this is dropped or the process ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Path without symbolic links, because the servers' account may be unable to follow them.
    servers: PathBuf,
    lock: File,
}

impl DataDir {
    /// Locks the directory, and creates it if necessary.
    ///
    /// # Errors
    /// [`DevError::InUse`] if another process uses it.
    pub fn open(dir: &Path) -> Result<Self, DevError> {
        Self::take(dir)?.place_servers()
    }

    /// Locks the directory and removes its contents. Waits for servers that are still stopping.
    ///
    /// # Errors
    /// [`DevError::InUse`] if another process uses it; [`DevError::NotOurs`] if it has files but was never opened
    /// before: a mistyped option must not delete a home directory.
    pub async fn open_fresh(dir: &Path) -> Result<Self, DevError> {
        if !dir.join(LOCK).exists() && fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(DevError::NotOurs { dir: dir.to_owned() });
        }
        let data = Self::take(dir)?;
        data.empty().await?;
        data.place_servers()
    }

    /// Returns the absolute path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a file in the directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Returns the directory of the servers' data if it is outside this directory.
    #[must_use]
    pub fn elsewhere(&self) -> Option<&Path> {
        (!self.servers.starts_with(&self.path)).then_some(&self.servers)
    }

    /// Returns the directory of redis-server.
    #[must_use]
    pub fn redis(&self) -> PathBuf {
        self.servers.join("redis")
    }

    /// Returns the directory of Postgres.
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
        // The process id is for messages only. The lock belongs to the open file and ends with the process.
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

    /// Creates the servers' directory in a place that their account can use.
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
        // Every user may write to /var/tmp, so an existing directory must be ours.
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

    /// Returns the target of the existing link, so DIR may be moved. Without a link, or if its target is not
    /// ours, returns the target for a new link.
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
    /// Unlocks instead of only closing: a child process that is just starting has a copy of the open file.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

/// Creates a directory that only its owner can use. An existing one stays as it is.
fn make_private(dir: &Path) -> Result<(), DevError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(cannot("create", dir)(error)),
        _ => Ok(()),
    }
}
