//! Scripted exchanges with the console over an in-memory stream, and the manual compared with
//! the tables of the code.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use crate::catalog::Live;
use crate::console::act::{ORDERS, Target};
use crate::console::command::{COMMANDS, Subject};
use crate::console::connection::Connection;
use crate::console::fault::Fault;
use crate::console::login::Access;
use crate::console::session::Session;
use crate::console::snapshot::{ConfigRow, PoolRow, Snapshot, TenantRow};
use crate::console::{
    ConsoleEnv, ConsoleLogin, ConsoleSettings, ConsoleUser, Control, Rights, run, show,
};
use crate::net::Peer;
use crate::telemetry::Audit;

/// The client's end: what comes is kept as short texts, one per message.
pub(super) struct Client {
    stream: DuplexStream,
    input: BytesMut,
}

impl Client {
    pub(super) fn over(stream: DuplexStream) -> Self {
        Self { stream, input: BytesMut::new() }
    }

    pub(super) async fn send(&mut self, build: impl FnOnce(&mut BytesMut)) {
        let mut bytes = BytesMut::new();
        build(&mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = Message::parse(&mut self.input).unwrap() {
                return Some(message);
            }
            if self.stream.read_buf(&mut self.input).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// Everything up to ReadyForQuery or the end of the connection.
    pub(super) async fn answers(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(message) = self.next().await {
            let last = matches!(message, Message::ReadyForQuery(_));
            seen.push(told(message));
            if last {
                break;
            }
        }
        seen
    }

    pub(super) async fn query(&mut self, text: &str) -> Vec<String> {
        self.send(|out| frontend::query(text, out).unwrap()).await;
        self.answers().await
    }

    /// The exchange up to its last message; answers are left unread.
    async fn prove(&mut self, password: &str) {
        let Some(Message::AuthenticationSasl(_)) = self.next().await else { panic!("no SASL") };
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let first = scram.message().to_vec();
        self.send(|out| frontend::sasl_initial_response("SCRAM-SHA-256", &first, out).unwrap())
            .await;
        let challenge = match self.next().await {
            Some(Message::AuthenticationSaslContinue(body)) => body,
            _ => panic!("no challenge"),
        };
        scram.update(challenge.data()).unwrap();
        let last = scram.message().to_vec();
        self.send(|out| frontend::sasl_response(&last, out).unwrap()).await;
    }

    pub(super) async fn log_in(&mut self) {
        self.prove("secret").await;
        let answers = self.answers().await;
        assert_eq!(answers.last().unwrap(), "Z I", "{answers:?}");
    }
}

fn told(message: Message) -> String {
    match message {
        Message::AuthenticationSaslFinal(_) => "R final".to_owned(),
        Message::AuthenticationOk => "R ok".to_owned(),
        Message::ParameterStatus(body) => {
            format!("S {}={}", body.name().unwrap(), body.value().unwrap())
        }
        Message::BackendKeyData(_) => "K".to_owned(),
        Message::ReadyForQuery(body) => format!("Z {}", char::from(body.status())),
        Message::CommandComplete(body) => format!("C {}", body.tag().unwrap()),
        Message::RowDescription(body) => {
            let fields = body.fields().map(|field| Ok(field.name().to_owned()));
            format!("T {}", fields.collect::<Vec<_>>().unwrap().join(" "))
        }
        Message::DataRow(body) => {
            let bytes = body.buffer();
            let cells = body.ranges().map(|range| {
                let cell = range.map(|range| String::from_utf8_lossy(&bytes[range]).into_owned());
                Ok(cell.unwrap_or_else(|| "NULL".to_owned()))
            });
            format!("D {}", cells.collect::<Vec<_>>().unwrap().join("|"))
        }
        Message::ErrorResponse(body) => {
            let fields: Vec<_> = body
                .fields()
                .map(|field| {
                    Ok((field.type_(), String::from_utf8(field.value_bytes().to_vec()).unwrap()))
                })
                .collect()
                .unwrap();
            let field = |kind| &fields.iter().find(|(found, _)| *found == kind).unwrap().1;
            format!("E {} {}", field(b'V'), field(b'C'))
        }
        Message::ParseComplete => "1".to_owned(),
        Message::BindComplete => "2".to_owned(),
        Message::CloseComplete => "3".to_owned(),
        Message::NoData => "n".to_owned(),
        Message::ParameterDescription(_) => "t".to_owned(),
        Message::PortalSuspended => "s".to_owned(),
        Message::EmptyQueryResponse => "I".to_owned(),
        Message::NoticeResponse(_) => "N".to_owned(),
        _ => "?".to_owned(),
    }
}

fn tenant(name: &str) -> TenantRow {
    TenantRow { tenant: name.to_owned(), isolation: "row".to_owned(), ..TenantRow::default() }
}

/// Starts a console for `user` at `peer`, with a gate that answers every snapshot.
fn console(user: &str, peer: &str) -> Client {
    let (mut client, mut controls) = silent_console(user, peer);
    tokio::spawn(async move {
        while let Some(control) = controls.recv().await {
            let Control::Snapshot(_, reply) = control else { panic!("{control:?}") };
            let pool = PoolRow { cl_active: 3, ..PoolRow::default() };
            let tenants = vec![tenant("a"), tenant("b"), tenant("c")];
            let (tenants_known, pools) = (tenants.len(), vec![pool]);
            let snapshot = Snapshot { tenants, tenants_known, pools, ..Snapshot::default() };
            reply.send(snapshot).unwrap();
        }
    });
    client.input.reserve(1024);
    client
}

/// The same with a gate that does not answer unless the test does.
pub(super) fn silent_console(user: &str, peer: &str) -> (Client, mpsc::Receiver<Control>) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (control, controls) = mpsc::channel(1);
    let (login, settings) = admin(user, peer);
    tokio::spawn(run(theirs, login, ConsoleEnv { settings, control, audit: Audit::default() }));
    (Client::over(ours), controls)
}

/// The verifier of "secret" with a single iteration, so that tests spend no time on it.
pub(super) const VERIFIER: &str = concat!(
    "SCRAM-SHA-256$1:Y29uc29sZSB0ZXN0IHNhbA==$",
    "olutPPi8zYX4hFnE53m5zRbw6shhoVuysaBe5D4iknE=:dFKS/tTa8tqi2wqgaQIgswWLl2xAuuiAT0HO+MDZjwo="
);

/// Start-up of `user` from `peer`, and settings with the one user `admin`.
pub(super) fn admin(user: &str, peer: &str) -> (ConsoleLogin, Arc<Live<ConsoleSettings>>) {
    let admin =
        ConsoleUser { name: "admin".to_owned(), scram: VERIFIER.to_owned(), rights: Rights::Admin };
    let login = ConsoleLogin {
        user: user.to_owned(),
        peer: Peer::Tcp(peer.parse().unwrap()),
        secure: false,
        parameters: vec![("application_name".to_owned(), "psql\né".to_owned())],
    };
    (
        login,
        Arc::new(Live::new(ConsoleSettings { users: vec![admin], ..ConsoleSettings::default() })),
    )
}

pub(super) const LOCAL: &str = "127.0.0.1:5000";

#[tokio::test]
async fn a_user_logs_in_and_is_greeted_as_drivers_expect() {
    for peer in [LOCAL, "[::1]:5000", "[::ffff:127.0.0.1]:5000"] {
        let mut client = console("admin", peer);
        client.prove("secret").await;
        let answers = client.answers().await;
        assert_eq!(answers[..2], ["R final", "R ok"]);
        for wanted in [
            "S client_encoding=UTF8",
            "S standard_conforming_strings=on",
            "S DateStyle=ISO, MDY",
            "S application_name=psql??",
            "S session_authorization=admin",
            "K",
            "Z I",
        ] {
            assert!(answers.iter().any(|answer| answer == wanted), "{wanted} in {answers:?}");
        }
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_are_refused_alike() {
    for (user, password) in [("admin", "wrong"), ("nobody", "secret"), ("", "secret")] {
        let mut client = console(user, LOCAL);
        client.prove(password).await;
        assert_eq!(client.answers().await, ["E FATAL 28P01"], "{user}");
    }
}

#[tokio::test]
async fn a_peer_that_is_not_on_this_machine_is_refused_before_anything_else() {
    for peer in ["10.0.0.1:5000", "[2001:db8::1]:5000", "0.0.0.0:5000"] {
        assert_eq!(console("admin", peer).answers().await, ["E FATAL 28P01"], "{peer}");
    }
}

#[tokio::test]
async fn garbage_during_the_login_ends_it() {
    for (bytes, code) in [
        (&b"Q\0\0\0\x0fSHOW POOLS\0"[..], "08P01"),
        (b"p\0\0\0\x03", "08P01"),
        (b"p\0\0\0\x04", "08P01"),
        (b"p\x7f\xff\xff\xff", "08P01"),
        (b"p\0\0\0\x10SCRAM-SHA-1\0", "08P01"),
        (b"p\0\0\0\x16SCRAM-SHA-256\0\0\0\0\0", "08P01"),
        (b"p\0\0\0\x19SCRAM-SHA-256\0\0\0\0\x03\xff\xff\xff", "08P01"),
    ] {
        let mut client = console("admin", LOCAL);
        client.next().await.unwrap();
        client.stream.write_all(bytes).await.unwrap();
        assert_eq!(client.answers().await, [format!("E FATAL {code}")], "{bytes:?}");
    }
}

#[tokio::test]
async fn random_bytes_at_any_stage_end_in_an_answer_and_not_in_a_panic() {
    let mut random = fastrand::Rng::with_seed(11);
    let tags = b"QPBDECSHFXpdcf\0";
    for round in 0..2000 {
        let (mut stream, theirs) = tokio::io::duplex(64 * 1024);
        let (control, _controls) = mpsc::channel(1);
        let serving = if round % 2 == 0 {
            let (login, settings) = admin("admin", LOCAL);
            let access = Access { name: "admin".to_owned(), scram: Some(VERIFIER.to_owned()) };
            let env = ConsoleEnv { settings, control, audit: Audit::default() };
            tokio::spawn(Session::new(Connection::new(theirs), env, access, login).run())
        } else {
            let (login, settings) = admin("admin", LOCAL);
            tokio::spawn(run(
                theirs,
                login,
                ConsoleEnv { settings, control, audit: Audit::default() },
            ))
        };
        let mut bytes = BytesMut::new();
        for _ in 0..random.usize(1..6) {
            let body: Vec<u8> = (0..random.usize(0..24)).map(|_| random.u8(0..4) * 27).collect();
            let error = if random.usize(0..6) == 0 { random.i32(-5..5) } else { 0 };
            bytes.put_u8(tags[random.usize(..tags.len())]);
            bytes.put_i32(4 + i32::try_from(body.len()).unwrap() + error);
            bytes.put_slice(&body);
        }
        // The console may have closed already.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        serving.await.unwrap();
    }
}

#[tokio::test]
async fn commands_answer_with_rows_over_the_simple_protocol() {
    let mut client = console("admin", LOCAL);
    client.log_in().await;
    let answers = client.query("SHOW POOLS; show lists;").await;
    assert!(answers[0].starts_with("T database user cl_active cl_waiting"), "{answers:?}");
    assert_eq!(answers[1], "D ||3|0|0|0|0|0|0|0|0|0|0|0|0|||");
    assert_eq!(answers[2], "C SHOW");
    assert!(answers.contains(&"D tenants|3".to_owned()));
    let help = client.query("SHOW HELP").await;
    assert_eq!(help.len(), COMMANDS.len() + ORDERS.len() + 3);
    assert_eq!(client.query(" ; ").await, ["I", "Z I"]);
    assert_eq!(client.query("SELECT 1").await, ["E ERROR 08P01", "Z I"]);
    let wanted = ["T transaction_isolation", "D read committed", "C SHOW", "Z I"];
    assert_eq!(client.query("SHOW TRANSACTION ISOLATION LEVEL").await, wanted);
}

#[tokio::test]
async fn a_transaction_block_is_tracked_for_drivers_that_open_one() {
    let mut client = console("admin", LOCAL);
    client.log_in().await;
    assert_eq!(client.query("BEGIN").await, ["C BEGIN", "Z T"]);
    assert_eq!(client.query("nonsense").await, ["E ERROR 08P01", "Z E"]);
    assert_eq!(client.query("SHOW VERSION").await, ["E ERROR 25P02", "Z E"]);
    assert_eq!(client.query("COMMIT").await, ["C ROLLBACK", "Z I"]);
    assert_eq!(
        client.query("BEGIN; SET x = 1; COMMIT").await,
        ["C BEGIN", "C SET", "C COMMIT", "Z I"]
    );
}

pub(super) fn bind(portal: &str, statement: &str, formats: &[i16], out: &mut BytesMut) {
    let none = std::iter::empty::<i16>();
    let values = std::iter::empty::<&[u8]>();
    let formats = formats.iter().copied();
    let bound = frontend::bind(
        portal,
        statement,
        none,
        values,
        |_, _| Ok(postgres_protocol::IsNull::Yes),
        formats,
        out,
    );
    assert!(bound.is_ok());
}

#[tokio::test]
async fn the_extended_protocol_serves_prepared_statements_and_portals_in_parts() {
    let mut client = console("admin", LOCAL);
    client.log_in().await;
    client
        .send(|out| {
            frontend::parse("s", "SHOW TENANTS", [], out).unwrap();
            frontend::describe(b'S', "s", out).unwrap();
            bind("", "s", &[], out);
            frontend::execute("", 2, out).unwrap();
            frontend::execute("", 0, out).unwrap();
            frontend::close(b'S', "s", out).unwrap();
            frontend::sync(out);
        })
        .await;
    let answers = client.answers().await;
    let kinds: Vec<&str> = answers.iter().map(|answer| &answer[..1]).collect();
    assert_eq!(kinds, ["1", "t", "T", "2", "D", "D", "s", "D", "C", "3", "Z"], "{answers:?}");
    client
        .send(|out| {
            frontend::parse("", "SHOW POOLS", [], out).unwrap();
            bind("p", "", &[1], out);
            frontend::describe(b'P', "p", out).unwrap();
            frontend::execute("p", 0, out).unwrap();
            frontend::sync(out);
        })
        .await;
    let answers = client.answers().await;
    assert!(answers[3].starts_with("D ||\0\0\0\u{3}|"), "{answers:?}");
}

#[tokio::test]
async fn an_error_in_the_extended_protocol_skips_to_the_sync() {
    let mut client = console("admin", LOCAL);
    client.log_in().await;
    for (text, code) in
        [("SELECT $1", "08P01"), ("SHOW POOLS; SHOW POOLS", "42601"), ("SHOW VERSION", "26000")]
    {
        client
            .send(|out| {
                frontend::parse("one", text, [], out).unwrap();
                bind("", "other", &[], out);
                frontend::execute("", 0, out).unwrap();
                frontend::sync(out);
            })
            .await;
        let answers = client.answers().await;
        let wanted = [format!("E ERROR {code}"), "Z I".to_owned()];
        assert!(answers.ends_with(&wanted), "{answers:?}");
        assert!(answers.len() <= 3, "{answers:?}");
    }
}

#[tokio::test]
async fn a_gate_that_is_gone_ends_the_session_and_one_that_drops_the_question_fails_it() {
    let (mut client, mut controls) = silent_console("admin", LOCAL);
    client.log_in().await;
    client.send(|out| frontend::query("SHOW POOLS", out).unwrap()).await;
    drop(controls.recv().await);
    assert_eq!(client.answers().await, ["E ERROR 57P03", "Z I"]);
    drop(controls);
    let ended = tokio::time::timeout(Duration::from_secs(5), client.answers()).await;
    assert_eq!(ended.unwrap(), ["E FATAL 57P01"]);
}

/// The manual's tables of columns, as `command: name type, name type`.
#[test]
fn the_manual_lists_the_commands_and_their_columns() {
    let manual = include_str!("../../docs/console.md");
    for command in &COMMANDS {
        let heading = format!("### SHOW {}\n", command.name);
        let section = manual.split(&heading).nth(1).unwrap_or_else(|| panic!("{heading}"));
        let section = section.split("\n#").next().unwrap();
        let found: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        let wanted: Vec<String> = show::columns(command.subject)
            .iter()
            .map(|column| {
                let kind = format!("{:?}", column.kind).to_ascii_lowercase();
                format!("| `{}` | {kind} |", column.name)
            })
            .collect();
        assert_eq!(found.len(), wanted.len(), "SHOW {}: {wanted:#?}", command.name);
        for (found, wanted) in found.iter().zip(&wanted) {
            assert!(found.starts_with(wanted.as_str()), "SHOW {}: {found}", command.name);
        }
        let listed = format!("| [`SHOW {}`]", command.name);
        assert!(manual.contains(&format!(
            "{listed}(#show-{}) | {} |",
            command.name.to_lowercase(),
            command.about
        )));
    }
    assert_eq!(manual.matches("\n### SHOW ").count(), COMMANDS.len());
    for order in &ORDERS {
        let row = format!("| `{}` | {} |", order.usage.replace('|', "\\|"), order.about);
        assert!(manual.contains(&row), "{row}");
    }
}

#[test]
fn the_manual_lists_the_errors_of_commands() {
    let manual = include_str!("../../docs/console.md");
    let name = || "x".to_owned();
    for fault in [
        Fault::Syntax { near: name(), hint: name() },
        Fault::SeveralCommands,
        Fault::Forbidden,
        Fault::NotMoved { what: name() },
        Fault::NoAnswer,
        Fault::UnknownStatement { name: name() },
        Fault::UnknownPortal { name: name() },
        Fault::StatementExists { name: name() },
        Fault::TooMany { limit: 256 },
        Fault::Mismatch { what: "console commands take no parameters" },
        Fault::Aborted,
        Fault::FunctionCall,
        Fault::UnknownTarget { target: Target::Named(name()), other: false },
        Fault::AmbiguousTarget { name: name() },
        Fault::UnknownClient { id: 7 },
        Fault::OutOfPlace { what: "nothing is paused".to_owned() },
        Fault::InvalidBudget { what: "there is no budget \"x\"".to_owned() },
        Fault::BadSettings { problems: name() },
        Fault::InTransaction,
    ] {
        let row = format!("| {} | {} |", fault.sqlstate(), fault.message());
        assert!(manual.contains(&row), "{row}");
    }
}

#[test]
fn settings_rows_say_whether_a_reload_is_enough() {
    let row =
        ConfigRow { key: "gate.clients".to_owned(), changeable: true, ..ConfigRow::default() };
    let snapshot = Snapshot { config: vec![row], ..Snapshot::default() };
    let mut table = show::table(Subject::Config, snapshot);
    let cells = format!("{:?}", table.rows.next().unwrap());
    assert!(cells.contains("\"gate.clients\"") && cells.ends_with("Text(\"yes\")]"), "{cells}");
}
