//! The console's grammar: one row per SHOW command, the few session statements that drivers send
//! on their own, and who may use what. Orders to the gate are in [`act`].

use crate::console::act::{self, Act};
use crate::console::settings::Rights;

/// A SHOW command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// The word after SHOW, in capitals.
    pub name: &'static str,
    pub subject: Subject,
    /// One line of SHOW HELP.
    pub about: &'static str,
}

/// What a SHOW command shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Budgets,
    Catalog,
    CatalogFaults,
    Clients,
    Config,
    Databases,
    Help,
    Lists,
    Mem,
    Pools,
    Hosts,
    Servers,
    Sockets,
    Stats,
    StatsAverages,
    StatsTenants,
    StatsTotals,
    Tenants,
    Top,
    Users,
    Version,
    WouldRefuse,
}

/// Every SHOW command, in the order of SHOW HELP.
pub const COMMANDS: [Command; 22] = [
    show("TENANTS", Subject::Tenants, "tenants of the catalog: isolation, route, tier, state"),
    show("CATALOG", Subject::Catalog, "the catalog's version, and how it stands with its tables"),
    show("CATALOG_FAULTS", Subject::CatalogFaults, "rows of the catalog's tables at fault"),
    show("POOLS", Subject::Pools, "server connections by cluster, database and login"),
    show("CLIENTS", Subject::Clients, "client connections"),
    show("SERVERS", Subject::Servers, "server connections"),
    show("HOSTS", Subject::Hosts, "hosts of the clusters: which are down, and the next try"),
    show("SOCKETS", Subject::Sockets, "clients and servers in one table"),
    show("DATABASES", Subject::Databases, "databases of the catalog's routes"),
    show("USERS", Subject::Users, "roles the gate logs in with, and the console's users"),
    show("BUDGETS", Subject::Budgets, "what tenants may spend and have spent"),
    show("TOP", Subject::Top, "whom servers worked most for, lately"),
    show("STATS", Subject::Stats, "totals and averages by database"),
    show("STATS_TOTALS", Subject::StatsTotals, "totals by database"),
    show("STATS_AVERAGES", Subject::StatsAverages, "averages of the last period by database"),
    show("STATS_TENANTS", Subject::StatsTenants, "totals and averages by tenant"),
    show("WOULD_REFUSE", Subject::WouldRefuse, "what level guard only reports"),
    show("LISTS", Subject::Lists, "how many there are of each"),
    show("MEM", Subject::Mem, "memory of clients, servers and buffers"),
    show("CONFIG", Subject::Config, "settings in force"),
    show("VERSION", Subject::Version, "version of the gate"),
    show("HELP", Subject::Help, "this list"),
];

/// What a statement does, as far as rights are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Looks at the gate's state.
    Show,
    /// Concerns nothing but the session itself.
    Session,
    Reload,
    Pause,
    Resume,
    Kill,
    Reconnect,
    Disable,
    Enable,
    State,
    Move,
    Budget,
    Drain,
    Shutdown,
}

/// Who may use which verb. A verb or rights that are not here may not.
const PERMISSIONS: [(Verb, &[Rights]); 14] = [
    (Verb::Show, &[Rights::Admin, Rights::Stats]),
    (Verb::Session, &[Rights::Admin, Rights::Stats]),
    (Verb::Reload, &[Rights::Admin]),
    (Verb::Pause, &[Rights::Admin]),
    (Verb::Resume, &[Rights::Admin]),
    (Verb::Kill, &[Rights::Admin]),
    (Verb::Reconnect, &[Rights::Admin]),
    (Verb::Disable, &[Rights::Admin]),
    (Verb::Enable, &[Rights::Admin]),
    (Verb::State, &[Rights::Admin]),
    (Verb::Move, &[Rights::Admin]),
    (Verb::Budget, &[Rights::Admin]),
    (Verb::Drain, &[Rights::Admin]),
    (Verb::Shutdown, &[Rights::Admin]),
];

/// Parameters that drivers ask for with SHOW. Those marked `true` are also reported at login, as
/// PostgreSQL does (manual, 55.2.7).
pub const PARAMETERS: [(&str, &str, bool); 12] = [
    ("server_version", concat!(env!("CARGO_PKG_VERSION"), " tenantgate"), true),
    ("server_encoding", "UTF8", true),
    ("client_encoding", "UTF8", true),
    ("standard_conforming_strings", "on", true),
    ("DateStyle", "ISO, MDY", true),
    ("IntervalStyle", "postgres", true),
    ("TimeZone", "UTC", true),
    ("integer_datetimes", "on", true),
    ("is_superuser", "off", true),
    ("default_transaction_read_only", "off", true),
    ("transaction_read_only", "off", false),
    ("transaction_isolation", "read committed", false),
];

/// A statement of the console's language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    Show(Subject),
    Act(Act),
    /// SHOW of one of [`PARAMETERS`]: its name and value.
    Parameter(&'static str, &'static str),
    /// A transaction block: drivers open one unless told not to.
    Begin,
    Commit,
    Rollback,
    /// Answered and without effect: drivers set formats that make no difference here.
    Set,
    Reset,
    Discard,
    /// Of the name, or of all.
    Deallocate(Option<String>),
}

impl Statement {
    /// What the statement does.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Show(_) => Verb::Show,
            Self::Act(act) => act.verb(),
            Self::Parameter(..)
            | Self::Begin
            | Self::Commit
            | Self::Rollback
            | Self::Set
            | Self::Reset
            | Self::Discard
            | Self::Deallocate(_) => Verb::Session,
        }
    }
}

/// Whether `rights` cover `verb`.
pub fn permits(rights: Rights, verb: Verb) -> bool {
    PERMISSIONS.iter().any(|(known, allowed)| *known == verb && allowed.contains(&rights))
}

/// Reads the statements of a text, which may be none. An error is the first word that does not
/// fit, or nothing at the end of the input.
pub fn read(text: &str) -> Result<Vec<Statement>, String> {
    let words = split(text);
    let statements = words.split(|word| *word == Word::End);
    statements.filter(|words| !words.is_empty()).map(statement).collect()
}

const fn show(name: &'static str, subject: Subject, about: &'static str) -> Command {
    Command { name, subject, about }
}

/// Reads one statement. An error is as in [`read`].
pub fn statement(words: &[Word]) -> Result<Statement, String> {
    let Some((verb, rest)) = words.split_first() else { return Err(String::new()) };
    if let Some(order) = act::read(verb, rest) {
        return order.map(Statement::Act);
    }
    let statement = match verb.keyword().as_str() {
        "SHOW" => return shown(rest),
        "BEGIN" => Statement::Begin,
        "START" if rest.first().is_some_and(|word| word.is("TRANSACTION")) => Statement::Begin,
        "COMMIT" | "END" => Statement::Commit,
        // ROLLBACK TO SAVEPOINT would need savepoints.
        "ROLLBACK" | "ABORT" if !rest.iter().any(|word| word.is("TO")) => Statement::Rollback,
        // No driver's: somebody means a budget, and would believe it is set.
        "SET" if rest.iter().any(|word| word.is("FOR")) => return Err(verb.text()),
        "SET" if rest.len() >= 2 => Statement::Set,
        "RESET" if rest.len() == 1 => Statement::Reset,
        "DISCARD" if rest.len() == 1 => Statement::Discard,
        "DEALLOCATE" => return deallocated(rest),
        _ => return Err(verb.text()),
    };
    Ok(statement)
}

fn shown(words: &[Word]) -> Result<Statement, String> {
    let Some(first) = words.first() else { return Err(String::new()) };
    if words.len() == 1 {
        if let Some(command) = COMMANDS.iter().find(|command| first.is(command.name)) {
            return Ok(Statement::Show(command.subject));
        }
        if let Some((name, value, _)) = PARAMETERS.iter().find(|(name, ..)| first.is(name)) {
            return Ok(Statement::Parameter(name, value));
        }
    }
    // The one parameter with a name of its own in SQL (PostgreSQL manual, SHOW).
    let spelled = ["TRANSACTION", "ISOLATION", "LEVEL"];
    if words.len() == spelled.len() && words.iter().zip(spelled).all(|(word, name)| word.is(name)) {
        return Ok(Statement::Parameter("transaction_isolation", "read committed"));
    }
    let known = COMMANDS.iter().any(|command| first.is(command.name));
    Err(words.get(usize::from(known)).map(Word::text).unwrap_or_default())
}

fn deallocated(words: &[Word]) -> Result<Statement, String> {
    let words = match words {
        [prepare, rest @ ..] if prepare.is("PREPARE") && !rest.is_empty() => rest,
        _ => words,
    };
    match words {
        [all] if all.is("ALL") => Ok(Statement::Deallocate(None)),
        // Bare names are folded as PostgreSQL folds them.
        [Word::Bare(name)] => Ok(Statement::Deallocate(Some(name.to_ascii_lowercase()))),
        [Word::Quoted(name)] => Ok(Statement::Deallocate(Some(name.clone()))),
        _ => Err(words.get(1).map(Word::text).unwrap_or_default()),
    }
}

/// A word of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    Bare(String),
    /// Without its quotes, single or double.
    Quoted(String),
    /// A semicolon.
    End,
}

impl Word {
    /// Whether it is this keyword; a quoted one never is.
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Bare(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// The word in capitals, or nothing if it is quoted.
    pub fn keyword(&self) -> String {
        match self {
            Self::Bare(word) => word.to_ascii_uppercase(),
            Self::Quoted(_) | Self::End => String::new(),
        }
    }

    /// The word as it was written, without quotes.
    pub fn text(&self) -> String {
        match self {
            Self::Bare(word) | Self::Quoted(word) => word.clone(),
            Self::End => ";".to_owned(),
        }
    }
}

/// Words, quoted texts and single signs; comments and white space fall away.
pub fn split(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '\'' || first == '"' {
            let (word, length) = quoted(rest, first);
            words.push(Word::Quoted(word));
            length
        } else if is_of_word(first) {
            let length = rest.find(|sign| !is_of_word(sign)).unwrap_or(rest.len());
            let word = rest.get(..length).unwrap_or_default();
            // A comment may follow without a blank.
            let word = word.split("--").next().unwrap_or_default();
            words.push(Word::Bare(word.to_owned()));
            word.len()
        } else {
            words.push(if first == ';' { Word::End } else { Word::Bare(first.to_string()) });
            first.len_utf8()
        };
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    words
}

fn is_of_word(sign: char) -> bool {
    sign.is_alphanumeric() || matches!(sign, '_' | '.' | '$' | '-' | '@')
}

/// The text between the quotes `rest` starts with, and how many bytes it takes up with them. A
/// quote that is written twice stands for itself.
fn quoted(rest: &str, quote: char) -> (String, usize) {
    let mut word = String::new();
    let mut signs = rest.char_indices().skip(1).peekable();
    while let Some((place, sign)) = signs.next() {
        if sign != quote {
            word.push(sign);
        } else if signs.next_if(|(_, next)| *next == quote).is_some() {
            word.push(quote);
        } else {
            return (word, place + quote.len_utf8());
        }
    }
    (word, rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_read_in_any_case_with_comments_and_semicolons() {
        for command in &COMMANDS {
            let wanted = Ok(vec![Statement::Show(command.subject)]);
            assert_eq!(read(&format!("SHOW {}", command.name)), wanted);
            let lower = command.name.to_ascii_lowercase();
            assert_eq!(read(&format!(" /* ; */ show\n{lower} ;; -- end")), wanted);
        }
        assert_eq!(read("-- nothing\n ; "), Ok(vec![]));
        let two = read("SHOW POOLS; SHOW CLIENTS").unwrap();
        assert_eq!(two, [Statement::Show(Subject::Pools), Statement::Show(Subject::Clients)]);
    }

    #[test]
    fn the_word_that_does_not_fit_is_named() {
        for (text, near) in [
            ("SELECT 1", "SELECT"),
            ("SHOW", ""),
            ("SHOW NOTHING", "NOTHING"),
            ("SHOW POOLS NOW", "NOW"),
            ("SHOW 'POOLS'", "POOLS"),
            ("\"SHOW\" POOLS", "SHOW"),
            ("SET x", "SET"),
            ("SET BUDGT acme clients = 5 FOR '1h'", "SET"),
            ("ROLLBACK TO SAVEPOINT a", "ROLLBACK"),
            ("SHOW POOLS; DROP TABLE t", "DROP"),
            ("€", "€"),
        ] {
            assert_eq!(read(text), Err(near.to_owned()), "{text}");
        }
    }

    #[test]
    fn statements_that_drivers_send_are_understood() {
        for (text, wanted) in [
            ("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", Statement::Begin),
            ("start transaction read only", Statement::Begin),
            ("END", Statement::Commit),
            ("ROLLBACK", Statement::Rollback),
            ("SET extra_float_digits = 3", Statement::Set),
            ("set application_name to 'x; y'", Statement::Set),
            ("DISCARD ALL", Statement::Discard),
            ("DEALLOCATE ALL", Statement::Deallocate(None)),
            ("DEALLOCATE PREPARE \"A;\"\"b\"", Statement::Deallocate(Some("A;\"b".to_owned()))),
            ("DEALLOCATE _PG3_0", Statement::Deallocate(Some("_pg3_0".to_owned()))),
            ("show timezone", Statement::Parameter("TimeZone", "UTC")),
            (
                "SHOW TRANSACTION ISOLATION LEVEL",
                Statement::Parameter("transaction_isolation", "read committed"),
            ),
        ] {
            assert_eq!(read(text), Ok(vec![wanted]), "{text}");
        }
    }

    /// Every statement there is, one of each verb at least; the `match` of `verb` names the rest.
    fn one_of_each_verb() -> Vec<(&'static str, Verb, &'static [Rights])> {
        const BOTH: &[Rights] = &[Rights::Admin, Rights::Stats];
        const ADMIN: &[Rights] = &[Rights::Admin];
        vec![
            ("SHOW CLIENTS", Verb::Show, BOTH),
            ("SHOW CONFIG", Verb::Show, BOTH),
            ("SHOW TimeZone", Verb::Session, BOTH),
            ("BEGIN", Verb::Session, BOTH),
            ("SET a = b", Verb::Session, BOTH),
            ("DEALLOCATE ALL", Verb::Session, BOTH),
            ("RELOAD", Verb::Reload, ADMIN),
            ("PAUSE", Verb::Pause, ADMIN),
            ("RESUME x", Verb::Resume, ADMIN),
            ("KILL x", Verb::Kill, ADMIN),
            ("KILL_CLIENT 1", Verb::Kill, ADMIN),
            ("RECONNECT", Verb::Reconnect, ADMIN),
            ("DISABLE x", Verb::Disable, ADMIN),
            ("ENABLE x", Verb::Enable, ADMIN),
            ("READ_ONLY x", Verb::State, ADMIN),
            ("READ_WRITE x", Verb::State, ADMIN),
            ("MOVE TENANT x", Verb::Move, ADMIN),
            ("SET BUDGET a clients = 5 FOR '1h'", Verb::Budget, ADMIN),
            ("RESET BUDGET a", Verb::Budget, ADMIN),
            ("DRAIN", Verb::Drain, ADMIN),
            ("SHUTDOWN WAIT_FOR_SERVERS", Verb::Shutdown, ADMIN),
        ]
    }

    #[test]
    fn who_may_do_what() {
        for (text, verb, allowed) in one_of_each_verb() {
            assert_eq!(read(text).unwrap()[0].verb(), verb, "{text}");
            for rights in [Rights::Admin, Rights::Stats] {
                assert_eq!(permits(rights, verb), allowed.contains(&rights), "{text} {rights:?}");
            }
        }
        for (verb, _) in PERMISSIONS {
            assert!(one_of_each_verb().iter().any(|row| row.1 == verb), "{verb:?}");
            let rows = PERMISSIONS.iter().filter(|row| row.0 == verb).count();
            assert_eq!(rows, 1, "{verb:?}");
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic() {
        let signs = [
            "SHOW",
            " ",
            "'",
            "\"",
            "--",
            "/*",
            "*/",
            ";",
            "é",
            "\n",
            "$1",
            "\\",
            "DEALLOCATE",
            "SET BUDGET ",
            "RESET BUDGET ",
            "MOVE TENANT ",
            " TO silo ON ",
            " SCHEMA ",
            " WITHIN ",
            " a",
            " = ",
            " FOR ",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let text: String =
                (0..random.usize(0..12)).map(|_| signs[random.usize(..signs.len())]).collect();
            let _ = read(&text);
        }
    }
}
