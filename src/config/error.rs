//! How a mistake in the settings is shown: file, line and column, the key with a caret, what is
//! allowed. Nothing of a value is shown: any may be a password, if only by mistake.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::shapes::SECTIONS;

/// As many problems as fit a screen or two; who fixes these sees the rest next time.
const SHOWN_MAX: usize = 20;
/// A longer line is cut around the caret.
const LINE_CHARS_MAX: usize = 160;

/// Why a settings file gave no settings.
#[derive(Debug)]
pub enum Error {
    /// The file cannot be read.
    Read { path: PathBuf, source: std::io::Error },
    /// Something in it is wrong. Never empty, in the order of the file.
    Invalid { path: PathBuf, problems: Vec<Problem> },
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// How many characters of the line are meant, at least one.
    pub width: usize,
    /// The line's key, with an ellipsis for what stands behind it.
    pub excerpt: String,
    pub message: String,
    /// What to do about it, a sentence.
    pub hint: Option<String>,
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Invalid { .. } => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, problems) = match self {
            Self::Read { path, source } => {
                return write!(out, "cannot read {}: {source}", path.display());
            }
            Self::Invalid { path, problems } => (path, problems),
        };
        for (index, problem) in problems.iter().take(SHOWN_MAX).enumerate() {
            let gap = if index == 0 { "" } else { "\n\n" };
            write!(out, "{gap}{}", problem.shown(path))?;
        }
        match problems.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(out, "\n\nand {more} or more others"),
        }
    }
}

impl Problem {
    /// The problem at a range of the file's text. `names` are the words that may be shown.
    pub(super) fn new(text: &str, span: Range<usize>, names: &Names<'_>, message: String) -> Self {
        let start = floor(text, span.start);
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = text.get(line_start..).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        let line_end = line_start + line.len();
        let meant = text.get(start..floor(text, span.end.min(line_end)).max(start));
        Self {
            line: before.matches('\n').count() + 1,
            column: text.get(line_start..start).map_or(0, |text| text.chars().count()) + 1,
            width: meant.map_or(1, |text| text.chars().count()).max(1),
            excerpt: names.shown(line),
            message,
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    fn shown<'a>(&'a self, path: &'a Path) -> Shown<'a> {
        Shown { problem: self, path }
    }
}

/// The words of a file that may be shown: its keys, and the names of its tables.
pub(super) struct Names<'text>(BTreeSet<&'text str>);

impl<'text> Names<'text> {
    /// Those that any file may have.
    pub(super) fn none() -> Self {
        Self(SECTIONS.into_iter().collect())
    }

    /// Those of a whole file.
    pub(super) fn of(root: &'text DeTable<'text>) -> Self {
        Self::before(root, usize::MAX)
    }

    /// Those that stand before this byte. What comes after a mistake in the TOML itself may be
    /// part of a value, whatever it looks like.
    pub(super) fn before(root: &'text DeTable<'text>, end: usize) -> Self {
        let mut names = Self::none();
        names.add(root, end);
        names
    }

    fn add(&mut self, table: &'text DeTable<'text>, end: usize) {
        for (key, value) in table {
            if key.span().end <= end {
                self.0.insert(key.get_ref());
            }
            self.add_within(value.get_ref(), end);
        }
    }

    fn add_within(&mut self, value: &'text DeValue<'text>, end: usize) {
        match value {
            DeValue::Table(table) => self.add(table, end),
            DeValue::Array(values) => {
                values.iter().for_each(|value| self.add_within(value.get_ref(), end));
            }
            _ => {}
        }
    }

    /// A line up to its first `=`, as far as it consists of names.
    fn shown(&self, line: &str) -> String {
        let mut shown = String::new();
        let mut rest = line.trim_end();
        while let Some(first) = rest.chars().next() {
            let len = match first {
                ' ' | '\t' | '[' | ']' | '.' => 1,
                '"' | '\'' => match rest.get(1..).and_then(|rest| rest.find(first)) {
                    Some(end) if self.has(rest.get(1..=end)) => end + 2,
                    _ => 0,
                },
                '=' => {
                    shown.push_str("= ");
                    0
                }
                _ => {
                    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
                    let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                    if self.has(rest.get(..end)) { end } else { 0 }
                }
            };
            let Some((word, more)) = rest.split_at_checked(len).filter(|_| len > 0) else {
                shown.push('…');
                break;
            };
            shown.push_str(word);
            rest = more;
        }
        shown
    }

    fn has(&self, word: Option<&str>) -> bool {
        word.is_some_and(|word| self.0.contains(word))
    }
}

struct Shown<'a> {
    problem: &'a Problem,
    path: &'a Path,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { line, column, width, excerpt, message, hint } = self.problem;
        let place = self.path.display();
        writeln!(out, "{place}:{line}:{column}: {message}")?;
        // What is not shown stands for all that is behind it.
        let length = excerpt.chars().count();
        let (column, width) = match *column {
            column if column < length || !excerpt.ends_with('…') => (column, *width),
            _ => (length.max(1), 1),
        };
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        // A window that starts a little before the mistake if the line is long.
        let skip = match excerpt.chars().count() {
            0..=LINE_CHARS_MAX => 0,
            _ => column.saturating_sub(LINE_CHARS_MAX / 2),
        };
        let window: String = excerpt.chars().skip(skip).take(LINE_CHARS_MAX).collect();
        // Tabs stay tabs, so that the caret stands where the eye sees the mistake.
        let lead = excerpt.chars().take(column - 1).skip(skip);
        let lead: String = lead.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let carets = "^".repeat(width.min(LINE_CHARS_MAX));
        writeln!(out, "{gutter} |")?;
        writeln!(out, "{number} | {window}")?;
        write!(out, "{gutter} | {lead}{carets}")?;
        match hint {
            Some(hint) => write!(out, "\n{gutter} = {hint}"),
            None => Ok(()),
        }
    }
}

/// The nearest character boundary at or before an offset.
fn floor(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}
