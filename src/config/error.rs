//! How a mistake in the settings is shown: file, line and column, the line with a caret, what was
//! found, what is allowed. Passwords in the line are hidden.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

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
    /// The line, with stars for secrets.
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
    /// The problem at a range of the file's text. `secrets` are ranges that must not be shown.
    pub(super) fn new(
        text: &str,
        span: Range<usize>,
        secrets: &[Range<usize>],
        message: String,
    ) -> Self {
        let start = floor(text, span.start);
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = text.get(line_start..).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        let line_end = line_start + line.len();
        let meant = text.get(start..floor(text, span.end.min(line_end)).max(start));
        let excerpt = line.char_indices().map(|(offset, c)| {
            let at = line_start + offset;
            if secrets.iter().any(|secret| secret.contains(&at)) { '*' } else { c }
        });
        Self {
            line: before.matches('\n').count() + 1,
            column: text.get(line_start..start).map_or(0, |text| text.chars().count()) + 1,
            width: meant.map_or(1, |text| text.chars().count()).max(1),
            excerpt: excerpt.collect(),
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

struct Shown<'a> {
    problem: &'a Problem,
    path: &'a Path,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { line, column, width, excerpt, message, hint } = self.problem;
        let place = self.path.display();
        writeln!(out, "{place}:{line}:{column}: {message}")?;
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
        let carets = "^".repeat((*width).min(LINE_CHARS_MAX));
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
