//! PostgreSQL's own tools at level guard: what they send is a tenant's legitimate use.

use std::process::Output;

use crate::guard::level::GUARDED;
use crate::harness::gate::Gate;
use crate::harness::tenants::Estate;
use crate::parity::DESCRIBE;

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(err));
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

#[tokio::test]
async fn pg_dump_takes_a_tenants_data() {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&GUARDED)).await;
    for tenant in [&estate.stark, &estate.umbrella, &estate.initech] {
        let schema = if tenant.isolation == "silo" { "public" } else { &tenant.id };
        for more in [&["--data-only"][..], &["--inserts"], &[]] {
            let arguments = [&["--schema", schema][..], more].concat();
            let dump = said(&gate.program(tenant, "pg_dump", &arguments).await);
            assert!(dump.contains("PostgreSQL database dump complete"), "{dump}");
            for (_, body) in &tenant.notes {
                assert!(dump.contains(body), "{arguments:?} lacks {body}:\n{dump}");
            }
        }
    }
    // With row security in force, as row tenants must have it.
    let acme = &estate.acme;
    let arguments = ["--data-only", "--enable-row-security", "--table", "app.notes", "--inserts"];
    let dump = said(&gate.program(acme, "pg_dump", &arguments).await);
    assert!(acme.notes.iter().all(|(_, body)| dump.contains(body)), "{dump}");
    assert!(!dump.contains(&estate.globex.id), "{dump}");
}

#[tokio::test]
async fn psql_describes_what_there_is() {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&GUARDED)).await;
    let more = ["\\dconfig work_mem", "\\conninfo", "\\encoding", "\\sf pg_catalog.lower(text)"];
    for tenant in estate.one_of_each() {
        for command in DESCRIBE.into_iter().chain(more) {
            let said = said(&gate.program(tenant, "psql", &["-X", "-c", command]).await);
            assert!(!said.contains("ERROR"), "{command} as {}: {said}", tenant.id);
            let names = matches!(command, "\\d" | "\\dt" | "\\d notes");
            assert!(!names || said.contains("notes"), "{command} as {}: {said}", tenant.id);
        }
    }
}
