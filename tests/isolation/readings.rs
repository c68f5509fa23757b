//! A text means to the server what the gate took it for: whether a backslash escapes is a setting,
//! and a statement may reach a server long after it was judged.

use crate::harness::cluster::{shared, superuser};
use crate::harness::messages::{bind, execute, flush, frame, parse, sync, transcript};
use crate::isolation::{NOTES, one_server, own_notes};

/// Prepares `text` under one value of the setting and runs it under the other, on a server that
/// has been another tenant's meanwhile.
async fn judged_under(before: &str, text: &str, after: &str) {
    let (estate, gate) = one_server().await;
    let (own, other) = (&estate.acme, &estate.globex);
    let mut wire = gate.wire(own).await;
    let mut neighbour = gate.wire(other).await;
    wire.query(&format!("SET standard_conforming_strings = {before}")).await;
    let text = text.replace("$OTHER", &other.id);
    // PostgreSQL warns of a backslash that escapes.
    let prepared = wire.ask([parse("s", &text), sync()].concat()).await;
    assert!(prepared.ends_with("1 Z(I)"), "{prepared}");
    wire.query(&format!("SET standard_conforming_strings = {after}")).await;
    assert_eq!(neighbour.query(NOTES).await, own_notes(other));
    let batch = [
        parse("", "BEGIN"),
        bind("", "", &[]),
        execute("", 0),
        bind("", "s", &[]),
        execute("", 0),
        parse("", NOTES),
        bind("", "", &[]),
        execute("", 0),
        sync(),
    ];
    assert_eq!(wire.ask(batch.concat()).await, "1 2 C(BEGIN) E(0A000) Z(E)");
    wire.query("ROLLBACK").await;
    // Prepared anew it is judged anew; what it says now is a forgery.
    assert_eq!(wire.query("DEALLOCATE s").await, "C(DEALLOCATE) Z(I)");
    assert_eq!(wire.ask([parse("s", &text), sync()].concat()).await, "E(42501) Z(I)");
    assert_eq!(wire.query(NOTES).await, own_notes(own));
}

#[tokio::test]
async fn a_statement_judged_with_plain_backslashes_is_not_run_with_escapes() {
    let text = r"SELECT '\', ', set_config($$app.tenant_id$$,$$$OTHER$$,false) --'";
    judged_under("on", text, "off").await;
}

#[tokio::test]
async fn a_statement_judged_with_escapes_is_not_run_with_plain_backslashes() {
    let text = r"SELECT '\', set_config($$app.tenant_id$$,$$$OTHER$$,false) --'";
    judged_under("off", text, "on").await;
}

#[tokio::test]
async fn behind_a_reset_in_its_batch_a_text_is_read_as_the_server_reads_it() {
    let (estate, gate) = one_server().await;
    let (own, other) = (&estate.acme, &estate.globex);
    let mut wire = gate.wire(own).await;
    wire.query("SET standard_conforming_strings = off").await;
    let reset = [parse("", "RESET ALL"), bind("", "", &[]), execute("", 0), flush()];
    wire.send(reset.concat()).await;
    let said = [wire.frame().await, wire.frame().await, wire.frame().await];
    assert_eq!(transcript(&said), "1 2 C(RESET)");
    let text = r"SELECT '\', ', set_config($$app.tenant_id$$,$$$OTHER$$,false) --'";
    let rest = [
        parse("", &text.replace("$OTHER", &other.id)),
        bind("", "", &[]),
        execute("", 0),
        parse("", NOTES),
        bind("", "", &[]),
        execute("", 0),
        sync(),
    ];
    let said = wire.ask(rest.concat()).await;
    assert!(said.starts_with("E(0A000) ") && said.ends_with("Z(I)"), "{said}");
    assert_eq!(wire.query(NOTES).await, own_notes(own));
    assert_eq!(wire.query("SHOW standard_conforming_strings").await, "T D(on) C(SHOW) Z(I)");
}

#[tokio::test]
async fn a_function_that_changes_how_texts_are_read_is_noticed() {
    let (estate, gate) = one_server().await;
    let (own, other) = (&estate.acme, &estate.globex);
    let admin = superuser(shared().await, "app").await;
    let name = format!("turn_off_{}", own.id);
    let sql = format!(
        "CREATE FUNCTION app.{name}() RETURNS text LANGUAGE sql AS
         $$ SELECT set_config('standard_conforming_strings', 'off', false) $$"
    );
    admin.batch_execute(&sql).await.unwrap();
    let mut wire = gate.wire(own).await;
    let said = wire.query(&format!("SELECT {name}()")).await;
    assert!(said.contains("D(off)") && said.ends_with("Z(I)"), "{said}");
    let text = r"SELECT '\', ', set_config($$app.tenant_id$$,$$$OTHER$$,false) --'";
    assert_eq!(wire.query(&text.replace("$OTHER", &other.id)).await, "E(42501) Z(I)");
    assert_eq!(wire.query(NOTES).await, own_notes(own));
}

#[tokio::test]
async fn a_default_of_the_login_does_not_change_how_texts_are_read() {
    let (estate, gate) = one_server().await;
    let admin = superuser(shared().await, "app").await;
    let login = format!("tg_{}", estate.stark.id);
    let sql = format!("ALTER ROLE {login} SET standard_conforming_strings = off");
    admin.batch_execute(&sql).await.unwrap();
    let mut wire = gate.wire(&estate.stark).await;
    assert_eq!(wire.parameters.get("standard_conforming_strings").map(String::as_str), Some("on"));
    assert_eq!(wire.query("SHOW standard_conforming_strings").await, "T D(on) C(SHOW) Z(I)");
    wire.query("SET standard_conforming_strings = off").await;
    wire.query("RESET standard_conforming_strings").await;
    assert_eq!(wire.query("SHOW standard_conforming_strings").await, "T D(on) C(SHOW) Z(I)");
}

/// A text that is one string in SJIS, where `\x83\x5c` is a character, and three statements to who
/// takes the second byte for a backslash; and the other way round.
#[tokio::test]
async fn an_encoding_that_hides_quotes_is_refused_by_every_name() {
    let (estate, gate) = one_server().await;
    let (acme, other) = (&estate.acme, &estate.globex.id);
    let names: [&[u8]; 9] = [
        b"win932",
        b"windows-932",
        b"mskanji",
        b"Shift JIS",
        b"win936",
        b"win949",
        b"win950",
        b"GB18030",
        b"S\xe9JIS",
    ];
    for name in names {
        let mut wire = gate.wire(acme).await;
        let latin = wire.query("SET client_encoding TO LATIN1").await;
        assert_eq!(latin, "C(SET) S(client_encoding=LATIN1) Z(I)");
        let set = [b"SET client_encoding TO '", name, b"'"].concat();
        let refused = wire.ask(frame(b'Q', &[&set, &b"\0"[..]].concat())).await;
        assert_eq!(refused, "E(0A000) Z(I)", "{name:?}");
        let mut text = b"SELECT E'\x83\x5c'; SET app.tenant_id TO ".to_vec();
        text.extend_from_slice(other.as_bytes());
        text.extend_from_slice(b"; SELECT body FROM notes; --'\0");
        let said = wire.ask(frame(b'Q', &text)).await;
        assert!(!said.contains(&format!("of {other}")), "{name:?}: {said}");
        assert_eq!(wire.query("SELECT count(*) FROM notes").await, "T D(3) C(SELECT 1) Z(I)");
    }
}
