//! The account that private servers run as.

use std::{os::unix::fs::chown, path::Path};

use nix::unistd::{Uid, User};

use super::DevError;

/// Oneself, or for root an account without privileges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    drop_to: Option<(u32, u32)>,
}

impl Account {
    /// The account for servers: root finds `postgres`, or else `nobody`.
    ///
    /// # Errors
    /// If neither exists.
    pub fn for_servers() -> Result<Self, DevError> {
        if !Uid::effective().is_root() {
            return Ok(Self { drop_to: None });
        }
        let found = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = found.ok_or(DevError::NotInstalled { program: "an account `postgres`", package: "postgresql" })?;
        Ok(Self { drop_to: Some((user.uid.as_raw(), user.gid.as_raw())) })
    }

    /// User and group to become, if that is somebody else.
    pub(super) const fn drop_to(self) -> Option<(u32, u32)> {
        self.drop_to
    }

    /// Makes a folder that belongs to the account, for its eyes only.
    pub(super) fn create_dir(self, dir: &Path) -> Result<(), DevError> {
        let what = || format!("making the folder {}", dir.display());
        std::fs::create_dir_all(dir).map_err(DevError::io(what()))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(dir, mode).map_err(DevError::io(what()))?;
        self.give(dir)
    }

    /// Gives a file or folder to the account.
    pub(super) fn give(self, path: &Path) -> Result<(), DevError> {
        let Some((user, group)) = self.drop_to else { return Ok(()) };
        chown(path, Some(user), Some(group)).map_err(DevError::io(format!("giving {} away", path.display())))
    }

    /// Can the account reach this folder? Another user cannot enter a home that is closed to others.
    #[must_use]
    pub fn can_reach(self, dir: &Path) -> bool {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let Some((user, group)) = self.drop_to else { return true };
        dir.ancestors().skip(1).filter(|parent| parent.exists()).all(|parent| {
            std::fs::metadata(parent).is_ok_and(|folder| {
                let mode = folder.permissions().mode();
                let bit = if folder.uid() == user {
                    0o100
                } else if folder.gid() == group {
                    0o010
                } else {
                    0o001
                };
                mode & bit != 0
            })
        })
    }
}
