//! Known holes of proxies and of PostgreSQL, one test each, named by their numbers: the bytes that
//! opened somebody else are sent to the gate, and open nothing.

mod servers;

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use tokio::time::timeout;

use crate::console;
use crate::harness::certs::Authority;
use crate::harness::cluster::{shared, superuser};
use crate::harness::gate::Gate;
use crate::harness::messages::{
    ONE, bind, execute, frame, lying_frame, parse, password, query, ssl_request, startup, sync,
    transcript, untagged,
};
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tenant, Tweaks, jwt};
use crate::harness::wire::{Login, Wire, cancel};
use crate::harness::{PATIENCE, eventually};

/// What a tenant reads of its own.
fn own_notes(tenant: &Tenant) -> String {
    let rows = tenant.notes.iter().map(|(_, body)| format!("D({body}) "));
    format!("T {}C(SELECT 3) Z(I)", rows.collect::<String>())
}

/// Five tenants who share one server connection.
async fn narrow() -> (Estate, Gate) {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&Tweaks { capacity: 1, ..Tweaks::default() })).await;
    (estate, gate)
}

/// Everything up to the end of the connection; the gate must end it.
async fn ends(port: u16, bytes: &[u8]) -> String {
    let mut wire = Wire::connect(port).await;
    // It may hang up before all of it is sent.
    let _ = wire.try_send(bytes).await;
    wire.until_closed().await
}

#[tokio::test]
async fn cve_2021_3935_and_43766_nothing_sent_ahead_of_the_handshake_is_obeyed() {
    let (authority, estate) = (Authority::new(), Estate::new().await);
    let identity = authority.server(&["gate.test"]);
    let listen = "tls = \"require\"\ncertificate = \"gate.crt\"\nkey = \"gate.key\"";
    let settings = estate.settings(&Tweaks { listen, ..Tweaks::default() });
    let (certificate, key) = (identity.certificate.as_str(), identity.key.as_str());
    let files = [("gate.crt", certificate), ("gate.key", key)];
    let gate = Gate::start_with(&settings, &files).await;
    let first = startup(&[("user", "app"), ("database", &estate.acme.dbname)]);
    let planted = [first, password(&estate.acme.token), query("DELETE FROM notes")].concat();
    let mut wire = Wire::connect(gate.port).await;
    wire.send([ssl_request(), planted].concat()).await;
    assert_eq!(wire.byte().await, b'S');
    let shaken = wire.handshake(authority.client_config(), "gate.test");
    assert!(timeout(PATIENCE, shaken).await.expect("it is ended").is_err());
    let mut wire =
        Wire::connect_tls(gate.port, authority.client_config(), "gate.test").await.unwrap();
    let (dbname, password) = (estate.acme.dbname.as_str(), estate.acme.token.as_str());
    wire.authenticate(&Login { user: "app", dbname, password, more: &[] }).await;
    assert_eq!(wire.query("SELECT count(*) FROM notes").await, "T D(3) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn cve_2025_12819_a_search_path_at_start_up_runs_nothing_before_the_proof() {
    let (estate, gate) = narrow().await;
    let reference = refused_login(&gate, &[]).await;
    for more in [("search_path", "evil"), ("options", "-c search_path=evil")] {
        assert_eq!(refused_login(&gate, &[more]).await, reference);
        let Tenant { dbname, token, .. } = &estate.acme;
        let login = Login { user: "app", dbname, password: token, more: &[more] };
        let frames = Wire::connect(gate.port).await.authenticate(&login).await;
        assert_eq!(transcript(&frames), "R E(42501)");
    }
    let mut wire = gate.wire(&estate.acme).await;
    assert_eq!(wire.query("SHOW search_path").await, "T D(app) C(SHOW) Z(I)");
}

async fn refused_login(gate: &Gate, more: &[(&str, &str)]) -> String {
    let login = Login { user: "app", dbname: "app", password: "wrong", more };
    let said = transcript(&Wire::connect(gate.port).await.authenticate(&login).await);
    assert!(said.ends_with("E(28P01)"), "{said}");
    said
}

#[tokio::test]
async fn cve_2026_107350_a_second_start_up_packet_during_scram_changes_nobody() {
    let (_estate, gate) = console::gate(&Tweaks::default()).await;
    let as_user = |user| startup(&[("user", user), ("database", "tenantgate")]);
    let first = |user| {
        let text = ScramSha256::new(b"", ChannelBinding::unsupported());
        let text = text.message().to_vec();
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [as_user(user), frame(b'p', &[b"SCRAM-SHA-256\0", &length[..], &text].concat())].concat()
    };
    // In place of the first message, of the final one, and ahead of both.
    for bytes in [
        [as_user("nobody"), as_user("admin")].concat(),
        [first("nobody"), as_user("admin")].concat(),
        [first("nobody"), as_user("admin"), query("SHOW VERSION")].concat(),
    ] {
        let said = ends(gate.port, &bytes).await;
        assert!(!said.contains('Z') && said.contains("E("), "{said}");
    }
    // And in place of a tenant's password.
    let twice = [startup(&[("user", "app"), ("database", "app")]), as_user("admin")].concat();
    assert_eq!(ends(gate.port, &twice).await, "R E(08P01)");
}

#[tokio::test]
async fn cve_2026_6664_lengths_that_overflow_are_refused_before_anything_is_reserved() {
    let (estate, gate) = console::gate(&Tweaks::default()).await;
    for length in [0_u32, 3, 4, 7, 10_001, 0x7fff_ffff, 0x8000_0000, 0xffff_fffb, 0xffff_ffff] {
        let packet = [&length.to_be_bytes()[..], &[0, 3, 0, 0]].concat();
        let said = ends(gate.port, &packet).await;
        assert!(said.is_empty() || said.starts_with("E("), "{length}: {said}");
    }
    // The same inside a SCRAM message: a length that is not the rest's.
    let begins = startup(&[("user", "admin"), ("database", "tenantgate")]);
    for length in [0x7fff_ffff_u32, 0xffff_fffe, 0x0100_0000] {
        let body = [b"SCRAM-SHA-256\0", &length.to_be_bytes()[..], b"n,,n=,r=x"].concat();
        let said = ends(gate.port, &[begins.clone(), frame(b'p', &body)].concat()).await;
        assert!(said.starts_with("R E("), "{length}: {said}");
    }
    assert_eq!(gate.wire(&estate.stark).await.query("SELECT 1").await, ONE);
}

#[tokio::test]
async fn cve_2026_6668_and_107348_what_comes_before_the_proof_is_bounded() {
    let (estate, gate) = narrow().await;
    let begins = startup(&[("user", "app"), ("database", "app")]);
    // A password that never ends, and one that says it is long and is.
    let long = lying_frame(b'p', 0x3fff_ffff, &vec![b'x'; 1 << 20]);
    let said = ends(gate.port, &[begins.clone(), long].concat()).await;
    assert!(said.starts_with("R E(08P01)") || said.starts_with("R E(28P01)"), "{said}");
    let big = [begins, password(&"x".repeat(64 * 1024))].concat();
    assert!(ends(gate.port, &big).await.starts_with("R E("));
    let many = untagged(&[&[0, 3, 0, 0][..], &b"a\0b\0".repeat(20_000)].concat());
    let said = ends(gate.port, &many).await;
    assert!(said.is_empty() || said.starts_with("E("), "{said}");
    assert_eq!(gate.wire(&estate.stark).await.query("SELECT 1").await, ONE);
}

#[tokio::test]
async fn cve_2026_107349_options_with_an_empty_name_end_at_once() {
    let (estate, gate) = narrow().await;
    let Tenant { dbname, token, .. } = &estate.stark;
    for options in ["-c=", "-c =", "-c", "--=", "--", "-c=x -c=", "\\", "-c a", " -c  = ", "-c\\ ="]
    {
        let more = [("options", options)];
        let login = Login { user: "app", dbname, password: token, more: &more };
        let frames = Wire::connect(gate.port).await.authenticate(&login).await;
        let said = transcript(&frames);
        assert!(said.contains("E(") && !said.contains("Z("), "{options}: {said}");
    }
}

#[tokio::test]
async fn cve_2026_19888_a_last_scram_message_that_lacks_everything_is_refused() {
    let (estate, gate) = console::gate(&Tweaks::default()).await;
    for last in ["", ",", "c=biws", "p=", "c=biws,r=,p=", "c=,r=x,p=AAAA", "\0", "c=biws,p=AAAA"] {
        let text = ScramSha256::new(LOGIN_PASSWORD.as_bytes(), ChannelBinding::unsupported());
        let text = text.message().to_vec();
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        let first = frame(b'p', &[b"SCRAM-SHA-256\0", &length[..], &text].concat());
        let begins = startup(&[("user", "admin"), ("database", "tenantgate")]);
        let bytes = [begins, first, frame(b'p', last.as_bytes())].concat();
        let said = ends(gate.port, &bytes).await;
        assert!(said.starts_with("R R E("), "{last:?}: {said}");
    }
    assert_eq!(gate.wire(&estate.stark).await.query("SELECT 1").await, ONE);
}

#[tokio::test]
async fn cve_2026_6667_who_may_only_look_can_end_nobody() {
    let (estate, gate) = narrow_console().await;
    let mut client = gate.wire(&estate.stark).await;
    let watcher = Login { user: "watcher", ..console::ADMIN };
    let mut wire = Wire::login(gate.port, &watcher).await;
    let id = &estate.stark.id;
    for order in [
        "KILL_CLIENT 1".to_owned(),
        "KILL".to_owned(),
        format!("KILL {id}"),
        format!("DISABLE {id}"),
        format!("PAUSE {id}"),
        "PAUSE".to_owned(),
        "RESUME".to_owned(),
        "RECONNECT".to_owned(),
        "RELOAD".to_owned(),
        "SHUTDOWN".to_owned(),
        format!("ENABLE {id}"),
    ] {
        let said = wire.query(&order).await;
        assert!(said.starts_with("E(") && !said.contains("C("), "{order}: {said}");
    }
    assert_eq!(client.query("SELECT 1").await, ONE);
    assert!(!console::show(&mut wire, "CLIENTS").await.is_empty());
}

async fn narrow_console() -> (Estate, Gate) {
    let estate = Estate::new().await;
    let admin = superuser(shared().await, "app").await;
    let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = 'tg_login'";
    let verifier: String = admin.query_one(sql, &[]).await.unwrap().get(0);
    let more = format!(
        "[console.users]\nadmin = \"{verifier}\"\n\
         watcher = {{ scram = \"{verifier}\", rights = \"stats\" }}\n"
    );
    let tweaks = Tweaks { capacity: 1, more: &more, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    (estate, gate)
}

#[tokio::test]
async fn cve_2025_2291_a_credential_past_its_time_opens_nothing_and_ends_its_session() {
    let estate = Estate::new().await;
    let settings = estate.settings(&Tweaks::default());
    let settings =
        settings.replace("key_file = \"login.key\"", "key_file = \"login.key\"\nleeway = \"0s\"");
    let gate = Gate::start(&settings).await;
    let dbname = estate.stark.dbname.as_str();
    let login = |password| Login { user: "app", dbname, password, more: &[] };
    let late = jwt(&estate.stark.id, -1);
    let frames = Wire::connect(gate.port).await.authenticate(&login(&late)).await;
    assert_eq!(transcript(&frames), "R E(28P01)");
    let short = jwt(&estate.stark.id, 3);
    let mut wire = Wire::login(gate.port, &login(&short)).await;
    assert_eq!(wire.query("SELECT 1").await, ONE);
    eventually("the session ends", async || {
        let said = wire.query("SELECT 1").await;
        (said == "E(57P01)").then_some(())
    })
    .await;
}

#[tokio::test]
async fn cve_2015_6817_and_2012_4575_unknown_and_endless_names_become_nobody() {
    let (estate, gate) = narrow().await;
    let (long, longer) = ("d".repeat(64), "d".repeat(9_000));
    for name in ["", "nobody", "postgres", "tg_login", "app_owner", "*", &long, &longer] {
        for (user, dbname) in [(name, "app"), ("app", name)] {
            let login = Login { user, dbname, password: "wrong", more: &[] };
            let said = transcript(&Wire::connect(gate.port).await.authenticate(&login).await);
            assert!(!said.contains("Z(") && said.contains("E("), "{user}/{dbname}: {said}");
        }
    }
    // With a token of one's own, a name that is somebody's is still only a label.
    let Tenant { dbname, token, .. } = &estate.acme;
    let login = Login { user: "postgres", dbname, password: token, more: &[] };
    let mut wire = Wire::login(gate.port, &login).await;
    let who = wire.query("SELECT current_user, body FROM notes WHERE id = 1").await;
    assert_eq!(who, "T D(app_rw,note 1 of acme) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn odyssey_pull_request_288_a_name_with_sql_in_it_is_only_a_name() {
    let (estate, gate) = narrow().await;
    let admin = superuser(shared().await, "app").await;
    for name in ["x'; DROP TABLE notes; --", "x\"; DROP TABLE notes; --", "x\\'", "%s$1"] {
        let Tenant { dbname, token, .. } = &estate.acme;
        let more = [("application_name", name)];
        let login = Login { user: name, dbname, password: token, more: &more };
        let mut wire = Wire::login(gate.port, &login).await;
        let said = wire.query("SHOW application_name").await;
        assert_eq!(said, format!("T D({name}) C(SHOW) Z(I)"));
        let token = jwt(name, 600);
        let login = Login { user: "app", dbname: "app", password: &token, more: &[] };
        let frames = Wire::connect(gate.port).await.authenticate(&login).await;
        assert_eq!(transcript(&frames), "R E(28P01)", "{name}");
    }
    let rows = admin.query_one("SELECT count(*) FROM app.notes", &[]).await.unwrap();
    assert!(rows.get::<_, i64>(0) >= 6);
}

#[tokio::test]
async fn cve_2025_46801_nobody_is_let_in_without_the_proof_that_was_asked_for() {
    let (estate, gate) = narrow().await;
    let begins = startup(&[("user", "app"), ("database", &estate.acme.dbname)]);
    let read = query("SELECT body FROM notes");
    for instead in
        [read.clone(), sync(), frame(b'p', b""), frame(b'p', b"\0"), parse("", "SELECT 1")]
    {
        let said = ends(gate.port, &[begins.clone(), instead, read.clone()].concat()).await;
        assert!(said.starts_with("R E(") && !said.contains("D("), "{said}");
    }
}

#[tokio::test]
async fn cve_2024_45624_the_same_text_gives_each_tenant_its_own_rows() {
    let (estate, gate) = narrow().await;
    let mut wires = [gate.wire(&estate.acme).await, gate.wire(&estate.globex).await];
    let text = "SELECT body FROM notes ORDER BY id";
    for round in 0..6 {
        for (wire, tenant) in wires.iter_mut().zip([&estate.acme, &estate.globex]) {
            assert_eq!(wire.query(text).await, own_notes(tenant));
            let prepare = if round == 0 { parse("same", text) } else { Vec::new() };
            let run = [prepare, bind("", "same", &[]), execute("", 0), sync()].concat();
            let said = wire.ask(run).await;
            let rows = own_notes(tenant).replacen("T ", "", 1);
            assert!(said.ends_with(&rows), "{said}");
        }
    }
}

#[tokio::test]
async fn cve_2023_22332_the_console_prints_no_secret() {
    let (estate, gate) = narrow_console().await;
    let _client = gate.wire(&estate.acme).await;
    let mut wire = Wire::login(gate.port, &console::ADMIN).await;
    let help = console::show(&mut wire, "HELP").await;
    let mut shown = 0;
    let secrets = [LOGIN_PASSWORD, "SCRAM-SHA-256$", "postgresql://"];
    let tokens =
        estate.tenants().map(|tenant| tenant.token.splitn(3, '_').nth(2).unwrap().to_owned());
    for what in [
        "TENANTS",
        "POOLS",
        "CLIENTS",
        "SERVERS",
        "SOCKETS",
        "DATABASES",
        "USERS",
        "BUDGETS",
        "STATS",
        "TOP",
        "LISTS",
        "MEM",
        "CONFIG",
        "VERSION",
        "HELP",
        "WOULD_REFUSE",
    ] {
        wire.send(query(&format!("SHOW {what}"))).await;
        let said = format!("{:?}", wire.until_ready().await);
        let told = secrets.into_iter().chain(tokens.iter().map(String::as_str));
        let told: Vec<&str> = told.filter(|secret| said.contains(secret)).collect();
        assert!(told.is_empty(), "SHOW {what} tells {told:?}");
        shown += 1;
    }
    assert!(shown > 10 && !help.is_empty());
    assert!(!gate.log().contains(LOGIN_PASSWORD));
}

#[tokio::test]
async fn cve_2024_10976_and_2016_2193_a_plan_is_never_another_tenants() {
    let (estate, gate) = narrow().await;
    let mut wires = [gate.wire(&estate.acme).await, gate.wire(&estate.globex).await];
    let sql = "SELECT body FROM notes WHERE id > $1::int ORDER BY id";
    for wire in &mut wires {
        wire.query("SET plan_cache_mode TO force_generic_plan").await;
        assert_eq!(wire.ask([parse("plan", sql), sync()].concat()).await, "1 Z(I)");
    }
    for _ in 0..8 {
        for (wire, tenant) in wires.iter_mut().zip([&estate.acme, &estate.globex]) {
            let run = [bind("", "plan", &[Some("0")]), execute("", 0), sync()].concat();
            let rows = own_notes(tenant).replacen("T ", "", 1);
            assert_eq!(wire.ask(run).await, format!("2 {rows}"));
        }
    }
}

#[tokio::test]
async fn pgdog_issue_1053_the_consoles_password_is_always_checked() {
    let (estate, gate) = narrow_console().await;
    for password in ["", "wrong", estate.acme.token.as_str(), &jwt(&estate.acme.id, 600)] {
        let login = Login { password, ..console::ADMIN };
        let frames = Wire::connect(gate.port).await.authenticate(&login).await;
        let said = transcript(&frames);
        assert!(said.ends_with("E(28P01)") && !said.contains("Z("), "{said}");
    }
}

#[tokio::test]
async fn pgdog_issue_1032_a_near_guess_is_answered_like_a_far_one() {
    let (estate, gate) = narrow().await;
    let token = &estate.acme.token;
    let changed = |at: usize| {
        let mut guess = token.clone().into_bytes();
        guess[at] = if guess[at] == b'x' { b'y' } else { b'x' };
        String::from_utf8(guess).unwrap()
    };
    let reference = refused_login(&gate, &[]).await;
    for at in [token.len() - 1, token.len() - 8, token.len() / 2, 4] {
        let guess = changed(at);
        let login = Login { user: "app", dbname: "app", password: &guess, more: &[] };
        let frames = Wire::connect(gate.port).await.authenticate(&login).await;
        assert_eq!(transcript(&frames), reference);
        assert_eq!(frames.last().unwrap().field('M').unwrap(), "authentication failed");
    }
}

#[tokio::test]
async fn pgdog_issue_1228_a_message_as_long_as_its_length_says_or_none() {
    let (estate, gate) = narrow().await;
    for tag in [b'Q', b'P', b'B', b'E', b'D', b'C', b'S', b'X', b'd', b'F'] {
        for length in [0, 1, 3, 0x7fff_ffff] {
            let mut wire = gate.wire(&estate.stark).await;
            wire.send(lying_frame(tag, length, b"")).await;
            let said = wire.until_closed().await;
            assert!(said.ends_with("E(08P01)"), "{}: {length}: {said}", char::from(tag));
        }
    }
    assert_eq!(gate.wire(&estate.acme).await.query("SELECT 1").await, ONE);
}

#[tokio::test]
async fn pgbouncer_issue_717_a_cancel_hits_its_own_query_or_nothing() {
    let (estate, gate) = narrow().await;
    let mut own = gate.wire(&estate.acme).await;
    let mut next = gate.wire(&estate.globex).await;
    let (port, pid, secret) = (gate.port, own.pid, own.secret);
    let mut hits = 0;
    for round in 0..60 {
        let pause = f64::from(round % 6) / 1000.0;
        own.send(query(&format!("SELECT pg_sleep({pause})"))).await;
        let late = cancel(port, pid, secret);
        let waits = next.query("SELECT pg_sleep(0.003), 1");
        let (said, (), frames) = tokio::join!(waits, late, own.until_ready());
        assert_eq!(said, "T D(,1) C(SELECT 1) Z(I)", "round {round}");
        hits += usize::from(transcript(&frames).contains("E(57014)"));
    }
    assert!(hits > 0, "some must have been cancelled");
}
