//! How a sealed tenant is let in: by a call of one function, whose answer must be the tenant's name
//! and nothing else. Whatever else a server says, nothing of the client's is sent to it.

use crate::harness::cluster::own;
use crate::harness::gate::Gate;
use crate::harness::messages::{Frame, complete, data_row, error, frame, ready, transcript};
use crate::harness::server::Meddler;
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::{Login, Wire};
use crate::isolation::{NOTES, own_notes};
use tenantgate::demo::Plan;
use tenantgate::isolation::Level;

/// What a server may say in place of the name of the tenant that was asked for.
const LIES: [&str; 7] = ["other", "null", "row", "twice", "nothing", "refused", "aborted"];

#[tokio::test]
async fn a_server_that_lets_in_anybody_else_sees_nothing_of_the_client() {
    let cluster = own(&Plan::default()).await;
    let estate = Estate::at(&cluster, Level::Sealed).await;
    let (wanted, other) = (estate.globex.id.clone(), estate.acme.id.clone());
    for lie in LIES {
        let told = [&wanted, &other].map(Clone::clone);
        let meddler =
            Meddler::start(cluster.port(), move |_, answer| Some(meddled(lie, &told, &answer)))
                .await;
        let gate = tweaked(&estate, cluster.port(), meddler.port).await;
        let mut first = gate.wire(&estate.acme).await;
        assert_eq!(first.query(NOTES).await, own_notes(&estate.acme), "{lie}");
        let heard = heard(&gate, &estate).await;
        assert!(heard.contains("E(") && !heard.contains("D("), "{lie}: {heard}");
        assert_eq!(first.query(NOTES).await, own_notes(&estate.acme), "{lie}");
    }
}

/// The answer to the call that lets the first of two in, made another.
fn meddled(lie: &str, [wanted, other]: &[String; 2], answer: &Frame) -> Vec<u8> {
    if answer.tag != b'V' || !answer.body.ends_with(wanted.as_bytes()) {
        return answer.bytes();
    }
    let named = |name: &str| {
        frame(b'V', &[&(name.len() as i32).to_be_bytes()[..], name.as_bytes()].concat())
    };
    match lie {
        "other" => named(other),
        "null" => frame(b'V', &(-1_i32).to_be_bytes()),
        "row" => [data_row(&[Some(wanted)]), complete("SELECT 1")].concat(),
        "twice" => [answer.bytes(), answer.bytes()].concat(),
        "nothing" => Vec::new(),
        "refused" => error("ERROR", "28000", "a tenant is bound already"),
        _ => [answer.bytes(), ready(b'E')].concat(),
    }
}

async fn tweaked(estate: &Estate, real: u16, port: u16) -> Gate {
    let tweaks = Tweaks { gate: "workers = 1", capacity: 1, ..Tweaks::default() };
    let settings = estate.settings(&tweaks);
    let (real, port) = (format!("127.0.0.1:{real}/"), format!("127.0.0.1:{port}/"));
    assert!(settings.contains(&real), "{settings}");
    Gate::start(&settings.replace(&real, &port)).await
}

/// Up to the error, whether it comes with the login or with the first query.
async fn heard(gate: &Gate, estate: &Estate) -> String {
    let mut wire = Wire::connect(gate.port).await;
    let (dbname, password) = (estate.globex.dbname.as_str(), estate.globex.token.as_str());
    let login = Login { user: "app", dbname, password, more: &[] };
    let heard = transcript(&wire.authenticate(&login).await);
    match heard.ends_with("Z(I)") {
        true => wire.query(NOTES).await,
        false => heard,
    }
}
