//! The house rules that a machine can check: who may import whom, sizes, names, openings, and that
//! tables in `docs/` agree with the code. Every rule is itself tried on a sample that breaks it.

mod samples;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A room imports only from rows below its own; rooms on one row do not know each other.
pub const LAYERS: [&[&str]; 13] = [
    &["main"],
    &["cli"],
    &["demo"],
    &["gate"],
    &["config"],
    &["console"],
    &["client", "doctor"],
    &["auth", "pool"],
    &["catalog"],
    &["server"],
    &["net", "isolation", "guard", "budget"],
    &["error", "secret", "telemetry", "spelling"],
    &["wire"],
];

const FILE_LINES_MAX: usize = 500;
const COLUMNS_MAX: usize = 100;
const OWN_TESTS_LINES_MAX: usize = 150;
const FUNCTION_LINES_MAX: usize = 70;
/// Nobody may be longer than this, not even by exception.
const FUNCTION_LINES_CEILING: usize = 100;
const OPENING_LINES_MAX: usize = 5;
const FOLDER_ENTRIES_MAX: usize = 20;

/// Functions of more than 70 lines, as `path: name`, each a single table or match that would not
/// get clearer in pieces.
const LONG_FUNCTIONS: [&str; 0] = [];

/// Names that say nothing about what is inside.
const BANNED_NAMES: [&str; 9] =
    ["util", "utils", "common", "helper", "helpers", "misc", "types", "manager", "managers"];

/// A Rust file, and the same with comments and texts blanked out, so that words can be searched.
struct Source {
    path: String,
    text: String,
    code: String,
}

/// A broken rule, as it is printed.
type Finding = String;

#[test]
fn the_tree_keeps_the_house_rules() {
    let sources = sources();
    assert!(sources.len() > 20, "the search found too little: {} files", sources.len());
    let mut findings = Vec::new();
    for source in &sources {
        findings.extend(file_rules(source));
    }
    findings.extend(layering(&sources));
    findings.extend(crowded_folders(&root().join("src")));
    findings.extend(documents());
    assert!(findings.is_empty(), "{} broken:\n{}", findings.len(), findings.join("\n"));
}

fn file_rules(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(sizes(source));
    findings.extend(long_functions(source));
    findings.extend(opening(source));
    findings.extend(name(source));
    findings.extend(unfinished(source));
    if source.is_product() {
        findings.extend(statics(source));
        findings.extend(panics(source));
        findings.extend(timers(source));
    }
    findings
}

/// Which room imports which, and whether it may.
fn layering(sources: &[Source]) -> Vec<Finding> {
    let row = |room: &str| LAYERS.iter().position(|row| row.contains(&room));
    let mut findings = BTreeSet::new();
    for source in sources.iter().filter(|source| source.is_product()) {
        let Some(room) = source.room() else { continue };
        let Some(own) = row(room) else {
            findings.insert(format!("{}: room `{room}` has no row in the layers", source.path));
            continue;
        };
        for other in imports(source).into_iter().filter(|other| other != room) {
            // Anything else is an item that lib.rs itself exports.
            let Some(its) = row(&other) else { continue };
            if its <= own {
                findings.insert(format!("{}: `{room}` may not import `{other}`", source.path));
            }
        }
    }
    findings.into_iter().collect()
}

/// The first names after `crate::` (also in braces), after `tenantgate::` in main.rs, and after as
/// many `super::` as lead out of the room.
fn imports(source: &Source) -> BTreeSet<String> {
    let code = source.code_without_tests();
    let depth = source.path.matches('/').count() - usize::from(source.path.ends_with("/mod.rs"));
    let outward = "super::".repeat(depth);
    let mut found = BTreeSet::new();
    for prefix in ["crate::", "tenantgate::", &outward] {
        for (at, _) in code.match_indices(prefix) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if is_word(before) || before == ':' {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(group_heads(group)),
                None => found.extend(word(rest)),
            }
        }
    }
    found
}

/// The first word of each entry of `a, b::{c, d}, e}`, without those of inner braces.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut entry, mut heads) = (0, String::new(), Vec::new());
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.extend(word(&std::mem::take(&mut entry))),
            _ if depth == 0 => entry.push(character),
            _ => {}
        }
    }
    heads.extend(word(&entry));
    heads
}

fn sizes(source: &Source) -> Vec<Finding> {
    let Source { path, text, code } = source;
    let mut findings = Vec::new();
    let lines = source.code_without_tests().lines().filter(|line| !line.trim().is_empty()).count();
    if lines > FILE_LINES_MAX {
        findings.push(format!("{path}: {lines} lines of code, {FILE_LINES_MAX} are the limit"));
    }
    let own_tests = code.lines().count() - source.code_without_tests().lines().count();
    if source.is_product() && own_tests > OWN_TESTS_LINES_MAX {
        findings.push(format!(
            "{path}: {own_tests} lines of tests, above {OWN_TESTS_LINES_MAX} they move to tests.rs"
        ));
    }
    for (number, line) in text.lines().enumerate() {
        // A raw text cannot be broken without changing it.
        let breakable = !line.contains("r\"") && !line.contains("r#\"");
        if line.chars().count() > COLUMNS_MAX && breakable {
            findings.push(format!("{path}:{}: more than {COLUMNS_MAX} columns", number + 1));
        }
    }
    findings
}

fn long_functions(source: &Source) -> Vec<Finding> {
    let limit = if source.is_product() { FUNCTION_LINES_MAX } else { FUNCTION_LINES_CEILING };
    let mut findings = Vec::new();
    for (name, lines) in functions(&source.code) {
        let known = LONG_FUNCTIONS.contains(&format!("{}: {name}", source.path).as_str());
        if lines > limit && !(known && lines <= FUNCTION_LINES_CEILING) {
            findings.push(format!("{}: fn {name} has {lines} lines, {limit} allowed", source.path));
        }
    }
    findings
}

/// Name and length of every function with a body, by counting braces.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let Some(name) = word(&code[at + 3..]).filter(|_| !is_word(before)) else { continue };
        let (mut depth, mut lines, mut parens) = (0, 1, 0);
        for character in code[at..].chars() {
            match character {
                '\n' => lines += 1,
                '(' | '[' => parens += 1,
                ')' | ']' => parens -= 1,
                '{' => depth += 1,
                ';' if depth == 0 && parens == 0 => break,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        found.push((name, lines));
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    found
}

fn opening(source: &Source) -> Option<Finding> {
    let lines = source.text.lines().take_while(|line| line.starts_with("//!")).count();
    // lib.rs opens with the map of all rooms.
    let limit = if source.path == "src/lib.rs" { usize::MAX } else { OPENING_LINES_MAX };
    let path = &source.path;
    (lines == 0 || lines > limit).then(|| {
        format!("{path}: opens with {lines} lines of //!, 1 to {OPENING_LINES_MAX} are due")
    })
}

fn name(source: &Source) -> Option<Finding> {
    let mut parts = source.path.trim_end_matches(".rs").split('/');
    let banned = parts.find(|part| BANNED_NAMES.contains(part))?;
    Some(format!("{}: `{banned}` says nothing about what is inside", source.path))
}

/// Marks of work left for later, and code in comments.
fn unfinished(source: &Source) -> Vec<Finding> {
    let marks =
        ["TO", "FIX"].map(|start| start.to_owned() + if start == "TO" { "DO" } else { "ME" });
    let mut findings = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        let place = format!("{}:{}", source.path, number + 1);
        if let Some(mark) = marks.iter().find(|mark| line.contains(mark.as_str())) {
            findings.push(format!("{place}: {mark}; do it, or write an issue"));
        }
        let comment = line.trim().strip_prefix("// ").unwrap_or_default();
        if comment.ends_with(';') || comment.ends_with(" {") {
            findings.push(format!("{place}: code in a comment"));
        }
    }
    findings
}

fn statics(source: &Source) -> Vec<Finding> {
    let lazies = ["OnceLock", "LazyLock", "OnceCell", "LazyCell", "lazy_static", "thread_local!"];
    let code = source.code_without_tests();
    let mut findings = Vec::new();
    for line in code.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let item = words.iter().position(|word| *word == "static");
        let is_item = item.is_some_and(|at| words[..at].iter().all(|word| word.starts_with("pub")));
        if is_item || lazies.iter().any(|lazy| line.contains(lazy)) {
            findings.push(format!("{}: process-wide state: {}", source.path, line.trim()));
        }
    }
    findings
}

fn panics(source: &Source) -> Vec<Finding> {
    let banned = [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "dbg!("];
    let code = source.code_without_tests();
    let found = banned.into_iter().filter(|word| code.contains(word));
    found.map(|word| format!("{}: {word} outside of tests", source.path)).collect()
}

/// The workers' runtimes have no timers: what runs there asks the clock (`net/clock.rs`).
fn timers(source: &Source) -> Vec<Finding> {
    let rooms = ["client", "pool", "server", "budget"];
    // It is for programs, whose runtimes have timers; no worker calls it.
    if source.path.ends_with("server/program/mod.rs") {
        return Vec::new();
    }
    let banned = ["time::sleep", "time::timeout", "time::interval"];
    if !source.room().is_some_and(|room| rooms.contains(&room)) {
        return Vec::new();
    }
    let code = source.code_without_tests();
    let found = banned.into_iter().filter(|word| code.contains(word));
    found.map(|word| format!("{}: {word} where no timers are", source.path)).collect()
}

/// Folders with more entries than a reader takes in. The crate's two roots do not count.
fn crowded_folders(folder: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let roots = ["main.rs", "lib.rs"];
    let entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    let counted = entries.iter().filter(|path| !roots.iter().any(|root| path.ends_with(root)));
    let count = counted.count();
    if count > FOLDER_ENTRIES_MAX {
        findings.push(format!("{}: {count} entries", folder.display()));
    }
    for entry in entries.iter().filter(|path| path.is_dir()) {
        findings.extend(crowded_folders(entry));
    }
    findings
}

fn documents() -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(root().join(path)).ok();
    let mut findings = Vec::new();
    match read("CHANGELOG.md") {
        Some(text) if text.contains("\n## ") => {}
        _ => findings.push("CHANGELOG.md: missing, or without a section".to_owned()),
    }
    if let Some(table) = read("docs/errors.md") {
        let code =
            ["src/error/mod.rs", "src/error/budget.rs"].map(|path| read(path).unwrap()).concat();
        findings.extend(differing_errors(&code, &table));
    }
    if let Some(map) = read("docs/architecture.md") {
        findings.extend(missing_files(&map, &|path| root().join(path).exists()));
    }
    findings
}

/// `docs/errors.md` has a row per refusal: name, SQLSTATE, severity, side, and more.
fn differing_errors(code: &str, page: &str) -> Vec<Finding> {
    let full = |word: &str| match word {
        "E" => "ERROR".to_owned(),
        "F" => "FATAL".to_owned(),
        other => other.to_lowercase(),
    };
    let in_code = code.lines().filter_map(|line| {
        let tuple = line.split_once("=> (\"")?.1.split_once(')')?.0.replace('"', "");
        let mut parts = tuple.split(", ");
        let (name, state) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some([name, state, full(parts.next()?), full(parts.next()?)].join(" "))
    });
    let in_page = page.lines().filter_map(|line| {
        let cells: Vec<String> = line.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let [_, name, state, severity, side, ..] = cells.as_slice() else { return None };
        let is_state = state.len() == 5 && state.chars().any(|one| one.is_ascii_digit());
        is_state.then(|| format!("{name} {state} {severity} {side}"))
    });
    let (code, page): (BTreeSet<_>, BTreeSet<_>) = (in_code.collect(), in_page.collect());
    let lacks = code.difference(&page).map(|row| format!("docs/errors.md: lacks {row}"));
    let invents = page.difference(&code).map(|row| format!("docs/errors.md: invents {row}"));
    lacks.chain(invents).collect()
}

/// Rust files a page names between backticks that are neither below the root nor below `src/`.
fn missing_files(page: &str, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let named = page.split('`').skip(1).step_by(2);
    let files = named.filter(|name| name.ends_with(".rs") && !name.contains([' ', '*', '<']));
    files
        .filter(|name| !exists(name) && !exists(&format!("src/{name}")))
        .map(|name| format!("docs/architecture.md: {name} does not exist"))
        .collect()
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blanked(text) }
    }

    /// Whether the rules for the gate itself apply, and not only those for its tests.
    fn is_product(&self) -> bool {
        self.path.starts_with("src/") && !self.path.ends_with("tests.rs")
    }

    /// `client` for `src/client/relay.rs`, `error` for `src/error.rs`, nothing for lib.rs.
    fn room(&self) -> Option<&str> {
        let room = self.path.strip_prefix("src/")?.split('/').next()?;
        let room = room.trim_end_matches(".rs");
        (room != "lib").then_some(room)
    }

    /// The code up to the module of tests at its end. A module of tests in a file of its own is
    /// only declared, and ends nothing.
    fn code_without_tests(&self) -> &str {
        let mut modules = self.code.match_indices("#[cfg(test)]\nmod ");
        let inline = modules.find(|(at, start)| {
            let name = self.code[at + start.len()..].split_once([';', '{']);
            name.is_some_and(|(name, _)| name.ends_with(' '))
        });
        inline.map_or(self.code.as_str(), |(start, _)| &self.code[..start])
    }
}

/// The text with comments, string and character literals replaced by blanks, line for line.
fn blanked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let length = literal_or_comment(rest, out.chars().next_back()).unwrap_or(0);
        if length == 0 {
            out.push(character);
            rest = &rest[character.len_utf8()..];
            continue;
        }
        let (gone, after) = rest.split_at(length);
        out.extend(gone.chars().map(|one| if one == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    out
}

/// How long the comment or literal is that `text` starts with.
fn literal_or_comment(text: &str, before: Option<char>) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(text.find("*/").map_or(text.len(), |end| end + 2));
    }
    if text.starts_with('r') && !before.is_some_and(|one| is_word(one) && one != 'b') {
        let hashes = text[1..].chars().take_while(|one| *one == '#').count();
        if text[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = 2 + hashes;
            return Some(text[start..].find(&end).map_or(text.len(), |at| start + at + end.len()));
        }
    }
    let quote = text.chars().next().filter(|one| matches!(one, '"' | '\''))?;
    if quote == '\'' && !is_character(text) {
        return None;
    }
    let mut escaped = false;
    for (at, one) in text.char_indices().skip(1) {
        match one {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if one == quote => return Some(at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// Tells `'a'` and `'\n'` from the lifetime `'a`.
fn is_character(text: &str) -> bool {
    let mut characters = text.chars().skip(1);
    characters.next() == Some('\\') || characters.next() == Some('\'')
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn word(text: &str) -> Option<String> {
    let word: String = text.trim_start().chars().take_while(|one| is_word(*one)).collect();
    (!word.is_empty()).then_some(word)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of ours.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = ["src", "tests", "benches"].map(|name| root().join(name)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap();
                found.push(Source::new(name, &text));
            }
        }
    }
    found
}
