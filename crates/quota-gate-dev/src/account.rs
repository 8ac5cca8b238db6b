//! The account that the servers run as: oneself, or an unprivileged one when running as root.
//!
//! Postgres refuses to run as root, and a container or a fresh machine is often just that. The directories and files
//! that the servers use are handed to the account; everything else stays with its owner.

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

/// Looked for in this order: made for Postgres, or made for nobody.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// Who runs the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Account {
    /// This process is unprivileged already.
    Oneself,
    /// This process is root: the servers run as this user.
    Other {
        /// The user.
        uid: u32,
        /// Its main group.
        gid: u32,
    },
}

impl Account {
    /// The account for servers that this process starts.
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

    /// Makes the command run as this account. The standard library drops root's other groups along with it.
    pub(super) fn run(&self, command: &mut Command) {
        if let Self::Other { uid, gid } = *self {
            command.uid(uid).gid(gid);
        }
    }

    /// Hands over a file, or a directory with all that is in it. Costs one look when that has been done before.
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

    /// Whether the account can get to the directory. Tried rather than computed from the modes of its parents: that
    /// way it is also right about access lists, network mounts and confined accounts.
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
