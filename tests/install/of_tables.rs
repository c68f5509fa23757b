//! Install where tenants stand in tables: it prepares for them as for those of the file.

use std::fs;

use tenantgate::demo::Plan;

use crate::catalog::Tables;
use crate::harness::cluster::{own, superuser};
use crate::harness::tenants::LOGIN_PASSWORD;
use crate::install::tools::{OLD, Setup};

#[tokio::test]
async fn tenants_of_tables_are_prepared_for_as_those_of_the_file_are() {
    let cluster = own(&Plan::default()).await;
    let setup = Setup::new(&cluster, "guard", OLD);
    let tables = Tables::new(&cluster).await;
    let whole = fs::read_to_string(setup.settings()).unwrap();
    let head = whole.split("[tenants.").next().unwrap();
    let settings = format!("{head}[catalog]\nconnection_string = \"{}\"\n", tables.conninfo);
    fs::write(setup.settings(), &settings).unwrap();
    let nobody = setup.install(&[]);
    assert!(nobody.code == 2 && nobody.err.contains("no row tenant"), "{nobody:?}");

    let postgres = superuser(&cluster, "postgres").await;
    for dbname in ["second", "alone"] {
        postgres.batch_execute(&format!("CREATE DATABASE {dbname}")).await.unwrap();
    }
    let conninfo = |login: &str, dbname: &str| cluster.conninfo(login, LOGIN_PASSWORD, dbname);
    tables
        .run(&format!(
            "INSERT INTO tenants (id, isolation, cluster, schema, role, connection_string)
             VALUES ('acme', 'row', 'main', 'app', 'app_rw', NULL),
               ('other', 'row', 'main', NULL, 'second_rw', '{}'),
               ('beta', 'schema', 'main', 'own_beta', NULL, '{}'),
               ('gamma', 'silo', 'main', NULL, NULL, '{}');
             INSERT INTO tenants (id, isolation, cluster, schema, role)
             SELECT 'z' || n, 'row', 'main', 'app', 'app_rw' FROM generate_series(1, 3000) n",
            conninfo("tg_second", "second"),
            conninfo("tg_beta", "app"),
            conninfo("tg_gamma", "alone"),
        ))
        .await;
    let first = setup.install(&[]);
    assert!(first.code == 0 && !first.err.contains("fault"), "{first:?}");
    for dbname in ["app", "second"] {
        assert!(first.out.contains(&format!("database {dbname}\n")), "{first:?}");
    }
    assert_eq!(first.out.matches("level guard is in place").count(), 2, "{first:?}");
    assert!(!first.out.contains("alone"), "silo tenants need nothing: {first:?}");
    let again = setup.install(&[]);
    let steps = again.out.lines().filter(|line| line.starts_with("  ") && !line.contains("level"));
    let undone: Vec<&str> = steps.filter(|line| !line.ends_with("there already")).collect();
    assert!(again.code == 0 && undone.iter().all(|line| line.contains("enter")), "{undone:?}");

    for (id, dbname, other) in [("acme", "app", "second"), ("other", "second", "app")] {
        let said = setup.install(&["--tenant", id]);
        let at = |dbname: &str| said.out.contains(&format!("database {dbname}\n"));
        assert!(said.code == 0 && at(dbname) && !at(other), "{said:?}");
    }
    for _ in 0..2 {
        let said = setup.install(&["--tenant", "beta"]);
        assert!(said.of("login tg_beta").ends_with("made"), "{said:?}");
    }
    let app = superuser(&cluster, "app").await;
    let sql = "SELECT has_schema_privilege('tg_beta', 'own_beta', 'USAGE')";
    assert!(app.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
    for id in ["gamma", "nobody"] {
        let said = setup.install(&["--tenant", id]);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains("no row or schema tenant"), "{said:?}");
    }
    // A row at fault is nobody's tenant, and that is said.
    tables.run("UPDATE tenants SET cluster = 'nowhere' WHERE id = 'z7'").await;
    let said = setup.install(&[]);
    assert!(said.code == 0 && said.err.contains("1 rows of the tables are at fault"), "{said:?}");

    // Without the tables nobody knows what there is to prepare.
    let away = settings.replace(&format!("user={}", tables.reader), "user=nobody");
    assert_ne!(away, settings);
    fs::write(setup.settings(), away).unwrap();
    for more in [&[][..], &["--tenant", "acme"], &["--print"]] {
        let said = setup.install(more);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{said:?}");
        assert!(said.err.contains("cannot read the tables in database"), "{said:?}");
    }
}
