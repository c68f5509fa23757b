//! What the console can make the gate do: one row per order, and what it is about. A target is a
//! tenant's id or a database's name; where a bare name could be both, the word TENANT or DATABASE
//! in front of it says which.

use std::fmt;

use crate::console::command::{Verb, Word};
use crate::console::moves::{self, MoveOrder};

/// An order to the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Reload,
    Pause(Target),
    Resume(Target),
    Kill(Target),
    /// By the id of `SHOW CLIENTS`.
    KillClient(u64),
    Reconnect(Target),
    Disable(Target),
    Enable(Target),
    ReadOnly(Target),
    ReadWrite(Target),
    Move(Box<MoveOrder>),
    Budget(Box<BudgetOrder>),
    Drain,
    Shutdown(Wait),
}

/// A limit of a tenant that is set for a while, or taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetOrder {
    pub tenant: String,
    /// The key in the settings; `None` to take all back.
    pub kind: Option<String>,
    /// What it is set to, and for how long; `None` to take it back.
    pub value: Option<(String, String)>,
}

/// Whom an order concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    All,
    /// A tenant or a database, whichever there is.
    Named(String),
    Tenant(String),
    Database(String),
}

/// What a shutdown waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Nothing,
    /// Transactions that have begun.
    Servers,
    /// Clients that are connected.
    Clients,
}

/// One order of SHOW HELP and of the manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub usage: &'static str,
    pub verb: Verb,
    pub about: &'static str,
}

/// Every order, in the order of SHOW HELP.
pub const ORDERS: [Order; 17] = [
    order("RELOAD", Verb::Reload, "read the settings file again"),
    order("PAUSE [TARGET]", Verb::Pause, "hold requests back, close server connections"),
    order("RESUME [TARGET]", Verb::Resume, "undo PAUSE, KILL and DRAIN"),
    order("RECONNECT [TARGET]", Verb::Reconnect, "replace server connections as they come free"),
    order("KILL TARGET", Verb::Kill, "end clients and servers now, hold new requests back"),
    order("KILL_CLIENT ID", Verb::Kill, "end one client now"),
    order("DISABLE TARGET", Verb::Disable, "refuse logins, end sessions at their boundary"),
    order("ENABLE TARGET", Verb::Enable, "undo DISABLE"),
    order("READ_ONLY TARGET", Verb::State, "have transactions write nothing, from the next one on"),
    order("READ_WRITE TARGET", Verb::State, "undo READ_ONLY"),
    order(
        "MOVE TENANT ID TO ISOLATION ON CLUSTER [KEY 'TEXT']",
        Verb::Move,
        "another route of the tables; KEY: CONNECTION_STRING, SCHEMA, ROLE, WITHIN",
    ),
    order(
        "MOVE TENANT ID [WITHIN 'TIME']",
        Verb::Move,
        "have a tenant of the settings file on its route there",
    ),
    order(
        "SET BUDGET TENANT KIND = 'VALUE' FOR 'TIME'",
        Verb::Budget,
        "set a limit for a while, from now on",
    ),
    order("RESET BUDGET TENANT [KIND]", Verb::Budget, "undo SET BUDGET"),
    order("DRAIN", Verb::Drain, "refuse logins, end sessions at their boundary, stay alive"),
    order("SHUTDOWN", Verb::Shutdown, "end sessions now, then the process"),
    order(
        "SHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS",
        Verb::Shutdown,
        "end when transactions are over, or when clients have left",
    ),
];

const fn order(usage: &'static str, verb: Verb, about: &'static str) -> Order {
    Order { usage, verb, about }
}

impl Act {
    /// What it does, as far as rights are concerned.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Reload => Verb::Reload,
            Self::Pause(_) => Verb::Pause,
            Self::Resume(_) => Verb::Resume,
            Self::Kill(_) | Self::KillClient(_) => Verb::Kill,
            Self::Reconnect(_) => Verb::Reconnect,
            Self::Disable(_) => Verb::Disable,
            Self::Enable(_) => Verb::Enable,
            Self::ReadOnly(_) | Self::ReadWrite(_) => Verb::State,
            Self::Move(_) => Verb::Move,
            Self::Budget(_) => Verb::Budget,
            Self::Drain => Verb::Drain,
            Self::Shutdown(_) => Verb::Shutdown,
        }
    }

    /// The tag of its CommandComplete; PgBouncer's.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Reload => "RELOAD",
            Self::Pause(_) => "PAUSE",
            Self::Resume(_) => "RESUME",
            Self::Kill(_) => "KILL",
            Self::KillClient(_) => "KILL_CLIENT",
            Self::Reconnect(_) => "RECONNECT",
            Self::Disable(_) => "DISABLE",
            Self::Enable(_) => "ENABLE",
            Self::ReadOnly(_) => "READ_ONLY",
            Self::ReadWrite(_) => "READ_WRITE",
            Self::Move(_) => "MOVE",
            Self::Budget(order) if order.value.is_some() => "SET BUDGET",
            Self::Budget(_) => "RESET BUDGET",
            Self::Drain => "DRAIN",
            Self::Shutdown(_) => "SHUTDOWN",
        }
    }
}

impl Act {
    /// The one tenant it names, for the audit.
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::Move(order) => Some(&order.tenant),
            Self::Budget(order) => Some(&order.tenant),
            _ => match self.target()? {
                Target::Named(name) | Target::Tenant(name) => Some(name),
                Target::All | Target::Database(_) => None,
            },
        }
    }

    /// Whom it is about, if it is one of the orders that say so.
    fn target(&self) -> Option<&Target> {
        match self {
            Self::Pause(target)
            | Self::Resume(target)
            | Self::Kill(target)
            | Self::Reconnect(target)
            | Self::Disable(target)
            | Self::Enable(target)
            | Self::ReadOnly(target)
            | Self::ReadWrite(target) => Some(target),
            Self::Move(_) | Self::Budget(_) | Self::KillClient(_) => None,
            Self::Reload | Self::Drain | Self::Shutdown(_) => None,
        }
    }
}

impl fmt::Display for Act {
    /// The order as the audit log has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tag())?;
        match self {
            Self::Move(order) => order.fmt(f),
            Self::KillClient(id) => write!(f, " {id}"),
            Self::Budget(order) => order.fmt(f),
            Self::Shutdown(Wait::Servers) => f.write_str(" WAIT_FOR_SERVERS"),
            Self::Shutdown(Wait::Clients) => f.write_str(" WAIT_FOR_CLIENTS"),
            _ => self.target().map_or(Ok(()), |target| target.fmt(f)),
        }
    }
}

impl fmt::Display for BudgetOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " \"{}\"", self.tenant.escape_debug())?;
        if let Some(kind) = &self.kind {
            write!(f, " \"{}\"", kind.escape_debug())?;
        }
        if let Some((value, period)) = &self.value {
            write!(f, " = '{}' FOR '{}'", value.escape_debug(), period.escape_debug())?;
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |name: &String| name.escape_debug().to_string();
        match self {
            Self::All => Ok(()),
            Self::Named(it) => write!(f, " \"{}\"", name(it)),
            Self::Tenant(it) => write!(f, " TENANT \"{}\"", name(it)),
            Self::Database(it) => write!(f, " DATABASE \"{}\"", name(it)),
        }
    }
}

/// Reads an order. `None`: the first word is none. An error is the first word that does not fit.
pub fn read(verb: &Word, rest: &[Word]) -> Option<Result<Act, String>> {
    let act = match verb.keyword().as_str() {
        "RELOAD" => alone(rest).map(|()| Act::Reload),
        "PAUSE" => target(rest).map(Act::Pause),
        "RESUME" => target(rest).map(Act::Resume),
        "RECONNECT" => target(rest).map(Act::Reconnect),
        "KILL" => kill(rest),
        "KILL_CLIENT" => client(rest),
        "DISABLE" => named(rest).map(Act::Disable),
        "ENABLE" => named(rest).map(Act::Enable),
        "READ_ONLY" => named(rest).map(Act::ReadOnly),
        "READ_WRITE" => named(rest).map(Act::ReadWrite),
        "MOVE" => moves::read(rest).map(|order| Act::Move(Box::new(order))),
        "SET" if is_budget(rest) => set_budget(rest),
        "RESET" if is_budget(rest) => reset_budget(rest),
        "DRAIN" => alone(rest).map(|()| Act::Drain),
        "SHUTDOWN" => wait(rest).map(Act::Shutdown),
        _ => return None,
    };
    Some(act)
}

fn alone(rest: &[Word]) -> Result<(), String> {
    rest.first().map_or(Ok(()), |word| Err(word.text()))
}

fn target(rest: &[Word]) -> Result<Target, String> {
    match rest {
        [] => Ok(Target::All),
        [name] => Ok(Target::Named(name.text())),
        [kind, name] if kind.is("TENANT") => Ok(Target::Tenant(name.text())),
        [kind, name] if kind.is("DATABASE") => Ok(Target::Database(name.text())),
        [kind, _, surplus, ..] if kind.is("TENANT") || kind.is("DATABASE") => Err(surplus.text()),
        [_, surplus, ..] => Err(surplus.text()),
    }
}

/// A target that must be named: what would be too much for all of them by mistake.
fn named(rest: &[Word]) -> Result<Target, String> {
    match target(rest)? {
        Target::All => Err(String::new()),
        named => Ok(named),
    }
}

fn kill(rest: &[Word]) -> Result<Act, String> {
    match rest {
        [kind, id @ ..] if kind.is("CLIENT") && !id.is_empty() => client(id),
        _ => named(rest).map(Act::Kill),
    }
}

fn client(rest: &[Word]) -> Result<Act, String> {
    match rest {
        [] => Err(String::new()),
        [id] => id.text().parse().map(Act::KillClient).map_err(|_| id.text()),
        [_, surplus, ..] => Err(surplus.text()),
    }
}

/// SET and RESET of anything else are a driver's.
fn is_budget(rest: &[Word]) -> bool {
    rest.first().is_some_and(|word| word.is("BUDGET"))
}

fn set_budget(rest: &[Word]) -> Result<Act, String> {
    let mut words = rest.iter().skip(1);
    let mut next = || words.next().ok_or_else(String::new);
    let (tenant, kind) = (next()?, next()?);
    let mut value = next()?;
    if value.is("=") || value.is("TO") {
        value = next()?;
    }
    let (tie, period) = (next()?, next());
    if !tie.is("FOR") {
        return Err(tie.text());
    }
    let value = Some((value.text(), period?.text()));
    if let Some(surplus) = words.next() {
        return Err(surplus.text());
    }
    let (tenant, kind) = (tenant.text(), Some(kind.text()));
    Ok(Act::Budget(Box::new(BudgetOrder { tenant, kind, value })))
}

fn reset_budget(rest: &[Word]) -> Result<Act, String> {
    let (tenant, kind) = match rest {
        [_, tenant] => (tenant.text(), None),
        [_, tenant, kind] => (tenant.text(), Some(kind.text())),
        [_, _, _, surplus, ..] => return Err(surplus.text()),
        _ => return Err(String::new()),
    };
    Ok(Act::Budget(Box::new(BudgetOrder { tenant, kind, value: None })))
}

fn wait(rest: &[Word]) -> Result<Wait, String> {
    match rest {
        [] => Ok(Wait::Nothing),
        [what] if what.is("WAIT_FOR_SERVERS") => Ok(Wait::Servers),
        [what] if what.is("WAIT_FOR_CLIENTS") => Ok(Wait::Clients),
        [what] => Err(what.text()),
        [_, surplus, ..] => Err(surplus.text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::command::{Statement, read};

    fn name(name: &str) -> String {
        name.to_owned()
    }

    fn budget(tenant: &str, kind: Option<&str>, value: Option<(&str, &str)>) -> Act {
        let value = value.map(|(value, period)| (name(value), name(period)));
        Act::Budget(Box::new(BudgetOrder { tenant: name(tenant), kind: kind.map(name), value }))
    }

    #[test]
    fn orders_are_read_with_every_kind_of_target() {
        for (text, wanted, logged) in [
            ("reload;", Act::Reload, "RELOAD"),
            ("PAUSE", Act::Pause(Target::All), "PAUSE"),
            (
                "pause acme-eu.1",
                Act::Pause(Target::Named(name("acme-eu.1"))),
                "PAUSE \"acme-eu.1\"",
            ),
            ("PAUSE app@main", Act::Pause(Target::Named(name("app@main"))), "PAUSE \"app@main\""),
            (
                "PAUSE TENANT Acme",
                Act::Pause(Target::Tenant(name("Acme"))),
                "PAUSE TENANT \"Acme\"",
            ),
            // Who is called like a word of the grammar can be named all the same.
            ("PAUSE tenant", Act::Pause(Target::Named(name("tenant"))), "PAUSE \"tenant\""),
            (
                "RESUME DATABASE \"a b\"",
                Act::Resume(Target::Database(name("a b"))),
                "RESUME DATABASE \"a b\"",
            ),
            ("RECONNECT", Act::Reconnect(Target::All), "RECONNECT"),
            ("KILL app", Act::Kill(Target::Named(name("app"))), "KILL \"app\""),
            ("KILL CLIENT 7", Act::KillClient(7), "KILL_CLIENT 7"),
            ("KILL_CLIENT 7", Act::KillClient(7), "KILL_CLIENT 7"),
            ("KILL client", Act::Kill(Target::Named(name("client"))), "KILL \"client\""),
            ("DISABLE 'x\n'", Act::Disable(Target::Named(name("x\n"))), "DISABLE \"x\\n\""),
            ("read_only acme", Act::ReadOnly(Target::Named(name("acme"))), "READ_ONLY \"acme\""),
            (
                "READ_WRITE TENANT acme",
                Act::ReadWrite(Target::Tenant(name("acme"))),
                "READ_WRITE TENANT \"acme\"",
            ),
            ("ENABLE TENANT x", Act::Enable(Target::Tenant(name("x"))), "ENABLE TENANT \"x\""),
            (
                "set budget Acme database_time = '5s/1m' FOR '10 min';",
                budget("Acme", Some("database_time"), Some(("5s/1m", "10 min"))),
                "SET BUDGET \"Acme\" \"database_time\" = '5s/1m' FOR '10 min'",
            ),
            (
                "SET BUDGET 'a' queries_per_second TO 50 for 1h",
                budget("a", Some("queries_per_second"), Some(("50", "1h"))),
                "SET BUDGET \"a\" \"queries_per_second\" = '50' FOR '1h'",
            ),
            ("RESET BUDGET acme", budget("acme", None, None), "RESET BUDGET \"acme\""),
            (
                "RESET BUDGET acme clients",
                budget("acme", Some("clients"), None),
                "RESET BUDGET \"acme\" \"clients\"",
            ),
            ("DRAIN", Act::Drain, "DRAIN"),
            ("SHUTDOWN", Act::Shutdown(Wait::Nothing), "SHUTDOWN"),
            (
                "SHUTDOWN wait_for_clients -- later",
                Act::Shutdown(Wait::Clients),
                "SHUTDOWN WAIT_FOR_CLIENTS",
            ),
        ] {
            assert_eq!(wanted.to_string(), logged);
            assert_eq!(read(text), Ok(vec![Statement::Act(wanted)]), "{text}");
        }
    }

    #[test]
    fn an_order_that_does_not_fit_is_refused_at_the_word() {
        for (text, near) in [
            ("RELOAD NOW", "NOW"),
            ("PAUSE a b", "b"),
            ("PAUSE TENANT a b", "b"),
            ("KILL", ""),
            ("DISABLE", ""),
            ("ENABLE", ""),
            ("READ_ONLY", ""),
            ("READ_WRITE", ""),
            ("KILL_CLIENT", ""),
            ("KILL_CLIENT x", "x"),
            ("KILL CLIENT 7 8", "8"),
            ("SET BUDGET", ""),
            ("SET BUDGET a", ""),
            ("SET BUDGET a clients", ""),
            ("SET BUDGET a clients = ", ""),
            ("SET BUDGET a clients = 5", ""),
            ("SET BUDGET a clients = 5 FOR", ""),
            ("SET BUDGET a clients = 5 UNTIL '1h'", "UNTIL"),
            ("SET BUDGET a clients = 5 FOR '1h' x", "x"),
            ("RESET BUDGET", ""),
            ("RESET BUDGET a b c", "c"),
            ("SHUTDOWN NOW", "NOW"),
            ("SUSPEND", "SUSPEND"),
        ] {
            assert_eq!(read(text), Err(near.to_owned()), "{text}");
        }
    }

    #[test]
    fn every_order_of_the_list_is_one_of_the_grammar() {
        for order in &ORDERS {
            let usage = order.usage.replace("TARGET", "x").replace("ID", "1");
            let usage = usage.replace("CLUSTER", "x").replace("ISOLATION", "silo");
            let usage = usage.replace(['[', ']'], "").replace("KEY", "WITHIN");
            let text = usage.split('|').next().unwrap();
            let statements = read(text).unwrap_or_else(|near| panic!("{text}: {near}"));
            assert_eq!(statements[0].verb(), order.verb, "{text}");
        }
    }
}
