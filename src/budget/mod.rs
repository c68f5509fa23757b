//! What a tenant may spend, and its running totals. No I/O and no clock: callers hand the time in.

mod account;
mod accounts;
mod amount;
mod breaker;
mod holdings;
mod limits;
mod overrides;
mod rate;
mod share;
mod spend;
mod texts;
mod usage;

pub use account::{Account, ClientSlot, Over, Permit, PinSlot, Reservation, ServerSlot};
pub use accounts::{Accounts, Reader, Sums};
pub use amount::{Allowance, Amount, Trip};
pub use holdings::ClusterNumber;
pub use limits::{Excessive, Kind, Limits};
pub use overrides::{InForce, Override};
pub use share::Share;
pub use texts::{TEXT_BYTES_MAX, Texts};
pub use usage::{Usage, Waiting};
