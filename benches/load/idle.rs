//! Memory per client that has logged in and does nothing, with TLS and without. Taken from the
//! difference between two numbers of clients, so that what a proxy needs for itself is not counted.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::driver::Client;
use crate::sheet::{Aim, cell};
use crate::stage::{Door, Proxy};
use crate::ways::Ways;
use crate::{Bench, proc, say};

/// A tenth of the clients is connected before the first look: caches and tables have grown then.
const CLIENTS: usize = 10_000;
const CLIENTS_OF_SMOKE: usize = 60;

/// Files the benchmark needs for anything but its clients.
const OTHER_FILES: usize = 100;

/// After the last login, for buffers to be given back.
const REST: Duration = Duration::from_millis(500);

/// A number of clients, and the bytes of the proxy with them.
type Look = (usize, Option<u64>);

pub fn run(bench: &mut Bench) -> Result<()> {
    // A proxy needs one file for each client too, and is started with our limits.
    let wanted = if bench.is_smoke() { CLIENTS_OF_SMOKE } else { CLIENTS };
    let clients = wanted.min(proc::open_files_max().saturating_sub(OTHER_FILES)) / 10 * 10;
    if clients < wanted {
        say(&format!("idle: {clients} clients instead of {wanted}: raise `ulimit -n`"));
    }
    let header = ["", "through", "idle clients", "bytes per client", "MiB in all"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let mut ours = Vec::new();
    for (what, tls) in [("plaintext", false), ("TLS 1.3", true)] {
        let ways = Ways::start(bench, 8, tls)?;
        let mut proxies = ways.gates();
        proxies.retain(|(name, _)| !name.ends_with("guard"));
        proxies.extend(ways.pgbouncer.as_ref().map(|it| (crate::lines::BASELINE, it)));
        for (name, proxy) in proxies {
            let door = |number| match name {
                crate::lines::BASELINE => bench.stage.bounced(proxy, "app"),
                _ => bench.stage.tenant(proxy, number),
            };
            let seen = bench.runtime.block_on(looks(proxy, clients, door))?;
            for pair in seen.windows(2) {
                let [before, look] = pair else { continue };
                let each = each(*before, *look);
                say(&format!("idle: {} clients at {name}, {what}: {} B each", look.0, cell(each)));
                let range = format!("{} to {}", before.0, look.0);
                let total = look.1.map(|bytes| bytes as f64 / f64::from(1 << 20));
                let cells = [what.to_owned(), name.to_owned(), range, cell(each), cell(total)];
                rows.push(cells.to_vec());
            }
            if name == "tenantgate" && !tls {
                ours.extend(seen);
            }
        }
    }
    let whole = ours.first().zip(ours.last()).and_then(|(first, last)| each(*first, *last));
    bench.sheet.aim(Aim::at_most("bytes per idle client, plaintext", 2000.0, whole));
    bench.sheet.table("Memory of idle clients (PSS)", 2, &rows);
    Ok(())
}

fn each(before: Look, look: Look) -> Option<f64> {
    Some(look.1?.saturating_sub(before.1?) as f64 / (look.0 - before.0).max(1) as f64)
}

/// Memory with a tenth, half and all of the clients.
async fn looks(proxy: &Proxy, clients: usize, door: impl Fn(usize) -> Door) -> Result<Vec<Look>> {
    let mut idle = Vec::new();
    let mut looks = Vec::new();
    for number in [clients / 10, clients / 2, clients] {
        while idle.len() < number {
            let client = Client::login(&door(idle.len())).await;
            idle.push(client.with_context(|| format!("client {}", idle.len() + 1))?);
        }
        tokio::time::sleep(REST).await;
        looks.push((number, proc::memory(proxy.pid())));
    }
    Ok(looks)
}
