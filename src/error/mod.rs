//! Every refusal a client can get: its name, SQLSTATE, severity, whose side it is, message, detail
//! and hint. `docs/errors.md` carries the same table; a test compares the two.
//!
//! A cause that is not for the client's eyes goes to the log where it happened, never in here.

mod budget;

use std::borrow::Cow;
use std::time::Duration;

pub use budget::{Budget, Excess};

/// PostgreSQL's own words (ProcessInterrupts).
const SESSION_IDLE: &str = "terminating connection due to idle-session timeout";

/// A refusal: an answer the gate gives instead of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    TlsRequired,
    AuthenticationFailed,
    PasswordInClear,
    /// Too many logins from there, or at that tenant, have failed.
    TooManyFailures {
        retry_after: Duration,
    },
    /// No rule of the listener lets this user log in.
    LoginRejected,
    /// The listener wants a client certificate and there is none.
    CertificateRequired,
    /// The client and the gate do not see the same TLS connection.
    ChannelBinding {
        what: Cow<'static, str>,
    },
    UnknownDatabase {
        database: String,
    },
    /// All client connections of the process are taken.
    TooManyClients,
    NoServerInTime {
        waited: Duration,
    },
    /// The console holds the tenant's requests back.
    Paused {
        waited: Duration,
    },
    OverBudget(Box<Excess>),
    /// One more session of the cluster's would keep a server between transactions.
    TooManyPins {
        limit: u32,
    },
    Cancelled,
    StatementTooLong {
        bytes_max: usize,
    },
    /// `what` is refused through the gate; `hint` says what to do instead.
    NotSupported {
        what: Cow<'static, str>,
        hint: &'static str,
    },
    /// A statement that would change what the context binds.
    ContextProtected {
        setting: String,
    },
    /// A statement that a rule of level guard denies.
    GuardDenied {
        rule: &'static str,
        what: &'static str,
        hint: &'static str,
    },
    /// A service's session has not chosen a tenant.
    NoTenant,
    /// It may not act for the one it chose.
    ActDenied,
    /// Whether it may act for the one it chose cannot be known now.
    ActUnavailable,
    ActForSession,
    /// Too many choices of the service were denied.
    TooManyDenied {
        retry_after: Duration,
    },
    ActTooLate,
    ActOutside,
    FailedTransaction,
    /// What the server said of a BEGIN that was held back.
    BeginRefused {
        what: Cow<'static, str>,
    },
    DuplicateStatement {
        name: String,
    },
    UnknownStatement {
        name: String,
    },
    UnknownSavepoint {
        name: String,
    },
    ContextUnverified,
    /// `retry`: how long no host of it will be tried.
    ClusterUnreachable {
        cluster: String,
        retry: Option<Duration>,
    },
    /// No host is what `target_session_attrs` asks for.
    ClusterRole(String),
    /// The server turned the gate's login away, which is nothing the client can be told more of.
    ClusterLogin(String),
    /// The server's login lacks what the gate demands of one; DBAs read the log for the reason.
    ClusterRefused(String),
    ServerLost,
    StateLost,
    /// A prepared statement gives or takes something else than when it was prepared.
    ResultChanged,
    /// What the server held for the session is lost.
    PinLost,
    Protocol {
        what: Cow<'static, str>,
    },
    LoginTimeout,
    ClientStalled,
    /// The client's own `idle_session_timeout` is over.
    ClientIdle,
    ShuttingDown,
    /// The session cannot go on as whom it is.
    Ended(Ending),
    InvalidStartup {
        what: Cow<'static, str>,
    },
    /// A word in `options` that is no setting.
    InvalidOptions {
        word: String,
    },
    /// DISCARD ALL where only a statement of its own may be.
    InsideTransaction {
        pipeline: bool,
    },
    /// What the server says of a setting that the client asked for, by its SQLSTATE.
    InvalidSetting {
        what: Cow<'static, str>,
    },
    UnknownSetting {
        what: Cow<'static, str>,
    },
    FixedSetting {
        what: Cow<'static, str>,
    },
    SettingDenied {
        what: Cow<'static, str>,
    },
    WorkerLost,
    /// The audit cannot be written, and the settings let nobody in without it.
    AuditUnavailable,
    /// The catalog's tables cannot be asked who may log in.
    CatalogUnavailable,
    Internal,
}

/// Why a session cannot go on as whom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The tenant was removed or moved.
    TenantEnded,
    TenantDisabled,
    /// What the client proved itself with is past its time.
    CredentialExpired,
    /// What the client proved itself with does not count any more.
    CredentialRevoked,
}

impl Ending {
    fn reason(self) -> &'static str {
        match self {
            Self::TenantEnded => "the tenant changed",
            Self::TenantDisabled => "the tenant is disabled",
            Self::CredentialExpired => "the credential has expired",
            Self::CredentialRevoked => "the credential was revoked",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::TenantEnded => "The tenant was removed or moved.",
            Self::TenantDisabled => "Ask whoever runs the gate to enable the tenant.",
            Self::CredentialExpired => "Log in again with a fresh token.",
            Self::CredentialRevoked => {
                "Log in with another one: its token, its issuer or the issuer's key is no longer \
                 accepted."
            }
        }
    }
}

/// Whether the session goes on after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The request is refused, the session goes on.
    Error,
    /// The connection ends.
    Fatal,
}

impl Severity {
    /// The word in the `S` and `V` fields of an ErrorResponse.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// Whose doing a refusal is; the label of the refusals metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Tenant,
    Server,
    Gate,
}

impl Side {
    /// The word in metrics and docs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Tenant => "tenant",
            Self::Server => "server",
            Self::Gate => "gate",
        }
    }
}

/// One row of the table in `docs/errors.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub name: &'static str,
    pub sqlstate: &'static str,
    pub severity: Severity,
    pub side: Side,
}

impl Error {
    /// Name, SQLSTATE, severity and side.
    pub fn facts(&self) -> Facts {
        use Severity::{Error as E, Fatal as F};
        use Side::{Client, Gate, Server, Tenant};
        let (name, sqlstate, severity, side) = match self {
            Self::TlsRequired => ("tls_required", "28000", F, Client),
            Self::AuthenticationFailed => ("authentication_failed", "28P01", F, Client),
            Self::PasswordInClear => ("password_in_clear", "28000", F, Client),
            Self::TooManyFailures { .. } => ("too_many_failures", "53400", F, Client),
            Self::LoginRejected => ("login_rejected", "28000", F, Client),
            Self::CertificateRequired => ("certificate_required", "28000", F, Client),
            Self::ChannelBinding { .. } => ("channel_binding", "28000", F, Client),
            Self::UnknownDatabase { .. } => ("unknown_database", "3D000", F, Client),
            Self::TooManyClients => ("too_many_clients", "53300", F, Gate),
            Self::NoServerInTime { .. } => ("no_server_in_time", "53300", E, Gate),
            Self::Paused { .. } => ("paused", "57P03", E, Gate),
            Self::OverBudget(excess) => excess.budget.facts(),
            Self::TooManyPins { .. } => ("too_many_pins", "53400", E, Gate),
            Self::Cancelled => ("cancelled", "57014", E, Client),
            Self::StatementTooLong { .. } => ("statement_too_long", "54000", E, Client),
            Self::NotSupported { .. } => ("not_supported", "0A000", E, Client),
            Self::ContextProtected { .. } => ("context_protected", "42501", E, Client),
            Self::GuardDenied { .. } => ("guard_denied", "42501", E, Client),
            Self::NoTenant => ("no_tenant", "42501", E, Client),
            Self::ActDenied => ("act_denied", "42501", E, Client),
            Self::ActUnavailable => ("act_unavailable", "57P03", E, Gate),
            Self::TooManyDenied { .. } => ("too_many_denied", "53400", E, Client),
            Self::ActForSession => ("act_for_session", "42501", E, Client),
            Self::ActTooLate => ("act_too_late", "25001", E, Client),
            Self::ActOutside => ("act_outside", "25P01", E, Client),
            Self::FailedTransaction => ("failed_transaction", "25P02", E, Client),
            Self::BeginRefused { .. } => ("begin_refused", "0A000", E, Server),
            Self::DuplicateStatement { .. } => ("duplicate_statement", "42P05", E, Client),
            Self::UnknownStatement { .. } => ("unknown_statement", "26000", E, Client),
            Self::UnknownSavepoint { .. } => ("unknown_savepoint", "3B001", E, Client),
            Self::ContextUnverified => ("context_unverified", "58000", F, Server),
            Self::ClusterUnreachable { .. } => ("cluster_unreachable", "08001", E, Server),
            Self::ClusterRole(_) => ("cluster_role", "08001", E, Server),
            Self::ClusterLogin(_) => ("cluster_login", "08001", E, Server),
            Self::ClusterRefused(_) => ("cluster_refused", "08001", E, Server),
            Self::ServerLost => ("server_lost", "08006", F, Server),
            Self::StateLost => ("state_lost", "08006", F, Server),
            Self::ResultChanged => ("result_changed", "0A000", E, Client),
            Self::PinLost => ("pin_lost", "08006", F, Server),
            Self::Protocol { .. } => ("protocol_violation", "08P01", F, Client),
            Self::LoginTimeout => ("login_timeout", "08P01", F, Client),
            Self::ClientStalled => ("client_stalled", "08006", F, Client),
            Self::ClientIdle => ("client_idle", "57P05", F, Client),
            Self::ShuttingDown => ("shutting_down", "57P01", F, Gate),
            Self::Ended(Ending::TenantEnded) => ("tenant_ended", "57P01", F, Tenant),
            Self::Ended(Ending::TenantDisabled) => ("tenant_disabled", "57P01", F, Tenant),
            Self::Ended(Ending::CredentialRevoked) => ("credential_revoked", "57P01", F, Client),
            Self::Ended(Ending::CredentialExpired) => ("credential_expired", "57P01", F, Client),
            Self::InvalidStartup { .. } => ("invalid_startup", "08P01", F, Client),
            Self::InvalidOptions { .. } => ("invalid_options", "42601", F, Client),
            Self::InsideTransaction { .. } => ("inside_transaction", "25001", E, Client),
            Self::InvalidSetting { .. } => ("invalid_setting", "22023", E, Client),
            Self::UnknownSetting { .. } => ("unknown_setting", "42704", E, Client),
            Self::FixedSetting { .. } => ("fixed_setting", "55P02", E, Client),
            Self::SettingDenied { .. } => ("setting_denied", "42501", E, Client),
            Self::WorkerLost => ("worker_lost", "57P03", F, Gate),
            Self::AuditUnavailable => ("audit_unavailable", "57P03", F, Gate),
            Self::CatalogUnavailable => ("catalog_unavailable", "57P03", F, Gate),
            Self::Internal => ("internal", "XX000", F, Gate),
        };
        Facts { name, sqlstate, severity, side }
    }

    /// Whether a server did not accept a setting that the client gave it.
    pub fn is_about_a_setting(&self) -> bool {
        matches!(
            self,
            Self::InvalidSetting { .. }
                | Self::UnknownSetting { .. }
                | Self::FixedSetting { .. }
                | Self::SettingDenied { .. }
        )
    }

    /// The primary message, in PostgreSQL's style (Error Message Style Guide).
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::TlsRequired => "connection requires TLS".into(),
            Self::AuthenticationFailed => "authentication failed".into(),
            Self::PasswordInClear => "password authentication requires TLS".into(),
            Self::TooManyFailures { .. } => "too many failed logins".into(),
            Self::LoginRejected => "the listener takes no login of this user".into(),
            Self::CertificateRequired => "connection requires a valid client certificate".into(),
            Self::UnknownDatabase { database } => {
                format!("database \"{database}\" does not exist").into()
            }
            Self::TooManyClients => "sorry, too many clients already".into(),
            Self::NoServerInTime { .. } => "no server connection became free in time".into(),
            Self::Paused { .. } => "the tenant is paused".into(),
            Self::OverBudget(excess) => excess.budget.message().into(),
            Self::TooManyPins { .. } => "too many sessions keep a server connection".into(),
            Self::ClientIdle => SESSION_IDLE.into(),
            Self::Cancelled => "canceling statement due to user request".into(),
            Self::StatementTooLong { .. } => "statement is too long".into(),
            Self::NotSupported { what, .. } => {
                format!("{what} is not supported through the gate").into()
            }
            Self::ContextProtected { setting } => {
                format!("permission denied to change \"{setting}\"").into()
            }
            Self::GuardDenied { what, .. } => format!("permission denied to {what}").into(),
            Self::ContextUnverified => "could not verify the tenant's context".into(),
            Self::ClusterUnreachable { cluster, .. } => {
                format!("could not connect to cluster \"{cluster}\"").into()
            }
            Self::ClusterRole(cluster) => {
                format!("no host of cluster \"{cluster}\" has the role that is asked for").into()
            }
            Self::ClusterLogin(cluster) => {
                format!("could not log in to cluster \"{cluster}\" for this tenant").into()
            }
            Self::ClusterRefused(cluster) => {
                format!("cluster \"{cluster}\" cannot serve this tenant safely").into()
            }
            Self::ServerLost => "server closed the connection unexpectedly".into(),
            Self::StateLost => "session settings could not be carried over".into(),
            Self::ResultChanged => "cached plan must not change result type".into(),
            Self::PinLost => "what the session holds on its server could not be kept".into(),
            Self::LoginTimeout => "canceling authentication due to timeout".into(),
            Self::ClientStalled => "client stopped reading or sending in mid-message".into(),
            Self::ShuttingDown => "terminating connection due to administrator command".into(),
            Self::InvalidOptions { word } => {
                format!("invalid command-line argument for server process: {word}").into()
            }
            Self::InsideTransaction { pipeline } => inside(*pipeline).into(),
            Self::Protocol { what }
            | Self::InvalidStartup { what }
            | Self::ChannelBinding { what }
            | Self::InvalidSetting { what }
            | Self::UnknownSetting { what }
            | Self::FixedSetting { what }
            | Self::SettingDenied { what } => what.clone(),
            Self::WorkerLost => "the tenant cannot be served at the moment".into(),
            Self::AuditUnavailable | Self::CatalogUnavailable => "no login is possible now".into(),
            Self::Ended(why) => format!("terminating connection because {}", why.reason()).into(),
            _ => self.message_of_choice(),
        }
    }

    /// The same for what concerns the choice of a tenant.
    fn message_of_choice(&self) -> Cow<'static, str> {
        match self {
            Self::NoTenant => "no tenant is chosen".into(),
            Self::ActDenied => "permission denied to act for the tenant".into(),
            Self::ActUnavailable => "the tenant cannot be looked up now".into(),
            Self::ActForSession => {
                "permission denied to act for a tenant in a whole session".into()
            }
            Self::TooManyDenied { .. } => "too many choices of a tenant were denied".into(),
            Self::ActTooLate => {
                "a tenant must be chosen by the first statement of a transaction".into()
            }
            Self::ActOutside => "a tenant can only be chosen in a transaction".into(),
            Self::FailedTransaction => "current transaction is aborted, commands ignored until \
                                        end of transaction block"
                .into(),
            Self::BeginRefused { what } => what.clone(),
            Self::DuplicateStatement { name } => {
                format!("prepared statement \"{name}\" already exists").into()
            }
            Self::UnknownStatement { name } if name.is_empty() => {
                "unnamed prepared statement does not exist".into()
            }
            Self::UnknownStatement { name } => {
                format!("prepared statement \"{name}\" does not exist").into()
            }
            Self::UnknownSavepoint { name } => {
                format!("savepoint \"{name}\" does not exist").into()
            }
            _ => "internal error".into(),
        }
    }

    /// Facts that help, as PostgreSQL's DETAIL.
    pub fn detail(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::NoServerInTime { waited } | Self::Paused { waited } => {
                Some(format!("Waited {:.3} s.", waited.as_secs_f32()).into())
            }
            Self::OverBudget(excess) => Some(excess.detail().into()),
            Self::TooManyPins { limit } => {
                Some(format!("The limit of the cluster is {limit}.").into())
            }
            Self::StatementTooLong { bytes_max } => {
                Some(format!("The limit is {bytes_max} bytes.").into())
            }
            Self::GuardDenied { rule, .. } => {
                Some(format!("Rule \"{rule}\" of level guard.").into())
            }
            Self::ContextProtected { .. } => {
                Some("The setting binds this connection to its tenant.".into())
            }
            _ => None,
        }
    }

    /// What to do about it, as PostgreSQL's HINT.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        let text = match self {
            Self::TlsRequired | Self::PasswordInClear => {
                "Connect with sslmode=require or stricter."
            }
            Self::LoginRejected => "The listener's \"rules\" say which users log in, and how.",
            Self::CertificateRequired => {
                "Connect with sslmode=require or stricter, sslcert and sslkey."
            }
            Self::ChannelBinding { .. } => {
                "Somebody may stand between; otherwise connect to the gate itself."
            }
            Self::UnknownDatabase { .. } => {
                "Use the tenant's database name or the tenant's id as dbname."
            }
            Self::TooManyClients => "Close idle connections, or raise \"clients\" of [gate].",
            Self::NoServerInTime { .. } => {
                "Shorten transactions, or raise the cluster's \"capacity\"."
            }
            Self::Paused { .. } => "Retry later.",
            Self::OverBudget(excess) => match excess.retry_after {
                Some(retry_after) => return Some(retry(retry_after)),
                None => excess.budget.hint(),
            },
            Self::TooManyFailures { retry_after } | Self::TooManyDenied { retry_after } => {
                return Some(retry(*retry_after));
            }
            Self::TooManyPins { .. } => {
                "Let other sessions release theirs (DISCARD ALL), or raise the cluster's \
                 \"capacity\"."
            }
            Self::NotSupported { hint, .. } | Self::GuardDenied { hint, .. } => hint,
            Self::ContextProtected { setting } => hint_of_context(setting),
            Self::NoTenant | Self::ActTooLate | Self::ActOutside => {
                "Send BEGIN, then SET LOCAL tenantgate.tenant or tenantgate.token."
            }
            Self::ActDenied => "Check the id or token, and the service's acts_for.",
            Self::ActForSession => "Use SET LOCAL in a transaction, or set session_wide.",
            Self::ClusterUnreachable { retry: Some(retry), .. } => {
                return Some(format!("The next try is in {:.1} s.", retry.as_secs_f32()).into());
            }
            Self::ClusterUnreachable { .. } => "Retry; the gate's log has the reason.",
            Self::ClusterRole(_) => {
                "Retry when a host has it; the connection string says target_session_attrs."
            }
            Self::ClusterLogin(_) => {
                "Your own password is not meant; the gate's log has the reason."
            }
            Self::ClusterRefused(_) => {
                "The gate's log has what is missing; for levels, tenantgate install mends it."
            }
            Self::ServerLost | Self::StateLost | Self::PinLost => {
                "Reconnect and repeat the transaction."
            }
            Self::ShuttingDown => "Retry when the gate is back, or at another one.",
            // As a server says it, whose words clients know.
            Self::InvalidOptions { .. } => "Try \"postgres --help\" for more information.",
            Self::WorkerLost => "The gate must be restarted; its log has the reason.",
            Self::AuditUnavailable | Self::CatalogUnavailable | Self::ActUnavailable => {
                "Retry; the gate's log says why."
            }
            Self::Ended(why) => why.hint(),
            _ => return None,
        };
        (!text.is_empty()).then(|| text.into())
    }
}

/// What to do instead of changing a setting that the context owns.
fn hint_of_context(setting: &str) -> &'static str {
    match setting.to_ascii_lowercase().as_str() {
        "search_path" => "Write schema.table; the tenant's \"schema\" sets the path.",
        "role" | "session_authorization" => "Give the tenant or its credential another \"role\".",
        _ => "Connect with the token of the tenant you mean.",
    }
}

fn retry(after: Duration) -> Cow<'static, str> {
    format!("Retry after {:.3} s.", after.as_secs_f32()).into()
}

/// As a server says it.
fn inside(pipeline: bool) -> &'static str {
    match pipeline {
        true => "DISCARD ALL cannot be executed within a pipeline",
        false => "DISCARD ALL cannot run inside a transaction block",
    }
}
