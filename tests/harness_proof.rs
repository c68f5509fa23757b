//! The harness proves itself against PostgreSQL, without a gate: what it says about a server must
//! be true before it may judge the gate.

use tenantgate::demo::Plan;

use crate::harness::certs::Authority;
use crate::harness::cluster::{self, own, shared, superuser};
use crate::harness::faults::{Hop, Mode};
use crate::harness::messages::{
    assert_cancelled, bind, complete, copy_data, copy_done, execute, extended, parse, query, ready,
    sync, transcript,
};
use crate::harness::server::{Meddler, Reply, Scripted};
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tweaks};
use crate::harness::wire::{Login, Wire, cancel};

/// The login of row tenants, straight to the cluster.
const DIRECT: Login<'static> =
    Login { user: "tg_login", dbname: "app", password: LOGIN_PASSWORD, more: &[] };

#[tokio::test]
async fn the_raw_client_logs_in_with_scram_and_writes_down_what_it_is_told() {
    let mut wire = Wire::login(shared().await.port(), &DIRECT).await;
    assert_eq!(wire.parameters["client_encoding"], "UTF8");
    assert_eq!(wire.query("SELECT 1, NULL").await, "T D(1,NULL) C(SELECT 1) Z(I)");
    assert_eq!(wire.query("BEGIN").await, "C(BEGIN) Z(T)");
    assert_eq!(wire.query("SELECT 1/0").await, "E(22012) Z(E)");
    assert_eq!(wire.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
    let asked = wire.ask(extended("SELECT $1::text", &[Some("x")])).await;
    assert_eq!(asked, "1 2 T D(x) C(SELECT 1) Z(I)");
    let named = [parse("s", "SELECT 2"), bind("", "s", &[]), execute("", 0), sync()].concat();
    assert_eq!(wire.ask(named).await, "1 2 D(2) C(SELECT 1) Z(I)");
    wire.send(query("COPY (SELECT 5) TO STDOUT")).await;
    assert_eq!(transcript(&wire.until_ready().await), "H d c C(COPY 1) Z(I)");
    wire.query("CREATE TEMP TABLE c (i int)").await;
    wire.send(query("COPY c FROM STDIN")).await;
    assert_eq!(wire.frame().await.tag, b'G');
    assert_eq!(wire.ask([copy_data(b"1\n2\n"), copy_done()].concat()).await, "C(COPY 2) Z(I)");
}

#[tokio::test]
async fn a_wrong_password_is_seen_as_the_error_it_is() {
    let mut wire = Wire::connect(shared().await.port()).await;
    let frames = wire.authenticate(&Login { password: "wrong", ..DIRECT }).await;
    assert_eq!(transcript(&frames), "R R E(28P01)");
    assert_eq!(frames[2].field('S').as_deref(), Some("FATAL"));
}

#[tokio::test]
async fn a_cancel_request_reaches_the_query_it_names() {
    let port = shared().await.port();
    let mut wire = Wire::login(port, &DIRECT).await;
    wire.send(query("SELECT pg_sleep(600)")).await;
    let (pid, secret) = (wire.pid, wire.secret);
    // One that comes before the query is lost by design, so it is sent until it hits.
    let cancelling = async {
        loop {
            cancel(port, pid, secret).await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let frames = tokio::select! {
        frames = wire.until_ready() => frames,
        () = cancelling => unreachable!("it ends with the other"),
    };
    assert_cancelled(&frames);
}

#[tokio::test]
async fn a_cluster_with_a_certificate_speaks_tls_and_no_plaintext_if_told_so() {
    let authority = Authority::new();
    let identity = authority.server(&["localhost"]);
    let tls = Some((identity.certificate, identity.key));
    let cluster = own(&Plan { tls, ..Plan::default() }).await;
    let config = authority.client_config();
    let mut wire = Wire::connect_tls(cluster.port(), config.clone(), "localhost").await.unwrap();
    assert_eq!(wire.authenticate(&DIRECT).await.last().unwrap().to_string(), "Z(I)");
    let wrong_name = Wire::connect_tls(cluster.port(), config, "elsewhere").await;
    assert!(wrong_name.is_err());
    let hba_path = cluster.folder().join("data/pg_hba.conf");
    std::fs::write(hba_path, "hostssl all all 127.0.0.1/32 scram-sha-256\n").unwrap();
    cluster.reload().unwrap();
    crate::harness::eventually("plaintext is refused", async || {
        let mut wire = Wire::connect(cluster.port()).await;
        (transcript(&wire.authenticate(&DIRECT).await) == "E(28000)").then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_tenant_of_an_estate_has_its_notes_where_its_route_points() {
    let estate = Estate::new().await;
    let settings: toml::Table = estate.settings(&Tweaks::default()).parse().unwrap();
    for tenant in estate.tenants() {
        let table = settings["tenants"][&tenant.id].as_table().unwrap();
        let main = &settings["clusters"]["main"]["connection_string"];
        let url = table.get("connection_string").unwrap_or(main).as_str().unwrap();
        let client = cluster::connect(url).await.unwrap();
        let of = |key: &str| table.get(key).and_then(|value| value.as_str());
        for (name, value) in [
            ("role", of("role")),
            ("search_path", of("schema")),
            ("app.tenant_id", Some(tenant.id.as_str())),
        ] {
            let Some(value) = value else { continue };
            client.execute("SELECT set_config($1, $2, false)", &[&name, &value]).await.unwrap();
        }
        let rows = client.query("SELECT id, body FROM notes ORDER BY id", &[]).await.unwrap();
        let rows: Vec<(i32, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(rows, tenant.notes, "{}", tenant.id);
    }
}

#[tokio::test]
async fn logins_of_an_estate_see_no_rows_before_they_are_bound() {
    let estate = Estate::new().await;
    let mut wire = Wire::login(shared().await.port(), &DIRECT).await;
    assert_eq!(wire.query("SELECT * FROM app.notes").await, "E(42501) Z(I)");
    wire.query("SET ROLE app_rw").await;
    let asked = wire.query("SELECT * FROM app.notes").await;
    assert_eq!(asked, "T C(SELECT 0) Z(I)");
    let other = format!("SELECT * FROM {}.notes", estate.umbrella.id);
    assert_eq!(wire.query(&other).await, "E(42501) Z(I)");
}

#[tokio::test]
async fn a_hop_passes_drips_stalls_and_cuts() {
    let hop = Hop::start(shared().await.port()).await;
    hop.set(Mode::Drip);
    let mut wire = Wire::login(hop.port, &DIRECT).await;
    assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    hop.set_to_client(Mode::Stall);
    wire.send(query("SELECT 2")).await;
    let seen = superuser(shared().await, "app").await;
    let sql = format!("SELECT query FROM pg_stat_activity WHERE pid = {}", wire.pid);
    crate::harness::eventually("the server got the query", async || {
        let row = seen.query_one(&sql, &[]).await.unwrap();
        (row.get::<_, &str>(0) == "SELECT 2").then_some(())
    })
    .await;
    hop.set_to_client(Mode::Pass);
    assert_eq!(transcript(&wire.until_ready().await), "T D(2) C(SELECT 1) Z(I)");
    hop.set(Mode::Cut);
    assert_eq!(wire.until_closed().await, "");
}

#[tokio::test]
async fn a_scripted_server_answers_by_its_script() {
    let server = Scripted::start(|frame| match frame.tag {
        b'Q' => Reply::Send([complete("LIE"), ready(b'I')].concat()),
        _ => Reply::Close(Vec::new()),
    });
    let mut wire = Wire::login(server.await.port, &DIRECT).await;
    assert_eq!(wire.query("SELECT 1").await, "C(LIE) Z(I)");
    wire.send(sync()).await;
    assert_eq!(wire.until_closed().await, "");
}

#[tokio::test]
async fn a_meddler_alters_only_what_it_is_told_to() {
    let meddler = Meddler::start(shared().await.port(), |last, frame| match frame.tag {
        b'D' if last.texts()[0].contains("secret") => Some(Vec::new()),
        b'C' if last.texts()[0].contains("cut") => None,
        _ => Some(frame.bytes()),
    });
    let mut wire = Wire::login(meddler.await.port, &DIRECT).await;
    assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    assert_eq!(wire.query("SELECT 1 AS secret").await, "T C(SELECT 1) Z(I)");
    assert_eq!(wire.query("SELECT 1 AS cut").await, "T D(1)");
}

#[tokio::test]
async fn a_cluster_that_crashes_cuts_its_clients_and_comes_back_on_the_same_port() {
    let mut cluster = own(&Plan::default()).await;
    let mut wire = Wire::login(cluster.port(), &DIRECT).await;
    cluster.crash();
    wire.until_closed().await;
    cluster.restart().unwrap();
    let mut wire = Wire::login(cluster.port(), &DIRECT).await;
    assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
}
