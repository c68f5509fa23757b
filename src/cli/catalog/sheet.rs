//! [`Sheet`]: one of the two tables as rows of a file, and what may stand in its columns.

use std::fmt;

use clap::ValueEnum;
use serde_json::Value;

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

impl Column {
    /// A text of a CSV file as the text that PostgreSQL reads; nothing stands for NULL, and so does
    /// an empty text.
    pub fn of_text(self, text: &str) -> Result<Option<String>, Unfit> {
        if text.is_empty() {
            return Ok(self.absent());
        }
        match self.kind {
            Kind::Text | Kind::Secret | Kind::Else(_) => Ok(Some(text.to_owned())),
            Kind::Flag => match text.to_ascii_lowercase().as_str() {
                "t" | "true" => self.of_json(&Value::Bool(true)),
                "f" | "false" => self.of_json(&Value::Bool(false)),
                _ => Err(A_FLAG),
            },
            Kind::Object | Kind::List => {
                let wrong = if self.kind == Kind::List { A_LIST } else { AN_OBJECT };
                self.of_json(&serde_json::from_str(text).map_err(|_| wrong)?)
            }
        }
    }

    /// The same of a value in JSON.
    pub fn of_json(self, value: &Value) -> Result<Option<String>, Unfit> {
        match (self.kind, value) {
            (_, Value::Null) => Ok(self.absent()),
            (Kind::Text | Kind::Secret | Kind::Else(_), Value::String(text)) => {
                match text.is_empty() {
                    true => Ok(self.absent()),
                    false => Ok(Some(text.clone())),
                }
            }
            (Kind::Text | Kind::Secret | Kind::Else(_), _) => Err(A_TEXT),
            (Kind::Flag, Value::Bool(flag)) => Ok(Some(flag.to_string())),
            (Kind::Flag, _) => Err(A_FLAG),
            (Kind::Object, Value::Object(_)) => Ok(Some(value.to_string())),
            (Kind::Object, _) => Err(AN_OBJECT),
            (Kind::List, Value::Array(items)) => {
                let texts: Option<Vec<String>> =
                    items.iter().map(|it| Some(element(it.as_str()?))).collect();
                Ok(Some(format!("{{{}}}", texts.ok_or(A_LIST)?.join(","))))
            }
            (Kind::List, _) => Err(A_LIST),
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

/// An element of an array as PostgreSQL reads it (manual, 8.15.6).
fn element(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
