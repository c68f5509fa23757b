//! Texts that are made to keep their reader busy: whoever shares the sender's worker is answered
//! as ever, and the sender hears what PostgreSQL says.

use crate::harness::cluster::shared;
use crate::harness::gate::Gate;
use crate::harness::messages::{query, transcript};
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tenant, Tweaks};
use crate::harness::wire::{Login, Wire};

const ONE: &str = "T D(1) C(SELECT 1) Z(I)";

/// As long as the start-up packet may be.
const START_VALUE_BYTES: usize = 9000;

async fn gate_of(estate: &Estate) -> Gate {
    let tweaks = Tweaks { gate: "workers = 1", ..Tweaks::default() };
    Gate::start(&estate.settings(&tweaks)).await
}

/// The same login, without the gate.
async fn direct(tenant: &Tenant) -> Wire {
    let user = format!("tg_{}", tenant.id);
    let login = Login { user: &user, dbname: "app", password: LOGIN_PASSWORD, more: &[] };
    Wire::login(shared().await.port(), &login).await
}

/// Sends a text, and has others answered before its answer is looked at.
async fn beside(sender: &mut Wire, other: &mut Wire, text: &str) -> String {
    sender.send(query(text)).await;
    for _ in 0..3 {
        assert_eq!(other.query("SELECT 1").await, ONE);
    }
    transcript(&sender.until_ready().await)
}

/// The most memory that the gate has had so far, in MB.
fn peak(gate: &Gate) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

fn texts() -> Vec<String> {
    let rows = [
        ("SELECT ", "U&'' ", 60_000),
        ("SELECT ", "U&\"a\" ", 40_000),
        ("SELECT U&'a' ", "UESCAPE ", 30_000),
        // PostgreSQL itself is quadratic in these two, and stops at the second comma.
        ("SELECT ,, E'', ", "+-", 40_000),
        ("SELECT ,, E'', ", "/*", 100_000),
        ("SELECT ", "(", 100_000),
        ("SELECT ", "$a$b", 50_000),
        ("SELECT ", "'' ", 60_000),
        ("SELECT ", "a.", 60_000),
        ("SELECT ", "set_config(name), ", 10_000),
        ("SELECT ", "set_config(name, 'v', false) FROM pg_settings WHERE name = ", 5_000),
        ("SET a.b = ", "c, ", 60_000),
        ("PREPARE p AS SELECT ", "$1, ", 10_000),
        ("EXECUTE p(", "'a.b', ", 40_000),
        ("SET a.b = 1", ";", 200_000),
    ];
    rows.map(|(head, piece, count)| head.to_owned() + &piece.repeat(count)).into()
}

#[tokio::test]
async fn no_text_keeps_the_reader_from_others() {
    let estate = Estate::new().await;
    let gate = gate_of(&estate).await;
    let mut direct = direct(&estate.stark).await;
    let mut sender = gate.wire(&estate.stark).await;
    let mut other = gate.wire(&estate.acme).await;
    for text in texts() {
        let shown: String = text.chars().take(40).collect();
        let said = beside(&mut sender, &mut other, &text).await;
        let plain = direct.query(&text).await;
        assert_eq!(said, plain, "{shown}");
    }
}

#[tokio::test]
async fn what_a_text_of_session_commands_comes_to_is_bounded() {
    let estate = Estate::new().await;
    let gate = gate_of(&estate).await;
    let value = "v".repeat(START_VALUE_BYTES);
    let login = Login {
        user: "app",
        dbname: &estate.stark.dbname,
        password: &estate.stark.token,
        more: &[("x.y", &value)],
    };
    let mut sender = Wire::login(gate.port, &login).await;
    let mut other = gate.wire(&estate.acme).await;

    // Each is answered with the value from the start: what all would come to is not made.
    for text in ["RESET x.y;", "SET x.y = DEFAULT;", "SET LOCAL x.y TO DEFAULT;"] {
        let said = beside(&mut sender, &mut other, &text.repeat(50_000)).await;
        assert_eq!(said, "E(54000) Z(I)", "{text}");
    }
    assert!(peak(&gate) < 300, "{} MB", peak(&gate));
    assert_eq!(sender.query("RESET x.y; RESET x.y").await, "C(RESET) C(RESET) Z(I)");

    // Beside each other the second has nothing to do; with something between them each has.
    let set: String = (0..50).map(|at| format!("SET a.n{at} = 1;")).collect();
    sender.query(&set).await;
    sender.query("BEGIN").await;
    let said = beside(&mut sender, &mut other, &"RESET ALL;".repeat(30_000)).await;
    assert_eq!(said, "C(RESET) ".repeat(30_000) + "Z(T)");
    assert_eq!(sender.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
    let between = "RESET ALL; SAVEPOINT s; ROLLBACK TO s;";
    let said = beside(&mut sender, &mut other, &between.repeat(10_000)).await;
    assert!(said.starts_with("E(54000)") || said.starts_with("E(0A000)"), "{said:.99}");

    // More settings than a session may carry, by one text.
    let many: String = (0..60_000).map(|at| format!("SET b.n{at}=1;")).collect();
    assert_eq!(beside(&mut sender, &mut other, &many).await, "E(0A000) Z(I)");
    let calls = (0..60_000).map(|at| format!("set_config('b.n{at}', '', false)"));
    let calls = format!("SELECT {}", Vec::from_iter(calls).join(","));
    assert_eq!(beside(&mut sender, &mut other, &calls).await, "E(0A000) Z(I)");
    let many = "SELECT 1;".repeat(70_000) + "SET a.b = 1";
    assert_eq!(beside(&mut sender, &mut other, &many).await, "E(0A000) Z(I)");
    assert_eq!(sender.query("SHOW a.n49").await, "T D(1) C(SHOW) Z(I)");
    assert!(peak(&gate) < 300, "{} MB", peak(&gate));
}

#[tokio::test]
async fn reset_all_puts_back_what_a_rollback_brings_again() {
    let estate = Estate::new().await;
    let gate = gate_of(&estate).await;
    let mut wire = gate.wire(&estate.stark).await;
    wire.query("SET a.b = 'one'").await;
    // The second has something to do again.
    let text = "BEGIN; SAVEPOINT s; RESET ALL; ROLLBACK TO s; RESET ALL; SHOW a.b";
    let said = wire.query(text).await;
    assert!(said.contains("C(RESET) T D() C(SHOW) Z(T)"), "{said}");
    assert_eq!(wire.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
    assert_eq!(wire.query("SHOW a.b").await, "T D(one) C(SHOW) Z(I)");
    let text = "BEGIN; RESET ALL; SET a.b = 'two'; RESET ALL; RESET ALL; SHOW a.b";
    let said = wire.query(text).await;
    assert!(said.contains("C(RESET) C(RESET) T D() C(SHOW) Z(T)"), "{said}");
}
