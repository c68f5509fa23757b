//! What a tenant may spend, and its running totals. No I/O and no clock: callers hand the time in.

mod account;
mod accounts;
mod amount;
mod breaker;
mod limits;
mod overrides;
mod rate;
mod share;
mod spend;
mod usage;

pub use account::{Account, ClientSlot, Over, Permit, PinSlot, Reservation, ServerSlot, Totals};
pub use accounts::{Accounts, Reader, Sums};
pub use amount::{Allowance, Amount, Trip};
pub use limits::{Excessive, Kind, Limits};
pub use overrides::{InForce, Override};
pub use share::Share;
pub use usage::{Usage, Waiting};
