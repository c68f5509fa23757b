//! The table of `docs/compatibility.md` that the corpus writes: `TENANTGATE_WRITE_DOCS=1` rewrites
//! it, anything else compares.

use std::fmt::Write as _;
use std::path::Path;

use crate::parity::corpus::{Expected, lists};
use crate::parity::script::corpus;

const BEGIN: &str = "<!-- written by tests/parity: TENANTGATE_WRITE_DOCS=1 -->\n";
const END: &str = "<!-- end of what tests/parity wrote -->\n";

fn table() -> String {
    let lists = lists();
    let mut text = "| What | Why |\n|---|---|\n".to_owned();
    for Expected { what, reason, .. } in &lists.expected {
        writeln!(text, "| {what} | {reason} |").unwrap();
    }
    text
}

#[test]
fn the_manual_has_the_differences_that_are_meant() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, behind) = page.split_once(BEGIN).expect("a place for the table");
    let (_, after) = behind.split_once(END).expect("an end of the table");
    let wanted = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("TENANTGATE_WRITE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
        return;
    }
    assert!(page == wanted, "docs/compatibility.md: TENANTGATE_WRITE_DOCS=1 rewrites its table");
}

#[test]
fn the_corpus_is_as_large_as_the_manual_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, _) = page.split_once(" dialogs").expect("a number of dialogs");
    let claimed: usize = before.rsplit(' ').next().unwrap().parse().expect("a number");
    let count = corpus().len();
    assert!((claimed..claimed + 100).contains(&count), "{count} scripts, {claimed} in the manual");
}
