//! Where `quota-gate dev` keeps its data, and who uses it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{sys::signal::kill, unistd::Pid};
use sha2::{Digest, Sha256};

use super::{Account, DevError};

/// A folder that one `dev` uses at a time.
#[derive(Debug)]
pub struct DataDir {
    dir: PathBuf,
    servers: PathBuf,
}

impl DataDir {
    /// Takes a folder, which is made if need be. `fresh` forgets what is in it.
    ///
    /// # Errors
    /// [`DevError::InUse`] when another `dev` has it.
    pub fn take(dir: &Path, fresh: bool) -> Result<Self, DevError> {
        fs::create_dir_all(dir).map_err(DevError::io(format!("making the folder {}", dir.display())))?;
        let dir = dir.canonicalize().map_err(DevError::io(format!("finding {}", dir.display())))?;
        let lock = dir.join("dev.pid");
        let holder = fs::read_to_string(&lock).ok().and_then(|pid| pid.trim().parse::<i32>().ok());
        let myself = std::process::id();
        if let Some(pid) = holder.filter(|pid| u32::try_from(*pid) != Ok(myself) && runs(*pid)) {
            return Err(DevError::InUse { dir, pid });
        }
        let servers = servers_of(&dir)?;
        if fresh {
            for old in [servers.join("redis"), servers.join("postgres"), dir.join("secrets.json")] {
                let _ = fs::remove_dir_all(&old);
                let _ = fs::remove_file(&old);
            }
        }
        fs::write(&lock, myself.to_string()).map_err(DevError::io(format!("writing {}", lock.display())))?;
        Ok(Self { dir, servers })
    }

    /// A file of the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where a server keeps its data.
    #[must_use]
    pub fn server(&self, name: &str) -> PathBuf {
        self.servers.join(name)
    }

    /// Where the servers' data is, when it could not be in the folder itself.
    #[must_use]
    pub fn elsewhere(&self) -> Option<&Path> {
        (!self.servers.starts_with(&self.dir)).then_some(self.servers.as_path())
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.dir.join("dev.pid"));
    }
}

/// Inside the folder, unless the servers' account cannot reach it: Postgres does not run as root, and nobody else may
/// enter root's home. Then it is under /var/tmp, by a name that only this folder has.
fn servers_of(dir: &Path) -> Result<PathBuf, DevError> {
    let inside = dir.join("servers");
    if Account::for_servers()?.can_reach(&inside) {
        return Ok(inside);
    }
    let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    let name: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let outside = Path::new("/var/tmp").join(format!("quota-gate-{name}"));
    fs::create_dir_all(&outside).map_err(DevError::io(format!("making the folder {}", outside.display())))?;
    Ok(outside)
}

/// Does the process run, as far as we may know?
fn runs(pid: i32) -> bool {
    !matches!(kill(Pid::from_raw(pid), None), Err(nix::errno::Errno::ESRCH))
}
