//! Memory per client that has logged in and does nothing. Taken from the difference between two
//! numbers of clients, so that what a proxy needs for itself is not counted.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::driver::Client;
use crate::sheet::cell;
use crate::stage::{Door, Proxy};
use crate::{Bench, proc, say};

/// A quarter of the clients is connected before the first look: caches and tables have grown then.
const CLIENTS: usize = 2000;

/// Files the benchmark needs for anything but its clients.
const OTHER_FILES: usize = 100;

/// After the last login, for buffers to be given back.
const REST: Duration = Duration::from_millis(500);

pub fn run(bench: &mut Bench) -> Result<()> {
    // A proxy needs one file for each client too, and is started with our limits.
    let clients = CLIENTS.min(proc::open_files_max().saturating_sub(OTHER_FILES)) / 4 * 4;
    let header = ["through", "idle clients", "bytes per client", "MiB in all"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let gate = bench.stage.gate(8, &[])?;
    let pgbouncer = bench.stage.pgbouncer(8, &[])?;
    for (name, proxy) in [("tenantgate", &gate), ("PgBouncer", &pgbouncer)] {
        let door = |number| match name {
            "tenantgate" => bench.stage.tenant(proxy, number),
            _ => bench.stage.bounced(proxy, "app"),
        };
        let seen = bench.runtime.block_on(looks(proxy, clients, door))?;
        let mut before = *seen.first().context("no look was taken")?;
        for look in seen.into_iter().skip(1) {
            let each = before.1.zip(look.1).map(|(before_bytes, bytes)| {
                bytes.saturating_sub(before_bytes) as f64 / (look.0 - before.0) as f64
            });
            let total = look.1.map(|bytes| bytes as f64 / f64::from(1 << 20));
            say(&format!("{} idle clients at {name}: {} bytes each", look.0, cell(each)));
            let range = format!("{} to {}", before.0, look.0);
            rows.push(vec![name.to_owned(), range, cell(each), cell(total)]);
            before = look;
        }
    }
    bench.sheet.table("Memory of idle clients (PSS, plaintext)", 1, &rows);
    Ok(())
}

/// Memory with a quarter, half and all of the clients.
async fn looks(
    proxy: &Proxy,
    clients: usize,
    door: impl Fn(usize) -> Door,
) -> Result<Vec<(usize, Option<u64>)>> {
    let mut idle = Vec::new();
    let mut looks = Vec::new();
    for number in [clients / 4, clients / 2, clients] {
        while idle.len() < number {
            idle.push(Client::login(&door(idle.len())).await?);
        }
        tokio::time::sleep(REST).await;
        looks.push((number, proc::memory(proxy.pid())));
    }
    Ok(looks)
}
