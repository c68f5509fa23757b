//! [`Step`] and [`Deed`]: what install does, as SQL that says for itself whether it is still to be
//! done. The same list is printed for psql and applied over a connection.

use std::fmt::Write;

use crate::isolation::{Level, quote};

/// One line of the report: deeds that are done together or not at all.
pub(super) struct Step {
    pub(super) what: String,
    /// Why, as the printed form says it; lines without the marks of a comment.
    pub(super) why: &'static str,
    /// The lowest level that cannot be had without it.
    pub(super) level: Level,
    /// What it did, unless something was there already and is another now.
    pub(super) verb: &'static str,
    /// An expression: whether something is there already.
    pub(super) there: Option<String>,
    /// Whether there are keys in its texts, which shall not get into the server's log.
    pub(super) secret: bool,
    /// Whether nothing behind it may be done when it is refused.
    pub(super) first: bool,
    pub(super) deeds: Vec<Deed>,
}

/// One thing to do, unless it is done.
pub(super) enum Deed {
    /// A statement, and an expression that is true when it is done. One that may be run again is
    /// printed as it is.
    Text { sql: String, done: String, again: bool },
    /// A SELECT of the statements that are still to be run, one a row.
    Query(String),
}

impl Step {
    pub(super) fn new(what: impl Into<String>, level: Level, why: &'static str) -> Self {
        let (verb, secret, first) = ("created", false, false);
        let (there, deeds) = (None, Vec::new());
        Self { what: what.into(), why, level, verb, there, secret, first, deeds }
    }

    /// A statement that fails when it is run a second time.
    pub(super) fn once(self, sql: impl Into<String>, done: impl Into<String>) -> Self {
        self.text(sql.into(), done.into(), false)
    }

    /// A statement that may be run again.
    pub(super) fn again(self, sql: impl Into<String>, done: impl Into<String>) -> Self {
        self.text(sql.into(), done.into(), true)
    }

    pub(super) fn query(mut self, select: impl Into<String>) -> Self {
        self.deeds.push(Deed::Query(select.into()));
        self
    }

    pub(super) fn verb(mut self, verb: &'static str) -> Self {
        self.verb = verb;
        self
    }

    pub(super) fn there(mut self, there: String) -> Self {
        self.there = Some(there);
        self
    }

    pub(super) fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(super) fn first(mut self) -> Self {
        self.first = true;
        self
    }

    fn text(mut self, sql: String, done: String, again: bool) -> Self {
        self.deeds.push(Deed::Text { sql, done, again });
        self
    }

    /// As psql takes it.
    pub(super) fn print(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n-- {}", self.what);
        for line in self.why.lines() {
            let _ = writeln!(out, "-- {line}");
        }
        let unlogged = if self.secret { UNLOGGED } else { "" };
        let _ = write!(out, "{unlogged}");
        for deed in &self.deeds {
            match deed {
                Deed::Text { sql, again: true, .. } => writeln!(out, "{sql};"),
                _ => writeln!(out, "{}\n\\gexec", deed.select()),
            }
            .unwrap_or_default();
        }
        if self.secret {
            let _ = writeln!(out, "COMMIT;");
        }
    }
}

/// Keeps a transaction's statements out of the server's log. Only superusers may.
pub(super) const UNLOGGED: &str = "BEGIN;\n\
    SELECT pg_catalog.set_config(name, value, true)\n  \
    FROM (VALUES ('log_statement', 'none'), ('log_min_duration_statement', '-1'),\n    \
    ('log_min_duration_sample', '-1'), ('log_min_error_statement', 'panic')) quiet(name, value)\n  \
    WHERE pg_catalog.current_setting('is_superuser') = 'on' \\g /dev/null\n";

impl Deed {
    /// A SELECT of what is still to be run; no row when all is done.
    pub(super) fn select(&self) -> String {
        match self {
            Self::Text { sql, done, .. } => {
                let sql = dollar(sql);
                format!("SELECT {sql}\n  WHERE ({done}) IS NOT TRUE")
            }
            Self::Query(select) => select.clone(),
        }
    }
}

/// A string constant that a person can read, where that is possible.
fn dollar(text: &str) -> String {
    if text.contains("$sql$") {
        return quote::literal(text);
    }
    let end = if text.ends_with('$') { "\n" } else { "" };
    format!("$sql${text}{end}$sql$")
}
