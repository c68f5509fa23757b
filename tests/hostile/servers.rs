//! Servers that answer wrongly: the client gets one error, the right one, in time; the connection
//! is closed; and a neighbour on the same worker, whose server is well, is served all through.

use futures::StreamExt;

use crate::harness::gate::Gate;
use crate::harness::messages::{
    Frame, ONE, complete, data_row, error, extended, frame, lying_frame, parameter_status, query,
    ready, transcript,
};
use crate::harness::server::{Reply, Scripted, welcome};
use crate::harness::tenants::{Estate, Tweaks, jwt};
use crate::harness::wire::{Login, Wire};
use crate::hostile::liar::During::{self, Anything, Batch, Query};
use crate::hostile::liar::{Lie, Lied, Says, lie};

/// Each lie to a client that logs in, at a gate of its own.
async fn to_a_login(lies: &[Lie]) {
    let told = futures::stream::iter(lies).map(|lie| async move {
        let lied = Lied::new().await;
        lied.tell(*lie);
        let (mut wire, said) = lied.login(&lied.estate.acme).await;
        assert_eq!(said, format!("R E({})", lie.wanted), "{}", lie.name);
        assert_eq!(wire.until_closed().await, "", "{}: behind the error", lie.name);
        lied.is_well().await;
    });
    told.buffer_unordered(3).collect::<Vec<()>>().await;
}

/// So many of them.
fn flood(bytes: &[u8], count: usize) -> Option<Vec<u8>> {
    Some(bytes.repeat(count))
}

/// Different ones.
fn parameters(count: usize) -> Vec<u8> {
    let one = |number: usize| parameter_status(&format!("name_{number}"), "value");
    (0..count).flat_map(one).collect()
}

/// What SASL says: 10 the mechanisms, 11 the challenge, 12 the verdict.
fn sasl(frame_was: Frame, kind: u8, text: &[u8]) -> Option<Vec<u8>> {
    match frame_was.body.get(3) {
        Some(found) if *found == kind => Some(frame(b'R', &[&[0, 0, 0, kind], text].concat())),
        _ => Some(frame_was.bytes()),
    }
}

#[tokio::test]
async fn wrong_answers_to_the_login_are_a_cluster_that_cannot_be_used() {
    let to_login = |name, at, says| lie(name, "08001", During::Login, at, says);
    let lies = [
        to_login("cut", "", |_| None),
        to_login("silence", "", |_| Some(Vec::new())),
        to_login("an unknown message", "", |_| Some(frame(b'y', b"?"))),
        to_login("an error without fields", "", |_| Some(frame(b'E', b"\0"))),
        to_login("an error without end", "", |_| Some(frame(b'E', b"SFATAL"))),
        to_login("a length of two gigabytes", "", |_| Some(lying_frame(b'R', 0x7fff_ffff, b""))),
        to_login("a length of three", "", |_| Some(lying_frame(b'R', 3, b""))),
        to_login("welcome without proof", "", |_| Some(welcome())),
        to_login("no kind of authentication", "R", |_| Some(frame(b'R', b""))),
        to_login("the password in clear", "R", |it| sasl(it, 10, b"").and(Some(asks(3)))),
        to_login("an MD5 password", "R", |_| Some(asks(5))),
        to_login("Kerberos", "R", |_| Some(asks(7))),
        to_login("no SASL mechanism", "R", |it| sasl(it, 10, b"\0")),
        to_login("an unknown SASL mechanism", "R", |it| sasl(it, 10, b"PLAIN\0\0")),
        to_login("a nonce that is not ours", "R", |it| sasl(it, 11, b"r=abc,s=QUJD,i=4096")),
        to_login("a challenge without salt", "R", |it| sasl(it, 11, b"r=abc")),
        to_login("a challenge of bytes", "R", |it| sasl(it, 11, b"\xff\0\xfe")),
        to_login("the verdict before the challenge", "R", |it| sasl(it, 11, b"").map(|_| asks(12))),
        to_login("a wrong proof", "R", |it| sasl(it, 12, b"v=AAAA")),
        to_login("a proof without end", "R", |it| sasl(it, 12, b"")),
        to_login("welcome twice", "S", |it| Some([asks(0), it.bytes()].concat())),
        to_login("rows in place of a greeting", "S", |_| Some(data_row(&[Some("x")]))),
        to_login("a parameter without end", "S", |_| Some(frame(b'S', b"name"))),
        to_login("parameters without end", "K", |_| Some(parameters(5000))),
        to_login("notices without end", "K", |_| flood(&frame(b'N', b"SNOTICE\0\0"), 5000)),
        to_login("a parameter of a megabyte", "K", |_| {
            Some(parameter_status("long", &"x".repeat(1 << 20)))
        }),
        to_login("a key of two bytes", "K", |_| Some(frame(b'K', b"xx"))),
        to_login("ready inside a transaction", "Z", |_| Some(ready(b'T'))),
        to_login("ready in no state", "Z", |_| Some(frame(b'Z', b""))),
        to_login("another protocol at the end", "Z", |_| Some(frame(b'v', &[0; 8]))),
    ];
    to_a_login(&lies).await;
}

/// An authentication request of this kind.
fn asks(kind: u8) -> Vec<u8> {
    frame(b'R', &[0, 0, 0, kind, 1, 2, 3, 4][..if kind == 5 { 8 } else { 4 }])
}

/// How the gate's own binding statement begins.
const BIND: During = Query("SET \"app\".");
const CHECK: During = Query("rolsuper");

#[tokio::test]
async fn wrong_answers_to_the_check_are_a_cluster_that_cannot_be_used() {
    let to_check = |name, at, says| lie(name, "08001", CHECK, at, says);
    let lies = [
        to_check("no row", "D", |_| Some(vec![])),
        to_check("two rows", "D", |it| flood(&it.bytes(), 2)),
        to_check("a row without columns", "D", |_| Some(data_row(&[]))),
        to_check("a row of other columns", "D", |_| Some(data_row(&[Some("app"), Some("f")]))),
        to_check("a row that lies", "D", |_| Some(frame(b'D', b"\0\x09\0\0\0\x50x"))),
        to_check("an error", "D", |_| Some(error("ERROR", "42501", "no"))),
        to_check("a superuser", "D", |_| {
            let flags = [Some("t"), Some("f"), Some("f"), Some("f")];
            Some(data_row(&[&[Some("app")], &flags[..], &[None, None, None, Some("t")]].concat()))
        }),
        to_check("another database", "D", |_| {
            let flags = [Some("f"); 4];
            Some(data_row(&[&[Some("xyz")], &flags[..], &[None, None, None, Some("f")]].concat()))
        }),
        to_check("a transaction left open", "Z", |_| Some(ready(b'T'))),
        to_check("cut", "", |_| None),
    ];
    to_a_login(&lies).await;
}

#[tokio::test]
async fn wrong_answers_to_the_bind_are_never_used() {
    let to_bind = |name, wanted, at, says| lie(name, wanted, BIND, at, says);
    let lies = [
        to_bind("one confirmed twice", "58000", "Z", |it| {
            Some([complete("SET"), it.bytes()].concat())
        }),
        to_bind("none confirmed", "58000", "C", |_| Some(vec![])),
        to_bind("a row", "58000", "Z", |it| Some([data_row(&[Some("x")]), it.bytes()].concat())),
        to_bind("an error without fields", "58000", "C", |_| Some(frame(b'E', b"\0"))),
        to_bind("an error behind it all", "58000", "Z", |it| {
            Some([error("ERROR", "42501", "no"), it.bytes()].concat())
        }),
        to_bind("a transaction left open", "58000", "Z", |_| Some(ready(b'T'))),
        to_bind("a transaction that failed", "58000", "Z", |_| Some(ready(b'E'))),
        to_bind("more behind the end", "58000", "Z", |_| {
            Some([ready(b'I'), complete("SELECT 1")].concat())
        }),
        to_bind("ready twice", "58000", "Z", |it| flood(&it.bytes(), 2)),
        to_bind("silence", "58000", "", |_| Some(vec![])),
        to_bind("an answer to nothing", "08001", "C", |_| Some(frame(b'2', b""))),
        to_bind("copy data wanted", "08001", "C", |_| Some(frame(b'G', b"\0\0\0"))),
        to_bind("a length of two gigabytes", "08001", "C", |_| {
            Some(lying_frame(b'C', 0x7fff_ffff, b""))
        }),
        to_bind("notices without end", "08001", "Z", |_| {
            flood(&frame(b'N', b"SNOTICE\0\0"), 20_000)
        }),
        to_bind("notifications without end", "08001", "Z", |_| {
            flood(&frame(b'A', b"\0\0\0\x01news\0secret\0"), 20_000)
        }),
        to_bind("parameters without end", "08001", "Z", |_| Some(parameters(20_000))),
        to_bind("parameters of megabytes", "08001", "Z", |_| {
            flood(&parameter_status("long", &"x".repeat(500_000)), 30)
        }),
        to_bind("cut", "08001", "", |_| None),
    ];
    to_a_login(&lies).await;
}

#[tokio::test]
async fn a_wrong_answer_to_the_scrub_costs_the_connection_and_nobody_else() {
    let to_scrub = |name, at, says| lie(name, "", Anything, at, says);
    let lies = [
        to_scrub("an error", "C(DISCARD ALL)", |_| Some(error("ERROR", "XX000", "no"))),
        to_scrub("an error behind it all", "C(DISCARD ALL)", |it| {
            Some([it.bytes(), error("ERROR", "XX000", "no")].concat())
        }),
        to_scrub("left out", "C(DISCARD ALL)", |_| Some(vec![])),
        to_scrub("one Z too many", "C(RESET)", |it| Some([it.bytes(), ready(b'I')].concat())),
        to_scrub("a transaction left open", "C(DISCARD ALL)", |it| {
            Some([it.bytes(), ready(b'T')].concat())
        }),
        to_scrub("one confirmed twice", "C(RESET)", |it| flood(&it.bytes(), 2)),
        to_scrub("a row of the last tenant", "C(DISCARD ALL)", |_| {
            Some([data_row(&[Some("x")]), frame(b'y', b"")].concat())
        }),
        to_scrub("a length of zero", "C(DISCARD ALL)", |_| Some(lying_frame(b'C', 0, b""))),
        to_scrub("notices without end", "C(RESET)", |_| {
            flood(&frame(b'N', b"SNOTICE\0\0"), 20_000)
        }),
        to_scrub("rows without end", "C(RESET)", |_| flood(&data_row(&[Some("x")]), 20_000)),
        to_scrub("cut", "C(RESET)", |_| None),
    ];
    let lied = Lied::new().await;
    for lie in lies {
        let (acme, globex) = (&lied.estate.acme, &lied.estate.globex);
        let (mut one, _) = lied.login(acme).await;
        let (mut other, _) = lied.login(globex).await;
        lied.tell(lie);
        let mut last = String::new();
        for _ in 0..3 {
            for (wire, tenant) in [(&mut one, acme), (&mut other, globex)] {
                let said =
                    wire.query("SELECT DISTINCT tenant_id, pg_backend_pid() FROM notes").await;
                let (head, tail) = (format!("T D({},", tenant.id), ") C(SELECT 1) Z(I)");
                let pid = said.strip_prefix(&head).and_then(|rest| rest.strip_suffix(tail));
                let pid = pid.unwrap_or_else(|| panic!("{}: {said}", lie.name));
                assert_ne!(pid, last, "{}: the server was used on", lie.name);
                last = pid.to_owned();
            }
        }
        lied.is_well().await;
    }
}

const PING: During = Query("ping");

#[tokio::test]
async fn wrong_answers_to_a_query_end_the_session_that_asked() {
    let to_ping = |name, wanted, at, says| lie(name, wanted, PING, at, says);
    let row = |name, says| lie(name, "T E(08006)", PING, "D", says);
    let lies = [
        row("an unknown message", |_| Some(frame(b'y', b""))),
        row("an answer to nothing", |_| Some(frame(b'1', b""))),
        row("a statement closed", |_| Some(frame(b'3', b""))),
        row("a portal suspended", |_| Some(frame(b's', b""))),
        row("parameters described", |_| Some(frame(b't', b"\0\0"))),
        row("a cancel key", |_| Some(frame(b'K', b"\0\0\0\x01\0\0\0\x02"))),
        row("another protocol", |_| Some(frame(b'v', &[0; 8]))),
        row("a length that cannot be", |_| Some(lying_frame(b'D', 0x7fff_ffff, b""))),
        row("a length of zero", |_| Some(lying_frame(b'D', 0, b""))),
        row("a length of three", |_| Some(lying_frame(b'N', 3, b""))),
        row("a question for a password", |_| Some(asks(3))),
        row("welcome", |_| Some(asks(0))),
        row("COPY out of nowhere, both ways", |_| Some(frame(b'W', b"\0\0\0"))),
        row("an error without SQLSTATE", |_| Some(frame(b'E', b"SERROR\0MBANG\0\0"))),
        row("an error without fields", |_| Some(frame(b'E', b"\0"))),
        row("a parameter without end", |_| Some(frame(b'S', b"TimeZone"))),
        row("parameters without end", |_| Some(parameters(100_000))),
        row("cut", |_| None),
        to_ping("a huge message that is held whole", "T D(1) E(08006)", "C", |_| {
            Some(lying_frame(b'C', 0x2fff_ffff, b""))
        }),
        to_ping("a status that is none", "T D(1) C(SELECT 1) E(08006)", "Z", |_| Some(ready(b'?'))),
        to_ping("no status", "T D(1) C(SELECT 1) E(08006)", "Z", |_| Some(frame(b'Z', b""))),
        to_ping("its own farewell", "T E(57P01)", "D", |_| Some(error("FATAL", "57P01", "bye"))),
        to_ping("half a row", "T", "", |it| match it.tag {
            b'D' => Some(lying_frame(b'D', 5000, b"\0\x01\0\0\x13\x82abc")),
            b'C' => None,
            _ => Some(it.bytes()),
        }),
    ];
    let lied = Lied::new().await;
    for lie in lies {
        let (mut wire, _) = lied.login(&lied.estate.acme).await;
        assert_eq!(wire.query("SELECT 1").await, ONE);
        lied.tell(lie);
        wire.send(query("SELECT 1 AS ping")).await;
        let said = wire.until_closed().await;
        // Parameters may be told at any time.
        let said = said.split(' ').filter(|said| !said.starts_with("S(name_"));
        assert_eq!(said.collect::<Vec<_>>().join(" "), lie.wanted, "{}", lie.name);
        lied.is_well().await;
    }
}

#[tokio::test]
async fn wrong_answers_to_a_batch_end_the_session_that_asked() {
    let at_parse = |name, says| lie(name, "E(08006)", Batch, "1", says);
    let lies = [
        at_parse("bound before it is parsed", |_| Some(frame(b'2', b""))),
        at_parse("a row before it is parsed", |_| Some(data_row(&[Some("x")]))),
        at_parse("ready before it is parsed", |_| Some(ready(b'I'))),
        at_parse("complete before it is parsed", |_| Some(complete("SELECT 1"))),
        at_parse("copy data wanted", |_| Some(frame(b'G', b"\0\0\0"))),
        at_parse("copy data offered", |_| Some(frame(b'H', b"\0\0\0"))),
        at_parse("copy data", |_| Some(frame(b'd', b"x"))),
        at_parse("closed", |_| Some(frame(b'3', b""))),
        lie("parsed twice", "1 E(08006)", Batch, "1", |it| flood(&it.bytes(), 2)),
        lie("bound twice", "1 2 E(08006)", Batch, "2", |it| flood(&it.bytes(), 2)),
        lie("described twice", "1 2 T E(08006)", Batch, "T", |it| flood(&it.bytes(), 2)),
        lie("complete twice", "1 2 T D(1) C(SELECT 1) E(08006)", Batch, "C", |it| {
            flood(&it.bytes(), 2)
        }),
    ];
    let lied = Lied::new().await;
    for lie in lies {
        let (mut wire, _) = lied.login(&lied.estate.acme).await;
        lied.tell(lie);
        wire.send(extended("SELECT 1 AS ping", &[])).await;
        assert_eq!(wire.until_closed().await, lie.wanted, "{}", lie.name);
        lied.is_well().await;
    }
}

#[tokio::test]
async fn what_a_server_says_behind_its_answer_reaches_nobody() {
    let stray = |name, says| lie(name, "", PING, "Z", says);
    let lies = [
        stray("a row", |it| Some([it.bytes(), data_row(&[Some("stray")])].concat())),
        stray("a row and ready", |it| {
            Some([it.bytes(), data_row(&[Some("stray")]), ready(b'I')].concat())
        }),
        stray("ready twice", |it| flood(&it.bytes(), 2)),
        stray("complete", |it| Some([it.bytes(), complete("stray")].concat())),
        stray("parsed", |it| Some([it.bytes(), frame(b'1', b"")].concat())),
        stray("an error", |it| Some([it.bytes(), error("ERROR", "XX000", "stray")].concat())),
        stray("its farewell", |it| Some([it.bytes(), error("FATAL", "57P01", "x")].concat())),
        stray("half a message", |it| Some([it.bytes(), b"D\0\0".to_vec()].concat())),
        stray("no message", |it| Some([it.bytes(), lying_frame(b'D', 2, b"")].concat())),
        stray("notices", |it| {
            let notice = frame(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mstray\0\0");
            Some([it.bytes(), notice.repeat(100)].concat())
        }),
    ];
    let lied = Lied::new().await;
    for lie in lies {
        let (mut wire, _) = lied.login(&lied.estate.acme).await;
        let (mut next, _) = lied.login(&lied.estate.globex).await;
        lied.tell(lie);
        wire.send(query("SELECT 1 AS ping")).await;
        assert_eq!(transcript(&wire.until_ready().await), ONE, "{}", lie.name);
        lied.tell_no_more();
        assert_eq!(next.query("SELECT 1").await, ONE, "{}", lie.name);
        // Its own session may end by it, with the one error; it hears nothing else.
        let _ = wire.try_send(query("SELECT 1")).await;
        let said = transcript(&wire.until_ready().await);
        assert!([ONE, "E(08006)", ""].contains(&said.as_str()), "{}: {said}", lie.name);
        lied.is_well().await;
    }
}

#[tokio::test]
async fn what_a_server_says_unasked_is_no_answer() {
    let lied = Lied::new().await;
    lied.tell(lie("news", ONE, PING, "Z", |it| {
        let more = [
            frame(b'A', b"\0\0\0\x01news\0secret\0").repeat(100_000),
            parameter_status("search_path", "secret"),
            parameter_status("is_superuser", "on"),
        ];
        Some([more.concat(), it.bytes()].concat())
    }));
    let (mut wire, _) = lied.login(&lied.estate.acme).await;
    assert_eq!(wire.query("SELECT 1 AS ping").await, ONE);
    lied.is_well().await;
}

#[tokio::test]
async fn what_a_server_says_while_the_gate_talks_to_it_is_not_for_the_client() {
    let talks: Says = |it| {
        let more = [
            frame(b'N', b"SWARNING\0VWARNING\0C01000\0Mcanary\0\0"),
            parameter_status("search_path", "canary"),
            parameter_status("role", "canary"),
        ];
        Some([more.concat(), it.bytes()].concat())
    };
    let notifies: Says = |it| {
        let more = frame(b'A', b"\0\0\0\x01canary\0canary\0");
        Some([frame(b'N', b"SWARNING\0VWARNING\0C01000\0Mcanary\0\0"), more, it.bytes()].concat())
    };
    let lies = [
        lie("at its login", "", During::Login, "Z", talks),
        lie("at the check", "", CHECK, "Z", talks),
        lie("at the bind", "", BIND, "C", talks),
        lie("at the scrub", "", Anything, "C(DISCARD ALL)", talks),
        lie("at the bind, news", "", BIND, "C", notifies),
        lie("at the scrub, news", "", Anything, "C(DISCARD ALL)", notifies),
        lie("when settings are read back", "", Query("current_setting(E'work_mem'"), "D", talks),
    ];
    for lie in lies {
        let lied = Lied::new().await;
        lied.tell(lie);
        let (mut one, said) = lied.login(&lied.estate.acme).await;
        assert!(said.ends_with("Z(I)") && !said.contains("canary"), "{}: {said}", lie.name);
        let (mut other, said) = lied.login(&lied.estate.globex).await;
        assert!(said.ends_with("Z(I)") && !said.contains("canary"), "{}: {said}", lie.name);
        for wire in [&mut one, &mut other] {
            assert_eq!(wire.query("SET work_mem TO '3MB'").await, "C(SET) Z(I)", "{}", lie.name);
            assert_eq!(wire.query("SELECT 1").await, ONE, "{}", lie.name);
        }
        lied.is_well().await;
    }
}

#[tokio::test]
async fn an_answer_without_end_holds_up_nobody_and_ends_with_its_client() {
    let lied = Lied::new().await;
    let rows = |_| flood(&data_row(&[Some(&"x".repeat(1000))]), 30_000);
    lied.tell(lie("rows without end", "", PING, "D", rows));
    let (mut wire, _) = lied.login(&lied.estate.acme).await;
    wire.send(query("SELECT n AS ping FROM generate_series(1, 1000000) n")).await;
    for _ in 0..1000 {
        assert!(matches!(wire.frame().await.tag, b'T' | b'D'));
    }
    lied.neighbour.is_well().await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", lied.gate.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u32 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 200_000, "the gate holds {kib} KiB of what nobody reads");
    drop(wire);
    lied.tell_no_more();
    lied.is_well().await;
}

#[tokio::test]
async fn settings_that_cannot_be_read_back_end_the_session() {
    let during = Query("current_setting(E'work_mem'");
    let lies = [
        lie("an error", "", during, "D", |_| Some(error("ERROR", "XX000", "no"))),
        lie("cut", "", during, "", |_| None),
        lie("silence", "", during, "", |_| Some(vec![])),
    ];
    let lied = Lied::new().await;
    for lie in lies {
        let (mut wire, _) = lied.login(&lied.estate.acme).await;
        lied.tell(lie);
        wire.send(query("SET work_mem = '3MB'")).await;
        assert_eq!(wire.until_closed().await, "C(SET) Z(I) E(08006)", "{}", lie.name);
        lied.is_well().await;
    }
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
    let token = jwt(&id, 600);
    let mut wire = Wire::connect(gate.port).await;
    let login = Login { user: "app", dbname: "mute", password: &token, more: &[] };
    assert_eq!(transcript(&wire.authenticate(&login).await), "R E(08001)");
    assert_eq!(gate.wire(&estate.stark).await.query("SELECT 1").await, ONE);
}
