//! What a login hears of its server: nothing of it is another tenant's.

use crate::harness::gate::Gate;
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::harness::wire::{Login, Wire};

const WRITES: &str = "default_transaction_read_only";

/// A session with these start-up settings, which nobody had before.
async fn greeted(gate: &Gate, tenant: &Tenant, more: &[(&str, &str)]) -> Wire {
    let (dbname, password) = (tenant.dbname.as_str(), tenant.token.as_str());
    Wire::login(gate.port, &Login { user: "app", dbname, password, more }).await
}

#[tokio::test]
async fn a_tenant_is_not_told_whether_another_may_write() {
    let estate = Estate::new().await;
    let table = format!("[tenants.{}]\n", estate.globex.id);
    let settings = estate.settings(&Tweaks { gate: "workers = 1", ..Tweaks::default() });
    let settings = settings.replace(&table, &format!("{table}state = \"read_only\"\n"));
    let gate = Gate::start(&settings).await;
    let (active, reads) = (&estate.acme, &estate.globex);
    // Whoever of the two comes first with its settings, both hear what is true of themselves.
    for (style, both) in [("SQL", [reads, active]), ("German", [active, reads])] {
        for tenant in both {
            let mut wire = greeted(&gate, tenant, &[("DateStyle", style)]).await;
            let told = wire.parameters[WRITES].clone();
            assert_eq!(told, if tenant.id == reads.id { "on" } else { "off" }, "{style}");
            let shown = wire.query(&format!("SHOW {WRITES}")).await;
            assert_eq!(shown, format!("T D({told}) C(SHOW) Z(I)"), "{style}");
            // Nor does going back to the start-up values tell anything else.
            assert_eq!(wire.query("RESET ALL").await, "C(RESET) Z(I)", "{style}");
            let attributes = if told == "on" { "read-only" } else { "read-write" };
            let conninfo = format!("target_session_attrs={attributes} options=-cDateStyle={style}");
            let psql = gate.program(tenant, "psql", &["-XAtc", "SELECT 1", &conninfo]).await;
            assert_eq!(psql.stdout, b"1\n", "{}", String::from_utf8_lossy(&psql.stderr));
        }
    }
}
