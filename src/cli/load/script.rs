//! The load tester's SQL file: statements with `{tenant}` and random numbers in them, a small part
//! of what pgbench's scripts have.

use std::ops::RangeInclusive;

/// Longest file; a transaction of a load test has some hundred bytes.
const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Most statements of one transaction: each is a round trip.
const STATEMENTS_MAX: usize = 1000;

/// What one transaction sends, statement by statement; each is a round trip.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    variables: Vec<(String, RangeInclusive<i64>)>,
    statements: Vec<Vec<Piece>>,
}

/// Why a file cannot be used, with the number of its line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ScriptError {
    pub line: usize,
    pub what: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Tenant,
    /// By its place among the variables.
    Variable(usize),
}

impl Script {
    /// Reads a file. `\set NAME random(LOW, HIGH)` makes `:NAME` a random whole number, drawn anew
    /// for each transaction; a line that starts with `--` is a comment; a statement ends with a
    /// semicolon at the end of its line. A `:name` that was not set stays as it is.
    ///
    /// # Errors
    ///
    /// The first line that cannot be read, or that there is no statement at all.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let fault = |line: usize, what: &str| ScriptError { line, what: what.to_owned() };
        if text.len() > TEXT_BYTES_MAX || text.contains('\0') {
            return Err(fault(1, "this is not an SQL file of at most 1 MiB"));
        }
        let mut variables = Vec::new();
        let mut texts = Vec::new();
        let mut open = String::new();
        for (at, line) in text.lines().enumerate() {
            let bare = line.trim();
            if bare.starts_with("--") || (bare.is_empty() && open.is_empty()) {
                continue;
            }
            if let Some(command) = bare.strip_prefix('\\') {
                variables.push(set(command).map_err(|what| fault(at + 1, &what))?);
                continue;
            }
            if !open.is_empty() {
                open.push('\n');
            }
            open.push_str(line.trim_end());
            if let Some(whole) = open.strip_suffix(';') {
                texts.push(whole.trim().to_owned());
                open.clear();
            }
        }
        texts.push(open.trim().to_owned());
        texts.retain(|text| !text.is_empty());
        if texts.is_empty() || texts.len() > STATEMENTS_MAX {
            return Err(fault(1, "a file has between 1 and 1000 statements"));
        }
        let statements = texts.iter().map(|text| pieces(text, &variables)).collect();
        Ok(Self { variables, statements })
    }

    /// The same inside a transaction, behind a prelude: begin, prelude, statements, commit.
    pub fn behind(self, prelude: Self) -> Self {
        let Self { mut variables, statements: first } = prelude;
        let offset = variables.len();
        variables.extend(self.variables);
        let moved = self.statements.into_iter().map(|pieces| {
            let moved = pieces.into_iter().map(|piece| match piece {
                Piece::Variable(at) => Piece::Variable(at + offset),
                other => other,
            });
            moved.collect()
        });
        let word = |word: &str| vec![Piece::Text(word.to_owned())];
        let mut statements = vec![word("BEGIN")];
        statements.extend(first);
        statements.extend(moved);
        statements.push(word("COMMIT"));
        Self { variables, statements }
    }

    /// How many statements, so how many round trips.
    pub fn len(&self) -> usize {
        self.statements.len()
    }

    /// Numbers for one transaction.
    pub fn draw(&self, random: &mut fastrand::Rng) -> Vec<i64> {
        self.variables.iter().map(|(_, range)| random.i64(range.clone())).collect()
    }

    /// Statement `number` for a tenant with these numbers.
    pub fn statement(&self, number: usize, tenant: &str, drawn: &[i64]) -> String {
        let mut out = String::new();
        for piece in self.statements.get(number).into_iter().flatten() {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Tenant => out.push_str(tenant),
                Piece::Variable(at) => {
                    out.push_str(&drawn.get(*at).copied().unwrap_or(0).to_string());
                }
            }
        }
        out
    }
}

/// `set NAME random(LOW, HIGH)`
fn set(command: &str) -> Result<(String, RangeInclusive<i64>), String> {
    let form = "write \\set NAME random(LOW, HIGH), with whole numbers";
    let rest = command.strip_prefix("set").filter(|rest| rest.starts_with([' ', '\t']));
    let rest = rest.ok_or_else(|| format!("the only command is \\set; {form}"))?.trim();
    let (name, value) = rest.split_once([' ', '\t']).ok_or(form)?;
    let inner = value.trim().strip_prefix("random(").and_then(|it| it.strip_suffix(')'));
    let (low, high) = inner.and_then(|inner| inner.split_once(',')).ok_or(form)?;
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| form.to_owned());
    let (low, high) = (number(low)?, number(high)?);
    if !name.starts_with(|one: char| one.is_ascii_alphabetic()) || !name.chars().all(is_of_name) {
        return Err(format!("\"{name}\" is not a name of letters, digits and \"_\""));
    }
    if low > high {
        return Err(format!("random({low}, {high}) is an empty range"));
    }
    Ok((name.to_owned(), low..=high))
}

fn is_of_name(one: char) -> bool {
    one.is_ascii_alphanumeric() || one == '_'
}

fn pieces(text: &str, variables: &[(String, RangeInclusive<i64>)]) -> Vec<Piece> {
    const TENANT: &str = "{tenant}";
    let mut pieces = Vec::new();
    let (mut plain, mut rest) = (String::new(), text);
    while let Some(one) = rest.chars().next() {
        // A cast, `::type`, is no variable.
        let name = rest.strip_prefix(':').filter(|_| !plain.ends_with(':'));
        let name = name.and_then(|name| name.split(|it| !is_of_name(it)).next()).unwrap_or("");
        // The last of two lines that set the same name counts, as in pgbench.
        let variable = variables.iter().rposition(|(known, _)| known == name);
        let (piece, length) = match variable {
            Some(at) => (Piece::Variable(at), name.len() + 1),
            None if rest.starts_with(TENANT) => (Piece::Tenant, TENANT.len()),
            None => {
                plain.push(one);
                rest = rest.get(one.len_utf8()..).unwrap_or_default();
                continue;
            }
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(piece);
        rest = rest.get(length..).unwrap_or_default();
    }
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_with_their_line_and_names_are_filled_in() {
        let script = Script::parse(
            "-- a comment; with a semicolon;\n\\set aid random(7, 7)\n\
             SELECT ';' AS a,\n  :aid::text, ':bid' ;\n\nSELECT '{tenant}'",
        );
        let script = script.unwrap();
        assert_eq!(script.len(), 2);
        let drawn = script.draw(&mut fastrand::Rng::with_seed(1));
        let first = "SELECT ';' AS a,\n  7::text, ':bid'";
        assert_eq!(script.statement(0, "acme", &drawn), first);
        assert_eq!(script.statement(1, "acme", &drawn), "SELECT 'acme'");
    }

    #[test]
    fn a_prelude_makes_it_a_transaction_and_keeps_the_names_apart() {
        let script = Script::parse("\\set n random(1, 1)\nSELECT :n").unwrap();
        let prelude = Script::parse("\\set n random(2, 2)\nSET LOCAL a = '{tenant}:n'").unwrap();
        let whole = script.behind(prelude);
        let drawn = whole.draw(&mut fastrand::Rng::with_seed(1));
        let sent: Vec<String> = (0..4).map(|at| whole.statement(at, "t", &drawn)).collect();
        assert_eq!(sent, ["BEGIN", "SET LOCAL a = 't2'", "SELECT 1", "COMMIT"]);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (text, line, what) in [
            ("SELECT 1;\n\\set a random(2, 1)", 2, "empty range"),
            ("\\sleep 1", 1, "only command"),
            ("\\set a 5", 1, "random(LOW, HIGH)"),
            ("\\set 1a random(1, 2)", 1, "not a name"),
            ("-- nothing\n;", 1, "between 1 and 1000"),
        ] {
            let error = Script::parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(error.what.contains(what), "{error}");
        }
    }
}
