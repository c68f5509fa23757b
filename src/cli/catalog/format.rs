//! The files: CSV with a line of names at the top, or an object of JSON on each line.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use clap::ValueEnum;
use serde_json::{Map, Value};

use super::sheet::{Column, Sheet};
use crate::cli::Failure;
use crate::spelling;

/// Longest line of JSON. PostgreSQL's own limits on the columns are far below.
const LINE_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Csv,
    Jsonl,
}

/// A row of a file: where it begins, and the columns' texts in the order of [`Rows::columns`].
pub(super) type Row = (u64, Vec<Option<String>>);

/// What is wrong with a file, and on which line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub line: u64,
    pub message: String,
}

impl Format {
    /// As the file's name ends, unless something else was said.
    pub fn of(path: &Path, said: Option<Self>) -> Result<Self, Failure> {
        let ending = path.extension().and_then(|it| it.to_str());
        match (said, ending) {
            (Some(said), _) => Ok(said),
            (None, Some("csv")) => Ok(Self::Csv),
            (None, Some("jsonl")) => Ok(Self::Jsonl),
            (None, _) => Err(Failure::Usage(format!(
                "{} ends neither in .csv nor in .jsonl: say --format csv or --format jsonl",
                path.display()
            ))),
        }
    }
}

/// A file to write to, which only its owner may read: there are hashes and passwords in it. `-`
/// stands for the standard output.
pub(super) fn create(path: &Path) -> io::Result<Box<dyn Write>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufWriter::new(io::stdout().lock())));
    }
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    if file.metadata()?.is_file() {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(Box::new(BufWriter::new(file)))
}

/// The rows of a file, one after the other.
pub(super) struct Rows<R> {
    sheet: Sheet,
    source: Source<R>,
    /// Those of the sheet that the file has.
    pub columns: Vec<Column>,
}

enum Source<R> {
    Csv(Box<csv::StringRecordsIntoIter<R>>),
    Jsonl { lines: BufReader<R>, line: u64 },
}

impl Rows<File> {
    /// Opens a file; its length as well.
    pub fn open(path: &Path) -> io::Result<(File, u64)> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    }
}

impl<R: Read> Rows<R> {
    /// Reads the names of a CSV file's columns. JSON has all columns: what is not there is empty.
    pub fn new(source: R, format: Format, sheet: Sheet) -> Result<Self, Wrong> {
        if format == Format::Jsonl {
            let lines = BufReader::new(source);
            let columns = sheet.columns().to_vec();
            return Ok(Self { sheet, source: Source::Jsonl { lines, line: 0 }, columns });
        }
        let mut reader = csv::ReaderBuilder::new().from_reader(source);
        let wrong = |message| Wrong { line: 1, message };
        let names = reader.headers().map_err(|error| wrong(error.to_string()))?;
        let mut columns: Vec<Column> = Vec::new();
        for name in names {
            let name = name.trim_start_matches('\u{feff}');
            let column = named(sheet, name).map_err(wrong)?;
            if columns.iter().any(|earlier| earlier.name == column.name) {
                return Err(wrong(format!("column \"{name}\" stands here twice")));
            }
            columns.push(column);
        }
        let records = reader.into_records();
        Ok(Self { sheet, source: Source::Csv(Box::new(records)), columns })
    }

    fn json(&self, line: u64, text: &str) -> Result<Row, Wrong> {
        let wrong = |message: String| Wrong { line, message };
        let object: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| wrong(format!("not an object: {error}")))?;
        for name in object.keys() {
            named(self.sheet, name).map_err(wrong)?;
        }
        let value = |column: &Column| {
            let value = object.get(column.name).unwrap_or(&Value::Null);
            column.of_json(value).map_err(|unfit| wrong(format!("{}: {unfit}", column.name)))
        };
        Ok((line, self.columns.iter().map(value).collect::<Result<_, _>>()?))
    }
}

impl<R: Read> Iterator for Rows<R> {
    type Item = Result<Row, Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        let columns = &self.columns;
        match &mut self.source {
            Source::Csv(records) => {
                let record = match records.next()? {
                    Ok(record) => record,
                    Err(error) => {
                        let line = error.position().map_or(0, csv::Position::line);
                        return Some(Err(Wrong { line, message: error.to_string() }));
                    }
                };
                let line = record.position().map_or(0, csv::Position::line);
                let value = |(column, text): (&Column, &str)| {
                    let wrong =
                        |unfit| Wrong { line, message: format!("{}: {unfit}", column.name) };
                    column.of_text(text).map_err(wrong)
                };
                let values = columns.iter().zip(&record).map(value).collect::<Result<_, _>>();
                Some(values.map(|values| (line, values)))
            }
            Source::Jsonl { lines, line } => loop {
                *line += 1;
                let line = *line;
                let mut text = String::new();
                match lines.by_ref().take(LINE_BYTES_MAX).read_line(&mut text) {
                    Ok(0) => return None,
                    Ok(read) if read as u64 == LINE_BYTES_MAX => {
                        let message = format!("a line of {LINE_BYTES_MAX} bytes or more");
                        return Some(Err(Wrong { line, message }));
                    }
                    Ok(_) if text.trim().is_empty() => {}
                    Ok(_) => return Some(self.json(line, &text)),
                    Err(error) => return Some(Err(Wrong { line, message: error.to_string() })),
                }
            },
        }
    }
}

fn named(sheet: Sheet, name: &str) -> Result<Column, String> {
    let known = || sheet.columns().iter().map(|column| column.name);
    if let Some(column) = sheet.columns().iter().find(|column| column.name == name) {
        return Ok(*column);
    }
    let nearest = spelling::nearest(name, known());
    let meant = nearest.map(|name| format!(", did you mean \"{name}\"?")).unwrap_or_default();
    let columns = known().collect::<Vec<_>>().join(", ");
    let (name, table) = (name.escape_debug(), sheet.name());
    Err(format!("{table} has no column \"{name}\"{meant} It has {columns}.")
        .replace("\" It", "\". It"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], format: Format, sheet: Sheet) -> Result<Vec<Row>, Wrong> {
        Rows::new(text, format, sheet)?.take(1000).collect()
    }

    #[test]
    fn both_forms_say_the_same() {
        let csv = "id,isolation,cluster,schema,overrides\n\
                   acme,row,main,app,\"{\"\"clients\"\": 5}\"\n\"b\nb\",silo,\"m,n\",,\n";
        let jsonl = r#"{"id": "acme", "isolation": "row", "cluster": "main", @}

            {"id": "b\nb", "isolation": "silo", "cluster": "m,n", "schema": null}"#
            .replace('@', r#""schema": "app", "overrides": {"clients": 5}"#);
        let csv = read(csv.as_bytes(), Format::Csv, Sheet::Tenants).unwrap();
        let jsonl = read(jsonl.as_bytes(), Format::Jsonl, Sheet::Tenants).unwrap();
        let of = |row: &Row, at: usize| row.1[at].clone();
        for (csv, jsonl) in csv.iter().zip(&jsonl) {
            let in_csv: Vec<_> = (0..5).map(|at| of(csv, at)).collect();
            let in_json: Vec<_> = [0, 1, 2, 4, 8].map(|at| of(jsonl, at)).into();
            assert_eq!(in_csv, in_json);
        }
        assert_eq!(csv[0].1[4].as_deref(), Some(r#"{"clients":5}"#));
        assert_eq!((csv[1].0, jsonl[1].0), (3, 3));
        assert_eq!(jsonl[1].1[7].as_deref(), Some("active"), "what is not there has its default");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let wrong = |text: &str, format, sheet| {
            let wrong = read(text.as_bytes(), format, sheet).unwrap_err();
            format!("{}: {}", wrong.line, wrong.message)
        };
        let csv = |text| wrong(text, Format::Csv, Sheet::Tenants);
        assert!(csv("id,isolaton\n").starts_with(
            "1: tenants has no column \"isolaton\", did you mean \"isolation\"? It has id,"
        ));
        assert_eq!(csv("id,id\n"), "1: column \"id\" stands here twice");
        assert_eq!(csv("id,overrides\na,{}\nb,[]\n"), "3: overrides: not a JSON object");
        assert!(csv("id,cluster\na\n").starts_with("2: "), "{}", csv("id,cluster\na\n"));
        let json = |text| wrong(text, Format::Jsonl, Sheet::Credentials);
        assert_eq!(json("\n{\"kind\": 1}"), "2: kind: not a text");
        assert_eq!(json("{\"read_only\": \"yes\"}"), "1: read_only: not true or false");
        assert_eq!(json("{\"acts_for\": [1]}"), "1: acts_for: not a JSON array of texts");
        assert!(json("[]").starts_with("1: not an object"));
        assert!(json("{\"id\": 1}").contains("has no column \"id\""));
    }

    #[test]
    fn lists_are_written_as_postgresql_reads_them() {
        let text = r#"{"acts_for": ["a", "b\"\\,{}", "null"]}"#;
        let rows = read(text.as_bytes(), Format::Jsonl, Sheet::Credentials).unwrap();
        assert_eq!(rows[0].1[8].as_deref(), Some(r#"{"a","b\"\\,{}","null"}"#));
    }

    #[test]
    fn whatever_bytes_come_there_is_an_answer() {
        let mut random = fastrand::Rng::with_seed(20_261_122);
        let good = "id,isolation,cluster,overrides\nacme,row,main,\"{\"\"clients\"\": 5}\"\n\
                    {\"id\": \"acme\", \"acts_for\": [\"x\"], \"overrides\": {}}\n";
        for _ in 0..5_000 {
            let mut bytes = good.as_bytes().to_vec();
            for _ in 0..random.usize(0..8) {
                let at = random.usize(0..bytes.len());
                match random.u8(0..3) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, *random.choice(b"\",{}[]\n\\\0\xff").unwrap()),
                }
            }
            for format in [Format::Csv, Format::Jsonl] {
                for sheet in [Sheet::Tenants, Sheet::Credentials] {
                    if let Ok(rows) = read(&bytes, format, sheet) {
                        assert!(rows.len() <= bytes.len());
                    }
                }
            }
        }
    }
}
