//! Tenants that are read-only, paused, disabled, or on their way to another route: what live
//! sessions of every kind notice of it, and that nothing is lost, done twice, or done in the wrong
//! place.

mod example;
mod failures;
mod held;
mod moving;
mod services;
mod states;
mod unknown;

use std::fs;
use std::time::Duration;

use crate::catalog::Tables;
use crate::console::verifier;
use crate::harness::cluster::{shared, superuser};
use crate::harness::gate::Gate;
use crate::harness::messages::{ONE, query};
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tweaks};
use crate::harness::wire::{Login, Wire};
use crate::harness::{eventually, unique};

/// A gate with a console, an audit, tables and a login that may change routes in them.
pub struct Stage {
    pub estate: Estate,
    pub tables: Tables,
    pub mover: String,
    pub gate: Gate,
    settings: String,
}

impl Stage {
    /// `more` are whole tables of the settings.
    pub async fn new(more: &str) -> Self {
        Self::keeping("", more).await
    }

    /// The same with lines of `[catalog]`.
    pub async fn keeping(lines: &str, more: &str) -> Self {
        let (estate, tables) = (Estate::new().await, Tables::new(shared().await).await);
        let mover = tables.with_mover();
        let (reader, verifier) = (&tables.conninfo, verifier().await);
        let more = format!(
            "[catalog]\nconnection_string = \"{reader}\"\nmover_connection_string = \"{mover}\"\n\
             cache_file = \"catalog.copy\"\n{lines}\n[console.users]\nadmin = \"{verifier}\"\n\n\
             [audit]\nfile = \"audit.jsonl\"\n\n{more}"
        );
        let settings = estate.settings(&Tweaks { capacity: 12, more: &more, ..Tweaks::default() });
        let gate = Gate::start(&settings).await;
        Self { estate, tables, mover, gate, settings }
    }

    pub fn settings(&self) -> &str {
        &self.settings
    }

    pub async fn console(&self) -> Wire {
        Wire::login(self.gate.port, &crate::console::ADMIN).await
    }

    /// A raw session of whoever has the token.
    pub async fn login(&self, token: &str) -> Wire {
        self.login_to("app", token).await
    }

    /// The same for another database's name.
    pub async fn login_to(&self, dbname: &str, token: &str) -> Wire {
        let login = Login { user: "app", dbname, password: token, more: &[] };
        Wire::login(self.gate.port, &login).await
    }

    /// Waits until a token lets its bearer in.
    pub async fn let_in(&self, token: &str) -> Wire {
        drop(crate::catalog::let_in(&self.gate, token).await);
        self.login(token).await
    }

    /// Waits until the audit has a line with all of these in it.
    pub async fn audited(&self, parts: &[&str]) {
        let path = self.gate.folder().join("audit.jsonl");
        eventually(&format!("{parts:?} in the audit"), async || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            text.lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
        })
        .await;
    }
}

/// A database with a table of notes and a login of its own, and the words of a MOVE to it.
pub struct Silo {
    pub name: String,
    pub conninfo: String,
}

impl Silo {
    pub async fn new() -> Self {
        let name = format!("silo_{}", unique());
        let cluster = shared().await;
        let postgres = superuser(cluster, "postgres").await;
        postgres.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let silo = superuser(cluster, &name).await;
        let sql = format!(
            "CREATE ROLE tg_{name} LOGIN NOINHERIT PASSWORD '{LOGIN_PASSWORD}';
             CREATE TABLE notes (id integer PRIMARY KEY, body text);
             GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO tg_{name};"
        );
        silo.batch_execute(&sql).await.unwrap();
        let conninfo = cluster.conninfo(&format!("tg_{name}"), LOGIN_PASSWORD, &name);
        Self { name, conninfo }
    }

    /// The order that has a tenant live here.
    pub fn order(&self, id: &str) -> String {
        format!("MOVE TENANT {id} TO silo ON main CONNECTION_STRING '{}'", self.conninfo)
    }
}

/// Sends requests until one is held back; all before it were answered.
pub async fn waits(wire: &mut Wire) {
    eventually("a request waits", async || {
        wire.send(query("SELECT 1")).await;
        let answered = !is_silent(wire).await;
        if answered {
            // Of which one frame is read.
            wire.until_ready().await;
        }
        (!answered).then_some(())
    })
    .await;
}

/// Whether nothing comes for a while.
pub async fn is_silent(wire: &mut Wire) -> bool {
    tokio::time::timeout(Duration::from_millis(250), wire.frame()).await.is_err()
}

/// In which database a session's next request runs.
pub async fn place(wire: &mut Wire) -> String {
    let said = wire.query("SELECT current_database()").await;
    let name = said.strip_prefix("T D(").and_then(|rest| rest.split_once(')'));
    name.unwrap_or_else(|| panic!("{said}")).0.to_owned()
}
