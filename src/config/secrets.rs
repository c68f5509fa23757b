//! Secrets that have files of their own: read with the settings, so that a reload reads them too.

use std::path::Path;

use super::read::Reader;
use super::shapes::ClusterShape;
use crate::isolation::tenancy::LoginSecret;
use crate::isolation::{Level, SealKeyError, SealKeys};
use crate::secret::{Place, Secret};

/// What the passwords of a cluster's tenant logins are made of, if it has a file for that.
pub(super) fn login_secret(
    reader: &mut Reader<'_>,
    cluster: &str,
    shape: &ClusterShape,
) -> Option<LoginSecret> {
    let file = shape.tenant_login_secret_file.as_ref()?;
    let at = ["clusters", cluster, "tenant_login_secret_file"];
    let path = place(reader, file, &at)?;
    let secret = read(reader, &path, &at, LoginSecret::BYTES_MAX)?;
    let bytes = secret.expose().len();
    let made = LoginSecret::new(secret);
    if made.is_none() {
        let least = LoginSecret::BYTES_MIN;
        let message = format!("{path} has {bytes} bytes, allowed: {least} or more");
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
    let at = ["clusters", cluster, "seal_key_file"];
    let path = place(reader, file, &at)?;
    let secret = read(reader, &path, &at, SealKeys::BYTES_MAX)?;
    let text = str::from_utf8(secret.expose()).map_err(|_| SealKeyError::Text);
    match text.and_then(SealKeys::parse) {
        Ok(keys) => Some(keys),
        Err(error) => {
            let hint = "A key is what this prints: openssl rand -hex 32";
            reader.problem_at(&at, format!("{path}: {error}"), Some(hint));
            None
        }
    }
}

/// Where a secret stands, as the settings name it.
pub(super) fn place(reader: &mut Reader<'_>, text: &Path, at: &[&str]) -> Option<Place> {
    let place = Place::named(text, reader.folder);
    place.map_err(|error| reader.problem_at(at, error.to_string(), None)).ok()
}

fn read(reader: &mut Reader<'_>, place: &Place, at: &[&str], bytes_max: usize) -> Option<Secret> {
    match place.read(bytes_max) {
        Ok(secret) => Some(secret),
        Err(error) => {
            let hint = match place {
                Place::File(_) => {
                    "Make it readable for its owner only (chmod 600): the gate's user, or root."
                }
                Place::Variable(_) => "The gate is started with the variable; a reload keeps it.",
            };
            reader.problem_at(at, error.to_string(), Some(hint));
            None
        }
    }
}
