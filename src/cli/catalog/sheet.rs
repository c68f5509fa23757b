//! [`Sheet`]: one of the two tables as rows of a file, and what may stand in its columns.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// A table that is exported and imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sheet {
    Tenants,
    Credentials,
}

/// A column: its name and what stands in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub name: &'static str,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// Text that is not shown.
    Secret,
    /// An object; without one it is empty.
    Object,
    /// True or false; without a word it is false.
    Flag,
    /// A list of texts.
    List,
    /// Text with a value of its own where the file has none.
    Else(&'static str),
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind }
}

/// Those that a trigger keeps are not among them.
const TENANTS: [Column; 11] = [
    column("id", Kind::Text),
    column("isolation", Kind::Text),
    column("cluster", Kind::Text),
    column("connection_string", Kind::Secret),
    column("schema", Kind::Text),
    column("role", Kind::Text),
    column("tier", Kind::Text),
    column("state", Kind::Else("active")),
    column("overrides", Kind::Object),
    column("attributes", Kind::Object),
    column("region", Kind::Text),
];

const CREDENTIALS: [Column; 12] = [
    column("kind", Kind::Text),
    column("tenant", Kind::Text),
    column("name", Kind::Text),
    column("hash", Kind::Secret),
    column("scram_verifier", Kind::Secret),
    column("cert_name", Kind::Text),
    column("role", Kind::Text),
    column("read_only", Kind::Flag),
    column("acts_for", Kind::List),
    column("options", Kind::Object),
    column("expires_at", Kind::Text),
    column("revoked_at", Kind::Text),
];

/// Why a value cannot stand in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfit(&'static str);

impl fmt::Display for Unfit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "not {}", self.0)
    }
}

const AN_OBJECT: Unfit = Unfit("a JSON object");
const A_LIST: Unfit = Unfit("a JSON array of texts");
const A_FLAG: Unfit = Unfit("true or false");
const A_TEXT: Unfit = Unfit("a text");

impl Sheet {
    /// The table's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::Credentials => "credentials",
        }
    }

    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Tenants => &TENANTS,
            Self::Credentials => &CREDENTIALS,
        }
    }

    /// The column that no file can do without.
    pub fn first(self) -> &'static str {
        match self {
            Self::Tenants => "id",
            Self::Credentials => "kind",
        }
    }

    /// What tells rows apart, in SQL, of a row with this alias. The number of a credential is
    /// another one in every database, so it is what it is proved with that counts.
    pub fn key(self, alias: &str) -> String {
        match self {
            Self::Tenants => format!("{alias}.id"),
            Self::Credentials => format!(
                "CASE {alias}.kind WHEN 'token' THEN 'token ' || split_part({alias}.hash, ':', 1) \
                 WHEN 'scram' THEN 'scram ' || coalesce({alias}.tenant, '') || ' ' || {alias}.name \
                 ELSE 'certificate ' || {alias}.cert_name END COLLATE \"C\""
            ),
        }
    }
}

/// The column that a constraint of the tables is about, and what it wants there.
pub(super) fn wanted(constraint: &str) -> Option<(&'static str, &'static str)> {
    Some(match constraint {
        "tenants_id_form" => ("id", "up to 63 letters, digits, \"_\", \".\" and \"-\""),
        "tenants_id_not_the_console" => ("id", "another name than the console's database has"),
        "tenants_isolation" => ("isolation", "row, schema, silo"),
        "tenants_connection_string" => ("connection_string", "16384 bytes at most"),
        "tenants_schema" => ("schema", "63 bytes at most"),
        "tenants_role" => ("role", "63 bytes at most"),
        "tenants_state" => ("state", "active, read_only, paused, disabled"),
        "tenants_overrides" => ("overrides", "a JSON object of 16384 bytes at most"),
        "tenants_attributes" => ("attributes", "a JSON object"),
        "credentials_kind" => ("kind", "token, scram, certificate"),
        "credentials_name" => ("name", "63 bytes at most"),
        "credentials_hash" => ("hash", "ID:sha256:HASH, as tenantgate token new prints it"),
        "credentials_scram_verifier" => {
            ("scram_verifier", "SCRAM-SHA-256$…, as tenantgate token scram prints it")
        }
        "credentials_cert_name" => ("cert_name", "san:NAME or cn:NAME"),
        "credentials_options" => ("options", "a JSON object"),
        "credentials_one_proof" => (
            "kind",
            "token with hash, scram with name and scram_verifier, or certificate with cert_name",
        ),
        "credentials_acts_for" => ("acts_for", "nothing beside a tenant"),
        _ => return None,
    })
}

impl Column {
    /// A text of a CSV file as the text that PostgreSQL reads; nothing stands for NULL, and so does
    /// an empty text.
    pub fn of_text(self, text: &str) -> Result<Option<String>, Unfit> {
        match (self.kind, text) {
            (_, "") => Ok(self.absent()),
            (Kind::Text | Kind::Secret | Kind::Else(_), _) => Ok(Some(text.to_owned())),
            (Kind::Flag, _) => match text.to_ascii_lowercase().as_str() {
                "t" | "true" => Ok(Some(true.to_string())),
                "f" | "false" => Ok(Some(false.to_string())),
                _ => Err(A_FLAG),
            },
            (Kind::Object, _) => object(text),
            (Kind::List, _) => list(text),
        }
    }

    /// The same of a value in JSON. Objects are handed on as they are written: numbers may be
    /// longer than ours.
    pub fn of_json(self, value: &RawValue) -> Result<Option<String>, Unfit> {
        match (self.kind, value.get()) {
            (_, "null" | "\"\"") => Ok(self.absent()),
            (Kind::Text | Kind::Secret | Kind::Else(_), json) => {
                serde_json::from_str(json).map(Some).map_err(|_| A_TEXT)
            }
            (Kind::Flag, "true") => Ok(Some(true.to_string())),
            (Kind::Flag, "false") => Ok(Some(false.to_string())),
            (Kind::Flag, _) => Err(A_FLAG),
            (Kind::Object, json) => object(json),
            (Kind::List, json) => list(json),
        }
    }

    /// What stands in the column if the file has nothing there.
    fn absent(self) -> Option<String> {
        match self.kind {
            Kind::Text | Kind::Secret | Kind::List => None,
            Kind::Object => Some("{}".to_owned()),
            Kind::Flag => Some("false".to_owned()),
            Kind::Else(value) => Some(value.to_owned()),
        }
    }
}

fn object(json: &str) -> Result<Option<String>, Unfit> {
    let read = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(json);
    read.map(|_| Some(json.to_owned())).map_err(|_| AN_OBJECT)
}

fn list(json: &str) -> Result<Option<String>, Unfit> {
    let texts: Vec<String> = serde_json::from_str(json).map_err(|_| A_LIST)?;
    let texts: Vec<String> = texts.iter().map(|text| element(text)).collect();
    Ok(Some(format!("{{{}}}", texts.join(","))))
}

/// An element of an array as PostgreSQL reads it (manual, 8.15.6).
fn element(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
