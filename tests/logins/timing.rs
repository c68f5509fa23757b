//! Whether the time of a refusal tells why. `make bench-timing` tries each kind 10,000 times,
//! prints a table, and holds Welch's t below 4.5; as a test it is short and measures nothing.

use std::time::Instant;

use super::{PASSWORD, scram};
use crate::harness::gate::Gate;
use crate::harness::messages::{self, transcript};
use crate::harness::tenants::{Estate, JWT_KEY, Tweaks, jwt, jwt_with};
use crate::harness::wire::Wire;
use serde_json::json;

/// Tries of each kind.
const TRIES: &str = "TENANTGATE_TIMING_TRIES";

/// Above this two kinds are told apart (as in dudect, 4.5 standard errors).
const T_MAX: f64 = 4.5;

struct Kind {
    name: &'static str,
    user: String,
    password: String,
    micros: Vec<f64>,
}

fn kind(name: &'static str, user: &str, password: &str) -> Kind {
    Kind { name, user: user.to_owned(), password: password.to_owned(), micros: Vec::new() }
}

/// One refused login: from the proof to the answer, in microseconds.
async fn refused(gate: &Gate, kind: &Kind) -> f64 {
    let mut wire = Wire::connect(gate.port).await;
    wire.send(messages::startup(&[("user", &kind.user), ("database", "app")])).await;
    let asked = wire.frame().await;
    let proof = match asked.body.get(3) {
        Some(3) => messages::password(&kind.password),
        _ => {
            let mut client = postgres_protocol::authentication::sasl::ScramSha256::new(
                kind.password.as_bytes(),
                postgres_protocol::authentication::sasl::ChannelBinding::unsupported(),
            );
            let length = u32::try_from(client.message().len()).unwrap().to_be_bytes();
            let first = [b"SCRAM-SHA-256\0", &length[..], client.message()].concat();
            wire.send(messages::frame(b'p', &first)).await;
            let challenge = wire.frame().await;
            client.update(&challenge.body[4..]).unwrap();
            messages::frame(b'p', client.message())
        }
    };
    let sent = Instant::now();
    wire.send(proof).await;
    let answer = wire.frame().await;
    let micros = sent.elapsed().as_secs_f64() * 1e6;
    assert_eq!(transcript(&[answer]), "E(28P01)", "{}", kind.name);
    micros
}

/// Mean and variance without the slowest twentieth, which is the machine's and not the gate's.
fn measure(micros: &[f64]) -> (f64, f64, f64) {
    let mut sorted = micros.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.truncate((sorted.len() * 19).div_ceil(20));
    let count = sorted.len() as f64;
    let mean = sorted.iter().sum::<f64>() / count;
    let spread = sorted.iter().map(|one| (one - mean).powi(2)).sum::<f64>();
    (mean, spread / (count - 1.0), count)
}

fn welch(a: &[f64], b: &[f64]) -> f64 {
    let ((mean_a, var_a, n_a), (mean_b, var_b, n_b)) = (measure(a), measure(b));
    (mean_a - mean_b) / (var_a / n_a + var_b / n_b).sqrt()
}

#[tokio::test]
async fn the_time_of_a_refusal_does_not_tell_why() {
    let tries: Option<usize> = std::env::var(TRIES).ok().map(|text| text.parse().unwrap());
    let estate = Estate::new().await;
    let (stark, off) = (&estate.stark.id, format!("off_{}", estate.stark.id));
    let off_token = tenantgate::catalog::new_token().unwrap();
    let more = format!(
        "[tenants.{off}]\nisolation = \"row\"\ncluster = \"main\"\nstate = \"disabled\"\n\
         schema = \"app\"\nrole = \"app_rw\"\ntokens = [\"{}\"]\n{}{}",
        off_token.line,
        scram(&off, "app", PASSWORD),
        scram(stark, "app", PASSWORD),
    );
    let listen = "tls = \"disable\"\nplaintext_password = true\nrules = [\n\
        { user = \"app*\", method = \"scram-sha-256\" }, { method = \"password\" }]\n";
    let gate = "failures_per_address = 1000000000\nfailures_per_tenant = 1000000000\n\
                log_level = \"error\"\n";
    let tweaks = Tweaks { gate, listen, more: &more, ..Tweaks::default() };
    let gate = Gate::start(&estate.settings(&tweaks)).await;
    let token = &estate.stark.token;
    // "tg_", twelve letters, "_"; the secret may have more of these in it.
    let (id, secret) = token.split_at("tg_".len() + 12 + "_".len());
    let other_key = jwt_with(
        &JWT_KEY.replace("tests", "other"),
        &json!({ "iss": "https://login.test", "aud": "tenantgate", "tenant_id": stark,
                 "exp": jsonwebtoken::get_current_timestamp() + 86_400 }),
    );
    let swapped: String = secret.chars().rev().collect();
    // Each family's first is what the others are compared with.
    let mut families = [
        vec![
            kind("token, unknown", "t", &format!("tg_{}_{secret}", "a".repeat(12))),
            kind("token, wrong", "t", &format!("{id}{swapped}")),
            kind("token, tenant disabled", "t", &off_token.text),
            kind("token, another tenant named", &format!("t.{off}"), token),
        ],
        vec![
            kind("jwt, unknown tenant", "t", &jwt("nobody_of_that_name", 86_400)),
            kind("jwt, tenant disabled", "t", &jwt(&off, 86_400)),
            kind("jwt, expired", "t", &jwt(stark, -86_400)),
            kind("jwt, wrong key", "t", &other_key),
        ],
        vec![
            kind("scram, unknown tenant", "app.nobody_of_that_name_here", PASSWORD),
            kind("scram, unknown user", &format!("app_x.{stark}"), PASSWORD),
            kind("scram, wrong password", &format!("app.{stark}"), "wrong"),
            kind("scram, tenant disabled", &format!("app.{off}"), PASSWORD),
        ],
    ];
    let mut random = fastrand::Rng::with_seed(6);
    for _ in 0..tries.unwrap_or(5) {
        for family in &mut families {
            let mut order: Vec<usize> = (0..family.len()).collect();
            random.shuffle(&mut order);
            for place in order {
                let micros = refused(&gate, &family[place]).await;
                family[place].micros.push(micros);
            }
        }
    }
    let mut worst: f64 = 0.0;
    println!("{:32} {:>8} {:>10} {:>8}", "refused", "tries", "mean us", "t");
    for family in &families {
        for kind in family {
            let t = welch(&kind.micros, &family[0].micros);
            worst = worst.max(t.abs());
            let (mean, ..) = measure(&kind.micros);
            println!("{:32} {:>8} {mean:>10.2} {t:>8.2}", kind.name, kind.micros.len());
        }
    }
    assert!(tries.is_none() || worst < T_MAX, "a refusal's time tells why: t = {worst:.2}");
}
