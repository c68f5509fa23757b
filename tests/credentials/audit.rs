//! The audit: every login, refusal and revocation is a line, with its reason and without a secret.

use std::process::Command;

use super::{AUDIT, written};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::{Login, Wire};

#[tokio::test]
async fn logins_refusals_and_revocations_are_written_down_without_a_secret() {
    let estate = Estate::new().await;
    let settings = estate.settings(&Tweaks { more: AUDIT, ..Tweaks::default() });
    let gate = Gate::start(&settings).await;
    let (acme, id) = (&estate.acme, estate.acme.id.as_str());
    let mut wire = gate.wire(acme).await;
    let login = written(&gate, "login", 1).await.remove(0);
    assert_eq!((&login["tenant"], &login["user"]), (&id.into(), &"app".into()));
    let credential = login["credential"].as_str().unwrap();
    assert!(credential.starts_with("token ") && login["session"].is_u64(), "{login}");
    assert!(login["peer"].as_str().unwrap().starts_with("127.0.0.1"), "{login}");

    let wrong = format!("{}{}", &acme.token[..20], "A".repeat(acme.token.len() - 20));
    let more = [("application_name", "spy")];
    let attempt = Login { user: "eve", dbname: "app", password: &wrong, more: &more };
    Wire::connect(gate.port).await.authenticate(&attempt).await;
    let refusal = written(&gate, "refusal", 1).await.remove(0);
    assert_eq!(refusal["user"], "eve");
    assert_eq!(refusal["reason"], "wrong token or signature");
    // Whose it would be is in the audit and in the log, with where it came from.
    let shown = format!("token {}", &acme.token[3..15]);
    assert_eq!(refusal["credential"], shown.as_str());
    gate.logs("login denied").await;
    let log = gate.log();
    let line = log.lines().find(|line| line.contains("login denied")).unwrap();
    for part in ["peer=127.0.0.1:", "user=\"eve\"", "database=\"app\"", &shown] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!line.contains(&wrong[16..]), "{line}");

    let without = settings.replacen(acme.table(), "", 1);
    gate.write_settings(&without);
    gate.reload();
    let revocation = written(&gate, "revocation", 1).await.remove(0);
    assert_eq!((&revocation["tenant"], &revocation["session"]), (&id.into(), &login["session"]));
    assert!(wire.until_closed().await.contains("57P01"));

    let folder = gate.folder();
    let text = std::fs::read_to_string(folder.join("audit.jsonl")).unwrap();
    let secret = &acme.token[16..];
    assert!(!text.contains(secret) && !text.contains(&wrong[16..]), "{text}");
    let mut shown = Command::new(env!("CARGO_BIN_EXE_tenantgate"));
    shown.args(["audit", "--event", "login", "--tenant", id, "--since", "1h", "--file"]);
    let shown = shown.arg(folder.join("audit.jsonl")).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.lines().count() == 1 && shown.contains(&format!("tenant={id:?}")), "{shown}");
}

#[tokio::test]
async fn without_an_audit_that_is_required_nobody_is_let_in() {
    let estate = Estate::new().await;
    let more = format!("{}required = true\n", AUDIT.replace("audit.jsonl", "audit/events"));
    let settings = estate.settings(&Tweaks { more: &more, ..Tweaks::default() });
    // The folder is there at the start only.
    let refused = Gate::refused(&settings.replace("$PORT", "0"));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("audit/events"), "{refused:?}");
    let gate = Gate::start(&settings.replace("audit/events", "audit.jsonl")).await;
    gate.wire(&estate.acme).await;
    written(&gate, "login", 1).await;
    std::fs::remove_file(gate.folder().join("audit.jsonl")).unwrap();
    std::fs::create_dir(gate.folder().join("audit.jsonl")).unwrap();
    gate.reload();
    let token = &estate.acme.token;
    let login = Login { user: "app", dbname: "app", password: token, more: &[] };
    eventually("logins are refused", async || {
        let frames = Wire::connect(gate.port).await.authenticate(&login).await;
        frames
            .iter()
            .any(|frame| frame.tag == b'E' && frame.field('C').as_deref() == Some("57P03"))
            .then_some(())
    })
    .await;
    std::fs::remove_dir(gate.folder().join("audit.jsonl")).unwrap();
    eventually("logins work again", async || gate.try_connect(&estate.acme).await.ok()).await;
}
