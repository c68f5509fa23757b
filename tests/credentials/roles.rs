//! Roles: a credential's role is another login, and so other servers, of the same tenant.

use serde_json::{Value, json};
use tenantgate::catalog::new_token;

use super::{AUDIT, attempt, claims, written};
use crate::harness::cluster::{shared, superuser};
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, JWT_KEY, LOGIN_PASSWORD, Tweaks, jwt_with};
use crate::harness::wire::Wire;
use crate::harness::{eventually, unique};

/// A role of row tenants that may only read, with a login of its own; gives its line.
async fn viewer() -> (String, String) {
    let (cluster, mark) = (shared().await, unique());
    let app = superuser(cluster, "app").await;
    app.batch_execute(&format!(
        "CREATE ROLE ro_{mark} NOLOGIN;
         CREATE ROLE tg_ro_{mark} LOGIN NOINHERIT PASSWORD '{LOGIN_PASSWORD}' IN ROLE ro_{mark};
         GRANT USAGE ON SCHEMA app TO ro_{mark};
         GRANT SELECT ON app.notes TO ro_{mark};"
    ))
    .await
    .unwrap();
    let port = cluster.port();
    let url =
        format!("postgresql://tg_ro_{mark}:{LOGIN_PASSWORD}@127.0.0.1:{port}/app?sslmode=disable");
    (format!("viewer = {{ connection_string = \"{url}\", role = \"ro_{mark}\" }}"), mark)
}

fn settings(estate: &Estate, roles: &str, token: &str) -> String {
    let cluster = format!("roles = {{ {roles} }}");
    let tweaks = Tweaks { cluster: &cluster, capacity: 2, more: AUDIT, ..Tweaks::default() };
    let claims = "role_claim = \"app.roles\"\nread_only_claim = \"ro\"\n";
    let settings = estate.settings(&tweaks);
    let settings = settings
        .replace("key_file = \"login.key\"\n", &format!("key_file = \"login.key\"\n{claims}"));
    let line = estate.acme.table().lines().find(|line| line.starts_with("tokens")).unwrap();
    let own = line.trim_end_matches(']');
    settings.replace(line, &format!("{own}, {token}]"))
}

fn token(estate: &Estate, changes: Value) -> String {
    let mut claims = claims("login", &estate.acme.id);
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    jwt_with(JWT_KEY, &claims)
}

async fn who(wire: &mut Wire) -> String {
    wire.query("SELECT session_user, current_user").await
}

#[tokio::test]
async fn each_role_is_a_login_of_its_own_and_the_default_is_the_least() {
    let estate = Estate::new().await;
    let (viewer, mark) = viewer().await;
    let reports = new_token().unwrap();
    let table = format!("{{ hash = \"{}\", role = \"viewer\" }}", reports.line);
    let roles = format!("editor = {{}}, {viewer}");
    let good = settings(&estate, &roles, &table);
    let gate = Gate::start(&good).await;
    let insert = "INSERT INTO notes (id, body) VALUES (77, 'x')";
    let session = async |token: &str| super::life::session(&gate, token).await;

    let editor = token(&estate, json!({ "app": { "roles": "editor" } }));
    let mut editor = session(&editor).await;
    assert_eq!(who(&mut editor).await, "T D(tg_login,app_rw) C(SELECT 1) Z(I)");
    assert_eq!(editor.query(insert).await, "C(INSERT 0 1) Z(I)");

    // As a claim, in a list, and as an opaque token's own.
    let lines = format!("T D(tg_ro_{mark},ro_{mark}) C(SELECT 1) Z(I)");
    let of_list = token(&estate, json!({ "app": { "roles": ["viewer"] } }));
    for token in [&of_list, &reports.text] {
        let mut viewer = session(token).await;
        assert_eq!(who(&mut viewer).await, lines);
        assert_eq!(viewer.query("SELECT count(*) FROM notes").await, "T D(4) C(SELECT 1) Z(I)");
        assert_eq!(viewer.query(insert).await, "E(42501) Z(I)");
        let writes = format!("BEGIN READ WRITE; {insert}");
        assert_eq!(viewer.query(&writes).await, "C(BEGIN) E(42501) Z(E)");
        assert_eq!(viewer.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
        for way_out in ["SET ROLE app_rw", "RESET ROLE", "SET SESSION AUTHORIZATION tg_login"] {
            viewer.query(way_out).await;
            assert_eq!(who(&mut viewer).await, lines, "{way_out}");
        }
    }

    // Without a role: the tenant's own login, writing nothing unless it says so.
    for least in [estate.acme.token.clone(), token(&estate, json!({}))] {
        let mut least = session(&least).await;
        assert_eq!(who(&mut least).await, "T D(tg_login,app_rw) C(SELECT 1) Z(I)");
        assert_eq!(least.query(insert).await, "E(25006) Z(I)");
        for way_out in [
            "SET default_transaction_read_only = off",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        ] {
            assert_eq!(least.query(way_out).await, "E(42501) Z(I)", "{way_out}");
        }
        assert_eq!(least.query("RESET ALL").await, "C(RESET) Z(I)");
        assert_eq!(least.query("DISCARD ALL").await, "C(DISCARD ALL) Z(I)");
        assert_eq!(least.query(insert).await, "E(25006) Z(I)");
    }
    // An editor whose token says so writes nothing either.
    let careful = token(&estate, json!({ "app": { "roles": "editor" }, "ro": true }));
    assert_eq!(session(&careful).await.query(insert).await, "E(25006) Z(I)");
    let again = insert.replace("77", "78");
    assert_eq!(editor.query(&again).await, "C(INSERT 0 1) Z(I)", "one server, another context");

    // An unknown role, several, or something else than a role is a wrong token.
    for wrong in [json!("admin"), json!("Editor"), json!(""), json!(["editor", "viewer"]), json!(7)]
    {
        let token = token(&estate, json!({ "app": { "roles": wrong } }));
        assert_eq!(attempt(&gate, &token).await, "R E(28P01)", "{wrong}");
    }
    let refusals = written(&gate, "refusal", 5).await;
    assert_eq!(refusals[0]["reason"], "the tenant has no such role");
    let logins = written(&gate, "login", 2).await;
    assert_eq!(logins[0]["credential"], "jwt login/alice as editor");

    // A default, and a role that is taken away under its sessions.
    let mut viewing = session(&of_list).await;
    let cluster = format!("roles = {{ {roles} }}");
    let defaulted = "roles = { editor = {} }\ndefault_role = \"editor\"";
    let changed = good.replace(&cluster, defaulted).replace(", role = \"viewer\"", "");
    gate.write_settings(&changed);
    gate.reload();
    let end = viewing.frame().await;
    assert_eq!(
        end.field('M').unwrap(),
        "terminating connection because the credential was revoked"
    );
    let third = insert.replace("77", "79");
    let mut defaulted = session(&estate.acme.token).await;
    assert_eq!(defaulted.query(&third).await, "C(INSERT 0 1) Z(I)");
    assert_eq!(editor.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn servers_of_one_role_never_serve_another() {
    let estate = Estate::new().await;
    let (viewer, mark) = viewer().await;
    let roles = format!("editor = {{}}, {viewer}");
    let nothing = new_token().unwrap();
    let gate = Gate::start(&settings(&estate, &roles, &format!("\"{}\"", nothing.line))).await;
    let mut sessions = Vec::new();
    for number in 0..4 {
        let role = ["editor", "viewer"][number % 2];
        let token = token(&estate, json!({ "app": { "roles": role } }));
        sessions.push((role, super::life::session(&gate, &token).await));
    }
    // Two servers for four sessions of two roles: they change hands all the time.
    for round in 0..20 {
        for (role, wire) in &mut sessions {
            let wanted = match *role {
                "editor" => "T D(tg_login,app_rw) C(SELECT 1) Z(I)".to_owned(),
                _ => format!("T D(tg_ro_{mark},ro_{mark}) C(SELECT 1) Z(I)"),
            };
            assert_eq!(who(wire).await, wanted, "round {round}");
        }
    }
    drop(sessions);
    eventually("the place is free", async || gate.try_connect(&estate.acme).await.ok()).await;
}

#[tokio::test]
async fn roles_that_could_become_each_other_are_refused_by_the_settings() {
    let estate = Estate::new().await;
    let port = shared().await.port();
    let url = |login: &str, dbname: &str| {
        format!("connection_string = \"postgresql://{login}@127.0.0.1:{port}/{dbname}\"")
    };
    let refused = |roles: &str, more: &str| {
        let cluster = format!("roles = {{ {roles} }}\n{more}");
        let tweaks = Tweaks { cluster: &cluster, ..Tweaks::default() };
        let settings = estate.settings(&tweaks).replace("$PORT", "0");
        String::from_utf8(Gate::refused(&settings).stderr).unwrap()
    };
    let cases = [
        ("a = { role = \"app_ro\" }".to_owned(), "", "cannot become another role"),
        (format!("a = {{ {}, role = \"x\" }}", url("tg_login", "app")), "", "login of its own"),
        (format!("a = {{ {}, role = \"x\" }}", url("tg_a", "other")), "", "another database"),
        (format!("a = {{ {} }}", url("tg_a", "app")), "", "no role"),
        (
            format!("a = {{ {0}, role = \"x\" }}, b = {{ {0}, role = \"y\" }}", url("tg_a", "app")),
            "",
            "has role \"x\"",
        ),
        ("a = {}".to_owned(), "default_role = \"b\"", "none of its roles"),
        ("a = { rol = \"x\" }".to_owned(), "", "unknown key \"rol\""),
    ];
    for (roles, more, part) in cases {
        let said = refused(&roles, more);
        assert!(said.contains(part), "{part} is not in\n{said}");
        assert!(!said.contains("postgresql://"), "{said}");
    }
}
