//! Servers that answer wrongly: the client gets the right error in time, the connection is closed,
//! other tenants and the next request are not concerned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::cluster::shared;
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{
    Frame, complete, data_row, error, frame, lying_frame, parameter_status, query, ready,
    transcript,
};
use crate::harness::server::{Meddler, Reply, Scripted, welcome};
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::harness::wire::{Login, Wire};

type Alter = fn(&Frame, Frame) -> Option<Vec<u8>>;

const ONE: &str = "T D(1) C(SELECT 1) Z(I)";

/// A gate whose row tenants reach their cluster over a hop that alters answers while it is told to.
struct Altered {
    estate: Estate,
    gate: Gate,
    on: Arc<AtomicBool>,
    _meddler: Meddler,
}

impl Altered {
    async fn new(alter: Alter) -> Self {
        let estate = Estate::new().await;
        let on = Arc::new(AtomicBool::new(false));
        let port = shared().await.port();
        let active = on.clone();
        let meddler =
            Meddler::start(port, move |last, frame| match active.load(Ordering::Relaxed) {
                true => alter(last, frame),
                false => Some(frame.bytes()),
            })
            .await;
        let cluster = "scrub_timeout = \"500ms\"";
        let settings = estate.settings(&Tweaks { capacity: 1, cluster, ..Tweaks::default() });
        let through = settings.replace(
            &format!("tests@127.0.0.1:{port}/app?sslmode=disable\"\nscrub"),
            &format!(
                "tests@127.0.0.1:{}/app?sslmode=disable&connect_timeout=10\"\nscrub",
                meddler.port
            ),
        );
        assert_ne!(through, settings);
        let gate = Gate::start(&through).await;
        Self { estate, gate, on, _meddler: meddler }
    }

    fn alter(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    async fn login(&self, tenant: &Tenant) -> (Wire, String) {
        let mut wire = Wire::connect(self.gate.port).await;
        let login = Login { user: "app", dbname: "app", password: &tenant.token, more: &[] };
        let frames = wire.authenticate(&login).await;
        (wire, transcript(&frames))
    }

    /// Everything works again, also for who stood by.
    async fn is_well(&self) {
        self.alter(false);
        for tenant in [&self.estate.acme, &self.estate.stark] {
            let mut wire = eventually("a login", async || {
                let (wire, said) = self.login(tenant).await;
                said.ends_with("Z(I)").then_some(wire)
            })
            .await;
            assert_eq!(wire.query("SELECT 1").await, ONE);
            assert_eq!(wire.query("SELECT count(*) FROM notes").await, "T D(3) C(SELECT 1) Z(I)");
        }
    }
}

fn in_login(last: &Frame) -> bool {
    matches!(last.tag, 0 | b'p')
}

fn in_query(last: &Frame, word: &str) -> bool {
    last.tag == b'Q' && String::from_utf8_lossy(&last.body).contains(word)
}

#[tokio::test]
async fn wrong_answers_to_the_login_are_a_cluster_that_cannot_be_used() {
    let cases: [(&str, Alter); 7] = [
        ("cut", |last, frame| (!in_login(last)).then(|| frame.bytes())),
        ("silence", |last, frame| Some(if in_login(last) { Vec::new() } else { frame.bytes() })),
        ("an unknown message", |last, it| {
            Some(if in_login(last) { frame(b'y', b"?") } else { it.bytes() })
        }),
        ("an error without fields", |last, it| {
            Some(if in_login(last) { frame(b'E', b"\0") } else { it.bytes() })
        }),
        ("a length of two gigabytes", |last, it| {
            Some(if in_login(last) { lying_frame(b'R', 0x7fff_ffff, b"") } else { it.bytes() })
        }),
        ("welcome without proof", |last, it| {
            Some(if last.tag == 0 { welcome() } else { it.bytes() })
        }),
        ("a wrong proof", |_, it| {
            let last_word = it.tag == b'R' && it.body.starts_with(&[0, 0, 0, 12]);
            Some(if last_word { frame(b'R', b"\0\0\0\x0cv=AAAA") } else { it.bytes() })
        }),
    ];
    for (name, alter) in cases {
        let altered = Altered::new(alter).await;
        altered.alter(true);
        let (_, said) = altered.login(&altered.estate.acme).await;
        assert_eq!(said, "R E(08001)", "{name}");
        altered.is_well().await;
    }
}

#[tokio::test]
async fn wrong_answers_to_the_check_and_the_bind_are_never_used() {
    let cases: [(&str, &str, Alter); 11] = [
        ("check: no row", "08001", |last, it| {
            Some(if in_query(last, "rolsuper") && it.tag == b'D' { vec![] } else { it.bytes() })
        }),
        ("check: an error", "08001", |last, it| {
            let hit = in_query(last, "rolsuper") && it.tag == b'D';
            Some(if hit { error("ERROR", "42501", "no") } else { it.bytes() })
        }),
        ("check: a superuser", "08001", |last, it| {
            let hit = in_query(last, "rolsuper") && it.tag == b'D';
            let row = [
                Some("app"),
                Some("t"),
                Some("f"),
                Some("f"),
                Some("f"),
                None,
                None,
                None,
                Some("t"),
            ];
            Some(if hit { data_row(&row) } else { it.bytes() })
        }),
        ("check: a transaction left open", "08001", |last, it| {
            let hit = in_query(last, "rolsuper") && it.tag == b'Z';
            Some(if hit { ready(b'T') } else { it.bytes() })
        }),
        ("bind: another value", "58000", |last, it| {
            let hit = in_query(last, "set_config(E'") && it.tag == b'D';
            Some(if hit { data_row(&[Some("x"), Some("x"), Some("x")]) } else { it.bytes() })
        }),
        ("bind: no row", "58000", |last, it| {
            Some(if in_query(last, "set_config(E'") && it.tag == b'D' {
                vec![]
            } else {
                it.bytes()
            })
        }),
        ("bind: an error without fields", "58000", |last, it| {
            let hit = in_query(last, "set_config(E'") && it.tag == b'D';
            Some(if hit { frame(b'E', b"\0") } else { it.bytes() })
        }),
        ("bind: a transaction left open", "58000", |last, it| {
            let hit = in_query(last, "set_config(E'") && it.tag == b'Z';
            Some(if hit { ready(b'T') } else { it.bytes() })
        }),
        ("bind: more behind the end", "58000", |last, it| {
            let hit = in_query(last, "set_config(E'") && it.tag == b'Z';
            Some(if hit { [ready(b'I'), complete("SELECT 1")].concat() } else { it.bytes() })
        }),
        ("bind: silence", "58000", |last, it| {
            Some(if in_query(last, "set_config(E'") { vec![] } else { it.bytes() })
        }),
        ("bind: cut", "08001", |last, it| (!in_query(last, "set_config(E'")).then(|| it.bytes())),
    ];
    for (name, sqlstate, alter) in cases {
        let altered = Altered::new(alter).await;
        altered.alter(true);
        let (_, said) = altered.login(&altered.estate.acme).await;
        assert_eq!(said, format!("R E({sqlstate})"), "{name}");
        altered.is_well().await;
    }
}

#[tokio::test]
async fn a_wrong_answer_to_the_scrub_costs_the_connection_and_nobody_else() {
    let cases: [(&str, Alter); 5] = [
        ("an error", |_, it| {
            let hit = it.to_string() == "C(DISCARD ALL)";
            Some(if hit { error("ERROR", "XX000", "no") } else { it.bytes() })
        }),
        ("left out", |_, it| {
            Some(if it.to_string() == "C(DISCARD ALL)" { vec![] } else { it.bytes() })
        }),
        ("one Z too many", |_, it| {
            let hit = it.to_string() == "C(RESET)";
            Some(if hit { [it.bytes(), ready(b'I')].concat() } else { it.bytes() })
        }),
        ("a row of the last tenant", |_, it| {
            let hit = it.to_string() == "C(DISCARD ALL)";
            Some(if hit { [data_row(&[Some("x")]), frame(b'y', b"")].concat() } else { it.bytes() })
        }),
        ("cut", |_, it| (it.to_string() != "C(RESET)").then(|| it.bytes())),
    ];
    for (name, alter) in cases {
        let altered = Altered::new(alter).await;
        let (mut acme, _) = altered.login(&altered.estate.acme).await;
        let (mut globex, _) = altered.login(&altered.estate.globex).await;
        altered.alter(true);
        for _ in 0..3 {
            for (wire, tenant) in
                [(&mut acme, &altered.estate.acme), (&mut globex, &altered.estate.globex)]
            {
                let said = wire.query("SELECT DISTINCT tenant_id FROM notes").await;
                assert_eq!(said, format!("T D({}) C(SELECT 1) Z(I)", tenant.id), "{name}");
            }
        }
        altered.is_well().await;
    }
}

#[tokio::test]
async fn wrong_answers_to_a_query_end_the_session_that_asked() {
    let cases: [(&str, &str, Alter); 11] = [
        ("an unknown message", "T E(08006)", |last, it| {
            let hit = in_query(last, "ping") && it.tag == b'D';
            Some(if hit { frame(b'y', b"") } else { it.bytes() })
        }),
        ("an answer to nothing", "T E(08006)", |last, it| {
            let hit = in_query(last, "ping") && it.tag == b'D';
            Some(if hit { frame(b'1', b"") } else { it.bytes() })
        }),
        ("a length that cannot be", "T E(08006)", |last, it| {
            let hit = in_query(last, "ping") && it.tag == b'D';
            Some(if hit { lying_frame(b'D', 0x7fff_ffff, b"") } else { it.bytes() })
        }),
        ("a length of zero", "T E(08006)", |last, it| {
            let hit = in_query(last, "ping") && it.tag == b'D';
            Some(if hit { lying_frame(b'D', 0, b"") } else { it.bytes() })
        }),
        ("a huge message that is held whole", "T D(1) E(08006)", |last, it| {
            let hit = in_query(last, "ping") && it.tag == b'C';
            Some(if hit { lying_frame(b'C', 0x2fff_ffff, b"") } else { it.bytes() })
        }),
        ("a transaction status that is none", "T D(1) C(SELECT 1) E(08006)", |last, it| {
            let hit = in_query(last, "ping") && it.tag == b'Z';
            Some(if hit { ready(b'?') } else { it.bytes() })
        }),
        ("cut", "T E(08006)", |last, it| {
            (!(in_query(last, "ping") && it.tag == b'D')).then(|| it.bytes())
        }),
        ("a question for a password", "T E(08006)", |last, it| {
            let hit = in_query(last, "ping") && it.tag == b'D';
            Some(if hit { frame(b'R', &[0, 0, 0, 3]) } else { it.bytes() })
        }),
        ("COPY out of nowhere, both ways", "T E(08006)", |last, it| {
            let hit = in_query(last, "ping") && it.tag == b'D';
            Some(if hit { frame(b'W', b"\0\0\0") } else { it.bytes() })
        }),
        ("its own farewell", "T E(57P01)", |last, it| match (in_query(last, "ping"), it.tag) {
            (true, b'D') => Some(error("FATAL", "57P01", "bye")),
            (true, b'C') => None,
            _ => Some(it.bytes()),
        }),
        ("half a row", "T", |last, it| match (in_query(last, "ping"), it.tag) {
            (true, b'D') => Some(lying_frame(b'D', 5000, b"\0\x01\0\0\x13\x82abc")),
            (true, b'C') => None,
            _ => Some(it.bytes()),
        }),
    ];
    for (name, wanted, alter) in cases {
        let altered = Altered::new(alter).await;
        let (mut wire, _) = altered.login(&altered.estate.acme).await;
        assert_eq!(wire.query("SELECT 1").await, ONE);
        altered.alter(true);
        wire.send(query("SELECT 1 AS ping")).await;
        assert_eq!(wire.until_closed().await, wanted, "{name}");
        altered.is_well().await;
    }
}

#[tokio::test]
async fn settings_that_cannot_be_read_back_end_the_session() {
    let cases: [Alter; 3] = [
        |last, it| {
            let hit = in_query(last, "current_setting(E'work_mem'") && it.tag == b'D';
            Some(if hit { error("ERROR", "XX000", "no") } else { it.bytes() })
        },
        |last, it| (!in_query(last, "current_setting(E'work_mem'")).then(|| it.bytes()),
        |last, it| {
            let hit = in_query(last, "current_setting(E'work_mem'");
            Some(if hit { vec![] } else { it.bytes() })
        },
    ];
    for alter in cases {
        let altered = Altered::new(alter).await;
        let (mut wire, _) = altered.login(&altered.estate.acme).await;
        altered.alter(true);
        wire.send(query("SET work_mem = '3MB'")).await;
        assert_eq!(wire.until_closed().await, "C(SET) Z(I) E(08006)");
        altered.is_well().await;
    }
}

#[tokio::test]
async fn what_a_server_says_unasked_is_no_answer() {
    let altered = Altered::new(|last, it| {
        let hit = in_query(last, "ping") && it.tag == b'Z';
        let more = [
            frame(b'A', b"\0\0\0\x01news\0secret\0"),
            parameter_status("search_path", "secret"),
            parameter_status("is_superuser", "on"),
        ];
        Some(if hit { [more.concat(), it.bytes()].concat() } else { it.bytes() })
    })
    .await;
    let (mut wire, _) = altered.login(&altered.estate.acme).await;
    altered.alter(true);
    assert_eq!(wire.query("SELECT 1 AS ping").await, ONE);
    altered.is_well().await;
    // An answer too many comes when nobody asks: the next user of the server must not get it.
    let altered = Altered::new(|last, it| {
        let hit = in_query(last, "ping") && it.tag == b'Z';
        let more = [it.bytes(), data_row(&[Some("stray")]), ready(b'I')].concat();
        Some(if hit { more } else { it.bytes() })
    })
    .await;
    let (mut wire, _) = altered.login(&altered.estate.acme).await;
    let (mut next, _) = altered.login(&altered.estate.globex).await;
    altered.alter(true);
    wire.send(query("SELECT 1 AS ping")).await;
    assert_eq!(transcript(&wire.until_ready().await), ONE);
    altered.alter(false);
    assert_eq!(next.query("SELECT 1").await, ONE);
    altered.is_well().await;
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_given_up_in_time() {
    let estate = Estate::new().await;
    // It greets, and then never answers.
    let mute = Scripted::start(|_| Reply::Send(Vec::new())).await;
    let id = format!("mute_{}", estate.acme.id);
    let options = "sslmode=disable&require_auth=none&connect_timeout=2";
    let more = format!(
        "[tenants.{id}]\nisolation = \"silo\"\ncluster = \"main\"\nconnection_string = \
         \"postgresql://x:x@127.0.0.1:{}/mute?{options}\"\n",
        mute.port
    );
    let gate = Gate::start(&estate.settings(&Tweaks { more: &more, ..Tweaks::default() })).await;
    let token = crate::harness::tenants::jwt(&id, 600);
    let mut wire = Wire::connect(gate.port).await;
    let login = Login { user: "app", dbname: "mute", password: &token, more: &[] };
    assert_eq!(transcript(&wire.authenticate(&login).await), "R E(08001)");
    assert_eq!(gate.wire(&estate.stark).await.query("SELECT 1").await, ONE);
}
