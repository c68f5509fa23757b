//! What tests are made of: clusters, tenants, the gate as a child process, a protocol client that
//! sends any bytes, certificates, and hops that cut, stall, drip or alter what passes.
#![allow(dead_code, reason = "a contents page of tools; not every test binary state uses each")]

pub mod certs;
pub mod cluster;
pub mod faults;
pub mod gate;
pub mod http;
pub mod messages;
pub mod ports;
pub mod server;
pub mod services;
pub mod tenants;
pub mod wire;

use std::time::{Duration, Instant};

/// The longest a test waits for anything. Generous, because the machine may be busy; nothing waits
/// this long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks again and again until `look` gives a value; panics with `what` when patience ends.
pub async fn eventually<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut look: F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Twelve characters `[a-z0-9]` that no other test has.
pub fn unique() -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    (0..12).map(|_| char::from(ALPHABET[fastrand::usize(..36)])).collect()
}
