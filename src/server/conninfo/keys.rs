//! Every key libpq 18 knows, and `sslpin`, and what the gate does with it.

/// What happens to a key that stands in a connection string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is read.
    Read,
    /// It may stand there and changes nothing.
    Ignored,
    /// Only these values are possible here, and they change nothing.
    Only(&'static [&'static str]),
    /// It cannot be honoured, for the reason given; ignoring it would be wrong.
    Refused(&'static str),
}

use Standing::{Ignored, Only, Read, Refused};

const OWNED: &str = "the gate sets it for each client";
const FILES: &str = "write the values into the connection string itself";
const GSS: &str = "GSSAPI is not supported towards servers";
const OAUTH: &str = "OAuth is not supported towards servers";
const REVOCATION: &str = "revocation lists are not supported";
const SCRAM_KEYS: &str = "give the password instead";

/// Keys by name (PostgreSQL manual, 34.1.2).
pub(super) const KEYS: &[(&str, Standing)] = &[
    ("user", Read),
    ("password", Read),
    ("dbname", Read),
    ("host", Read),
    ("hostaddr", Read),
    ("port", Read),
    ("sslmode", Read),
    ("sslnegotiation", Read),
    ("sslrootcert", Read),
    ("sslcert", Read),
    ("sslkey", Read),
    ("sslsni", Read),
    ("sslpin", Read),
    ("channel_binding", Read),
    ("require_auth", Read),
    ("connect_timeout", Read),
    ("keepalives", Read),
    ("keepalives_idle", Read),
    ("keepalives_interval", Read),
    ("keepalives_count", Read),
    ("tcp_user_timeout", Read),
    ("application_name", Ignored),
    ("fallback_application_name", Ignored),
    ("target_session_attrs", Read),
    ("load_balance_hosts", Read),
    ("gssencmode", Only(&["disable", "prefer"])),
    ("gssdelegation", Only(&["0"])),
    ("sslcompression", Only(&["0"])),
    ("sslcertmode", Only(&["allow"])),
    ("ssl_min_protocol_version", Only(&["TLSv1", "TLSv1.1", "TLSv1.2"])),
    ("ssl_max_protocol_version", Only(&["TLSv1.3"])),
    ("min_protocol_version", Read),
    ("max_protocol_version", Read),
    ("client_encoding", Refused(OWNED)),
    ("options", Refused(OWNED)),
    ("replication", Refused("replication connections are not for tenants")),
    ("service", Refused(FILES)),
    ("servicefile", Refused(FILES)),
    ("passfile", Refused(FILES)),
    ("sslpassword", Refused("the key file must not be encrypted")),
    ("sslcrl", Refused(REVOCATION)),
    ("sslcrldir", Refused(REVOCATION)),
    ("sslkeylogfile", Refused("TLS secrets are never written to a file")),
    ("requirepeer", Refused("the owner of a server's socket is not checked")),
    ("krbsrvname", Refused(GSS)),
    ("gsslib", Refused(GSS)),
    ("scram_client_key", Refused(SCRAM_KEYS)),
    ("scram_server_key", Refused(SCRAM_KEYS)),
    ("oauth_issuer", Refused(OAUTH)),
    ("oauth_client_id", Refused(OAUTH)),
    ("oauth_client_secret", Refused(OAUTH)),
    ("oauth_scope", Refused(OAUTH)),
];

/// The key of this name, with the name as it stands in the table.
pub(super) fn find(name: &str) -> Option<(&'static str, Standing)> {
    KEYS.iter().find(|(known, _)| *known == name).copied()
}
