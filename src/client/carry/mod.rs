//! Settings that follow a session from server to server: which may, how far, and how the gate
//! learns what they are.

pub mod caps;
pub mod carried;
pub mod idle;
pub mod resets;
mod touched;

pub use touched::{ENCODING, Noted, STRINGS, Touched, decides_reading, without};
