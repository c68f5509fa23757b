//! Scripts of the corpus, `tests/protocol/corpus/`: a file is a room; README.md has the notation.

use std::fs;
use std::path::Path;

use crate::harness::messages;

/// One dialog, the same to whomever it is held with.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub room: String,
    pub name: String,
    /// Isolations whose tenants may do all of it.
    pub on: Vec<String>,
    /// SQLSTATEs of the errors that PostgreSQL answers with, in order.
    pub errors: Vec<String>,
    /// How many of its sessions hold a server at the same time.
    pub servers: usize,
    pub steps: Vec<Step>,
}

/// A line of a script.
#[derive(Clone, Debug)]
pub struct Step {
    pub session: char,
    /// As written, shortened.
    pub line: String,
    pub act: Act,
}

#[derive(Clone, Debug)]
pub enum Act {
    /// Start-up parameters of the session, which is opened now.
    Start(Vec<(String, String)>),
    /// Into the write that goes out next.
    Put(Vec<u8>),
    /// The same, and ReadyForQuery is due; `true` sends and reads it.
    Ask(Vec<u8>, bool),
    /// Ends COPY data; ReadyForQuery is due if a Query began it.
    CopyEnd(Vec<u8>),
    /// Flush; reads an answer to each message.
    Flush(Vec<u8>),
    /// Sends what was put.
    Send,
    /// Sends, and reads so many ReadyForQuery.
    Await(usize),
    /// Reads up to and with a message of this tag.
    Read(u8),
    /// Sends, and reads to the end of the connection.
    Closed(Vec<u8>),
    /// From here on the sessions hold their servers.
    Pinned,
    /// No more.
    Free,
}

/// All scripts, by file and in order.
pub fn corpus() -> Vec<Script> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protocol/corpus");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|it| it.extension().is_some_and(|it| it == "txt")).collect();
    files.sort();
    let mut scripts = Vec::new();
    for file in files {
        let room = file.file_stem().unwrap().to_str().unwrap();
        scripts.extend(parse(room, &fs::read_to_string(&file).unwrap()));
    }
    scripts
}

/// The scripts of one file.
pub fn parse(room: &str, text: &str) -> Vec<Script> {
    let mut scripts: Vec<Script> = Vec::new();
    for (number, line) in logical_lines(text) {
        let place = format!("{room}.txt:{number}: {line}");
        if let Some(name) = line.strip_prefix("== ") {
            scripts.push(Script {
                room: room.to_owned(),
                name: name.trim().to_owned(),
                on: vec!["silo".to_owned(), "schema".to_owned()],
                servers: 1,
                ..Script::default()
            });
            continue;
        }
        let script = scripts.last_mut().unwrap_or_else(|| panic!("{place}: before any =="));
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        match line.split_once(": ").map_or(("", ""), |(head, rest)| (head, rest)) {
            ("on", rest) => script.on = words(rest),
            ("errors", rest) => script.errors = words(rest),
            ("servers", rest) => script.servers = rest.trim().parse().expect(&place),
            _ => {
                script.steps.push(step(&line).unwrap_or_else(|| panic!("{place}: not understood")))
            }
        }
    }
    scripts
}

/// Lines without comments and blank ones; what is indented belongs to the line above.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(more) = line.strip_prefix("    ") {
            let (_, last) = lines.last_mut().expect("a line above");
            last.push('\n');
            last.push_str(more);
        } else if !line.is_empty() && !line.starts_with('#') {
            lines.push((number + 1, line.to_owned()));
        }
    }
    lines
}

fn step(line: &str) -> Option<Step> {
    let (session, rest) = match line.as_bytes() {
        [session, b'>', b' ', ..] => (char::from(*session), &line[3..]),
        _ => ('a', line),
    };
    let short = if line.len() > 300 { format!("{}…", line.get(..300)?) } else { line.to_owned() };
    let (head, text) = match rest.split_once(':') {
        Some((head, text)) => (head, text.strip_prefix(' ').unwrap_or(text)),
        None => (rest, ""),
    };
    let mut words = head.split_whitespace();
    let verb = words.next()?;
    let words: Vec<&str> = words.collect();
    Some(Step { session, line: short, act: act(verb, &words, &expanded(text))? })
}

/// `{{x*1000}}` is a thousand times x.
fn expanded(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("{{") {
        let (inner, after) = behind.split_once("}}").expect("}} behind {{");
        let (what, count) = inner.rsplit_once('*').expect("{{text*count}}");
        out.push_str(before);
        out.push_str(&what.repeat(count.parse().expect("a count")));
        rest = after;
    }
    out.push_str(rest);
    out
}

fn act(verb: &str, words: &[&str], text: &str) -> Option<Act> {
    let kind = |word: Option<&&str>| word.map_or(b'P', |word| word.as_bytes()[0]);
    let second = named(words.get(1).copied());
    Some(match verb {
        "start" => Act::Start(parameters(text)),
        "Q" => Act::Ask(messages::query(text), true),
        "Q+" => Act::Ask(messages::query(text), false),
        "P" => Act::Put(parse_message(words, text)),
        "B" => Act::Put(bind_message(words, text)),
        "D" => Act::Put(messages::describe(kind(words.first()), second)),
        "C" => Act::Put(messages::close(kind(words.first()), second)),
        "E" => {
            let rows = words.get(1).map_or(Some(0), |rows| rows.parse().ok())?;
            Act::Put(messages::execute(named(words.first().copied()), rows))
        }
        "S" => Act::Ask(messages::sync(), true),
        "S+" => Act::Ask(messages::sync(), false),
        "H" => Act::Flush(messages::flush()),
        "F" => Act::Ask(call_message(words, text), true),
        "copy" => Act::Put(messages::copy_data(&[&unescaped(text)[..], b"\n"].concat())),
        "copyraw" => Act::Put(messages::copy_data(&unescaped(text))),
        "copydone" => Act::CopyEnd(messages::copy_done()),
        "copyfail" => Act::CopyEnd(messages::copy_fail(text)),
        "raw" => Act::Put(messages::frame(kind(words.first()), &unescaped(text))),
        "raw+" => Act::Ask(messages::frame(kind(words.first()), &unescaped(text)), true),
        "send" => Act::Send,
        "await" => Act::Await(words.first().map_or(Some(1), |count| count.parse().ok())?),
        "read" => Act::Read(kind(words.first())),
        "X" => Act::Closed(messages::terminate()),
        "closed" => Act::Closed(Vec::new()),
        "pinned" => Act::Pinned,
        "free" => Act::Free,
        _ => return None,
    })
}

/// `-` is the name without letters.
fn named(word: Option<&str>) -> &str {
    word.filter(|word| *word != "-").unwrap_or_default()
}

fn parameters(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(';').map(str::trim).filter(|pair| !pair.is_empty());
    let split = |pair: &str| {
        let (name, value) = pair.split_once('=').expect("name=value");
        (name.to_owned(), value.to_owned())
    };
    pairs.map(split).collect()
}

/// The numbers of a word such as `types=23,25`.
fn numbers(words: &[&str], key: &str) -> Vec<u32> {
    let found = words.iter().find_map(|word| word.strip_prefix(key));
    let list = found.into_iter().flat_map(|list| list.split(','));
    list.map(|number| number.parse().expect("a number")).collect()
}

/// The words that are no `key=value`.
fn names<'words>(words: &[&'words str]) -> Vec<&'words str> {
    words.iter().filter(|word| !word.contains('=')).copied().collect()
}

/// `P [statement] [types=OID,…]: text`
fn parse_message(words: &[&str], text: &str) -> Vec<u8> {
    let mut body = with_nul(named(names(words).first().copied()));
    body.extend(with_nul(text));
    let types = numbers(words, "types=");
    body.extend(count(types.len()));
    types.iter().for_each(|oid| body.extend(oid.to_be_bytes()));
    messages::frame(b'P', &body)
}

/// `B [portal statement] [in=0,1] [out=1]: value | NULL | \x00`
fn bind_message(words: &[&str], text: &str) -> Vec<u8> {
    let names = names(words);
    let mut body = with_nul(named(names.first().copied()));
    body.extend(with_nul(named(names.get(1).copied())));
    body.extend(formats(&numbers(words, "in=")));
    body.extend(values(text));
    body.extend(formats(&numbers(words, "out=")));
    messages::frame(b'B', &body)
}

/// `F OID [in=…] [out=0]: value | …`
fn call_message(words: &[&str], text: &str) -> Vec<u8> {
    let oid: u32 = words[0].parse().expect("the function's OID");
    let mut body = oid.to_be_bytes().to_vec();
    body.extend(formats(&numbers(words, "in=")));
    body.extend(values(text));
    let out = numbers(words, "out=").first().copied().unwrap_or(0);
    body.extend(u16::try_from(out).unwrap().to_be_bytes());
    messages::frame(b'F', &body)
}

fn formats(list: &[u32]) -> Vec<u8> {
    let mut bytes = count(list.len());
    list.iter().for_each(|one| bytes.extend(u16::try_from(*one).unwrap().to_be_bytes()));
    bytes
}

fn values(text: &str) -> Vec<u8> {
    let text = text.trim();
    let list: Vec<&str> =
        if text.is_empty() { vec![] } else { text.split('|').map(str::trim).collect() };
    let mut bytes = count(list.len());
    for value in list {
        if value == "NULL" {
            bytes.extend((-1_i32).to_be_bytes());
            continue;
        }
        let value = if value == "''" { vec![] } else { unescaped(value) };
        bytes.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend(value);
    }
    bytes
}

fn count(length: usize) -> Vec<u8> {
    u16::try_from(length).unwrap().to_be_bytes().to_vec()
}

fn with_nul(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// `⟨00ff⟩` are two bytes; everything else is itself.
fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('⟨') {
        let (hex, after) = behind.split_once('⟩').expect("⟩ behind ⟨");
        out.extend_from_slice(before.as_bytes());
        for pair in hex.as_bytes().chunks(2) {
            out.push(u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
        }
        rest = after;
    }
    out.extend_from_slice(rest.as_bytes());
    out
}
