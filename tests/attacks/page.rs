//! The tables of `docs/isolation.md` that the suite writes: `TENANTGATE_WRITE_DOCS=1` rewrites
//! them, anything else compares.

use std::fmt::Write;
use std::path::Path;

use super::{Attack, Class, Verdict, table};

const BEGIN: &str = "<!-- written by tests/attacks: TENANTGATE_WRITE_DOCS=1 -->\n";
const END: &str = "<!-- end of what tests/attacks wrote -->\n";

fn tenants(attack: &Attack) -> String {
    match attack.who.len() {
        3 => "all".to_owned(),
        _ => attack.who.iter().map(|who| who.name()).collect::<Vec<_>>().join(", "),
    }
}

fn cell(verdict: Verdict) -> String {
    match verdict {
        Verdict::Stopped(sqlstate) => sqlstate.to_owned(),
        Verdict::Harmless => "nothing".to_owned(),
        Verdict::Escapes => "**succeeds**".to_owned(),
    }
}

fn attacks() -> Vec<Attack> {
    table().into_iter().filter(|attack| Class::ATTACKS.contains(&attack.class)).collect()
}

/// How many ways succeed at a level.
fn successes(attacks: &[Attack], column: usize) -> usize {
    let is = |attack: &&Attack| attack.expected[column] == Verdict::Escapes;
    attacks.iter().filter(is).map(Attack::ways).sum()
}

/// How many attacks of each class succeed at each level.
fn summary() -> String {
    let mut text = "| What it is after | Attacks | plain | guard | sealed, strict |\n\
                    |---|---|---|---|---|\n"
        .to_owned();
    let row = |text: &mut String, name: &str, attacks: &[Attack]| {
        let succeed = [0, 1, 2].map(|column| match successes(attacks, column) {
            0 => "none".to_owned(),
            count => format!("**{count}**"),
        });
        let ways: usize = attacks.iter().map(Attack::ways).sum();
        let [plain, guard, top] = succeed;
        writeln!(text, "| {name} | {ways} | {plain} | {guard} | {top} |").unwrap();
    };
    for class in Class::ATTACKS {
        let of_class: Vec<Attack> =
            attacks().into_iter().filter(|attack| attack.class == class).collect();
        row(&mut text, class.name(), &of_class);
    }
    row(&mut text, "all", &attacks());
    text
}

/// The attacks for which the level makes a difference, and those for which it does not.
fn rows() -> String {
    let mut text = "| Attack | Tenants | plain | guard | sealed, strict |\n\
                    |---|---|---|---|---|\n"
        .to_owned();
    let succeeds = |attack: &Attack| attack.expected.contains(&Verdict::Escapes);
    let (some, none): (Vec<Attack>, Vec<Attack>) = attacks().into_iter().partition(succeeds);
    let mut row = |attack: &Attack| {
        let [plain, guard, top] = attack.expected.map(cell);
        let (name, tenants) = (attack.name, tenants(attack));
        writeln!(text, "| {name} | {tenants} | {plain} | {guard} | {top} |").unwrap();
    };
    some.iter().for_each(&mut row);
    none.iter().for_each(&mut row);
    text
}

fn list(class: Class) -> String {
    let of_class = table().into_iter().filter(|attack| attack.class == class);
    of_class.map(|attack| format!("- {} ({})\n", attack.name, tenants(&attack))).collect()
}

#[test]
fn the_manual_has_the_tables_of_the_attacks() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/isolation.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let mut wanted = String::new();
    let parts = [summary(), list(Class::Shown), list(Class::Careless), rows()];
    let mut rest = page.as_str();
    for part in &parts {
        let (before, behind) = rest.split_once(BEGIN).expect("a place for every table");
        let (_, after) = behind.split_once(END).expect("an end of every table");
        wanted += &format!("{before}{BEGIN}{part}{END}");
        rest = after;
    }
    wanted += rest;
    if std::env::var_os("TENANTGATE_WRITE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
        return;
    }
    let differs = page.lines().zip(wanted.lines()).find(|(is, should)| is != should);
    assert!(page == wanted, "docs/isolation.md: {differs:?}; TENANTGATE_WRITE_DOCS=1 rewrites it");
}

#[test]
fn the_front_page_has_the_totals_of_the_attacks() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let ways: usize = attacks().iter().map(Attack::ways).sum();
    let [plain, guard, top] = [0, 1, 2].map(|column| successes(&attacks(), column));
    let wanted = format!(
        "{ways} attacks are played at each level by the test suite: {plain} succeed at `plain`, \
         {guard} at `guard`, none above."
    );
    assert!(top == 0 && page.contains(&wanted), "README.md: {wanted}");
}
