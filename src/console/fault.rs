//! What a console command can answer instead of rows. The session goes on after a fault; what
//! ends it is a refusal from `crate::error`. `docs/console.md` carries the same table.

use std::borrow::Cow;

use pgwire::messages::response::{ErrorResponse, NoticeResponse};

use crate::console::act::Target;
use crate::error::Error;

/// A command that was understood as far as it goes, and not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not a console command; `near` is the first word that does not fit, `hint` what was meant.
    Syntax {
        near: String,
        hint: String,
    },
    /// More than one command in a prepared statement.
    SeveralCommands,
    /// The user's rights do not cover the command.
    Forbidden,
    /// The gate did not hand over its state within the deadline.
    NoAnswer,
    UnknownStatement {
        name: String,
    },
    UnknownPortal {
        name: String,
    },
    StatementExists {
        name: String,
    },
    /// More prepared statements or portals than a session may keep.
    TooMany {
        limit: usize,
    },
    /// Values or formats that do not fit the command.
    Mismatch {
        what: &'static str,
    },
    /// After an error in a transaction block, until it ends.
    Aborted,
    FunctionCall,
    /// No such tenant, database, or either. `other`: the name is one of the other kind.
    UnknownTarget {
        target: Target,
        other: bool,
    },
    /// A tenant and a database have this name, and are not the same thing.
    AmbiguousTarget {
        name: String,
    },
    UnknownClient {
        id: u64,
    },
    /// The gate is not in the state that the order is about: `what` says so.
    OutOfPlace {
        what: String,
    },
    /// A move that failed: everything is as it was.
    NotMoved {
        what: String,
    },
    /// A budget, or a value of one, that there is not.
    InvalidBudget {
        what: String,
    },
    /// The settings file has faults; each is a line of `problems`.
    BadSettings {
        problems: String,
    },
    /// An order in a transaction block, which could not be undone with it.
    InTransaction,
}

impl Fault {
    /// The SQLSTATE (PostgreSQL manual, appendix A).
    pub fn sqlstate(&self) -> &'static str {
        match self {
            // As PgBouncer's console says it: pgcli tries SELECT 1 and tells a console by this.
            Self::Syntax { .. } => "08P01",
            Self::SeveralCommands => "42601",
            Self::Forbidden => "42501",
            Self::NoAnswer => "57P03",
            Self::UnknownStatement { .. } => "26000",
            Self::UnknownPortal { .. } => "34000",
            Self::StatementExists { .. } => "42P05",
            Self::TooMany { .. } => "54000",
            Self::Mismatch { .. } => "08P01",
            Self::Aborted => "25P02",
            Self::FunctionCall => "0A000",
            Self::UnknownTarget { .. } => "3D000",
            Self::AmbiguousTarget { .. } => "42P09",
            Self::UnknownClient { .. } => "42704",
            Self::OutOfPlace { .. } => "55000",
            Self::NotMoved { .. } => "55000",
            Self::InvalidBudget { .. } => "22023",
            Self::BadSettings { .. } => "F0000",
            Self::InTransaction => "25001",
        }
    }

    /// The primary message.
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::Syntax { near, .. } if near.is_empty() => "syntax error at end of input".into(),
            Self::Syntax { near, .. } => format!("syntax error at or near \"{near}\"").into(),
            Self::SeveralCommands => {
                "cannot insert multiple commands into a prepared statement".into()
            }
            Self::Forbidden => "permission denied for this console command".into(),
            Self::NoAnswer => "the gate did not answer in time".into(),
            Self::UnknownStatement { name } => {
                format!("prepared statement \"{name}\" does not exist").into()
            }
            Self::UnknownPortal { name } => format!("portal \"{name}\" does not exist").into(),
            Self::StatementExists { name } => {
                format!("prepared statement \"{name}\" already exists").into()
            }
            Self::TooMany { limit } => {
                format!("more than {limit} prepared statements or portals in one session").into()
            }
            Self::Mismatch { what } => (*what).into(),
            Self::Aborted => {
                "current transaction is aborted, commands ignored until end of transaction block"
                    .into()
            }
            Self::FunctionCall => "the console has no functions".into(),
            Self::UnknownTarget { target, .. } => match target {
                Target::All => "no tenant or database".into(),
                Target::Named(name) => format!("no tenant or database \"{name}\"").into(),
                Target::Tenant(name) => format!("no tenant \"{name}\"").into(),
                Target::Database(name) => format!("no database \"{name}\"").into(),
            },
            Self::AmbiguousTarget { name } => {
                format!("\"{name}\" is a tenant and a database").into()
            }
            Self::UnknownClient { id } => format!("no client has the id {id}").into(),
            Self::OutOfPlace { what } | Self::InvalidBudget { what } => what.clone().into(),
            Self::NotMoved { what } => format!("the tenant was not moved: {what}").into(),
            Self::BadSettings { .. } => "reload rejected, everything stays as it was".into(),
            Self::InTransaction => "this command cannot run inside a transaction block".into(),
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Syntax { hint, .. } => Some(hint.clone().into()),
            Self::Forbidden => Some("Log in as a console user with the rights \"admin\".".into()),
            Self::NoAnswer => Some("Retry.".into()),
            Self::TooMany { .. } => Some("Close those that are not used any more.".into()),
            Self::UnknownTarget { target, other } => Some(match (target, other) {
                (Target::Tenant(name), true) => {
                    format!("There is a database of this name: DATABASE {name} means it.").into()
                }
                (Target::Database(name), true) => {
                    format!("There is a tenant of this name: TENANT {name} means it.").into()
                }
                (Target::Tenant(_), false) => "SHOW TENANTS lists the names.".into(),
                (Target::Database(_), false) => "SHOW DATABASES lists the names.".into(),
                _ => "SHOW TENANTS and SHOW DATABASES list the names.".into(),
            }),
            Self::AmbiguousTarget { .. } => {
                Some("Write TENANT or DATABASE in front of the name.".into())
            }
            Self::InvalidBudget { .. } => {
                Some("Budgets and values are named as in [tiers.NAME]; 'none' lifts one.".into())
            }
            Self::NotMoved { .. } => {
                Some("Nothing has changed: mend what is said, and give the order again.".into())
            }
            Self::InTransaction => Some("Turn autocommit on, or send COMMIT first.".into()),
            Self::UnknownClient { .. } => Some("SHOW CLIENTS lists the ids.".into()),
            _ => None,
        }
    }

    /// The message to the client; the session goes on.
    pub fn response(&self) -> ErrorResponse {
        let detail = match self {
            Self::BadSettings { problems } => Some(problems.clone().into()),
            _ => None,
        };
        ErrorResponse::new(fields("ERROR", self.sqlstate(), self.message(), detail, self.hint()))
    }
}

/// A message that comes before the answer of a command and changes nothing.
pub fn notice(message: String) -> NoticeResponse {
    NoticeResponse::new(fields("NOTICE", "00000", message.into(), None, None))
}

/// The message of a refusal, which ends the session.
pub fn refusal(error: &Error) -> ErrorResponse {
    let facts = error.facts();
    let severity = facts.severity.name();
    let (message, detail, hint) = (error.message(), error.detail(), error.hint());
    ErrorResponse::new(fields(severity, facts.sqlstate, message, detail, hint))
}

fn fields(
    severity: &str,
    sqlstate: &str,
    message: Cow<'static, str>,
    detail: Option<Cow<'static, str>>,
    hint: Option<Cow<'static, str>>,
) -> Vec<(u8, String)> {
    let mut fields = vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', sqlstate.to_owned()),
        // A NUL would end the field early and leave the rest to be read as other fields.
        (b'M', message.replace('\0', "?")),
    ];
    fields.extend(detail.map(|text| (b'D', text.replace('\0', "?"))));
    fields.extend(hint.map(|text| (b'H', text.into_owned())));
    fields
}
