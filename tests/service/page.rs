//! The page a person looks at: its numbers are those of `/metrics`, its texts stay texts, and it
//! tells nothing that is secret.

use serde_json::Value;

use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::http::{answer, get};
use crate::harness::messages::{query, transcript};
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tweaks};
use crate::harness::wire::{Login, Wire};

const HTTP: &str = "[http]\naddress = \"127.0.0.1:$HTTP\"\n";

async fn status(gate: &Gate) -> Value {
    serde_json::from_str(&get(gate.http, "/status.json").await.1).unwrap()
}

/// A value of `/metrics`.
async fn metric(gate: &Gate, series: &str) -> Option<u64> {
    let (_, told) = get(gate.http, "/metrics").await;
    let mut lines = told.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    lines.next()?.parse().ok()
}

#[tokio::test]
async fn the_page_shows_what_is_going_on_and_texts_of_clients_stay_texts() {
    let estate = Estate::new().await;
    let tweaks = Tweaks { capacity: 1, more: HTTP, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let mut holds = gate.wire(&estate.acme).await;
    for _ in 0..10 {
        holds.query("SELECT 1").await;
    }
    assert!(holds.query("LISTEN x").await.starts_with("E("));
    let hostile = [("application_name", "</td><script>alert(1)</script>\"'&")];
    let (user, token) = ("<b>app", &estate.globex.token);
    let login = Login { user, dbname: "app", password: token, more: &hostile };
    let mut waits = Wire::login(gate.port, &login).await;
    holds.query("BEGIN").await;
    waits.send(query("SELECT 1")).await;
    let told = eventually("one waits", async || {
        let told = status(&gate).await;
        (told["waiting"] == 1).then_some(told)
    })
    .await;
    assert_eq!((&told["clients"], &told["tenants"]), (&2.into(), &5.into()));
    assert!(gate.log().contains(&format!("workers={}", told["workers"])), "{told}");
    let cluster = &told["clusters"][0];
    assert_eq!((&cluster["cluster"], &cluster["active"]), (&"main".into(), &1.into()));
    assert_eq!((&cluster["capacity"], &cluster["waiting"]), (&1.into(), &1.into()));
    let busiest = &told["busiest"][0];
    assert_eq!(busiest["tenant"], *estate.acme.id);
    assert!(busiest["requests_per_second"].as_f64().unwrap() > 0.0);
    for (ours, theirs) in [("requests", "requests"), ("refusals", "refusals")] {
        let series = format!("tenantgate_tenant_{theirs}_total{{tenant=\"{}\"}}", estate.acme.id);
        assert_eq!(busiest[ours].as_u64(), metric(&gate, &series).await, "{series}");
    }
    for (ours, theirs) in
        [("clients", "tenantgate_clients"), ("waiting", "tenantgate_clients_waiting")]
    {
        // Workers hand these over once a second.
        eventually(theirs, async || {
            (metric(&gate, theirs).await == told[ours].as_u64()).then_some(())
        })
        .await;
    }

    let (status, head, page) = answer(gate.http, "/").await;
    assert_eq!(status, 200);
    let head = head.to_lowercase();
    assert!(head.contains("content-type: text/html; charset=utf-8"), "{head}");
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    let shown = "<td>&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;</td>";
    assert!(page.contains(shown) && page.contains("<td>&lt;b&gt;app</td>"), "{page}");
    assert!(!page.contains("<script") && !page.contains("<b>app"), "{page}");
    assert!(page.contains(&format!("<td>{}</td>", estate.acme.id)), "{page}");
    for tenant in estate.tenants() {
        assert!(!page.contains(&tenant.token) && !page.contains("note 1 of"));
    }
    assert!(!page.contains(LOGIN_PASSWORD) && !page.contains("tg_"), "{page}");
    assert_eq!(holds.query("COMMIT").await, "C(COMMIT) Z(I)");
    assert_eq!(transcript(&waits.until_ready().await), "T D(1) C(SELECT 1) Z(I)");
}
