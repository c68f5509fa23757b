//! tenantgate: a tenant-aware PostgreSQL connection proxy.
//!
//! The rooms, in the order in which a request meets them (imports go the other way: a room knows
//! only rooms that stand later in the layering of `docs/architecture.md`):
//!
//! - `gate` the process: starts doors and workers, reloads, drains
//! - `client` the side that faces applications: start-up, the session, the relay
//! - [`auth`] who is asking: JSON Web Tokens and opaque tokens
//! - [`catalog`] who the tenants are and where their data lives
//! - [`guard`] what a statement text would do to a pooled session
//! - [`budget`] what a tenant may spend
//! - [`pool`] many clients over few server connections
//! - [`server`] the side that faces PostgreSQL: connect, log in, bind, scrub
//! - [`isolation`] what makes a server connection a tenant's
//! - [`wire`], [`net`] the protocol as bytes; sockets and TLS
//! - `console`, `telemetry` what operators see
//! - [`doctor`] what would leak in the tenants' databases
//! - [`config`], [`cli`], [`demo`] settings, the command line, the demonstration

pub mod auth;
pub mod budget;
pub mod catalog;
pub mod cli;
mod client;
pub mod config;
mod console;
pub mod demo;
pub mod doctor;
mod error;
mod gate;
pub mod guard;
pub mod isolation;
pub mod net;
pub mod pool;
pub mod secret;
pub mod server;
mod spelling;
mod telemetry;
pub mod wire;
