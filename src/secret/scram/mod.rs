//! SCRAM-SHA-256 as a server speaks it (RFC 5802, RFC 7677): stored verifiers, the exchange with
//! and without channel binding, and verifiers for those who do not exist. Tenants and the console
//! log in with the same.

mod exchange;
mod mock;
mod verifier;

pub use exchange::{Binding, Broken, Exchange, MESSAGE_BYTES_MAX, Mechanism, offered};
pub use mock::Mock;
pub use verifier::Verifier;
