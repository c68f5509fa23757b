//! [`Field`]: a column and how a row fills it; a table of the console is a list of these.

use crate::console::table::{Cell, Column, Kind, Table};

/// A column and how a row fills it.
pub struct Field<R: 'static> {
    pub column: Column,
    pub cell: fn(&R) -> Cell,
}

/// The table of these rows.
pub fn filled<R: Send + Sync + 'static>(fields: &'static [Field<R>], rows: Vec<R>) -> Table {
    joined(fields, &[], rows)
}

/// The same where several tables have some of their columns in common.
pub fn joined<R: Send + Sync + 'static>(
    first: &'static [Field<R>],
    then: &'static [Field<R>],
    rows: Vec<R>,
) -> Table {
    let fields = move || first.iter().chain(then);
    let columns = fields().map(|field| field.column).collect();
    let cells = move |row: R| fields().map(|field| (field.cell)(&row)).collect();
    Table { columns, rows: Box::new(rows.into_iter().map(cells)) }
}

/// A column of this name and type.
pub const fn field<R>(name: &'static str, kind: Kind, cell: fn(&R) -> Cell) -> Field<R> {
    Field { column: Column { name, kind }, cell }
}

/// A text.
pub fn text(value: &str) -> Cell {
    Cell::Text(value.to_owned())
}

/// Counts are int4 as in PgBouncer; what does not fit is shown as the largest that does.
pub fn count(value: u64) -> Cell {
    Cell::Int4(i32::try_from(value).unwrap_or(i32::MAX))
}

/// A count of its own size.
pub fn large(value: u64) -> Cell {
    Cell::Int8(i64::try_from(value).unwrap_or(i64::MAX))
}
