//! [`Secret`]: text that is never printed, is compared in constant time, and is wiped when dropped.

mod place;
pub mod scram;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::{Zeroize, Zeroizing};

pub use place::{Place, password};

/// A password, token or key. `Debug` prints stars, there is no `Display`, and equality takes the
/// same time wherever the first difference lies.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

/// Why a secret's file is not read. Never holds what stands in it.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    #[error("cannot read {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    #[error("{} belongs to somebody else (uid {uid})", path.display())]
    Foreign { path: PathBuf, uid: u32 },
    #[error("{} is open to others than its owner (mode {mode:04o})", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("{} has {bytes} bytes, allowed: {bytes_max}", path.display())]
    TooLong { path: PathBuf, bytes: u64, bytes_max: usize },
    #[error("the environment has no {0}, or an empty one")]
    NoVariable(String),
}

/// Permissions that a secret's file may not have: any for the group or for others, and, where root
/// owns it, any but reading for the group. As libpq asks of private keys (PostgreSQL manual,
/// 34.19.2).
const MODE_OPEN: u32 = 0o077;
const MODE_OPEN_OF_ROOT: u32 = 0o037;

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into().into_boxed_slice())
    }

    /// Reads a file that nobody else may read. A line end behind the last line is not part of it.
    ///
    /// # Errors
    ///
    /// It is no file, cannot be read, is longer than `bytes_max`, belongs to somebody other than
    /// this process's user or root, or is open to others.
    pub fn read(path: &Path, bytes_max: usize) -> Result<Self, SecretFileError> {
        let io = |error| SecretFileError::Io { path: path.to_owned(), error };
        let path_known = || path.to_owned();
        // What is not a file may make whoever opens it wait.
        if !path.metadata().map_err(io)?.is_file() {
            return Err(SecretFileError::NotAFile(path_known()));
        }
        let file = File::open(path).map_err(io)?;
        let facts = file.metadata().map_err(io)?;
        let (uid, mode, bytes) = (facts.uid(), facts.mode() & 0o7777, facts.len());
        if uid != 0 && uid != rustix::process::geteuid().as_raw() {
            return Err(SecretFileError::Foreign { path: path_known(), uid });
        }
        if mode & (if uid == 0 { MODE_OPEN_OF_ROOT } else { MODE_OPEN }) != 0 {
            return Err(SecretFileError::Open { path: path_known(), mode });
        }
        if bytes > bytes_max as u64 {
            return Err(SecretFileError::TooLong { path: path_known(), bytes, bytes_max });
        }
        // Room for all of it at once, so that no half of it is left behind by growing.
        let mut text = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
        file.take(bytes_max as u64).read_to_end(&mut text).map_err(io)?;
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        Ok(Self::new(text.strip_suffix(b"\r").unwrap_or(text)))
    }

    /// The bytes, for the one place that must send or hash them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Reads 32 bytes, a key or a SHA-256, from exactly 64 hexadecimal digits.
pub fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_others_may_read_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "hunter2\n").unwrap();
        let read = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Secret::read(&path, 8)
        };
        for mode in [0o600, 0o400] {
            let secret = read(mode).unwrap();
            assert_eq!((secret.expose(), format!("{secret:?}")), (&b"hunter2"[..], "***".into()));
        }
        for mode in [0o604, 0o620, 0o644, 0o601, 0o666] {
            assert!(matches!(read(mode), Err(SecretFileError::Open { .. })), "{mode:o}");
        }
        let of_root = fs::metadata(&path).unwrap().uid() == 0;
        assert_eq!(read(0o640).is_ok(), of_root, "root's may be read by a group, as a key may");
        read(0o600).unwrap();
        assert!(matches!(Secret::read(&path, 7), Err(SecretFileError::TooLong { bytes: 8, .. })));
        let is_folder = Secret::read(folder.path(), 8);
        assert!(matches!(is_folder, Err(SecretFileError::NotAFile(_))));
        let missing = Secret::read(&folder.path().join("none"), 8).unwrap_err().to_string();
        assert!(missing.contains("none: No such file"), "{missing}");
    }
}
