//! Nothing that proves anything is ever written down: not in the log at its most talkative, the
//! audit, the metrics, the page, the console, nor by the commands that look at settings and tokens.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postgres_protocol::password::scram_sha_256;

use super::{AUDIT, attempt, written};
use crate::console::{ADMIN, gate};
use crate::harness::eventually;
use crate::harness::http::get;
use crate::harness::messages::{Frame, query};
use crate::harness::tenants::{JWT_KEY, LOGIN_PASSWORD, SEAL_KEY, Tweaks, jwt};
use crate::harness::wire::{Login, Wire};

const PASSWORD: &str = "correct-horse-battery";
const MISTYPED: &str = "correct-horse-batery-typed-at-the-wrong-prompt";

#[tokio::test]
async fn what_proves_somebody_is_never_written_down() {
    let verifier = scram_sha_256(PASSWORD.as_bytes());
    let listen = "tls = \"disable\"\nplaintext_password = true\nrules = [\n\
                  { user = \"proof*\", method = \"scram-sha-256\" }, { method = \"password\" }]\n";
    let more = format!(
        "{AUDIT}[tenants.told]\nisolation = \"row\"\ncluster = \"main\"\nschema = \"app\"\n\
         role = \"app_rw\"\n[[tenants.told.credentials]]\nkind = \"scram\"\nuser = \"proof\"\n\
         verifier = \"{verifier}\"\n"
    );
    let levels = "log_level = \"trace\"\n";
    let tweaks = Tweaks { gate: levels, listen, more: &more, ..Tweaks::default() };
    let (estate, gate) = gate(&tweaks).await;
    let (acme, good) = (&estate.acme, jwt(&estate.acme.id, 60));
    let (head, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    let stranger = format!("{}x", acme.token);
    let mut told = String::new();
    for password in [&acme.token, &good, &forged, &stranger, MISTYPED] {
        let ended = attempt(&gate, password).await;
        assert!(ended.ends_with("Z(I)") || ended.ends_with("E(28P01)"), "{ended}");
        told.push_str(&ended);
    }
    for (password, wanted) in [(PASSWORD, b'Z'), (MISTYPED, b'E')] {
        let login = Login { user: "proof", dbname: "app", password, more: &[] };
        let frames = Wire::connect(gate.port).await.authenticate(&login).await;
        assert_eq!(frames.last().unwrap().tag, wanted);
        // What the gate itself proves with SCRAM is the client's to read; errors are ours.
        told.push_str(&spoken(frames.iter().filter(|frame| frame.tag == b'E')));
    }
    written(&gate, "refusal", 4).await;
    let mut session = gate.wire(acme).await;
    session.query("SELECT body FROM notes").await;
    told.push_str(&everything(&gate).await);
    for command in [&["check"][..], &["token", "verify"], &["audit"]] {
        told.push_str(&run(&gate, command, &good));
    }
    let mut parts: Vec<String> = verifier.split(['$', ':']).skip(2).map(str::to_owned).collect();
    parts.extend([&acme.token, &good, &forged].map(|token| secret_part(token)));
    let (_, seal) = SEAL_KEY.trim().split_once(':').unwrap();
    let fixed = [PASSWORD, MISTYPED, LOGIN_PASSWORD, JWT_KEY.trim(), seal];
    parts.extend(fixed.map(str::to_owned));
    parts.extend(fixed.map(|secret| STANDARD.encode(secret)));
    for part in parts {
        assert!(part.len() >= 8, "{part} may be there by chance");
        let line = told.lines().find(|line| line.contains(&part));
        assert!(line.is_none(), "\"{part}\" was written down: {line:?}");
    }
    for proof in ["told", "credential", acme.id.as_str()] {
        assert!(told.contains(proof), "there is something to look through, {proof} for one");
    }
}

#[tokio::test]
async fn no_value_of_a_file_that_is_wrong_is_told() {
    let (estate, gate) = gate(&Tweaks::default()).await;
    let secret = "tg_Zq7Xw9Kv4Jy2";
    let settings = gate.folder().join("tenantgate.toml");
    let good = std::fs::read_to_string(&settings).unwrap();
    let mut console = Wire::login(gate.port, &ADMIN).await;
    let tenant = "\n[tenants.mistaken]\nisolation = \"row\"\ncluster = \"main\"\n";
    let mistakes = [
        "conection_string = \"host=h user=u password=SECRET\"",
        "tokens = [\"SECRET\"]",
        "token = [\"SECRET\"]",
        "connection_string = [\"SECRET\"]",
        "connection_string = \"SECRET",
        "limits = { clients = \"SECRET\" }",
        "tier = \"SECRET\"",
        "schema = \"SECRET\"\nschema = \"SECRET\"",
        "[console.users.other]\npassword = \"SECRET\"",
        "\u{0}SECRET",
    ];
    let mut told = String::new();
    for (count, lines) in mistakes.iter().enumerate() {
        let text = format!("{good}{tenant}{lines}\n").replace("SECRET", secret);
        std::fs::write(&settings, text).unwrap();
        for command in
            [&["check"][..], &["run"], &["doctor"], &["install", "--cluster=main", "--print"]]
        {
            let mut program = Command::new(env!("CARGO_BIN_EXE_tenantgate"));
            let output = program.args(command).arg("--config").arg(&settings).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{lines}: {output:?}");
            told.push_str(&format!("{output:?}\n"));
        }
        console.send(query("RELOAD")).await;
        let answer = spoken(console.until_ready().await.iter());
        assert!(answer.contains("tenantgate.toml:"), "{answer}");
        told.push_str(&answer);
        let rejected = || gate.log().matches("reload rejected").count();
        gate.reload();
        let both = 2 * (count + 1);
        eventually("it is rejected", async || (rejected() >= both).then_some(())).await;
    }
    told.push_str(&gate.log());
    let letters: Vec<char> = secret.chars().collect();
    for part in letters.windows(4).map(|part| part.iter().collect::<String>()) {
        let line = told.lines().find(|line| line.contains(&part));
        assert!(line.is_none(), "\"{part}\" was written down: {line:?}");
    }
    assert_eq!(gate.wire(&estate.acme).await.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
}

/// What of a token is secret: behind its id, or its signature.
fn secret_part(token: &str) -> String {
    let opaque = token.strip_prefix("tg_").and_then(|rest| rest.split_once('_'));
    let part = opaque.or_else(|| token.rsplit_once('.')).map(|(_, part)| part);
    part.unwrap().to_owned()
}

fn spoken<'frames>(frames: impl Iterator<Item = &'frames Frame>) -> String {
    frames.map(|frame| format!("{}\n", String::from_utf8_lossy(&frame.body))).collect()
}

/// The log, the audit, what HTTP tells, and every table of the console.
async fn everything(gate: &crate::harness::gate::Gate) -> String {
    let mut told = gate.log();
    told.push_str(&std::fs::read_to_string(gate.folder().join("audit.jsonl")).unwrap());
    for page in ["/", "/metrics", "/live", "/ready", "/status"] {
        told.push_str(&get(gate.http, page).await.1);
    }
    let mut console = Wire::login(gate.port, &ADMIN).await;
    console.send(query("SHOW HELP")).await;
    let help = spoken(console.until_ready().await.iter());
    let tables: Vec<&str> = help.split("SHOW ").skip(1).collect();
    assert!(tables.len() > 5, "{help}");
    for table in tables {
        let name: String =
            table.chars().take_while(|it| it.is_ascii_uppercase() || *it == '_').collect();
        console.send(query(&format!("SHOW {name}"))).await;
        told.push_str(&spoken(console.until_ready().await.iter()));
    }
    told
}

fn run(gate: &crate::harness::gate::Gate, words: &[&str], input: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantgate"));
    let tokens = gate.folder().join("token.txt");
    std::fs::write(&tokens, input).unwrap();
    let settings = gate.folder().join("tenantgate.toml");
    let command = command.args(words).arg("--config").arg(settings);
    let output = command.stdin(std::fs::File::open(tokens).unwrap()).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    format!("{output:?}\n").replace("\\n", "\n")
}
