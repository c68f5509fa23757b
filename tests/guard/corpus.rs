//! The corpus (`corpus/*.txt`): every statement through a live gate at levels plain and guard, and
//! after each that level guard lets pass, the server's own word on whose connection it still is.
//!
//! A line `= PLAIN GUARD` says what becomes of the lines behind it: `ok`; the SQLSTATE of the
//! server's own error; of the gate's refusals, the name of the rule, `context` or `pooling`.

use std::fs;
use std::path::Path;

use crate::guard::level::GUARDED;
use crate::harness::gate::Gate;
use crate::harness::messages::{Frame, extended, frame, query, transcript};
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::harness::wire::Wire;

struct Case {
    file: String,
    /// With `standard_conforming_strings` off.
    off: bool,
    text: Vec<u8>,
    plain: String,
    guard: String,
    isolation: String,
}

impl Case {
    fn shown(&self) -> String {
        format!("{}: {}", self.file, String::from_utf8_lossy(&self.text))
    }
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guard/corpus");
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let (_, isolation) = text.lines().next().unwrap().split_once("tenant: ").expect("a tenant");
        let (mut plain, mut guard) = ("", "");
        for line in text.lines().skip(1) {
            if let Some((first, second)) = line.strip_prefix("= ").and_then(|it| it.split_once(' '))
            {
                (plain, guard) = (first, second);
            } else if !line.is_empty() {
                let (off, text) = match line.strip_prefix("[off] ") {
                    Some(text) => (true, text),
                    None => (false, line),
                };
                let (plain, guard) = (plain.to_owned(), guard.to_owned());
                let (file, isolation) = (file.clone(), isolation.to_owned());
                cases.push(Case { file, off, text: bytes(text), plain, guard, isolation });
            }
        }
    }
    cases
}

/// `⏎` is a line break, `⟨0b⟩` a byte.
fn bytes(line: &str) -> Vec<u8> {
    let mut parts = line.split('⟨');
    let mut bytes = parts.next().unwrap_or_default().replace('⏎', "\n").into_bytes();
    for part in parts {
        let (byte, rest) = part.split_once('⟩').expect("a byte in ⟨⟩");
        bytes.push(u8::from_str_radix(byte, 16).unwrap());
        bytes.extend(rest.replace('⏎', "\n").bytes());
    }
    bytes
}

fn filled(case: &Case, own: &Tenant, other: &Tenant) -> Vec<u8> {
    let Ok(text) = String::from_utf8(case.text.clone()) else { return case.text.clone() };
    let text = text.replace("{own}", &own.id).replace("{other}", &other.id);
    text.replace("{schema}", &own.id).into_bytes()
}

/// What became of a text, in the words of the corpus.
fn verdict(frames: &[Frame]) -> String {
    let Some(error) = frames.iter().find(|frame| frame.tag == b'E') else { return "ok".to_owned() };
    let field = |letter| error.field(letter).unwrap_or_default();
    let detail = field('D');
    let rule = detail.strip_prefix("Rule \"").and_then(|it| it.strip_suffix("\" of level guard."));
    match (field('C').as_str(), rule) {
        ("42501", Some(rule)) => rule.to_owned(),
        ("42501", None) if detail == "The setting binds this connection to its tenant." => {
            "context".to_owned()
        }
        ("0A000", None) if field('M').ends_with("is not supported through the gate") => {
            "pooling".to_owned()
        }
        (sqlstate, _) => sqlstate.to_owned(),
    }
}

fn is_the_gates(verdict: &str) -> bool {
    verdict != "ok" && !(verdict.len() == 5 && verdict.bytes().all(|it| it.is_ascii_alphanumeric()))
}

fn simple(text: &[u8]) -> Vec<u8> {
    frame(b'Q', &[text, b"\0"].concat())
}

/// Whose connection it is, in one column.
fn whose(tenant: &Tenant) -> String {
    let others = match tenant.isolation {
        "row" => format!("SELECT count(*) FROM app.notes WHERE tenant_id <> '{}'", tenant.id),
        _ => "SELECT 0".to_owned(),
    };
    format!(
        "SELECT concat_ws(' ', current_setting('app.tenant_id', true), current_user, session_user,
                current_setting('row_security'), ({others}))"
    )
}

fn only_cell(frames: &[Frame]) -> String {
    let row = frames.iter().find(|frame| frame.tag == b'D');
    let row = row.unwrap_or_else(|| panic!("a row: {}", transcript(frames)));
    row.columns().remove(0).unwrap_or_default()
}

/// Asks behind the text in the same write, so that it is the same server connection, whatever the
/// text left; and again when a transaction it left is over.
async fn try_out(wire: &mut Wire, case: &Case, text: &[u8], tenant: &Tenant) -> Result<(), String> {
    let base = whose(tenant);
    if case.off {
        assert!(wire.query("SET standard_conforming_strings = off").await.ends_with("Z(I)"));
    }
    let owner = only_cell(&ask(wire, &query(&base)).await);
    wire.send([simple(text), query(&base)].concat()).await;
    let frames = wire.until_ready().await;
    let found = verdict(&frames);
    let behind = wire.until_ready().await;
    let row_security_off = case.isolation != "row" && found == "ok";
    let same = |frames: &[Frame]| {
        let now = only_cell(frames);
        let alike = now.replace(" off ", " on ") == owner.replace(" off ", " on ");
        now == owner || (row_security_off && alike)
    };
    if found != case.guard {
        return Err(format!("{} instead of {}, {}", found, case.guard, transcript(&frames)));
    }
    let failed = frames.last().is_some_and(|frame| frame.to_string() == "Z(E)");
    if !failed && !same(&behind) {
        return Err(format!("the context is {} instead of {owner}", only_cell(&behind)));
    }
    wire.query("ROLLBACK").await;
    let reset = wire.query("RESET ALL").await;
    let afterwards = ask(wire, &query(&base)).await;
    match reset.starts_with("C(RESET)") && only_cell(&afterwards) == owner {
        true => Ok(()),
        false => Err(format!("afterwards: {reset} {}", transcript(&afterwards))),
    }
}

async fn ask(wire: &mut Wire, bytes: &[u8]) -> Vec<Frame> {
    wire.send(bytes).await;
    wire.until_ready().await
}

#[tokio::test]
async fn every_statement_is_judged_as_written_and_none_that_passes_moves_the_context() {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&GUARDED)).await;
    let cases = cases();
    assert!(cases.len() >= 700, "{}", cases.len());
    let mut wrong = Vec::new();
    for tenant in [&estate.acme, &estate.stark, &estate.initech] {
        let mut wire = gate.wire(tenant).await;
        for case in cases.iter().filter(|case| case.isolation == tenant.isolation) {
            let text = filled(case, tenant, &estate.globex);
            if let Err(said) = try_out(&mut wire, case, &text, tenant).await {
                wrong.push(format!("{}: {said}", case.shown()));
                wire = gate.wire(tenant).await;
            } else if is_the_gates(&case.guard) && !case.off {
                let text = String::from_utf8_lossy(&text);
                let found = verdict(&ask(&mut wire, &extended(&text, &[])).await);
                if found != case.guard {
                    wrong.push(format!("{}: {found} by Parse", case.shown()));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} are wrong:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// Each on a session of its own: at this level some do move their context.
#[tokio::test]
async fn level_plain_refuses_what_it_says_and_nothing_more() {
    let estate = Estate::new().await;
    let gate = Gate::start(&estate.settings(&Tweaks { cluster: "", ..GUARDED })).await;
    let mut wrong = Vec::new();
    for case in cases() {
        let tenants = [&estate.acme, &estate.stark, &estate.initech];
        let tenant = tenants.into_iter().find(|it| it.isolation == case.isolation).unwrap();
        let mut wire = gate.wire(tenant).await;
        if case.off {
            wire.query("SET standard_conforming_strings = off").await;
        }
        let text = filled(&case, tenant, &estate.globex);
        let frames = ask(&mut wire, &simple(&text)).await;
        let found = verdict(&frames);
        if found != case.plain {
            let said = transcript(&frames);
            wrong.push(format!("{}: {found} instead of {}, {said}", case.shown(), case.plain));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
