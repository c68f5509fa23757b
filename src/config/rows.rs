//! What concerns tenants in a table: the `[catalog]` entry, and the limits that stand in a row.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::read::Reader;
use super::shapes::{CatalogShape, LimitsShape};
use super::words;
use crate::catalog::{Hosts, LimitsPlan, TableSettings};
use crate::server::Conninfo;

/// Oftener would be a load, seldomer no safety net.
const POLL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// Reads the `[catalog]` entry. Everything that is wrong with it is noted.
pub(super) fn table(
    reader: &mut Reader<'_>,
    shape: CatalogShape,
) -> Option<(TableSettings, Hosts)> {
    let conninfo = Conninfo::read(&shape.connection_string, reader.folder).map_err(|error| {
        reader.problem_at(&["catalog", "connection_string"], error.to_string(), None);
    });
    let mover = shape.mover_connection_string.as_deref().map(|text| {
        let mover = Conninfo::read(text, reader.folder).map_err(|error| error.to_string());
        mover.and_then(|mover| match &conninfo {
            Ok(own) if mover.dbname != own.dbname => {
                Err("the mover's database is another than the reader's".to_owned())
            }
            Ok(own) if mover.user == own.user => {
                Err("the mover is the reader, who may only read".to_owned())
            }
            _ => Ok(Arc::new(mover)),
        })
    });
    let mover = mover.transpose().map_err(|message| {
        reader.problem_at(&["catalog", "mover_connection_string"], message, None);
    });
    let poll = shape.poll.unwrap_or(TableSettings::POLL_DEFAULT);
    if !POLL.contains(&poll) {
        let message = "poll is out of range, allowed: 1s to 1h".to_owned();
        reader.problem_at(&["catalog", "poll"], message, None);
    }
    let known = shape.known.unwrap_or(TableSettings::KNOWN_DEFAULT);
    if known == 0 {
        let message = "known is zero, but whoever has a session is known".to_owned();
        reader.problem_at(&["catalog", "known"], message, None);
    }
    let hosts = Hosts::parse(&shape.hosts).map_err(|index| {
        let host = shape.hosts.get(index).map(|host| host.escape_debug().to_string());
        let message = format!("\"{}\" is no host", host.unwrap_or_default());
        let hint = "Write an address, a network such as \"10.0.0.0/8\", a name, \"*.internal\" for \
                    all names that end so, or the folder of a Unix socket.";
        reader.problem_at(&["catalog", "hosts"], message, Some(hint));
    });
    let hosts = hosts.ok()?;
    let conninfo = Arc::new(conninfo.ok()?);
    let place = |path: PathBuf| reader.folder.join(path);
    let settings = TableSettings {
        conninfo,
        mover: mover.ok()?,
        cache_file: shape.cache_file.map(place),
        poll,
        known,
        hosts: shape.hosts,
        secrets_folder: shape.secrets_folder.map(place),
    };
    Some((settings, hosts))
}

/// Reads the column `overrides`: the keys of `[tenants.X] limits`, as JSON.
///
/// # Errors
///
/// What is wrong with it, in words that hold none of the values.
pub fn overrides(json: &str) -> Result<LimitsPlan, String> {
    let keys: Map<String, Value> =
        serde_json::from_str(json).map_err(|_| "it is not a JSON object".to_owned())?;
    // One by one: serde does not say which key is meant, and says what it found.
    for (key, value) in &keys {
        let alone = Value::Object([(key.clone(), value.clone())].into_iter().collect());
        let Err(error) = LimitsShape::deserialize(&alone) else { continue };
        let (key, error) = (key.escape_debug(), error.to_string());
        let expected = error.rsplit_once(", expected ").map(|(_, it)| words::expected(it));
        return Err(match (error.starts_with("unknown field"), expected) {
            (true, _) => format!("unknown key \"{key}\""),
            (false, Some(expected)) => format!("the value of \"{key}\" is not {expected}"),
            (false, None) => format!("the value of \"{key}\" is not valid"),
        });
    }
    let read = LimitsShape::deserialize(&Value::Object(keys));
    read.map_err(|_| "its values are not valid".to_owned())
}
