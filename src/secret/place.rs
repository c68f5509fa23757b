//! [`Place`]: where a secret of the settings stands: a file, a variable of the gate's environment,
//! or a credential that systemd hands over.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::secret::{Secret, SecretFileError};

/// Where systemd puts the credentials of a service (systemd.exec(5), LoadCredential=).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Longest password in a place of its own, in bytes.
const PASSWORD_BYTES_MAX: usize = 4096;

/// Where a secret stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    File(PathBuf),
    /// The name of a variable. Nobody can change it while the gate runs.
    Variable(String),
}

/// Why a text names no place. Holds none of it but the name of a variable or credential that
/// follows the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error("env: is followed by the name of a variable: letters, digits and underscores")]
    Variable,
    #[error("credential: is followed by the name of a credential: no slash, no leading dot")]
    Credential,
    #[error("there is no credential {0}: systemd has set no CREDENTIALS_DIRECTORY")]
    NoCredentials(String),
}

impl Place {
    /// Reads `env:NAME`, `credential:NAME`, `file:PATH`, or a path alone; relative paths begin in
    /// `folder`.
    ///
    /// # Errors
    ///
    /// The name breaks its rules, or the gate was handed no credentials.
    pub fn named(text: &Path, folder: &Path) -> Result<Self, PlaceError> {
        let bytes = text.as_os_str().as_bytes();
        let named = Self::referred(bytes, folder)?;
        Ok(named.unwrap_or_else(|| Self::File(folder.join(text))))
    }

    /// The same where a text may also be the secret itself: that is `None`.
    ///
    /// # Errors
    ///
    /// As [`Place::named`].
    pub fn referred(text: &[u8], folder: &Path) -> Result<Option<Self>, PlaceError> {
        let path = |bytes: &[u8]| folder.join(OsStr::from_bytes(bytes));
        if let Some(name) = text.strip_prefix(b"env:") {
            let name = word(name, |byte| byte == b'_').ok_or(PlaceError::Variable)?;
            return Ok(Some(Self::Variable(name)));
        }
        if let Some(name) = text.strip_prefix(b"credential:") {
            let fits = |byte| matches!(byte, b'_' | b'.' | b'-' | b'@');
            let name = word(name, fits).filter(|name| !name.starts_with('.'));
            let name = name.ok_or(PlaceError::Credential)?;
            let handed = env::var_os(CREDENTIALS).filter(|folder| !folder.is_empty());
            let handed = handed.ok_or_else(|| PlaceError::NoCredentials(name.clone()))?;
            return Ok(Some(Self::File(PathBuf::from(handed).join(name))));
        }
        Ok(text.strip_prefix(b"file:").map(|file| Self::File(path(file))))
    }

    /// The secret that stands there now.
    ///
    /// # Errors
    ///
    /// As [`Secret::read`]; or the variable is not set, empty, or longer than `bytes_max`.
    pub fn read(&self, bytes_max: usize) -> Result<Secret, SecretFileError> {
        let name = match self {
            Self::File(path) => return Secret::read(path, bytes_max),
            Self::Variable(name) => name,
        };
        let text = Zeroizing::new(env::var_os(name).unwrap_or_default().into_vec());
        if text.is_empty() {
            return Err(SecretFileError::NoVariable(name.clone()));
        }
        if text.len() > bytes_max {
            let (path, bytes) = (PathBuf::from(self.to_string()), text.len() as u64);
            return Err(SecretFileError::TooLong { path, bytes, bytes_max });
        }
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        Ok(Secret::new(text.strip_suffix(b"\r").unwrap_or(text)))
    }
}

/// The password that a text stands for: what is in the place that it names, or itself.
///
/// # Errors
///
/// In words that hold nothing of a password.
pub fn password(text: Secret, folder: &Path) -> Result<Secret, String> {
    let place = Place::referred(text.expose(), folder).map_err(|error| error.to_string())?;
    let Some(place) = place else { return Ok(text) };
    let found = place.read(PASSWORD_BYTES_MAX).map_err(|error| error.to_string())?;
    match found.expose().is_empty() {
        true => Err(format!("{place} is empty")),
        false => Ok(found),
    }
}

fn word(bytes: &[u8], others: impl Fn(u8) -> bool) -> Option<String> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || others(*byte);
    let text = (!bytes.is_empty() && bytes.len() <= 255 && bytes.iter().all(fits)).then_some(bytes);
    text.and_then(|text| String::from_utf8(text.to_vec()).ok())
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(out),
            Self::Variable(name) => write!(out, "env:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Result<Place, PlaceError> {
        Place::named(Path::new(text), Path::new("/etc/gate"))
    }

    #[test]
    fn a_place_is_a_file_unless_it_says_otherwise() {
        let file = |path: &str| Ok(Place::File(path.into()));
        assert_eq!(named("login.key"), file("/etc/gate/login.key"));
        assert_eq!(named("file:login.key"), file("/etc/gate/login.key"));
        assert_eq!(named("/run/x"), file("/run/x"));
        assert_eq!(named("./env:X"), file("/etc/gate/./env:X"));
        assert_eq!(named("env:GATE_KEY"), Ok(Place::Variable("GATE_KEY".to_owned())));
        for bad in ["env:", "env:A B", "env:A=B", "env:\u{e4}", "env:A\u{0}"] {
            assert_eq!(named(bad), Err(PlaceError::Variable), "{bad}");
        }
        for bad in ["credential:", "credential:../x", "credential:a/b", "credential:.x"] {
            assert_eq!(named(bad), Err(PlaceError::Credential), "{bad}");
        }
        // Tests are not started by systemd.
        assert_eq!(named("credential:x"), Err(PlaceError::NoCredentials("x".to_owned())));
    }

    #[test]
    fn a_variable_is_read_whole_or_not_at_all() {
        let read = |name: &str, most| Place::Variable(name.to_owned()).read(most);
        assert_eq!(read("CARGO_PKG_NAME", 10).unwrap(), Secret::new("tenantgate"));
        let long = read("CARGO_PKG_NAME", 9).unwrap_err().to_string();
        assert_eq!(long, "env:CARGO_PKG_NAME has 10 bytes, allowed: 9");
        let none = read("TENANTGATE_NO_SUCH_NAME", 9).unwrap_err().to_string();
        assert_eq!(none, "the environment has no TENANTGATE_NO_SUCH_NAME, or an empty one");
    }

    #[test]
    fn a_password_is_itself_or_what_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let of = |text: &str| password(Secret::new(text), folder.path());
        assert_eq!(of("hunter2"), Ok(Secret::new("hunter2")));
        assert_eq!(of("environment:x"), Ok(Secret::new("environment:x")));
        assert_eq!(of("env:CARGO_PKG_NAME"), Ok(Secret::new("tenantgate")));
        for bad in ["env:TENANTGATE_NO_SUCH_NAME", "file:none", "file:", "env:", "credential:x"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
