//! Guessing is slow, from one address and at one tenant; who got in before is not held up by it.
//! Tenants may say from where their clients come.

use std::time::Instant;

use super::{PASSWORD, scram};
use crate::harness::gate::Gate;
use crate::harness::messages::{self, Frame, transcript};
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::{Login, Wire};

async fn attempt(gate: &Gate, user: &str, password: &str) -> Vec<Frame> {
    let login = Login { user, dbname: "app", password, more: &[] };
    Wire::connect(gate.port).await.authenticate(&login).await
}

fn ends(frames: &[Frame]) -> String {
    transcript(&frames[frames.len() - 1..])
}

#[tokio::test]
async fn who_fails_too_often_must_wait_and_who_got_in_need_not() {
    let estate = Estate::new().await;
    let (stark, acme) = (&estate.stark.id, &estate.acme.id);
    let more = [scram(stark, "app", PASSWORD), scram(acme, "app", PASSWORD)].concat();
    let listen = "tls = \"disable\"\nplaintext_password = true\nrules = [\n\
        { user = \"app*\", method = \"scram-sha-256\" }, { method = \"password\" }]\n";
    let gate = "failures_per_address = 4\nfailures_per_tenant = 1000\n";
    let tweaks = Tweaks { gate, listen, more: &more, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let (known, fresh) = (format!("app.{stark}"), format!("app.{acme}"));
    assert_eq!(ends(&attempt(&gate, &known, PASSWORD).await), "Z(I)");
    for number in 0..4 {
        let user = format!("app.nobody{number}");
        assert_eq!(ends(&attempt(&gate, &user, "x").await), "E(28P01)", "{number}");
    }
    // The right password does not help any more, and neither does a token.
    for (user, password) in [(fresh.as_str(), PASSWORD), ("t", estate.stark.token.as_str())] {
        let frames = attempt(&gate, user, password).await;
        assert_eq!(ends(&frames), "E(53400)", "{user}");
        let error = frames.last().unwrap();
        assert_eq!(error.field('M').as_deref(), Some("too many failed logins"));
        assert!(error.field('H').unwrap().starts_with("Retry after "), "{error:?}");
    }
    // Each is counted, and not each makes a line.
    let began = Instant::now();
    for _ in 0..50 {
        assert_eq!(ends(&attempt(&gate, &fresh, PASSWORD).await), "E(53400)");
    }
    let log = gate.log();
    let lines = log.lines().filter(|line| line.contains("too many failed logins")).count();
    assert!((1..=began.elapsed().as_secs() as usize + 3).contains(&lines), "{lines}\n{log}");
    // Who got in from here before gets in, and is counted alone.
    assert_eq!(ends(&attempt(&gate, &known, PASSWORD).await), "Z(I)");
    let mut wrong = 0;
    while ends(&attempt(&gate, &known, "x").await) == "E(28P01)" {
        wrong += 1;
    }
    assert!((4..10).contains(&wrong), "{wrong}");
}

#[tokio::test]
async fn a_token_that_got_in_is_not_locked_out_by_others_behind_its_address() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { gate: "failures_per_address = 3\n", ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    assert_eq!(ends(&attempt(&gate, "app", &estate.acme.token).await), "Z(I)");
    let mut wrong = estate.stark.token.clone();
    let last = if wrong.pop() == Some('x') { 'y' } else { 'x' };
    wrong.push(last);
    for _ in 0..3 {
        assert_eq!(ends(&attempt(&gate, "app", &wrong).await), "E(28P01)");
    }
    for token in [&wrong, &estate.stark.token, &estate.umbrella.token] {
        assert_eq!(ends(&attempt(&gate, "app", token).await), "E(53400)");
    }
    assert_eq!(ends(&attempt(&gate, "app", &estate.acme.token).await), "Z(I)");
}

#[tokio::test]
async fn who_hangs_up_on_a_challenge_has_tried() {
    let estate = Estate::new().await;
    let stark = &estate.stark.id;
    let listen = "tls = \"disable\"\nrules = [{ method = \"scram-sha-256\" }]\n";
    let more = scram(stark, "app", PASSWORD);
    let gate = "failures_per_address = 3\n";
    let tweaks = Tweaks { gate, listen, more: &more, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let first = b"SCRAM-SHA-256\0\0\0\0\x18n,,n=,r=abcdefghijklmnop".to_vec();
    let mut said = Vec::new();
    for broken in [false, true, false, true, false] {
        let mut wire = Wire::connect(gate.port).await;
        let user = format!("app.{stark}");
        wire.send(messages::startup(&[("user", &user), ("database", "app")])).await;
        assert_eq!(wire.frame().await.to_string(), "R");
        wire.send(messages::frame(b'p', &first)).await;
        let answer = wire.frame().await;
        said.push(transcript(&[answer]));
        if said.last().is_some_and(|last| last == "R") {
            // Nothing that proves anything, or nothing at all.
            if broken {
                wire.send(messages::frame(b'p', b"x")).await;
            } else {
                wire.half_close().await.unwrap();
            }
            wire.until_closed().await;
        }
    }
    assert_eq!(said, ["R", "R", "R", "E(53400)", "E(53400)"]);
}

#[tokio::test]
async fn a_tenant_says_from_where_its_clients_come() {
    let estate = Estate::new().await;
    let more = format!(
        "[tenants.far_{0}]\nisolation = \"row\"\ncluster = \"main\"\nschema = \"app\"\n\
         role = \"app_rw\"\nallow_from = [\"10.0.0.0/8\", \"unix\"]\n{1}\
         [tenants.near_{0}]\nisolation = \"row\"\ncluster = \"main\"\nschema = \"app\"\n\
         role = \"app_rw\"\nallow_from = [\"127.0.0.0/8\"]\n{2}",
        estate.stark.id,
        scram(&format!("far_{}", estate.stark.id), "far", PASSWORD),
        scram(&format!("near_{}", estate.stark.id), "near", PASSWORD),
    );
    let listen = "tls = \"disable\"\nrules = [{ method = \"scram-sha-256\" }]\n";
    let tweaks = Tweaks { listen, more: &more, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    assert_eq!(ends(&attempt(&gate, "near", PASSWORD).await), "Z(I)");
    let refused = attempt(&gate, "far", PASSWORD).await;
    let wrong = attempt(&gate, "far", "x").await;
    assert_eq!(transcript(&refused), "R R E(28P01)");
    assert_eq!(refused.last(), wrong.last(), "it looks like a wrong password");
    gate.logs("not from where the tenant's clients may come").await;
    // It holds for who is there already.
    let login = Login { user: "near", dbname: "app", password: PASSWORD, more: &[] };
    let mut session = Wire::login(gate.port, &login).await;
    gate.write_settings(&estate.settings(&tweaks).replace("127.0.0.0/8", "192.168.0.0/16"));
    gate.reload();
    assert_eq!(session.until_closed().await, "E(57P01)");
    assert_eq!(ends(&attempt(&gate, "near", PASSWORD).await), "E(28P01)");
}
