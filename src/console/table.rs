//! Rows to messages: columns with PostgreSQL types, cells in text or binary form.

use bytes::{BufMut, BytesMut};
use pgwire::messages::data::{
    DataRow, FORMAT_CODE_BINARY, FORMAT_CODE_TEXT, FieldDescription, RowDescription,
};

/// The type of a column, with its OID and size in `pg_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Int4,
    Int8,
    Numeric,
}

impl Kind {
    fn oid(self) -> u32 {
        match self {
            Self::Text => 25,
            Self::Int4 => 23,
            Self::Int8 => 20,
            Self::Numeric => 1700,
        }
    }

    fn size(self) -> i16 {
        match self {
            Self::Text | Self::Numeric => -1,
            Self::Int4 => 4,
            Self::Int8 => 8,
        }
    }
}

/// Name and type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
}

/// A value; of the kind its column says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    Text(String),
    Int4(i32),
    Int8(i64),
    Numeric(u64),
    Null,
}

/// Columns, and rows that are made one by one as they are sent.
pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Box<dyn Iterator<Item = Vec<Cell>> + Send + Sync>,
}

/// The format of each result column as a Bind asks for it (PostgreSQL manual, 55.7): none means
/// text for all, one is for all, else there is one per column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Formats(Vec<i16>);

impl Formats {
    /// `None` if a code is unknown or their number fits no rule for that many columns.
    pub fn new(codes: Vec<i16>, columns: usize) -> Option<Self> {
        let known = |code: &i16| [FORMAT_CODE_TEXT, FORMAT_CODE_BINARY].contains(code);
        let fits = codes.len() <= 1 || codes.len() == columns;
        (fits && codes.iter().all(known)).then_some(Self(codes))
    }

    fn of(&self, place: usize) -> i16 {
        let code = if self.0.len() == 1 { self.0.first() } else { self.0.get(place) };
        code.copied().unwrap_or(FORMAT_CODE_TEXT)
    }
}

/// The message that announces `columns`.
pub fn description(columns: &[Column], formats: &Formats) -> RowDescription {
    let field = |(place, column): (usize, &Column)| {
        let kind = column.kind;
        let name = column.name.to_owned();
        FieldDescription::new(name, 0, 0, kind.oid(), kind.size(), -1, formats.of(place))
    };
    RowDescription::new(columns.iter().enumerate().map(field).collect())
}

/// The message of one row.
pub fn row(cells: &[Cell], formats: &Formats) -> DataRow {
    let mut data = BytesMut::new();
    for (place, cell) in cells.iter().enumerate() {
        let binary = formats.of(place) == FORMAT_CODE_BINARY;
        match cell {
            Cell::Null => data.put_i32(-1),
            Cell::Text(text) => put(&mut data, text.as_bytes()),
            Cell::Int4(number) if binary => put(&mut data, &number.to_be_bytes()),
            Cell::Int8(number) if binary => put(&mut data, &number.to_be_bytes()),
            Cell::Numeric(number) if binary => put(&mut data, &numeric(*number)),
            Cell::Numeric(number) => put(&mut data, number.to_string().as_bytes()),
            Cell::Int4(number) => put(&mut data, number.to_string().as_bytes()),
            Cell::Int8(number) => put(&mut data, number.to_string().as_bytes()),
        }
    }
    DataRow::new(data, i16::try_from(cells.len()).unwrap_or(i16::MAX))
}

/// A whole number as `numeric` goes over the wire in binary: digits to the base of 10,000 behind
/// their count, the weight of the first, sign and scale (PostgreSQL source, numeric_send).
fn numeric(mut value: u64) -> Vec<u8> {
    let mut digits = Vec::new();
    while value > 0 {
        digits.push((value % 10_000) as i16);
        value /= 10_000;
    }
    let weight = i16::try_from(digits.len()).unwrap_or(0).saturating_sub(1).max(0);
    // Zeros at the end are left out; the weight says how many.
    let digits: Vec<i16> = digits.into_iter().skip_while(|digit| *digit == 0).collect();
    let count = i16::try_from(digits.len()).unwrap_or(0);
    let head = [count, weight, 0, 0];
    head.into_iter().chain(digits.into_iter().rev()).flat_map(i16::to_be_bytes).collect()
}

fn put(data: &mut BytesMut, value: &[u8]) {
    data.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
    data.put_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_take_the_format_their_column_was_asked_in() {
        let cells = [Cell::Int4(7), Cell::Int8(-1), Cell::Text("é".to_owned()), Cell::Null];
        let text = row(&cells, &Formats::default());
        assert_eq!(&text.data[..], b"\0\0\0\x017\0\0\0\x02-1\0\0\0\x02\xc3\xa9\xff\xff\xff\xff");
        let mixed = row(&cells, &Formats::new(vec![1, 0, 1, 1], 4).unwrap());
        let wanted = b"\0\0\0\x04\0\0\0\x07\0\0\0\x02-1\0\0\0\x02\xc3\xa9\xff\xff\xff\xff";
        assert_eq!(&mixed.data[..], wanted);
        let binary = Formats::new(vec![1], 4).unwrap();
        assert_eq!(binary.of(3), FORMAT_CODE_BINARY);
    }

    #[test]
    fn whole_numbers_are_numeric_in_binary() {
        assert_eq!(numeric(0), [0; 8]);
        assert_eq!(numeric(7), [0, 1, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(numeric(10_000), [0, 1, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(numeric(120_003), [0, 2, 0, 1, 0, 0, 0, 0, 0, 12, 0, 3]);
    }

    #[test]
    fn formats_that_fit_no_rule_are_refused() {
        assert_eq!(Formats::new(vec![2], 3), None);
        assert_eq!(Formats::new(vec![0, 1], 3), None);
        assert!(Formats::new(vec![0, 1, 1], 3).is_some());
    }
}
