//! The account that runs the servers: that of this process, or an unprivileged one if this process is root.
//!
//! Postgres refuses to run as root, which is often the only account in a container or on a new machine. The account
//! becomes the owner of the directories and files that the servers use; all others keep their owner.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, lchown},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
};

use nix::unistd::{User, geteuid};

use super::error::{DevError, cannot};

/// Accounts to use, in order of preference: Postgres' own, then the unprivileged `nobody`.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// The account that runs the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Account {
    /// The account of this process, which is unprivileged.
    Oneself,
    /// Another user, because this process is root.
    Other { uid: u32, gid: u32 },
}

impl Account {
    pub(super) fn for_servers() -> Result<Self, DevError> {
        if !geteuid().is_root() {
            return Ok(Self::Oneself);
        }
        ACCOUNTS
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Self::Other { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
            .ok_or(DevError::NoAccount)
    }

    /// Makes the command run as this account. The standard library then also drops root's other groups.
    pub(super) fn run(&self, command: &mut Command) {
        if let Self::Other { uid, gid } = *self {
            command.uid(uid).gid(gid);
        }
    }

    /// Makes this account the owner of a file, or of a directory and its contents. Returns after one check if the
    /// account owns `path` already.
    pub(super) fn own(&self, path: &Path) -> Result<(), DevError> {
        let Self::Other { uid, gid } = *self else { return Ok(()) };
        let metadata = fs::symlink_metadata(path).map_err(cannot("read", path))?;
        if metadata.uid() == uid {
            return Ok(());
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(path).map_err(cannot("read", path))? {
                self.own(&entry.map_err(cannot("read", path))?.path())?;
            }
        }
        lchown(path, Some(uid), Some(gid)).map_err(cannot("change the owner of", path))
    }

    /// Returns whether the account can enter the directory. Tries it instead of computing it from the parents' modes,
    /// so the result is also right for access lists, network mounts and confined accounts.
    pub(super) fn reaches(&self, dir: &Path) -> bool {
        if *self == Self::Oneself {
            return true;
        }
        let mut attempt = Command::new("/bin/sh");
        attempt.args(["-c", r#"cd -- "$1""#, "reach"]).arg(dir).current_dir("/");
        attempt.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.run(&mut attempt);
        attempt.status().is_ok_and(|status| status.success())
    }
}
