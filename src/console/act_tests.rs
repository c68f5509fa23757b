//! Orders over the protocol: who may give them, and what is answered.

use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::message::frontend;
use tokio::sync::mpsc;

use crate::catalog::Live;
use crate::console::act::{Act, ORDERS, Target};
use crate::console::command::COMMANDS;
use crate::console::fault::Fault;
use crate::console::snapshot::Snapshot;
use crate::console::tests::{Client, LOCAL, VERIFIER, admin, bind, silent_console};
use crate::console::{ConsoleEnv, ConsoleSettings, ConsoleUser, Control, Rights, run};

/// A console whose one user has `rights`; its gate carries out what it is told, with a notice.
fn acting_console(rights: Rights) -> (Client, Arc<Live<ConsoleSettings>>) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (control, mut controls) = mpsc::channel(1);
    let (login, settings) = admin("admin", LOCAL);
    let user = ConsoleUser { rights, ..settings.load().users[0].clone() };
    settings.replace(ConsoleSettings { users: vec![user], ..ConsoleSettings::default() });
    tokio::spawn(run(
        theirs,
        login,
        ConsoleEnv {
            settings: settings.clone(),
            control,
            audit: crate::telemetry::Audit::default(),
        },
    ));
    tokio::spawn(async move {
        while let Some(control) = controls.recv().await {
            match control {
                Control::Snapshot(_, reply) => reply.send(Snapshot::default()).unwrap(),
                Control::Act { act: Act::Kill(target @ Target::Named(_)), reply } => {
                    reply.send(Err(Fault::UnknownTarget { target, other: false })).unwrap();
                }
                Control::Act { reply, .. } => reply.send(Ok(vec!["so".to_owned()])).unwrap(),
            }
        }
    });
    (Client::over(ours), settings)
}

#[tokio::test]
async fn every_order_is_for_admins_only_and_every_show_for_all() {
    for rights in [Rights::Admin, Rights::Stats] {
        let (mut client, _) = acting_console(rights);
        client.log_in().await;
        for order in &ORDERS {
            let text = order.usage.split('|').next().unwrap();
            let text =
                text.replace("TARGET", "TENANT a").replace("ID", "7").replace(['[', ']'], "");
            let text = text.replace("KEY", "WITHIN");
            let tag = match text.split_once(" BUDGET ") {
                Some((verb, _)) => format!("{verb} BUDGET"),
                None => text.split(' ').next().unwrap().to_owned(),
            };
            let wanted = match rights {
                Rights::Admin => vec!["N".to_owned(), format!("C {tag}"), "Z I".to_owned()],
                Rights::Stats => vec!["E ERROR 42501".to_owned(), "Z I".to_owned()],
            };
            assert_eq!(client.query(&text).await, wanted, "{text} {rights:?}");
        }
        for command in &COMMANDS {
            let answers = client.query(&format!("SHOW {}", command.name)).await;
            assert!(answers.ends_with(&["C SHOW".to_owned(), "Z I".to_owned()]), "{answers:?}");
        }
    }
}

#[tokio::test]
async fn an_order_that_fails_leaves_the_session_and_is_refused_in_a_transaction() {
    let (mut client, _) = acting_console(Rights::Admin);
    client.log_in().await;
    assert_eq!(client.query("KILL nobody").await, ["E ERROR 3D000", "Z I"]);
    assert_eq!(client.query("BEGIN").await, ["C BEGIN", "Z T"]);
    assert_eq!(client.query("PAUSE").await, ["E ERROR 25001", "Z E"]);
    assert_eq!(client.query("ROLLBACK").await, ["C ROLLBACK", "Z I"]);
    client
        .send(|out| {
            frontend::parse("", "RESUME", [], out).unwrap();
            bind("", "", &[], out);
            frontend::describe(b'P', "", out).unwrap();
            frontend::execute("", 0, out).unwrap();
            frontend::sync(out);
        })
        .await;
    assert_eq!(client.answers().await, ["1", "2", "n", "N", "C RESUME", "Z I"]);
}

#[tokio::test]
async fn a_reload_that_takes_rights_or_the_user_away_counts_at_the_next_command() {
    let (mut client, settings) = acting_console(Rights::Admin);
    client.log_in().await;
    assert_eq!(client.query("PAUSE").await, ["N", "C PAUSE", "Z I"]);
    let user = settings.load().users[0].clone();
    let less = ConsoleUser { rights: Rights::Stats, ..user.clone() };
    settings.replace(ConsoleSettings { users: vec![less], ..ConsoleSettings::default() });
    assert_eq!(client.query("PAUSE").await, ["E ERROR 42501", "Z I"]);
    let other = ConsoleUser { scram: VERIFIER.replace("$1:", "$2:"), ..user };
    settings.replace(ConsoleSettings { users: vec![other], ..ConsoleSettings::default() });
    assert_eq!(client.query("SHOW VERSION").await, ["E FATAL 57P01"]);
}

#[tokio::test]
async fn a_client_that_leaves_during_an_order_ends_its_session() {
    let (mut client, mut controls) = silent_console("admin", LOCAL);
    client.log_in().await;
    client.send(|out| frontend::query("PAUSE", out).unwrap()).await;
    let Some(Control::Act { act, mut reply }) = controls.recv().await else { panic!("no order") };
    assert_eq!(act, Act::Pause(Target::All));
    drop(client);
    let gone = tokio::time::timeout(Duration::from_secs(5), reply.closed()).await;
    gone.expect("nobody waits for the answer any more");
}
