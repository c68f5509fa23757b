//! [`Diff`]: what an import would change, and the statements that change it.

use tokio_postgres::{Client, Error};

use super::sheet::{Column, Kind, Sheet};

/// Between a table and the rows of a file in `pg_temp.import`.
pub(super) struct Diff<'columns> {
    pub sheet: Sheet,
    /// Those that the file has.
    pub columns: &'columns [Column],
    /// Whether what the file does not have goes.
    pub delete: bool,
}

/// How many rows become what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub new: u64,
    pub changed: u64,
    pub gone: u64,
    pub same: u64,
    /// Of those that change: disabled tenants that would be let in, revoked credentials that would
    /// count.
    pub revived: u64,
}

impl Counts {
    /// All that change.
    pub fn all(self) -> u64 {
        self.new + self.changed + self.gone
    }

    /// A line for people.
    pub fn summary(self, sheet: Sheet) -> String {
        let Self { new, changed, gone, same, .. } = self;
        format!("{}: {new} new, {changed} changed, {gone} deleted, {same} as before", sheet.name())
    }
}

impl Diff<'_> {
    /// The rows of both sides, beside each other.
    fn sides(&self) -> String {
        let (ours, theirs) = (self.sheet.key("t"), self.sheet.key("i"));
        let join = if self.delete { "FULL" } else { "RIGHT" };
        format!(
            "tenantgate_catalog.{} t {join} JOIN pg_temp.import i ON ({ours}) = ({theirs})",
            self.sheet.name()
        )
    }

    fn list(&self, of: impl Fn(&Column) -> String, between: &str) -> String {
        self.columns.iter().map(of).collect::<Vec<_>>().join(between)
    }

    /// Whether the two sides of a row differ.
    fn differs(&self) -> String {
        self.list(|Column { name, .. }| format!("i.{name} IS DISTINCT FROM t.{name}"), " OR ")
    }

    /// Whether somebody who is kept out would be let in.
    fn revived(&self) -> &'static str {
        let has = |name| self.columns.iter().any(|column| column.name == name);
        match self.sheet {
            Sheet::Tenants if has("state") => "t.state = 'disabled' AND i.state <> 'disabled'",
            Sheet::Credentials if has("revoked_at") => {
                "t.revoked_at IS NOT NULL AND i.revoked_at IS NULL"
            }
            _ => "false",
        }
    }

    /// The question for the file's rows as they would be: the line, and each column as text.
    pub fn merged(&self) -> String {
        let has = |name: &str| self.columns.iter().any(|column| column.name == name);
        let value = |Column { name, kind }: &Column| match (has(name), kind) {
            (true, _) => format!("i.{name}::text"),
            (false, Kind::Else(usual)) => format!("coalesce(t.{name}::text, '{usual}')"),
            (false, Kind::Object) => format!("coalesce(t.{name}::text, '{{}}')"),
            (false, _) => format!("t.{name}::text"),
        };
        let values: Vec<String> = self.sheet.columns().iter().map(value).collect();
        let (sides, values) = (self.sides(), values.join(", "));
        format!("SELECT i.line, {values} FROM {sides} WHERE i.line IS NOT NULL ORDER BY 1")
    }

    pub async fn counts(&self, client: &Client) -> Result<Counts, Error> {
        let (sides, differs, revived) = (self.sides(), self.differs(), self.revived());
        let sql = format!(
            "SELECT count(*) FILTER (WHERE t.ctid IS NULL), \
             count(*) FILTER (WHERE t.ctid IS NOT NULL AND i.line IS NOT NULL AND ({differs})), \
             count(*) FILTER (WHERE i.line IS NULL), \
             count(*) FILTER (WHERE t.ctid IS NOT NULL AND i.line IS NOT NULL \
               AND NOT ({differs})), \
             count(*) FILTER (WHERE i.line IS NOT NULL AND ({revived})) FROM {sides}"
        );
        let row = client.query_one(&sql, &[]).await?;
        let count = |at| row.try_get::<_, i64>(at).map(|it| u64::try_from(it).unwrap_or_default());
        let (new, changed, gone, same) = (count(0)?, count(1)?, count(2)?, count(3)?);
        Ok(Counts { new, changed, gone, same, revived: count(4)? })
    }

    /// A line for each row that changes, in the order of keys: `+` for a new one, `-` for one that
    /// goes, `~` for one that is another. Secrets are not shown.
    pub async fn lines(&self, client: &Client, most: u32) -> Result<Vec<String>, Error> {
        let new = |Column { name, kind }: &Column| match kind {
            Kind::Secret => format!("CASE WHEN i.{name} IS NOT NULL THEN '{name} ***' END"),
            Kind::Object | Kind::Flag | Kind::Else(_) => {
                let usual = match kind {
                    Kind::Else(value) => value,
                    Kind::Flag => "false",
                    _ => "{}",
                };
                format!(
                    "CASE WHEN i.{name}::text <> '{usual}' THEN '{name} ' || i.{name}::text END"
                )
            }
            // It stands in front already.
            _ if *name == "id" => "NULL".to_owned(),
            Kind::Text | Kind::List => format!("'{name} ' || i.{name}::text"),
        };
        let changed = |Column { name, kind }: &Column| {
            let what = match kind {
                Kind::Secret => "'***'".to_owned(),
                _ => format!(
                    "coalesce(t.{name}::text, '(none)') || ' -> ' || \
                     coalesce(i.{name}::text, '(none)')"
                ),
            };
            format!("CASE WHEN i.{name} IS DISTINCT FROM t.{name} THEN '{name} ' || {what} END")
        };
        let (ours, theirs) = (self.sheet.key("t"), self.sheet.key("i"));
        let sql = format!(
            "SELECT CASE WHEN t.ctid IS NULL THEN '+' WHEN i.line IS NULL THEN '-' ELSE '~' END, \
             coalesce({ours}, {theirs}), \
             CASE WHEN t.ctid IS NULL THEN concat_ws(', ', {}) \
               WHEN i.line IS NULL THEN '' ELSE concat_ws(', ', {}) END \
             FROM {} WHERE t.ctid IS NULL OR i.line IS NULL OR {} ORDER BY 2 LIMIT {most}",
            self.list(new, ", "),
            self.list(changed, ", "),
            self.sides(),
            self.differs()
        );
        let rows = client.query(&sql, &[]).await?;
        let line = |row: &tokio_postgres::Row| -> Result<String, Error> {
            let [sign, key, what]: [String; 3] =
                [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?];
            let line = format!("{sign} {key:<24} {what}");
            let safe = |letter: char| match letter.is_control() {
                true => letter.escape_default().to_string(),
                false => letter.to_string(),
            };
            Ok(line.trim_end().chars().map(safe).collect())
        };
        rows.iter().map(line).collect()
    }

    /// The statements that make the table what the file says. Rows that are as they were are not
    /// touched, so no gate reads them again.
    pub fn apply(&self) -> String {
        let table = format!("tenantgate_catalog.{}", self.sheet.name());
        let (ours, theirs) = (self.sheet.key("t"), self.sheet.key("i"));
        let names = self.list(|Column { name, .. }| (*name).to_owned(), ", ");
        let values = self.list(|Column { name, .. }| format!("i.{name}"), ", ");
        let set = self.list(|Column { name, .. }| format!("{name} = i.{name}"), ", ");
        let differs = self.differs();
        let gone = match self.delete {
            true => format!(
                "DELETE FROM {table} t WHERE NOT EXISTS \
                 (SELECT FROM pg_temp.import i WHERE ({theirs}) = ({ours})); "
            ),
            false => String::new(),
        };
        format!(
            "{gone}UPDATE {table} t SET {set} FROM pg_temp.import i \
             WHERE ({ours}) = ({theirs}) AND ({differs}); \
             INSERT INTO {table} ({names}) SELECT {values} FROM pg_temp.import i WHERE NOT EXISTS \
             (SELECT FROM {table} t WHERE ({ours}) = ({theirs})) ORDER BY i.line"
        )
    }
}
