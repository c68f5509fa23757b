//! What a tenant may spend, and its running totals. No I/O and no clock: callers hand the time in.

mod account;
mod limits;
mod rate;

pub use account::{
    Account, Accounts, ClientSlot, Over, Permit, PinSlot, Reservation, ServerSlot, Totals,
};
pub use limits::Limits;
