//! Messages that are not what they should be, and cancels of what is not one's own.

use super::Class::{Cancel, Protocol};
use super::{
    ALL, Attack, HARMLESS, ROW, SCHEMA, SILO, Scene, apart, play, refused_below_strict, stopped,
};
use crate::harness::messages::{
    bind, copy_data, copy_done, execute, extended, flush, frame, lying_frame, parse, query, sync,
    transcript,
};
use crate::harness::wire::cancel;

const NOTES: &str = "SELECT body FROM notes ORDER BY id";

/// Sends bytes, reads one's notes if the session is still there, and looks at the victim.
async fn hostile(scene: &mut Scene<'_>, bytes: Vec<u8>) {
    scene.send(bytes).await;
    scene.send(sync()).await;
    scene.send(query(NOTES)).await;
}

/// A function call message that calls `set_config('app.tenant_id', <the victim>, false)`.
fn function_call(tenant: &str) -> Vec<u8> {
    let argument = |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat();
    // set_config is 2078; one format code (text) for all of three arguments; text result.
    let head = [&2078_u32.to_be_bytes()[..], &[0, 1, 0, 0, 0, 3]].concat();
    let texts = [argument(b"app.tenant_id"), argument(tenant.as_bytes()), argument(b"f")].concat();
    frame(b'F', &[head, texts, vec![0, 0]].concat())
}

pub const ATTACKS: [Attack; 21] = [
    play(
        Protocol,
        "a function call message that runs set_config",
        ROW,
        stopped("0A000"),
        |scene| {
            let call = function_call(&scene.victim.id);
            Box::pin(hostile(scene, call))
        },
    ),
    play(
        Protocol,
        "a function call message of a schema tenant that runs set_config",
        SCHEMA,
        refused_below_strict("42501"),
        |scene| {
            let call = function_call(&scene.victim.id);
            Box::pin(hostile(scene, call))
        },
    ),
    play(
        Protocol,
        "a function call message of a silo tenant that runs set_config",
        SILO,
        HARMLESS,
        |scene| {
            let call = function_call(&scene.victim.id);
            Box::pin(hostile(scene, call))
        },
    ),
    play(Protocol, "a simple query behind a batch without Sync", ALL, HARMLESS, |scene| {
        let batch = [parse("", "SELECT 1"), bind("", "", &[]), execute("", 0)].concat();
        Box::pin(hostile(scene, [batch, query(NOTES), sync()].concat()))
    }),
    play(Protocol, "a function call behind a batch without Sync", ROW, stopped("0A000"), |scene| {
        let call = function_call(&scene.victim.id);
        Box::pin(hostile(scene, [parse("", "SELECT 1"), call].concat()))
    }),
    play(Protocol, "a pipeline whose first part fails", ROW, stopped("42501"), |scene| {
        let other = &scene.victim.id;
        let set = extended(&format!("SET app.tenant_id = '{other}'"), &[]);
        let read = extended(NOTES, &[]);
        Box::pin(hostile(scene, [set, read.clone(), read].concat()))
    }),
    play(Protocol, "an error at the first message of a transaction", ALL, UNKNOWN, |scene| {
        Box::pin(hostile(scene, [query("BEGIN; SELEC 1"), query("ROLLBACK")].concat()))
    }),
    play(Protocol, "a message nobody knows", ALL, stopped("08P01"), |scene| {
        Box::pin(hostile(scene, frame(b'y', b"?")))
    }),
    play(Protocol, "a message of a server's", ALL, stopped("08P01"), |scene| {
        Box::pin(hostile(scene, frame(b'Z', b"I")))
    }),
    play(Protocol, "a length that lies", ALL, stopped("08P01"), |scene| {
        Box::pin(hostile(scene, lying_frame(b'Q', 3, b"SELECT 1\0")))
    }),
    play(Protocol, "a length of two gigabytes", ALL, stopped("08P01"), |scene| {
        Box::pin(hostile(scene, lying_frame(b'B', 0x7fff_ffff, b"\0\0")))
    }),
    play(Protocol, "a NUL inside a text, with SQL behind it", ALL, stopped("08P01"), |scene| {
        let text = b"SELECT 1\0; SET app.tenant_id = 'x'\0";
        Box::pin(hostile(scene, frame(b'Q', text)))
    }),
    play(Protocol, "a text without an end", ALL, stopped("08P01"), |scene| {
        Box::pin(hostile(scene, frame(b'Q', b"SELECT 1")))
    }),
    play(Protocol, "COPY data where no COPY runs", ALL, HARMLESS, |scene| {
        let data = [copy_data(b"9\tplanted\n"), copy_done(), sync()].concat();
        Box::pin(hostile(scene, data))
    }),
    play(Protocol, "a COPY that is never ended, and a goodbye", ALL, HARMLESS, |scene| {
        Box::pin(async {
            let copy = "COPY (SELECT repeat('x', 100) FROM generate_series(1, 50000)) TO STDOUT";
            // Nobody reads it: the session is dropped in the middle.
            let _ = scene.own.try_send([query(copy), query(NOTES)].concat()).await;
            scene.leaves().await;
        })
    }),
    play(Protocol, "a batch that is flushed and never ended", ALL, HARMLESS, |scene| {
        Box::pin(async {
            let batch = [parse("", NOTES), bind("p", "", &[]), execute("p", 1), flush()].concat();
            let _ = scene.own.try_send(batch).await;
            let _ = scene.own.frame().await;
            scene.leaves().await;
        })
    }),
    play(Protocol, "a portal of the last tenant", ALL, stopped("34000"), |scene| {
        Box::pin(async {
            let theirs = [parse("", "SELECT 'CANARY'"), bind("p", "", &[]), sync()].concat();
            scene.other.ask(theirs).await;
            scene.send([execute("p", 0), sync()].concat()).await;
        })
    }),
    apart(play(Cancel, "one's own key, while another's query runs", ALL, HARMLESS, |scene| {
        Box::pin(async {
            let (pid, secret) = (scene.own.pid, scene.own.secret);
            cancelled(scene, &[(pid, secret)]).await;
        })
    })),
    apart(play(Cancel, "guessed keys: near, zero, the server's own pid", ALL, HARMLESS, |scene| {
        Box::pin(async {
            let said = scene.other.query("SELECT pg_backend_pid()").await;
            let backend = said[4..said.find(") C").unwrap()].parse().unwrap();
            let (pid, secret) = (scene.other.pid, scene.other.secret);
            let own = scene.own.secret;
            let keys =
                [(pid, secret ^ 1), (pid ^ 1, secret), (pid, own), (backend, secret), (0, 0)];
            cancelled(scene, &keys).await;
        })
    })),
    play(Cancel, "a late cancel, when the server is another's", ALL, HARMLESS, |scene| {
        Box::pin(async {
            let (port, pid, secret) = (scene.gate.port, scene.own.pid, scene.own.secret);
            for _ in 0..20 {
                scene.own.send(query("SELECT 1")).await;
                let (said, ()) =
                    tokio::join!(scene.other.query("SELECT pg_sleep(0.002), 1"), async {
                        cancel(port, pid, secret).await;
                    });
                if said != "T D(,1) C(SELECT 1) Z(I)" {
                    scene.is_changed(said);
                }
                scene.own.until_ready().await;
            }
        })
    }),
    play(Cancel, "the key of a session that has ended", ALL, HARMLESS, |scene| {
        Box::pin(async {
            let (pid, secret) = (scene.own.pid, scene.own.secret);
            scene.leaves().await;
            cancelled(scene, &[(pid, secret)]).await;
        })
    }),
];

/// The guard knows no such statement, and says so before the server does.
const UNKNOWN: super::Expected = [
    super::Verdict::Stopped("42601"),
    super::Verdict::Stopped("42501"),
    super::Verdict::Stopped("42501"),
];

/// The victim's query runs while these keys are tried on it.
async fn cancelled(scene: &mut Scene<'_>, keys: &[(i32, i32)]) {
    scene.other.send(query("SELECT pg_sleep(0.2), 1")).await;
    for (pid, secret) in keys {
        cancel(scene.gate.port, *pid, *secret).await;
    }
    let said = transcript(&scene.other.until_ready().await);
    if said != "T D(,1) C(SELECT 1) Z(I)" {
        scene.is_changed(said);
    }
}
