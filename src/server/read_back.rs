//! Read settings back as they are in force, at the end of a transaction that touched them, so that
//! they can follow the session to another server.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use crate::isolation::quote;
use crate::server::bound::within;
use crate::server::simple::Reply;
use crate::server::{BindError, Bound};

/// Which settings are asked for. Names in lower case.
#[derive(Clone, Copy, Debug)]
pub struct Question<'names> {
    pub names: &'names [String],
    /// Also every other that is set for the session and that the server lists.
    pub all: bool,
    /// These too, if they are there and the server does not list them.
    pub guessed: &'names [String],
}

/// Whether there is a table that whoever is bound may read or fill: none of PostgreSQL's, of the
/// gate's or of an extension's, such as everybody sees in a database where nothing is.
const HAS_TABLES: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c \
     JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
     WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,f}'::pg_catalog.\"char\"[]) \
     AND c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
     AND n.nspname OPERATOR(pg_catalog.<>) 'tenantgate' \
     AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
     AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT, INSERT') \
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
     WHERE d.classid OPERATOR(pg_catalog.=) c.tableoid AND d.objid OPERATOR(pg_catalog.=) c.oid \
     AND d.deptype OPERATOR(pg_catalog.=) 'e'))";

/// Names and what they are set to.
type Values = Vec<(String, Option<String>)>;

/// The settings of the session that the server lists: all but those that no module has defined.
const SET_BY_SESSION: &str = "(SELECT pg_catalog.json_object_agg(name, setting) \
     FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session')::pg_catalog.text";

impl Bound {
    /// Asks, in a transaction of its own, whose mode does not depend on the session's defaults:
    /// under its own default of serializable and deferrable a bare SELECT would wait (measured).
    /// The values come as UTF-8 in hexadecimal digits, whatever encoding the session has. A setting
    /// that is not there has none.
    pub async fn read_back(
        &mut self,
        question: Question<'_>,
        limit: Duration,
    ) -> Result<Values, BindError> {
        let clock = self.facts().clock().clone();
        let select = format!("SELECT {}", columns(question));
        let reply = within(&clock, limit, self.ask(&select)).await?;
        read(&reply, question)
    }

    /// Asks whether there is anything here for whom it is bound to.
    pub async fn has_tables(&mut self, limit: Duration) -> Result<bool, BindError> {
        let clock = self.facts().clock().clone();
        let reply = within(&clock, limit, self.ask(HAS_TABLES)).await?;
        Ok(reply.text(0) == Some("t"))
    }
}

fn columns(question: Question<'_>) -> String {
    let ask = |name: &String| format!("pg_catalog.current_setting({}, true)", quote::literal(name));
    let guess = |name: &String| {
        let (value, name) = (ask(name), quote::literal(name));
        format!(
            "(SELECT {value} WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_settings \
             WHERE pg_catalog.lower(name) OPERATOR(pg_catalog.=) {name}))"
        )
    };
    let names = question.names.iter().map(ask);
    let guesses = question.guessed.iter().map(guess);
    let all = question.all.then(|| SET_BY_SESSION.to_owned());
    let digits =
        |value: String| format!("pg_catalog.encode(pg_catalog.convert_to({value}, 'UTF8'), 'hex')");
    let columns: Vec<String> = names.chain(guesses).chain(all).map(digits).collect();
    columns.join(", ")
}

fn read(reply: &Reply, question: Question<'_>) -> Result<Values, BindError> {
    let value = |column| match reply.text(column) {
        Some(digits) => unhex(digits).map(Some).ok_or_else(unreadable),
        None => Ok(None),
    };
    let Question { names, all, guessed } = question;
    let mut values = Vec::with_capacity(names.len());
    let listed = if all { value(names.len() + guessed.len())? } else { None };
    if let Some(listed) = listed {
        let listed: HashMap<String, Option<String>> =
            serde_json::from_str(&listed).map_err(|_| unreadable())?;
        let lower = |(name, value): (String, _)| (name.to_ascii_lowercase(), value);
        values.extend(listed.into_iter().map(lower));
    }
    for (column, name) in names.iter().enumerate() {
        values.push((name.clone(), value(column)?));
    }
    for (column, name) in guessed.iter().enumerate() {
        if let Some(value) = value(names.len() + column)? {
            values.push((name.clone(), Some(value)));
        }
    }
    Ok(values)
}

fn unhex(digits: &str) -> Option<String> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    String::from_utf8(pairs.map(byte).collect::<Option<_>>()?).ok()
}

fn unreadable() -> BindError {
    io::Error::from(io::ErrorKind::InvalidData).into()
}
