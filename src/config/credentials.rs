//! What proves a tenant, as the file has it: issuers, opaque tokens, roles.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use humantime_serde::re::humantime::parse_rfc3339_weak;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::check;
use super::read::Reader;
use super::secrets;
use super::units;
use crate::auth::{
    Algorithm, ClaimPaths, IssuerSettings, KeySource, LEEWAY_DEFAULT, LIFETIME_DEFAULT,
    PAUSE_DEFAULT, REFRESH_DEFAULT, RemoteSettings, TENANT_CLAIM_DEFAULT, Vouching,
};
use crate::catalog::{RolePlan, TokenPlan};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssuerShape {
    issuer: String,
    audience: String,
    algorithm: Option<Algorithm>,
    key_file: Option<PathBuf>,
    jwks_file: Option<PathBuf>,
    jwks_url: Option<String>,
    jwks_ca_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "units::duration")]
    jwks_refresh: Option<Duration>,
    #[serde(default, deserialize_with = "units::duration")]
    jwks_pause: Option<Duration>,
    tenant_claim: Option<String>,
    role_claim: Option<String>,
    read_only_claim: Option<String>,
    acts_for_claim: Option<String>,
    service: Option<String>,
    #[serde(default, deserialize_with = "units::duration")]
    leeway: Option<Duration>,
    #[serde(default, deserialize_with = "units::duration")]
    lifetime: Option<Duration>,
    denied_file: Option<PathBuf>,
    any_tenant: Option<bool>,
}

/// A role of a tenant or a cluster.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RoleShape {
    connection_string: Option<String>,
    role: Option<String>,
    read_only: bool,
}

/// A token's line alone, or in a table with more about it.
#[derive(Default)]
pub(super) struct TokenShape(TokenTable);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenTable {
    hash: String,
    name: Option<String>,
    #[serde(default, deserialize_with = "moment")]
    expires: Option<SystemTime>,
    #[serde(default)]
    revoked: bool,
    role: Option<String>,
    #[serde(default)]
    read_only: bool,
}

impl<'de> Deserialize<'de> for TokenShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LineOrTable;

        impl<'de> Visitor<'de> for LineOrTable {
            type Value = TokenShape;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a token's line, or a table with it as `hash`")
            }

            fn visit_str<E>(self, line: &str) -> Result<TokenShape, E> {
                let hash = line.to_owned();
                Ok(TokenShape(TokenTable { hash, ..TokenTable::default() }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TokenShape, A::Error> {
                TokenTable::deserialize(MapAccessDeserializer::new(map)).map(TokenShape)
            }
        }

        deserializer.deserialize_any(LineOrTable)
    }
}

/// `2027-01-31T00:00:00Z`, or `2027-01-31` for its beginning, both UTC.
fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.clone() };
    parse_rfc3339_weak(&whole)
        .map(Some)
        .map_err(|_| D::Error::custom("this is not a moment such as \"2027-01-31T00:00:00Z\""))
}

impl From<TokenShape> for TokenPlan {
    fn from(TokenShape(shape): TokenShape) -> Self {
        let TokenTable { hash: line, name, expires: expires_at, revoked, role, read_only } = shape;
        Self { line, name, expires_at, revoked, role, read_only }
    }
}

impl From<RoleShape> for RolePlan {
    fn from(shape: RoleShape) -> Self {
        let RoleShape { connection_string, role, read_only } = shape;
        Self { connection_string, role, read_only }
    }
}

/// Roles by name.
pub(super) fn roles(shapes: BTreeMap<String, RoleShape>) -> BTreeMap<String, RolePlan> {
    shapes.into_iter().map(|(name, shape)| (name, shape.into())).collect()
}

/// Every issuer that could be read; `sound` is false if another could not.
pub(super) fn issuers(
    reader: &mut Reader<'_>,
    shapes: BTreeMap<String, IssuerShape>,
    sound: bool,
) -> Vec<IssuerSettings> {
    let mut sound = sound;
    let mut issuers = Vec::new();
    // Beside others none speaks for everybody, unless it is said to.
    let alone = sound && shapes.len() == 1;
    for (name, shape) in shapes {
        match issuer(reader, &name, shape, alone) {
            Some(settings) => issuers.push(settings),
            None => sound = false,
        }
    }
    check::issuers(reader, &issuers, sound);
    issuers
}

fn issuer(
    reader: &mut Reader<'_>,
    name: &str,
    shape: IssuerShape,
    alone: bool,
) -> Option<IssuerSettings> {
    let keys = key_source(reader, name, &shape)?;
    let vouching = vouching(reader, name, &shape)?;
    let tenant = shape.tenant_claim.unwrap_or_else(|| TENANT_CLAIM_DEFAULT.to_owned());
    let (role, read_only) = (shape.role_claim, shape.read_only_claim);
    Some(IssuerSettings {
        name: name.to_owned(),
        issuer: shape.issuer,
        audience: shape.audience,
        keys,
        claims: ClaimPaths { tenant, role, read_only, vouching },
        leeway: shape.leeway.unwrap_or(LEEWAY_DEFAULT),
        lifetime: shape.lifetime.unwrap_or(LIFETIME_DEFAULT),
        denied_file: shape.denied_file.map(|path| reader.folder.join(path)),
        any_tenant: shape.any_tenant.unwrap_or(alone),
    })
}

/// The service an issuer vouches for, if any: the claim and the service, or neither.
fn vouching(reader: &mut Reader<'_>, name: &str, shape: &IssuerShape) -> Option<Option<Vouching>> {
    let (there, lacking) = match (&shape.acts_for_claim, &shape.service) {
        (None, None) => return Some(None),
        (Some(claim), Some(service)) => {
            return Some(Some(Vouching { claim: claim.clone(), service: service.clone() }));
        }
        (Some(_), None) => ("acts_for_claim", "service"),
        (None, Some(_)) => ("service", "acts_for_claim"),
    };
    let message = format!("{there} has no {lacking} to go with");
    let hint = "An issuer vouches for one of [services.NAME], by one claim.";
    reader.problem_at(&["issuers", name, there], message, Some(hint));
    None
}

/// One of three places, and no key that belongs to another of them.
fn key_source(reader: &mut Reader<'_>, name: &str, shape: &IssuerShape) -> Option<KeySource> {
    let fetched = [
        ("jwks_ca_file", shape.jwks_ca_file.is_some()),
        ("jwks_refresh", shape.jwks_refresh.is_some()),
        ("jwks_pause", shape.jwks_pause.is_some()),
    ];
    if shape.jwks_url.is_none()
        && let Some((key, _)) = fetched.into_iter().find(|(_, there)| *there)
    {
        let message = format!("{key} has no jwks_url to go with");
        reader.problem_at(&["issuers", name, key], message, None);
    }
    let algorithm = shape.algorithm;
    let folder = reader.folder;
    let path = |file: &PathBuf| folder.join(file);
    match (&shape.key_file, &shape.jwks_file, &shape.jwks_url) {
        (Some(file), None, None) => {
            let Some(algorithm) = algorithm else {
                let message = "missing key \"algorithm\"".to_owned();
                let hint = "A key file holds one key for one algorithm, such as \"ES256\".";
                reader.problem_at(&["issuers", name, "algorithm"], message, Some(hint));
                return None;
            };
            let at = ["issuers", name, "key_file"];
            let path = secrets::place(reader, file, &at)?;
            Some(KeySource::File { path, algorithm })
        }
        (None, Some(file), None) => Some(KeySource::SetFile { path: path(file), algorithm }),
        (None, None, Some(url)) => Some(KeySource::SetUrl(RemoteSettings {
            url: url.clone(),
            algorithm,
            ca_file: shape.jwks_ca_file.as_ref().map(path),
            refresh: shape.jwks_refresh.unwrap_or(REFRESH_DEFAULT),
            pause: shape.jwks_pause.unwrap_or(PAUSE_DEFAULT),
        })),
        _ => {
            let message = "an issuer has one of key_file, jwks_file and jwks_url".to_owned();
            reader.problem_at(&["issuers", name, "key_file"], message, None);
            None
        }
    }
}
