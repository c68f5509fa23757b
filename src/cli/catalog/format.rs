//! The files: CSV with a line of names at the top, or an object of JSON on each line.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::value::RawValue;

use super::ends::{Ends, Found};
use super::sheet::{Column, Sheet};
use crate::cli::Failure;
use crate::spelling;

/// Longest line of JSON; `attributes` may be of any length.
const LINE_BYTES_MAX: u64 = 64 << 20;

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

/// A file that is written, and takes its place when it is whole. Only its owner may read it: there
/// are hashes and passwords in it. `-` stands for the standard output.
pub(super) struct Target {
    out: Box<dyn Write>,
    /// The file, by the name it has meanwhile and by its own.
    file: Option<(File, PathBuf, PathBuf)>,
}

impl Target {
    pub fn create(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { out: Box::new(BufWriter::new(io::stdout().lock())), file: None });
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let out = Box::new(BufWriter::new(file.try_clone()?));
        Ok(Self { out, file: Some((file, new, path.to_owned())) })
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Puts the file in its place.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()?;
        if let Some((file, new, path)) = &self.file {
            file.sync_all()?;
            fs::rename(new, path)?;
        }
        Ok(())
    }
}

/// The rows of a file, one after the other.
pub(super) struct Rows<R> {
    sheet: Sheet,
    source: Source<R>,
    /// Those of the sheet that the file has.
    pub columns: Vec<Column>,
    /// On which line it says so.
    pub names_at: u64,
}

enum Source<R> {
    Csv(Box<csv::StringRecordsIntoIter<Ends<R>>>, Found),
    Jsonl { lines: Lines<R>, first: Option<(u64, Fields)> },
}

impl Rows<File> {
    /// Opens a file; its length as well.
    pub fn open(path: &Path) -> io::Result<(File, u64)> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    }
}

/// An object's values by name.
type Fields = BTreeMap<String, Box<RawValue>>;

/// Lines of JSON that are not empty.
struct Lines<R> {
    source: BufReader<R>,
    line: u64,
}

impl<R: Read> Lines<R> {
    fn next(&mut self) -> Result<Option<(u64, Fields)>, Wrong> {
        loop {
            self.line += 1;
            let line = self.line;
            let wrong = |message| Wrong { line, message };
            let mut text = String::new();
            let read = self.source.by_ref().take(LINE_BYTES_MAX).read_line(&mut text);
            match read.map_err(|error| wrong(error.to_string()))? {
                0 => return Ok(None),
                read if read as u64 == LINE_BYTES_MAX => {
                    return Err(wrong(format!("a line of {LINE_BYTES_MAX} bytes or more")));
                }
                _ if text.trim().is_empty() => {}
                _ => {
                    let fields = serde_json::from_str(&text);
                    let fields = fields.map_err(|error: serde_json::Error| {
                        // What was found in the place of an object may be a password.
                        let why =
                            if error.is_data() { String::new() } else { format!(": {error}") };
                        wrong(format!("not an object{why}"))
                    })?;
                    return Ok(Some((line, fields)));
                }
            }
        }
    }
}

impl<R: Read> Rows<R> {
    /// Reads what columns a file has: those in the first line of a CSV file, or those of the first
    /// object.
    pub fn new(source: R, format: Format, sheet: Sheet) -> Result<Self, Wrong> {
        let mut columns: Vec<Column> = Vec::new();
        let mut names_at = 1;
        let source = match format {
            Format::Csv => {
                let (source, ends) = Ends::of(source);
                let mut reader = csv::ReaderBuilder::new().from_reader(source);
                let wrong = |error: csv::Error| Wrong { line: 1, message: unread(&error) };
                for name in reader.headers().map_err(wrong)? {
                    let wrong = |message| Wrong { line: 1, message };
                    let name = name.trim_start_matches('\u{feff}');
                    let column = named(sheet, name).map_err(wrong)?;
                    if columns.iter().any(|earlier| earlier.name == column.name) {
                        return Err(wrong(format!("column \"{name}\" stands here twice")));
                    }
                    columns.push(column);
                }
                if columns.is_empty() {
                    let message = "there is no line of names".to_owned();
                    return Err(Wrong { line: 1, message });
                }
                Source::Csv(Box::new(reader.into_records()), ends)
            }
            Format::Jsonl => {
                let mut lines = Lines { source: BufReader::new(source), line: 0 };
                let first = lines.next()?;
                // A file without rows says nothing of columns.
                columns = sheet.columns().to_vec();
                if let Some((line, fields)) = &first {
                    names_at = *line;
                    let wrong = |message| Wrong { line: *line, message };
                    let known = fields.keys().map(|name| named(sheet, name).map_err(wrong));
                    known.collect::<Result<Vec<_>, _>>()?;
                    columns.retain(|column| fields.contains_key(column.name));
                }
                Source::Jsonl { lines, first }
            }
        };
        Ok(Self { sheet, source, columns, names_at })
    }

    /// A line's object, which has what the first one had and nothing else: a key that is left out
    /// would have to mean two things, "empty" and "as it is".
    fn json(&self, line: u64, fields: &Fields) -> Result<Row, Wrong> {
        let wrong = |message: String| Wrong { line, message };
        for name in fields.keys() {
            named(self.sheet, name).map_err(wrong)?;
            if !self.columns.iter().any(|column| column.name == name) {
                return Err(wrong(format!(
                    "{name} is not in the first object; all have the same keys"
                )));
            }
        }
        let value = |column: &Column| {
            let name = column.name;
            let value = fields.get(name);
            let value = value.ok_or_else(|| {
                wrong(format!("{name} is missing; all objects have the same keys"))
            })?;
            column.of_json(value).map_err(|unfit| wrong(format!("{name}: {unfit}")))
        };
        Ok((line, self.columns.iter().map(value).collect::<Result<_, _>>()?))
    }
}

impl<R: Read> Iterator for Rows<R> {
    type Item = Result<Row, Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        let columns = &self.columns;
        match &mut self.source {
            Source::Csv(records, ends) => {
                let place = |position: Option<&csv::Position>| {
                    position.map_or(0, |it| it.line() + ends.lines_from(it.byte()))
                };
                let record = match records.next()? {
                    Ok(record) => record,
                    Err(error) => {
                        let (line, message) = (place(error.position()), unread(&error));
                        return Some(Err(Wrong { line, message }));
                    }
                };
                let line = place(record.position());
                let value = |(column, text): (&Column, &str)| {
                    let wrong =
                        |unfit| Wrong { line, message: format!("{}: {unfit}", column.name) };
                    column.of_text(text).map_err(wrong)
                };
                let values = columns.iter().zip(&record).map(value).collect::<Result<_, _>>();
                Some(values.map(|values| (line, values)))
            }
            Source::Jsonl { lines, first } => {
                let found = first.take().map_or_else(|| lines.next(), |first| Ok(Some(first)));
                match found.transpose()? {
                    Ok((line, fields)) => Some(self.json(line, &fields)),
                    Err(wrong) => Some(Err(wrong)),
                }
            }
        }
    }
}

/// What the reader of CSV says, without the place, which stands in front.
fn unread(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("it has {len} fields, and the line of names {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
        _ => error.to_string(),
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

            {"id": "b\nb", "isolation": "silo", "cluster": "m,n", "schema": null, "overrides": null}"#
            .replace('@', r#""schema": "app", "overrides": {"clients": 5}"#);
        let csv = read(csv.as_bytes(), Format::Csv, Sheet::Tenants).unwrap();
        let jsonl = read(jsonl.as_bytes(), Format::Jsonl, Sheet::Tenants).unwrap();
        let of = |row: &Row, at: usize| row.1[at].clone();
        for (csv, jsonl) in csv.iter().zip(&jsonl) {
            for at in 0..5 {
                assert_eq!(of(csv, at), of(jsonl, at));
            }
        }
        assert_eq!((csv.len(), csv[1].0, jsonl[1].0), (2, 3, 3));
        assert_eq!(csv[0].1[4].as_deref(), Some(r#"{"clients": 5}"#));
        assert_eq!(csv[1].1[4].as_deref(), Some("{}"), "an empty field has the default");
        let long = r#"{"attributes": {"a": 12345678901234567890123, "b": 1e400}}"#;
        let rows = read(long.as_bytes(), Format::Jsonl, Sheet::Tenants).unwrap();
        let kept = r#"{"a": 12345678901234567890123, "b": 1e400}"#;
        assert_eq!(rows[0].1[0].as_deref(), Some(kept), "no number is made shorter");
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
        assert_eq!(csv("id,cluster\na\n"), "2: it has 1 fields, and the line of names 2");
        let crlf = "id,overrides\r\na,{}\r\n\r\n\r\nb,[]\r\nc,{}\r\n";
        assert_eq!(csv(crlf), "5: overrides: not a JSON object");
        let lf = crlf.replace('\r', "");
        let wrong_lf = wrong(&lf, Format::Csv, Sheet::Tenants);
        assert_eq!(wrong_lf, "5: overrides: not a JSON object");
        let quoted = "id,overrides\r\n\"a\r\nb\",{}\r\nb,[]";
        assert_eq!(csv(quoted), "4: overrides: not a JSON object");
        assert_eq!(csv("id,overrides\r\na,{}\r\nb"), "3: it has 1 fields, and the line of names 2");
        assert_eq!(csv(""), "1: there is no line of names");
        let json = |text| wrong(text, Format::Jsonl, Sheet::Credentials);
        assert_eq!(json("\n{\"kind\": 1}"), "2: kind: not a text");
        assert_eq!(json("{\"read_only\": \"yes\"}"), "1: read_only: not true or false");
        assert_eq!(json("{\"acts_for\": [1]}"), "1: acts_for: not a JSON array of texts");
        let less = "{\"kind\": \"token\", \"name\": \"a\"}\n{\"kind\": \"token\"}";
        assert_eq!(json(less), "2: name is missing; all objects have the same keys");
        let more = "{\"kind\": \"token\"}\n{\"kind\": \"token\", \"name\": \"a\"}";
        assert_eq!(json(more), "2: name is not in the first object; all have the same keys");
        assert!(json("[]").starts_with("1: not an object"));
        assert!(json("{\"id\": 1}").contains("has no column \"id\""));
    }

    #[test]
    fn lists_are_written_as_postgresql_reads_them() {
        let text = r#"{"acts_for": ["a", "b\"\\,{}", "null"]}"#;
        let rows = read(text.as_bytes(), Format::Jsonl, Sheet::Credentials).unwrap();
        assert_eq!(rows[0].1[0].as_deref(), Some(r#"{"a","b\"\\,{}","null"}"#));
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
