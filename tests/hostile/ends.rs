//! Clients that are gone, or say goodbye, while the gate does not read from them: more is unread of
//! what they sent than it takes ahead of an answer.

use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::harness::certs::{Authority, Identity};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{
    close, copy_data, copy_done, query, ssl_request, sync, terminate, transcript,
};
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::harness::wire::{Login, Wire};

const ONE: &str = "T D(1) C(SELECT 1) Z(I)";

/// More than the gate reads ahead, and no more above that than a socket takes.
const BEHIND_BYTES: usize = 144 * 1024;

/// How a client comes and goes.
const WAYS: [Way; 4] = [
    Way { secure: false, resets: false },
    Way { secure: false, resets: true },
    Way { secure: true, resets: false },
    Way { secure: true, resets: true },
];

#[derive(Clone, Copy, Debug)]
struct Way {
    secure: bool,
    resets: bool,
}

struct Stage {
    authority: Authority,
    estate: Estate,
    gate: Gate,
}

impl Stage {
    async fn new(tier: &str) -> Self {
        let (authority, estate) = (Authority::new(), Estate::new().await);
        let Identity { certificate, key } = authority.server(&["gate.test"]);
        let listen = "tls = \"allow\"\ncertificate = \"gate.crt\"\nkey = \"gate.key\"\n\
                      plaintext_password = true";
        let tweaks = Tweaks { listen, capacity: 1, tier, ..Tweaks::default() };
        let files = [("gate.crt", certificate.as_str()), ("gate.key", key.as_str())];
        let gate = Gate::start_with(&estate.settings(&tweaks), &files).await;
        Self { authority, estate, gate }
    }

    async fn login(&self, tenant: &Tenant, way: Way) -> Wire {
        self.try_login(tenant, way).await.expect("the tenant logs in")
    }

    async fn try_login(&self, tenant: &Tenant, way: Way) -> Option<Wire> {
        let socket = TcpStream::connect(("127.0.0.1", self.gate.port)).await.unwrap();
        let held = SockRef::from(&socket);
        held.set_send_buffer_size(4 * BEHIND_BYTES).unwrap();
        if way.resets {
            held.set_linger(Some(Duration::ZERO)).unwrap();
        }
        let mut wire = Wire::over(socket);
        if way.secure {
            wire.send(ssl_request()).await;
            assert_eq!(wire.byte().await, b'S');
            let config = self.authority.client_config();
            wire = wire.handshake(config, "gate.test").await.unwrap();
        }
        let (dbname, password) = (tenant.dbname.as_str(), tenant.token.as_str());
        let login = Login { user: "app", dbname, password, more: &[] };
        let said = transcript(&wire.authenticate(&login).await);
        said.ends_with("Z(I)").then_some(wire)
    }
}

async fn leaves(mut wire: Wire) {
    wire.send(terminate()).await;
    assert_eq!(wire.until_closed().await, "");
}

/// A message again and again.
fn many(message: &[u8]) -> Vec<u8> {
    message.repeat(BEHIND_BYTES / message.len())
}

#[tokio::test]
async fn who_is_gone_keeps_no_server_however_much_of_it_is_unread() {
    let stage = Stage::new("").await;
    let Estate { umbrella, stark, .. } = &stage.estate;
    let mut other = stage.gate.wire(stark).await;
    let row = copy_data(b"900\tx\n");
    let scenes = [
        // What stands behind a command of the session waits for the answers ahead of it.
        [query("SELECT pg_sleep(300)"), query("DEALLOCATE ALL"), many(&query("SELECT 1"))],
        // Nothing does while the server reads copy data.
        [query("DEALLOCATE ALL; COPY notes FROM STDIN"), Vec::new(), many(&row)],
        [query("PREPARE p AS SELECT 1; COPY notes FROM STDIN"), row.clone(), many(&row)],
        [query("COPY notes FROM STDIN"), query("DEALLOCATE ALL"), many(&query("SELECT 1"))],
    ];
    for way in WAYS {
        for (number, scene) in scenes.iter().enumerate() {
            let mut gone = stage.login(umbrella, way).await;
            // The session may end on the way.
            let _ = gone.try_send(scene.concat()).await;
            drop(gone);
            assert_eq!(other.query("SELECT 1").await, ONE, "{way:?}, scene {number}");
        }
    }
}

#[tokio::test]
async fn who_is_gone_does_not_wait_for_a_server() {
    let stage = Stage::new("clients = 1").await;
    let Estate { umbrella, stark, .. } = &stage.estate;
    // What servers say at a login is known from then on.
    leaves(stage.gate.wire(stark).await).await;
    let mut holder = stage.gate.wire(umbrella).await;
    assert_eq!(holder.query("BEGIN").await, "C(BEGIN) Z(T)");
    for way in WAYS {
        let place = async || stage.try_login(stark, way).await;
        let mut gone = eventually("the last client's place is free", place).await;
        gone.send(many(&query("SELECT 1"))).await;
    }
    let place = async || stage.try_login(stark, WAYS[0]).await;
    leaves(eventually("the last client's place is free", place).await).await;
    assert_eq!(holder.query("COMMIT").await, "C(COMMIT) Z(I)");
}

#[tokio::test]
async fn what_was_sent_before_a_goodbye_is_carried_out_though_it_was_unread() {
    let stage = Stage::new("").await;
    for (way, id) in WAYS.into_iter().filter(|way| !way.resets).zip(900..) {
        let mut wire = stage.login(&stage.estate.stark, way).await;
        let insert = format!("INSERT INTO notes VALUES ({id}, 'x')");
        let first = [query("SELECT 1 FROM pg_sleep(0.3)"), query("DEALLOCATE ALL")];
        let last = [many(&query("SELECT 1")), query(&insert), terminate()];
        wire.send([first.concat(), last.concat()].concat()).await;
        wire.half_close().await.unwrap();
        let said = wire.until_closed().await;
        assert!(said.ends_with("C(INSERT 0 1) Z(I)"), "{way:?}: {}", &said[said.len() - 200..]);
    }
}

#[tokio::test]
async fn a_command_among_copy_data_ends_the_session_and_a_copy_behind_one_does_not() {
    let stage = Stage::new("").await;
    let stark = &stage.estate.stark;
    for command in ["DEALLOCATE ALL", "PREPARE p AS SELECT 1", "DISCARD ALL"] {
        let mut wire = stage.gate.wire(stark).await;
        wire.send([query("COPY notes FROM STDIN"), copy_data(b"900\tx\n")].concat()).await;
        assert_eq!(wire.frame().await.tag, b'G');
        wire.send(query(command)).await;
        assert_eq!(wire.until_closed().await, "E(08P01)", "{command}");
    }
    let mut wire = stage.gate.wire(stark).await;
    let commands = [(901, "DEALLOCATE ALL"), (902, "PREPARE p AS SELECT 1"), (903, "UNLISTEN *")];
    for (id, sql) in commands {
        let text = query(&format!("{sql}; COPY notes FROM STDIN"));
        let row = copy_data(format!("{id}\tx\n").as_bytes());
        let said = wire.ask([text, row, sync(), copy_done(), query("")].concat()).await;
        assert!(said.ends_with("G C(COPY 1) Z(I)"), "{sql}: {said}");
        assert_eq!(transcript(&wire.until_ready().await), "I Z(I)");
    }
    assert_eq!(wire.query("EXECUTE p").await, ONE);
    assert_eq!(wire.query("DELETE FROM notes WHERE id > 900").await, "C(DELETE 3) Z(I)");
}

#[tokio::test]
async fn a_long_pipeline_is_answered_to_its_end() {
    const COUNT: usize = 20_000;
    let stage = Stage::new("").await;
    let mut wire = stage.gate.wire(&stage.estate.stark).await;
    wire.send([query("SELECT pg_sleep(0.1)"), sync().repeat(COUNT)].concat()).await;
    for _ in 0..=COUNT {
        assert_eq!(wire.until_ready().await.last().map(|frame| frame.tag), Some(b'Z'));
    }
    // Without a Sync, as far as the server says anything before one.
    let closes = close(b'P', "p").repeat(COUNT);
    wire.send([closes.as_slice(), &sync(), &query("SELECT 1")].concat()).await;
    let said = wire.until_ready().await;
    assert_eq!(said.iter().filter(|frame| frame.tag == b'3').count(), COUNT);
    assert_eq!(transcript(&wire.until_ready().await), ONE);
    // None of these is answered.
    let syncs = sync().repeat(COUNT);
    let copy = [query("COPY notes FROM STDIN"), syncs, copy_done().repeat(COUNT)].concat();
    assert_eq!(wire.ask(copy).await, "G C(COPY 0) Z(I)");
    assert_eq!(wire.query("SELECT 1").await, ONE);
}
