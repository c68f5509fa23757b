//! Samples that break each rule, and neighbours that do not.

use super::*;

fn findings(path: &str, text: &str) -> Vec<Finding> {
    file_rules(&Source::new(path, text))
}

fn layers_of(path: &str, text: &str) -> Vec<Finding> {
    layering(&[Source::new(path, text)])
}

#[test]
fn an_import_upwards_or_sideways_is_found_in_every_way_to_write_it() {
    for (text, broken) in [
        ("use crate::gate::Gate;", 1),
        ("fn f() { crate::client::run(); }", 1),
        ("use crate::{error::Error, pool::{Pool, Lease}, gate};", 2),
        ("use super::super::console;", 1),
        ("use crate::server::Server;", 0),
    ] {
        assert_eq!(layers_of("src/server/connect.rs", text).len(), broken, "{text}");
    }
    assert_eq!(layers_of("src/auth/mod.rs", "use super::pool;").len(), 1);
    assert_eq!(layers_of("src/net/tls.rs", "use crate::guard;").len(), 1);
    assert_eq!(layers_of("src/main.rs", "fn main() { tenantgate::cli::main() }").len(), 0);
    assert_eq!(layers_of("src/shop/mod.rs", "").len(), 1);
}

#[test]
fn imports_downwards_in_comments_in_texts_and_in_tests_are_fine() {
    for text in [
        "use crate::{error::Error, wire};",
        "//! See [`crate::gate`].\nconst A: &str = \"crate::gate\";",
        "const A: char = '\"'; const B: &str = r#\"crate::gate \" \"#;",
        "#[cfg(test)]\nmod tests {\n    use crate::gate::Gate;\n}",
        "use super::gate;",
    ] {
        assert_eq!(layers_of("src/net/tls.rs", text), Vec::<Finding>::new());
    }
}

#[test]
fn long_files_lines_tests_and_functions_are_found() {
    let many = |count: usize| "    let x = 1;\n".repeat(count);
    let long = format!("//! x\n{}", "const A: u8 = 1;\n".repeat(501));
    assert_eq!(findings("src/net/a.rs", &long).len(), 1);
    let blanks = format!("//! x\n{}", "// y\n\n".repeat(501));
    assert_eq!(findings("src/net/a.rs", &blanks).len(), 0);
    let wide = format!("//! x\n// {}\n", "y".repeat(98));
    assert_eq!(findings("src/net/a.rs", &wide).len(), 1);
    let tests = format!("//! x\n#[cfg(test)]\nmod tests {{\n{}}}\n", "use a;\n".repeat(150));
    assert_eq!(findings("src/net/a.rs", &tests).len(), 1);
    let function =
        |lines| format!("//! x\nimpl X {{\nfn long(a: [u8; 3]) {{\n{}}}\n}}\n", many(lines));
    assert_eq!(findings("src/net/a.rs", &function(68)).len(), 0);
    assert_eq!(findings("src/net/a.rs", &function(69)).len(), 1);
    assert_eq!(findings("tests/a.rs", &function(69)).len(), 0);
    assert_eq!(findings("tests/a.rs", &function(99)).len(), 1);
}

#[test]
fn a_missing_or_endless_opening_is_found() {
    assert_eq!(findings("src/net/a.rs", "use std::io;\n").len(), 1);
    assert_eq!(findings("src/net/a.rs", &"//! x\n".repeat(6)).len(), 1);
    assert_eq!(findings("src/net/a.rs", &"//! x\n".repeat(5)).len(), 0);
}

#[test]
fn names_that_say_nothing_are_found() {
    assert_eq!(findings("src/net/utils.rs", "//! x\n").len(), 1);
    assert_eq!(findings("src/common/mod.rs", "//! x\n").len(), 1);
    assert_eq!(findings("src/net/utility_bill.rs", "//! x\n").len(), 0);
}

#[test]
fn work_left_for_later_and_code_in_comments_are_found() {
    let later = format!("//! x\n// {}DO later\n", "TO");
    assert_eq!(findings("src/net/a.rs", &later).len(), 1);
    assert_eq!(findings("tests/a.rs", "//! x\n// let a = 1;\n").len(), 1);
    assert_eq!(findings("src/net/a.rs", "//! x\n// Because so.\n").len(), 0);
}

#[test]
fn process_wide_state_is_found_and_lifetimes_are_not() {
    for text in
        ["static A: u8 = 1;", "pub(crate) static mut A: u8 = 1;", "use std::sync::OnceLock;"]
    {
        assert_eq!(findings("src/net/a.rs", &format!("//! x\n{text}\n")).len(), 1, "{text}");
    }
    let lifetime = "//! x\nconst A: &'static str = \"static B\";\nfn f<T: 'static>() {}\n";
    assert_eq!(findings("src/net/a.rs", lifetime).len(), 0);
}

#[test]
fn panics_are_found_outside_of_tests_only() {
    let body = "//! x\nfn f() { g().unwrap(); }\n";
    assert_eq!(findings("src/net/a.rs", body).len(), 1);
    let tested = "//! x\n#[cfg(test)]\nmod tests {\n    fn f() { g().unwrap(); }\n}\n";
    assert_eq!(findings("src/net/a.rs", tested).len(), 0);
    assert_eq!(findings("src/net/tests.rs", body).len(), 0);
    let declared = "//! x\n#[cfg(test)]\nmod tests;\nfn f() { g().unwrap(); }\n";
    assert_eq!(findings("src/net/mod.rs", declared).len(), 1);
}

#[test]
fn a_timer_that_would_never_fire_is_found() {
    let body = "//! x\nasync fn f() { tokio::time::sleep(T).await; }\n";
    assert_eq!(findings("src/pool/a.rs", body).len(), 1);
    assert_eq!(findings("src/gate/a.rs", body).len(), 0);
}

#[test]
fn a_crowded_folder_is_found() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..20 {
        fs::write(folder.path().join(format!("{number}.rs")), "").unwrap();
    }
    fs::write(folder.path().join("lib.rs"), "").unwrap();
    assert_eq!(crowded_folders(folder.path()).len(), 0);
    fs::write(folder.path().join("one_more.rs"), "").unwrap();
    assert_eq!(crowded_folders(folder.path()).len(), 1);
}

#[test]
fn a_page_of_errors_that_lacks_or_invents_a_row_is_found() {
    let code = "Self::A => (\"a_b\", \"28000\", F, Client),\n";
    let right = "| name | SQLSTATE | severity | side |\n|---|---|---|---|\n\
                 | `a_b` | 28000 | FATAL | client | what to do |\n";
    assert_eq!(differing_errors(code, right), Vec::<Finding>::new());
    assert_eq!(differing_errors(code, &right.replace("28000", "28P01")).len(), 2);
    assert_eq!(differing_errors("", right).len(), 1);
}

#[test]
fn a_map_that_names_a_file_of_the_past_is_found() {
    let exists = |path: &str| path == "src/net/tls.rs";
    let page = "`net/tls.rs`, `src/net/tls.rs`, `a word`, `gone.rs`";
    assert_eq!(missing_files(page, &exists), ["docs/architecture.md: gone.rs does not exist"]);
}
