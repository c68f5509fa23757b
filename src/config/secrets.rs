//! Secrets that have files of their own: read with the settings, so that a reload reads them too.

use std::path::Path;

use super::read::Reader;
use super::shapes::ClusterShape;
use crate::isolation::tenancy::LoginSecret;
use crate::isolation::{Level, SealKeyError, SealKeys};
use crate::secret::Secret;

/// What the passwords of a cluster's tenant logins are made of, if it has a file for that.
pub(super) fn login_secret(
    reader: &mut Reader<'_>,
    cluster: &str,
    shape: &ClusterShape,
) -> Option<LoginSecret> {
    let path = reader.folder.join(shape.tenant_login_secret_file.as_ref()?);
    let at = ["clusters", cluster, "tenant_login_secret_file"];
    let secret = read(reader, &path, &at, LoginSecret::BYTES_MAX)?;
    let bytes = secret.expose().len();
    let made = LoginSecret::new(secret);
    if made.is_none() {
        let least = LoginSecret::BYTES_MIN;
        let message = format!("{} has {bytes} bytes, allowed: {least} or more", path.display());
        let hint = "Make one with: openssl rand -base64 48";
        reader.problem_at(&at, message, Some(hint));
    }
    made
}

/// What a cluster's row tenants are sealed with.
pub(super) fn seal_keys(
    reader: &mut Reader<'_>,
    cluster: &str,
    shape: &ClusterShape,
) -> Option<SealKeys> {
    let Some(file) = &shape.seal_key_file else {
        if shape.level == Some(Level::Sealed) {
            let message = "level \"sealed\" needs a seal_key_file".to_owned();
            let hint = "Write the file, name it here, and run tenantgate install.";
            reader.problem_at(&["clusters", cluster, "level"], message, Some(hint));
        }
        return None;
    };
    let path = reader.folder.join(file);
    let at = ["clusters", cluster, "seal_key_file"];
    let secret = read(reader, &path, &at, SealKeys::BYTES_MAX)?;
    let text = str::from_utf8(secret.expose()).map_err(|_| SealKeyError::Text);
    match text.and_then(SealKeys::parse) {
        Ok(keys) => Some(keys),
        Err(error) => {
            let hint = "A key is what this prints: openssl rand -hex 32";
            reader.problem_at(&at, format!("{}: {error}", path.display()), Some(hint));
            None
        }
    }
}

fn read(reader: &mut Reader<'_>, path: &Path, at: &[&str], bytes_max: usize) -> Option<Secret> {
    match Secret::read(path, bytes_max) {
        Ok(secret) => Some(secret),
        Err(error) => {
            let hint = "Make it readable for its owner only (chmod 600): the gate's user, or root.";
            reader.problem_at(at, error.to_string(), Some(hint));
            None
        }
    }
}
