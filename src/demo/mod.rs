//! The demonstration: throw-away clusters, tenants of every isolation, a gate in front, and a table
//! of who saw what. The clusters serve the tests as well.

mod binaries;
mod cluster;
mod estate;
mod gate;
mod keeper;
mod scenes;

use std::time::Instant;

use anyhow::{Result, bail};
use comfy_table::{ContentArrangement, Table};
use tokio::signal::unix::{SignalKind, signal as listen};

use crate::demo::estate::Estate;
use crate::demo::gate::Gate;
use crate::demo::scenes::Line;

pub use binaries::Binaries;
pub use cluster::{Cluster, Plan, SUPERUSER, Template, free_port};
pub use estate::ROWS_SQL;
pub use keeper::{Keeper, User, command, signal};

/// Plays the demonstration on this machine. With `once` it ends after the table; else it keeps
/// everything running until ctrl-C.
///
/// # Errors
///
/// PostgreSQL is not on this machine, something did not start, or a line of the table is not what
/// it must be.
pub fn run(once: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(play(once))
}

async fn play(once: bool) -> Result<()> {
    let started = Instant::now();
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let show = async {
        println!("Starting two PostgreSQL clusters ...");
        let template = Template::new()?;
        println!("  programs: {}", template.binaries().folder().display());
        let shared = Cluster::start(&template, &Plan::default())?;
        let narrow = Cluster::start(&template, &Plan::default())?;
        let (first, second) = (shared.port(), narrow.port());
        println!("  clusters on ports {first} (shared) and {second} (capacity 1)");
        let estate = Estate::create(&shared, &narrow).await?;
        let gate = Gate::start(&estate).await?;
        println!("  gate on port {}, settings {}", gate.port(), gate.settings_file().display());
        let lines = scenes::play(&estate, &gate).await;
        println!("\n{}\n", table(&lines));
        verify(&lines).inspect_err(|_| eprintln!("What the gate logged:\n{}", gate.log()))?;
        println!(
            "{} lines, all as they must be, in {:.1} s.",
            lines.len(),
            started.elapsed().as_secs_f32()
        );
        if !once {
            println!("\n{}", invitation(&estate, &gate));
            std::future::pending::<()>().await;
        }
        anyhow::Ok(())
    };
    // Leaving by a signal drops gate and clusters, in this order, as the plain way out does.
    tokio::select! {
        shown = show => shown,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

fn table(lines: &[Line]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(118);
    table.set_header(["who connected", "what they saw", "what was refused"]);
    for line in lines {
        table.add_row([&line.who, &line.saw, &line.refused]);
    }
    table
}

fn verify(lines: &[Line]) -> Result<()> {
    let wrong: Vec<&str> = lines.iter().filter_map(|line| line.mismatch.as_deref()).collect();
    if !wrong.is_empty() {
        bail!("{} of {} lines are wrong:\n  {}", wrong.len(), lines.len(), wrong.join("\n  "));
    }
    Ok(())
}

/// What to paste into another terminal.
fn invitation(estate: &Estate, gate: &Gate) -> String {
    let mut text = "Everything keeps running until ctrl-C. In another terminal:\n".to_owned();
    for tenant in estate.visible() {
        let conninfo = tenant.conninfo(gate.port());
        let psql = estate.psql.display();
        text.push_str(&format!("\n# {} ({})\n", tenant.id, tenant.isolation));
        text.push_str(&format!("{psql} \"{conninfo}\" -c 'SELECT * FROM notes'\n"));
    }
    text.push_str(&format!("\nMetrics: http://127.0.0.1:{}/metrics", gate.http_port()));
    text
}
