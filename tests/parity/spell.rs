//! Frames as lines of a transcript, with all that must be equal on both sides. Left out are a
//! message's place in PostgreSQL's source, keys of cancellation, and the numbers of objects that
//! were made by the scripts, which are told apart by order instead.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::harness::messages::Frame;

/// Object ids from here on belong to objects that somebody made (PostgreSQL's FirstNormalObjectId).
const MADE: u32 = 16_384;

/// Longer values are told by length and hash.
const VALUE_MAX: usize = 200;

/// What one dialog has met so far.
#[derive(Default)]
pub struct Speller {
    made: BTreeMap<u32, usize>,
    /// Sessions by the process id they were told.
    pub pids: BTreeMap<i32, char>,
}

struct Reader<'body>(&'body [u8]);

impl<'body> Reader<'body> {
    fn take(&mut self, count: usize) -> &'body [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn u16(&mut self) -> u16 {
        self.take(2).try_into().map_or(0, u16::from_be_bytes)
    }

    fn u32(&mut self) -> u32 {
        self.take(4).try_into().map_or(0, u32::from_be_bytes)
    }

    fn text(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let text = self.take(end).escape_ascii().to_string();
        self.take(1);
        text
    }
}

fn value(bytes: &[u8]) -> String {
    if bytes.len() > VALUE_MAX {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        return format!("<{} bytes {:x}>", bytes.len(), hasher.finish());
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

impl Speller {
    pub fn spell(&mut self, frame: &Frame) -> String {
        let tag = char::from(frame.tag);
        let mut body = Reader(&frame.body);
        let inside = match frame.tag {
            b'K' => return "K".to_owned(),
            b'R' => body.u32().to_string(),
            b'E' | b'N' => fields(body.0),
            b'S' => format!("{}={}", body.text(), body.text()),
            b'C' => body.text(),
            b'T' => self.columns(&mut body),
            b't' => {
                let count = body.u16();
                (0..count).map(|_| self.oid(body.u32())).collect::<Vec<_>>().join(", ")
            }
            b'D' => row(&mut body),
            b'A' => {
                let pid = body.u32().cast_signed();
                let from = self.pids.get(&pid).copied().unwrap_or('?');
                format!("{from}: {} {}", body.text(), body.text())
            }
            _ => value(body.0),
        };
        format!("{tag} {inside}").trim_end().to_owned()
    }

    fn oid(&mut self, oid: u32) -> String {
        if oid < MADE {
            return oid.to_string();
        }
        let next = self.made.len() + 1;
        format!("#{}", self.made.entry(oid).or_insert(next))
    }

    fn columns(&mut self, body: &mut Reader<'_>) -> String {
        let mut columns = Vec::new();
        for _ in 0..body.u16() {
            let name = body.text();
            let table = self.oid(body.u32());
            let attribute = body.u16();
            let kind = self.oid(body.u32());
            let (size, modifier) = (body.u16().cast_signed(), body.u32().cast_signed());
            let format = body.u16();
            let column = format!("{name}({table}.{attribute} {kind} {size} {modifier} {format})");
            columns.push(column);
        }
        columns.join(" ")
    }
}

/// Fields of an error or a notice in their order.
fn fields(body: &[u8]) -> String {
    let fields = body.split(|byte| *byte == 0).filter(|field| !field.is_empty());
    let told = fields.filter(|field| !b"FLR".contains(&field[0]));
    told.map(value).collect::<Vec<_>>().join("|")
}

fn row(body: &mut Reader<'_>) -> String {
    let mut values = Vec::new();
    for _ in 0..body.u16() {
        values.push(match usize::try_from(body.u32().cast_signed()) {
            Ok(length) => value(body.take(length)),
            Err(_) => "NULL".to_owned(),
        });
    }
    values.join(" | ")
}
