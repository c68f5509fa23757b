//! Deliberate breaks of the invariants: each must turn a test red. Making them takes a build each,
//! so only `make mutants` does; that each can still be made is looked at in every run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde::Deserialize;

#[derive(Deserialize)]
struct List {
    mutant: Vec<Mutant>,
}

/// One break, as in `mutants.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    name: String,
    invariant: String,
    file: String,
    find: String,
    replace: String,
    tests: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn list() -> Vec<Mutant> {
    let text = fs::read_to_string(root().join("tests/mutants/mutants.toml")).unwrap();
    toml::from_str::<List>(&text).unwrap().mutant
}

#[test]
fn every_break_can_still_be_made_and_is_in_the_table() {
    let list = list();
    assert!(list.len() >= 10);
    for Mutant { name, file, find, replace, .. } in &list {
        let text = fs::read_to_string(root().join(file)).unwrap();
        assert_eq!(text.matches(find.as_str()).count(), 1, "{name}: its text in {file}");
        assert_ne!(find, replace, "{name}");
    }
    let page = fs::read_to_string(root().join("tests/isolation/README.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Break"));
    let told: BTreeSet<&str> = rows.collect();
    let row = |it: &Mutant| format!("| {} | {} | `{}` |", it.name, it.invariant, it.file);
    let made: Vec<String> = list.iter().map(row).collect();
    assert_eq!(told, made.iter().map(String::as_str).collect());
}

/// Where the copies lie, with what was built there the last time.
fn workshop() -> PathBuf {
    root().join("target/mutants")
}

/// `MUTANT=words` makes only those whose names have these words in them.
#[test]
#[ignore = "a build for each break: make mutants"]
fn each_break_turns_a_test_red() {
    let only = std::env::var("MUTANT").unwrap_or_default();
    let list: Vec<Mutant> = list().into_iter().filter(|it| it.name.contains(&only)).collect();
    assert!(!list.is_empty(), "no mutant's name has {only:?} in it");
    copy_tree();
    let started = Instant::now();
    for filters in list.iter().map(|it| it.tests.as_str()).collect::<BTreeSet<_>>() {
        assert_eq!(run(filters), Outcome::Green, "{filters}, with nothing broken");
    }
    eprintln!("mutants: all green with nothing broken, {:?}", started.elapsed());
    let mut failed = Vec::new();
    for mutant in &list {
        let (path, started) = (workshop().join("tree").join(&mutant.file), Instant::now());
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen(&mutant.find, &mutant.replace, 1)).unwrap();
        let outcome = run(&mutant.tests);
        fs::write(&path, text).unwrap();
        let word = match outcome {
            Outcome::Red => "killed",
            Outcome::Green => "SURVIVED",
            Outcome::NotBuilt => "NOT BUILT",
        };
        eprintln!("mutants: {word:9} {} ({:?})", mutant.name, started.elapsed());
        if outcome != Outcome::Red {
            failed.push(mutant.name.as_str());
        }
    }
    assert!(failed.is_empty(), "no test notices: {failed:?}");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Red,
    Green,
    NotBuilt,
}

/// Runs `lib` or `main` tests of the copy.
fn run(tests: &str) -> Outcome {
    let (binary, filters) = tests.split_once(' ').unwrap();
    let mut cargo = Command::new("nice");
    cargo.args(["-n", "10", env!("CARGO"), "test", "--locked"]);
    match binary {
        "lib" => cargo.arg("--lib"),
        _ => cargo.args(["--test", binary]),
    };
    cargo.arg("--").args(filters.split(' '));
    cargo.current_dir(workshop().join("tree")).env("CARGO_TARGET_DIR", workshop().join("target"));
    let output = cargo.env("RUST_BACKTRACE", "0").env_remove("MUTANT").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!said.contains("running 0 tests"), "{tests}: there are no such tests");
    match (output.status.success(), said.contains("test result: FAILED")) {
        (true, _) => Outcome::Green,
        (false, true) => Outcome::Red,
        (false, false) => {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
            Outcome::NotBuilt
        }
    }
}

/// A copy of the tree, and at the first time of what is built, so that dependencies are there.
fn copy_tree() {
    let tree = workshop().join("tree");
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir_all(&tree).unwrap();
    for entry in fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("target") && !path.ends_with(".git") {
            copy(&path, &tree);
        }
    }
    let built = workshop().join("target");
    if !built.exists() {
        let debug = built.join("debug");
        fs::create_dir_all(&debug).unwrap();
        for part in [".fingerprint", "build", "deps"] {
            copy(&root().join("target/debug").join(part), &debug);
        }
    }
}

fn copy(from: &Path, into: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(into).status().unwrap();
    assert!(copied.success(), "copied {}", from.display());
}
