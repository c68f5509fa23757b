//! What a client proves itself with: what proves a tenant, how long it counts, what is written down
//! about it.

mod attacks;
mod audit;
mod bearer;
mod fuzz;
mod keys;
mod life;
mod places;
mod roles;
mod secrets;
mod signer;
mod vouched;

use serde_json::{Value, json};

use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::transcript;
use crate::harness::wire::{Login, Wire};

/// Lets the gate write its audit beside its settings.
pub const AUDIT: &str = "[audit]\nfile = \"audit.jsonl\"\n";

/// The events so far, of one kind.
fn events(gate: &Gate, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(gate.folder().join("audit.jsonl")).unwrap_or_default();
    // The last line may be on its way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let all = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|event| event["event"] == kind).collect()
}

/// As many events of one kind, once they are there.
pub async fn written(gate: &Gate, kind: &str, count: usize) -> Vec<Value> {
    eventually("the audit has it", async || Some(events(gate, kind)).filter(|it| it.len() >= count))
        .await
}

/// The claims of a token for a tenant, of the issuer at `https://NAME.test`, good for a minute.
fn claims(issuer: &str, tenant: &str) -> Value {
    let now = jsonwebtoken::get_current_timestamp();
    json!({
        "iss": format!("https://{issuer}.test"), "aud": "tenantgate", "tenant_id": tenant,
        "sub": "alice", "iat": now, "exp": now + 60,
    })
}

/// How a login with this password ends, in the notation.
async fn attempt(gate: &Gate, password: &str) -> String {
    let login = Login { user: "app", dbname: "app", password, more: &[] };
    transcript(&Wire::connect(gate.port).await.authenticate(&login).await)
}

/// Whether a login with this password works.
async fn is_let_in(gate: &Gate, password: &str) -> bool {
    attempt(gate, password).await.ends_with("Z(I)")
}
