//! The table of what cannot be served in transaction pooling: what a client is told, and what to
//! do instead.

/// Why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    AtomicBody,
    Load,
    TooMany,
    TwoPhase,
    UnreadableCommand,
    UnreadableRest,
    UnreadableSetConfig,
}

impl Rule {
    /// What is refused and what to do instead: the parts of the 0A000 a client gets.
    pub(super) fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::AtomicBody => (
                "a session command in one message with a BEGIN ATOMIC body",
                "Send the function and the session command in separate messages.",
            ),
            Self::Load => (
                "LOAD",
                "Have the library in session_preload_libraries or shared_preload_libraries.",
            ),
            Self::TooMany => (
                "a session command beside more than 65536 statements or calls in one message",
                "Send it in a message of its own, and the others in several.",
            ),
            Self::TwoPhase => (
                "a prepared transaction",
                "Commit in one phase, or use a connection to PostgreSQL that is not pooled.",
            ),
            Self::UnreadableCommand => (
                "a session command that cannot be read",
                "Check it against the PostgreSQL manual; names are at most 63 bytes of UTF-8.",
            ),
            Self::UnreadableRest => (
                "an unreadable statement beside a session command",
                "Correct the statement: a quote, a comment or a parenthesis is not closed.",
            ),
            Self::UnreadableSetConfig => (
                "an unreadable statement that calls set_config",
                "Correct the statement: a quote, a comment or a parenthesis is not closed.",
            ),
        }
    }
}
