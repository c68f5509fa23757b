//! `read_only`, `paused` and `disabled`, said by the tables, the settings file and the console.

use std::cell::Cell;

use tenantgate::catalog::new_token;

use super::{ONE, Stage, is_silent, waits};
use crate::harness::cluster::shared;
use crate::harness::messages::{query, transcript};
use crate::harness::services::Service;
use crate::harness::wire::Wire;
use crate::harness::{eventually, unique};

const READ_ONLY: &str = "E(25006) Z(I)";

/// Two tenants, the second in session mode, and a service that may act for the first.
struct Cast<'cast> {
    stage: &'cast Stage,
    ids: [String; 2],
    tokens: [String; 2],
    service: &'cast Service,
    last: Cell<u32>,
}

impl Cast<'_> {
    fn insert(&self) -> String {
        self.last.set(self.last.get() + 1);
        format!("INSERT INTO notes (id, body) VALUES ({}, 'x')", self.last.get())
    }

    /// Waits until a write outside of a transaction is answered so.
    async fn writes(&self, wire: &mut Wire, wanted: &str) {
        eventually(wanted, async || (wire.query(&self.insert()).await == wanted).then_some(()))
            .await;
    }

    /// A session of the service in a transaction for the first tenant.
    async fn act(&self) -> Wire {
        let mut acting = self.service.wire(&self.stage.gate).await;
        assert_eq!(acting.query("BEGIN").await, "C(BEGIN) Z(T)");
        let choice = format!("SET LOCAL tenantgate.tenant = '{}'", self.ids[0]);
        assert_eq!(acting.query(&choice).await, "C(SET) Z(T)");
        acting
    }

    /// What sessions of every kind notice of each state.
    async fn play(&self, set: impl AsyncFn(&str)) {
        let [own, whole] = &self.tokens;
        let mut idle = self.stage.let_in(own).await;
        let mut inside = self.stage.login(own).await;
        let mut pinned = self.stage.login(own).await;
        let mut whole = self.stage.let_in(whole).await;
        assert_eq!(pinned.query("CREATE TEMP TABLE own ()").await, "C(CREATE TABLE) Z(I)");
        assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
        let mut acts = self.act().await;
        assert_eq!(acts.query(&self.insert()).await, "C(INSERT 0 1) Z(T)");

        set("read_only").await;
        for wire in [&mut idle, &mut pinned, &mut whole] {
            self.writes(wire, READ_ONLY).await;
            assert_eq!(wire.query("SELECT 1").await, ONE);
        }
        assert_eq!(pinned.query("TABLE own").await, "T C(SELECT 0) Z(I)");
        for wire in [&mut inside, &mut acts] {
            assert_eq!(wire.query(&self.insert()).await, "C(INSERT 0 1) Z(T)");
            assert_eq!(wire.query("COMMIT").await, "C(COMMIT) Z(I)");
        }
        assert_eq!(inside.query(&self.insert()).await, READ_ONLY);
        assert_eq!(self.act().await.query(&self.insert()).await, "E(25006) Z(E)");
        // Against mistakes only, where there is no login for it.
        assert_eq!(idle.query("BEGIN READ WRITE").await, "C(BEGIN) Z(T)");
        assert_eq!(idle.query(&self.insert()).await, "C(INSERT 0 1) Z(T)");
        assert_eq!(idle.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
        let off = "SET default_transaction_read_only = off";
        assert!(idle.query(off).await.starts_with("E("));
        let mut late = self.stage.login(own).await;
        assert_eq!(late.query(&self.insert()).await, READ_ONLY);

        set("active").await;
        for wire in [&mut idle, &mut pinned, &mut whole, &mut inside, &mut late] {
            self.writes(wire, "C(INSERT 0 1) Z(I)").await;
        }
        assert_eq!(pinned.query("TABLE own").await, "T C(SELECT 0) Z(I)");

        let mut chosen = self.act().await;
        assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
        set("paused").await;
        for wire in [&mut idle, &mut pinned, &mut whole] {
            waits(wire).await;
        }
        assert_eq!(inside.query(&self.insert()).await, "C(INSERT 0 1) Z(T)");
        assert_eq!(inside.query("COMMIT").await, "C(COMMIT) Z(I)");
        for wire in [&mut inside, &mut chosen] {
            wire.send(query("SELECT 1")).await;
            assert!(is_silent(wire).await);
        }
        set("active").await;
        for wire in [&mut idle, &mut pinned, &mut whole, &mut inside] {
            assert_eq!(transcript(&wire.until_ready().await), ONE);
        }
        assert_eq!(transcript(&chosen.until_ready().await), "T D(1) C(SELECT 1) Z(T)");
        assert_eq!(pinned.query("TABLE own").await, "T C(SELECT 0) Z(I)");

        assert_eq!(inside.query("BEGIN").await, "C(BEGIN) Z(T)");
        set("disabled").await;
        for wire in [&mut idle, &mut pinned, &mut whole] {
            assert_eq!(wire.until_closed().await, "E(57P01)");
        }
        assert_eq!(inside.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(T)");
        inside.send(query("COMMIT")).await;
        assert_eq!(inside.until_closed().await, "C(COMMIT) Z(I) E(57P01)");
        let mut refused = self.service.wire(&self.stage.gate).await;
        assert_eq!(refused.query("BEGIN").await, "C(BEGIN) Z(T)");
        let choice = format!("SET LOCAL tenantgate.tenant = '{}'", self.ids[0]);
        assert!(refused.query(&choice).await.starts_with("E("));
        set("active").await;
        assert_eq!(self.stage.let_in(own).await.query("SELECT 1").await, ONE);
    }
}

#[tokio::test]
async fn each_state_is_obeyed_by_every_kind_of_session_whoever_says_it() {
    let service = Service::new(shared().await, "acts_for = \"*\"").await;
    let tokens = [new_token().unwrap(), new_token().unwrap()];
    let mark = unique();
    let file = [format!("filed_{mark}"), format!("whole_{mark}")];
    let table = |state: &str| {
        let table = |(at, line): (usize, &String)| {
            let (id, pooling) = (&file[at], ["transaction", "session"][at]);
            format!(
                "[tenants.{id}]\nisolation = \"row\"\ncluster = \"main\"\nschema = \"app\"\n\
                 role = \"app_rw\"\ntier = \"free\"\ntokens = [\"{line}\"]\nstate = \"{state}\"\n\
                 limits = {{ pooling = \"{pooling}\" }}\n\n"
            )
        };
        let lines = [&tokens[0].line, &tokens[1].line];
        lines.into_iter().enumerate().map(table).collect::<String>()
    };
    let stage = Stage::new(&format!("{}{}", service.table, table("active"))).await;
    let (stage, service) = (&stage, &service);
    let cast = |ids, tokens| Cast { stage, ids, tokens, service, last: Cell::new(0) };

    let filed = cast(file.clone(), tokens.each_ref().map(|token| token.text.clone()));
    filed
        .play(async |state| {
            let settings = stage.settings().replace(&table("active"), &table(state));
            stage.gate.write_settings(&settings);
            stage.gate.reload();
        })
        .await;
    stage.audited(&["\"state\"", &file[0], "active to read_only, by the settings file"]).await;

    // What the file does not say the console can, and nobody else notices.
    let last = Cell::new(1000);
    let said = Cell::new("active".to_owned());
    Cast { last, ..filed }
        .play(async |state| {
            let order = match (said.replace(state.to_owned()).as_str(), state) {
                (_, "read_only") => "READ_ONLY",
                (_, "paused") => "PAUSE",
                (_, "disabled") => "DISABLE",
                ("read_only", _) => "READ_WRITE",
                ("paused", _) => "RESUME",
                _ => "ENABLE",
            };
            for id in &file {
                let mut console = stage.console().await;
                console.send(query(&format!("{order} TENANT {id}"))).await;
                if order != "PAUSE" {
                    assert_eq!(
                        transcript(&console.until_ready().await),
                        format!("C({order}) Z(I)")
                    );
                } else {
                    // It returns when what was begun is over; nobody waits for that.
                    tokio::spawn(async move { drop(console.until_ready().await) });
                }
            }
        })
        .await;
    stage.audited(&["\"console\"", &file[0], "READ_ONLY TENANT", "done", "\"admin\""]).await;

    let ids = [format!("row_{mark}"), format!("long_{mark}")];
    let tokens = [stage.tables.add(&ids[0]).await, stage.tables.add(&ids[1]).await];
    let session = r#"overrides = '{"pooling": "session"}'"#;
    stage.tables.run(&format!("UPDATE tenants SET {session} WHERE id = '{}'", ids[1])).await;
    let rows = cast(ids.clone(), tokens);
    rows.play(async |state| {
        stage.tables.run(&format!("UPDATE tenants SET state = '{state}'")).await;
    })
    .await;
    for (from, to) in [("active", "read_only"), ("active", "paused"), ("disabled", "active")] {
        let change = format!("{from} to {to}, by the catalog's tables");
        stage.audited(&["\"state\"", &ids[0], &change]).await;
    }
    let said = stage.tables.install(&[]);
    assert!(said.status.success(), "{said:?}");
}

#[tokio::test]
async fn tables_of_an_older_release_learn_the_states() {
    let tables = crate::catalog::Tables::new(shared().await).await;
    let id = format!("old_{}", unique());
    tables.add(&id).await;
    tables
        .run(
            "ALTER TABLE tenants DROP CONSTRAINT tenants_state, ADD CONSTRAINT tenants_state
               CHECK (state IN ('active', 'disabled'))",
        )
        .await;
    let pause = "UPDATE tenantgate_catalog.tenants SET state = 'paused'";
    assert!(tables.dba.batch_execute(pause).await.is_err());
    assert!(tables.install(&[]).status.success());
    tables.dba.batch_execute(pause).await.unwrap();
    let lost = "UPDATE tenantgate_catalog.tenants SET state = 'lost'";
    assert!(tables.dba.batch_execute(lost).await.is_err());
}
