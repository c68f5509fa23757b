//! The doctor where tenants stand in tables: it finds what it finds for those of the file, and
//! never gives a clean bill of what it did not look at.

use std::collections::BTreeSet;

use crate::catalog::Tables;
use crate::doctor::stage::{Seen, Stage};
use crate::doctor::{differences, expected};

/// The broken databases, and tables with the tenants of the stage.
struct Scene {
    stage: Stage,
    tables: Tables,
}

impl Scene {
    async fn new() -> Self {
        let stage = Stage::new().await;
        let tables = Tables::new(&stage.cluster).await;
        let scene = Self { stage, tables };
        let conninfo = |dbname: &str, login: &str| {
            let port = scene.stage.cluster.port();
            format!(
                "'host=127.0.0.1 port={port} dbname={dbname} user={login} password=secret \
                 sslmode=disable require_auth=none,scram-sha-256'"
            )
        };
        let own = |schema: &str| conninfo("shop", &format!("tg_{schema}"));
        scene
            .tables
            .run(&format!(
                "INSERT INTO tenants (id, isolation, cluster, schema, role, connection_string)
                 VALUES ('acme', 'row', 'main', 'app', 'shop_rw', NULL),
                   ('globex', 'row', 'main', 'app', 'shop_rw', NULL),
                   ('hooli', 'row', 'main', 'app', 'bad_rw', {}),
                   ('wayne', 'row', 'main', NULL, NULL, {}),
                   ('alpha', 'schema', 'main', 'alpha', NULL, {}),
                   ('beta', 'schema', 'main', 'beta', NULL, {}),
                   ('vault', 'silo', 'main', NULL, NULL, {})",
                conninfo("shop", "tg_bad"),
                conninfo("attic", "tg_attic"),
                own("alpha"),
                own("beta"),
                conninfo("vault", "tg_vault"),
            ))
            .await;
        scene
    }

    /// Settings without a tenant, but for these lines.
    fn settings(&self, tenants: &str) -> String {
        let whole = self.stage.settings("plain", self.stage.cluster.port());
        let head = whole.split("[tenants.").next().unwrap();
        format!("{head}{tenants}\n[catalog]\nconnection_string = \"{}\"\n", self.tables.conninfo)
    }

    async fn look(&self, settings: &str, more: &[&str]) -> Seen {
        let admin = self.stage.cluster.superuser_conninfo("postgres");
        let arguments = ["--cluster", "main", "--admin", &admin];
        self.stage.run_with(settings, &[&arguments, more].concat()).await
    }
}

#[tokio::test]
async fn tenants_of_tables_are_looked_at_as_those_of_the_file_are() {
    let scene = Scene::new().await;
    let settings = scene.settings("");
    let seen = scene.look(&settings, &["--json"]).await;
    assert_eq!(seen.code, 1, "{}{}", seen.stdout, seen.stderr);
    assert_eq!(differences(&seen.findings(), &expected("plain")), "");
    // Many who come the same way are looked at no oftener.
    let many = "INSERT INTO tenants (id, isolation, cluster, schema, role)
                SELECT 'z' || n, 'row', 'main', 'app', 'shop_rw' FROM generate_series(1, 5000) n";
    scene.tables.run(many).await;
    let again = scene.look(&settings, &["--json"]).await;
    assert_eq!((again.code, again.findings()), (1, seen.findings()), "{}", again.stderr);
    let unseen = |seen: &Seen| seen.unseen().into_iter().collect::<BTreeSet<_>>();
    assert_eq!(unseen(&again), unseen(&seen));
    // Those of the file do not stand for those of the tables.
    scene.tables.run("DELETE FROM tenants WHERE id = 'vault'").await;
    let vault = format!(
        "[tenants.vault]\nisolation = \"silo\"\ncluster = \"main\"\n\
         connection_string = \"host=127.0.0.1 port={} dbname=vault user=tg_vault password=secret \
         sslmode=disable\"\n",
        scene.stage.cluster.port()
    );
    let both = scene.look(&scene.settings(&vault), &["--json"]).await;
    assert_eq!((both.code, differences(&both.findings(), &expected("plain"))), (1, String::new()));
}

#[tokio::test]
async fn what_was_not_looked_at_is_no_clean_bill() {
    let scene = Scene::new().await;
    let settings = scene.settings("");
    scene.tables.run("UPDATE tenants SET cluster = 'nowhere' WHERE id = 'wayne'").await;
    let part = scene.look(&settings, &[]).await;
    assert_eq!(part.code, 2, "{}", part.stdout);
    let told = "- rows of the tables: 1 at fault and not served";
    assert!(part.stdout.contains(told), "{}", part.stdout);
    assert!(part.stdout.trim_end().ends_with("in 2 databases"), "{}", part.stdout);
    scene.tables.run("DELETE FROM tenants").await;
    for arguments in [&[][..], &["--cluster", "main"]] {
        let none = scene.stage.run_with(&settings, arguments).await;
        assert_eq!(none.code, 2, "{}", none.stdout);
        assert!(none.stdout.trim_end().ends_with("\nnothing was looked at"), "{}", none.stdout);
        let told = "- everything: no tenant of the settings or the tables is on ";
        assert!(none.stdout.contains(told), "{}", none.stdout);
    }
    let port = format!("port={}", scene.stage.cluster.port());
    for (away, why) in [
        (settings.replace(&scene.tables.dbname, "nobodys"), "3D000"),
        (settings.replace(&scene.tables.reader, "nobody"), "28P01"),
        (settings.replace("[catalog]\n", "[catalog]\npoll = \"1s\"\n"), ""),
    ] {
        let (head, table) = away.split_once("[catalog]").unwrap();
        let table = if why.is_empty() { table.replace(&port, "port=1") } else { table.to_owned() };
        let away = scene.look(&format!("{head}[catalog]{table}"), &[]).await;
        assert_eq!((away.code, away.stdout.as_str()), (2, ""), "{}", away.stderr);
        let told = "cannot read the tables in database";
        assert!(away.stderr.contains(told) && away.stderr.contains(why), "{}", away.stderr);
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_not_counted() {
    let stage = Stage::new().await;
    let whole = stage.settings("plain", 1);
    let seen = stage.run_with(&whole, &[]).await;
    assert_eq!(seen.code, 2, "{}", seen.stdout);
    let last = "nothing was looked at: 3 databases could not be reached";
    assert!(seen.stdout.trim_end().ends_with(last), "{}", seen.stdout);
    let part = stage.settings("plain", stage.cluster.port()).replace("dbname=vault", "dbname=gone");
    let seen = stage.run_with(&part, &[]).await;
    assert_eq!(seen.code, 2, "{}", seen.stdout);
    let last = "in 2 databases; 1 database could not be reached";
    assert!(seen.stdout.trim_end().ends_with(last), "{}", seen.stdout);
}
