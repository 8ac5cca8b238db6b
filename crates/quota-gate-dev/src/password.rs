//! A server's password: random, and stored beside the server's data so that it survives a restart.
//!
//! The servers listen on 127.0.0.1, which every user of the machine can reach. Without a password, each user could
//! write quotas.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::error::{DevError, cannot};

/// 128 bits cannot be guessed. Hexadecimal digits need no quoting in a URL or a configuration file.
const PASSWORD_BYTES: usize = 16;

/// Reads the password at `path`, or creates one there that only its owner can read.
pub(super) fn kept_at(path: &Path) -> Result<String, DevError> {
    match fs::read_to_string(path) {
        Ok(password) => Ok(password.trim_end().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let password = random().map_err(cannot("create a password for", path))?;
            write_private(path, &password)?;
            Ok(password)
        }
        Err(error) => Err(cannot("read", path)(error)),
    }
}

/// Writes a file that only its owner can read, completely or not at all.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), DevError> {
    let unfinished = path.with_extension("new");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&unfinished, path))
        .map_err(cannot("write", path))
}

/// Returns `N` random bytes as hexadecimal digits.
pub(super) fn random_hex<const N: usize>() -> io::Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

fn random() -> io::Result<String> {
    random_hex::<PASSWORD_BYTES>()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_password_is_kept_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let password = kept_at(&path).unwrap();
        assert_eq!(password.len(), 2 * PASSWORD_BYTES);
        assert_eq!(kept_at(&path).unwrap(), password);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(kept_at(&dir.path().join("other")).unwrap(), password);
    }
}
