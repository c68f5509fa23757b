//! What somebody probably meant whose text is no command: the form of the command it begins with,
//! or the nearest one.

use crate::console::act::ORDERS;
use crate::console::command::{self, COMMANDS, Word};
use crate::spelling;

/// Where all of them are.
const ALL: &str = "SHOW HELP lists all commands.";

/// A hint for a text that [`command::read`] does not take, about its first statement that is
/// none.
pub fn meant(text: &str) -> String {
    let words = command::split(text);
    let statements = words.split(|word| *word == Word::End).filter(|words| !words.is_empty());
    let mut faulty = statements.filter(|words| command::statement(words).is_err());
    let Some([first, rest @ ..]) = faulty.next() else { return ALL.to_owned() };
    let (first, second) = (first.keyword(), rest.first().map(Word::keyword).unwrap_or_default());
    if first == "SHOW" {
        return shown(&second);
    }
    let forms = forms(&first, &second);
    if !forms.is_empty() {
        let target = match forms.iter().any(|form| form.contains("TARGET")) {
            true => " TARGET is a tenant's id or a database's name.",
            false => "",
        };
        return format!("Write {}.{target}", forms.join(", or "));
    }
    let verbs = ORDERS.iter().map(|order| verb(order.usage)).chain(["SHOW"]);
    let shows = COMMANDS.iter().map(|command| command.name);
    let near = spelling::nearest(&first, verbs);
    let near = near.filter(|verb| *verb == "SHOW" || !self::forms(verb, &second).is_empty());
    match (near, spelling::nearest(&first, shows)) {
        (Some("SHOW"), _) => shown(&second),
        (Some(verb), _) => {
            format!("Did you mean {}? {ALL}", self::forms(verb, &second).join(", or "))
        }
        (None, Some(name)) => format!("Did you mean SHOW {name}? {ALL}"),
        (None, None) => format!("The console takes no SQL. {ALL}"),
    }
}

fn shown(name: &str) -> String {
    let mut names = COMMANDS.iter().map(|command| command.name);
    if names.clone().any(|known| known == name) {
        return format!("Write SHOW {name} alone.");
    }
    match spelling::nearest(name, &mut names) {
        Some(nearest) => format!("Did you mean SHOW {nearest}? {ALL}"),
        None => ALL.to_owned(),
    }
}

/// The forms of an order. One with a word more in its name, such as KILL_CLIENT, is one of KILL's.
fn forms(first: &str, second: &str) -> Vec<&'static str> {
    // SET and RESET of anything but a budget are a driver's.
    let names_budget = spelling::nearest(second, ["BUDGET"]).is_some();
    if matches!(first, "SET" | "RESET") && !names_budget {
        return Vec::new();
    }
    let usages = ORDERS.iter().map(|order| order.usage);
    let is_of = |usage: &&'static str| {
        let more = verb(usage).strip_prefix(first);
        !first.is_empty() && more.is_some_and(|more| more.is_empty() || more.starts_with('_'))
    };
    usages.filter(is_of).collect()
}

/// The first word of a usage.
fn verb(usage: &'static str) -> &'static str {
    usage.split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_about_the_command_that_was_meant_and_no_other() {
        for (text, wanted) in [
            ("SHOW POLS", "Did you mean SHOW POOLS? SHOW HELP lists all commands."),
            ("show tenant;", "Did you mean SHOW TENANTS? SHOW HELP lists all commands."),
            ("SHOW POOLS acme", "Write SHOW POOLS alone."),
            ("SHOW", ALL),
            ("SHWO POLS", "Did you mean SHOW POOLS? SHOW HELP lists all commands."),
            ("pools", "Did you mean SHOW POOLS? SHOW HELP lists all commands."),
            ("KILL_CLIENT x", "Write KILL_CLIENT ID."),
            (
                "SHOW POOLS; KILL",
                "Write KILL TARGET, or KILL_CLIENT ID. TARGET is a tenant's id or a database's \
                 name.",
            ),
            ("RELAOD", "Did you mean RELOAD? SHOW HELP lists all commands."),
            ("SET BUDGET acme clients = '3'", "Write SET BUDGET TENANT KIND = 'VALUE' FOR 'TIME'."),
            (
                "SET BUDGT acme clients = '3' FOR '1h'",
                "Write SET BUDGET TENANT KIND = 'VALUE' FOR 'TIME'.",
            ),
            ("SET x", "The console takes no SQL. SHOW HELP lists all commands."),
            ("SELECT 1", "The console takes no SQL. SHOW HELP lists all commands."),
            ("'SHOW' POOLS", "The console takes no SQL. SHOW HELP lists all commands."),
        ] {
            assert_eq!(meant(text), wanted, "{text}");
        }
        assert!(meant("MOVE acme TO silo").starts_with("Write MOVE TENANT ID TO ISOLATION ON"));
    }
}
