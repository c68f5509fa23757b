//! The attack suite: one table of what a hostile tenant can send, and at which level it gets him
//! anything. Every attack runs over one server connection that attacker and victim share. One that
//! succeeds where the table says stopped fails the test, and so does one that is said to succeed
//! and does not: `docs/isolation.md` prints the table.

mod careless;
mod door;
mod escape;
mod page;
mod reach;
mod residue;
mod scene;
mod seal;
mod shared;
mod wires;

use std::collections::BTreeSet;

use futures::future::LocalBoxFuture;
use tenantgate::demo::Template;
use tenantgate::isolation::Level;

use crate::harness::cluster::{template, versions};
use scene::{Scene, Stage};

/// What an attack is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Another tenant's rows, schema or rights.
    Escape,
    /// Whether something of another tenant's exists.
    Oracle,
    /// What the last one left on the server connection.
    Residue,
    Protocol,
    Cancel,
    Startup,
    Auth,
    /// Every level shows this much, and says so. No escape.
    Shown,
    /// What a DBA leaves behind that no level can make good.
    Careless,
}

impl Class {
    const ATTACKS: [Self; 7] = [
        Self::Escape,
        Self::Oracle,
        Self::Residue,
        Self::Protocol,
        Self::Cancel,
        Self::Startup,
        Self::Auth,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Escape => "escape",
            Self::Oracle => "existence",
            Self::Residue => "residue",
            Self::Protocol => "protocol",
            Self::Cancel => "cancel",
            Self::Startup => "start-up",
            Self::Auth => "login",
            Self::Shown => "shown",
            Self::Careless => "careless",
        }
    }
}

/// What becomes of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Refused, by the gate or the server, with this SQLSTATE.
    Stopped(&'static str),
    /// Answered without an error, and with nothing of anybody else's in it.
    Harmless,
    /// The attacker heard the victim's canary, or changed what is the victim's.
    Escapes,
}

use Verdict::{Escapes, Harmless};

/// Verdicts at plain, at guard, and at sealed (row) or strict (schema, silo).
type Expected = [Verdict; 3];

/// The same everywhere.
const fn stopped(sqlstate: &'static str) -> Expected {
    [Verdict::Stopped(sqlstate); 3]
}

/// The same everywhere, and without an error.
const HARMLESS: Expected = [Harmless; 3];

/// Succeeds at plain.
const fn from_guard(sqlstate: &'static str) -> Expected {
    [Escapes, Verdict::Stopped(sqlstate), Verdict::Stopped(sqlstate)]
}

/// No fast path at plain; above it the server's own refusal.
const fn refused_below_strict(sqlstate: &'static str) -> Expected {
    [Verdict::Stopped("0A000"), Verdict::Stopped(sqlstate), Verdict::Stopped(sqlstate)]
}

/// Nothing happens at plain, refused above.
const fn refused_from_guard(sqlstate: &'static str) -> Expected {
    [Harmless, Verdict::Stopped(sqlstate), Verdict::Stopped(sqlstate)]
}

/// Succeeds below sealed; there it is answered, and means nothing.
const FROM_SEALED: Expected = [Escapes, Escapes, Harmless];

/// What no level stops: `Shown` and `Careless` only.
const NOWHERE: Expected = [Escapes; 3];

/// What a newer server says itself: the attack's name, the first version, the verdict. A query
/// behind executed messages without Sync has been a violation since 18.
const NEWER: &[(&str, u32, Verdict)] =
    &[("a simple query behind a batch without Sync", 18, Verdict::Stopped("08P01"))];

/// For whom the attack is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Row,
    Schema,
    Silo,
}

const ALL: &[Who] = &[Who::Row, Who::Schema, Who::Silo];
const ROW: &[Who] = &[Who::Row];
const SCHEMA: &[Who] = &[Who::Schema];
const SILO: &[Who] = &[Who::Silo];
const OWN_LOGIN: &[Who] = &[Who::Schema, Who::Silo];
const ONE_DATABASE: &[Who] = &[Who::Row, Who::Schema];

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Schema => "schema",
            Self::Silo => "silo",
        }
    }
}

/// How it is done.
#[derive(Clone, Copy)]
enum Deed {
    /// Texts, each a way to do the same. Lines are sent one by one, by the attacker unless marked
    /// `victim:` or `dba:`; `$OWN`, `$OTHER` and other names are filled in. Run once as simple
    /// queries and, if no line has a semicolon, once as extended ones.
    Sql(&'static [&'static str]),
    /// Code, for what is no text.
    Play(for<'scene> fn(&'scene mut Scene<'_>) -> LocalBoxFuture<'scene, ()>),
}

/// A row of the table.
#[derive(Clone, Copy)]
struct Attack {
    class: Class,
    name: &'static str,
    who: &'static [Who],
    expected: Expected,
    deed: Deed,
    /// Attacker and victim have a server connection each, at the same time.
    apart: bool,
    /// The attacker keeps the only server while its session lasts: it ends before the victim asks.
    pins: bool,
}

const fn sql(
    class: Class,
    name: &'static str,
    who: &'static [Who],
    expected: Expected,
    ways: &'static [&'static str],
) -> Attack {
    let deed = Deed::Sql(ways);
    Attack { class, name, who, expected, deed, apart: false, pins: false }
}

const fn play(
    class: Class,
    name: &'static str,
    who: &'static [Who],
    expected: Expected,
    deed: for<'scene> fn(&'scene mut Scene<'_>) -> LocalBoxFuture<'scene, ()>,
) -> Attack {
    let deed = Deed::Play(deed);
    Attack { class, name, who, expected, deed, apart: false, pins: false }
}

/// The same with two server connections.
const fn apart(attack: Attack) -> Attack {
    Attack { apart: true, ..attack }
}

/// The same by an attacker that keeps the server.
const fn pins(attack: Attack) -> Attack {
    Attack { pins: true, ..attack }
}

/// The whole table.
fn table() -> Vec<Attack> {
    let tables: [&[Attack]; 9] = [
        &escape::ATTACKS,
        &reach::ATTACKS,
        &careless::ATTACKS,
        &residue::ATTACKS,
        &wires::ATTACKS,
        &door::ATTACKS,
        &door::PROOFS,
        &seal::ATTACKS,
        &shared::ATTACKS,
    ];
    let mut all = tables.concat();
    all.sort_by_key(|attack| attack.class);
    all
}

/// Sealed is for row tenants what strict is for the others: the last column of a table.
fn column(level: Level) -> usize {
    match level {
        Level::Plain => 0,
        Level::Guard => 1,
        Level::Sealed | Level::Strict => 2,
    }
}

/// Plays the whole table at a level and prints everything that is not as it says.
async fn plays_as_the_table_says(level: Level) {
    let major = template().binaries().major().unwrap();
    plays_at(level, major, template()).await;
}

/// The same with servers of this version.
async fn plays_at(level: Level, major: u32, template: &Template) {
    let stage = Stage::new(level, template).await;
    let only = std::env::var("TENANTGATE_ATTACK").unwrap_or_default();
    let mut wrong = Vec::new();
    let mut played = 0;
    for attack in table() {
        for who in attack.who.iter().copied().filter(|who| stage.has(*who)) {
            if !attack.name.contains(&only) {
                continue;
            }
            let newer = NEWER.iter().find(|row| row.0 == attack.name && row.1 <= major);
            let expected = newer.map_or(attack.expected[column(level)], |row| row.2);
            // Shown only when the test fails.
            println!("{} ({})", attack.name, who.name());
            for (way, verdict, heard) in stage.play(&attack, who, expected).await {
                played += 1;
                let told = format!("{verdict:?}");
                if told != format!("{expected:?}") {
                    let (who, name) = (who.name(), attack.name);
                    wrong.push(format!(
                        "{name} ({who}): {told}, not {expected:?}\n  {way}\n  {heard}"
                    ));
                }
            }
        }
    }
    let level = level.name();
    assert!(played > 0, "nothing was played");
    assert!(wrong.is_empty(), "{} of {played} at {level}:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn at_level_plain_exactly_the_documented_attacks_succeed() {
    plays_as_the_table_says(Level::Plain).await;
}

#[tokio::test]
async fn at_level_guard_exactly_the_documented_attacks_succeed() {
    plays_as_the_table_says(Level::Guard).await;
}

#[tokio::test]
async fn at_level_sealed_no_attack_succeeds() {
    plays_as_the_table_says(Level::Sealed).await;
}

#[tokio::test]
async fn at_level_strict_no_attack_succeeds() {
    plays_as_the_table_says(Level::Strict).await;
}

/// Versions differ in what SQL can reach (18 reports `search_path`, 16 has SET as a right of its
/// own), so the two strongest levels are attacked on the newest as well.
#[tokio::test]
async fn at_the_newest_servers_strongest_levels_no_attack_succeeds() {
    let newest = versions().iter().max_by_key(|(major, _)| *major);
    let (major, template) = newest.unwrap();
    for level in [Level::Sealed, Level::Strict] {
        plays_at(level, *major, template).await;
    }
}

#[test]
fn no_attack_is_said_to_succeed_at_sealed_or_strict() {
    for attack in table() {
        let nowhere = matches!(attack.class, Class::Shown | Class::Careless);
        let escapes = attack.expected.map(|verdict| verdict == Escapes);
        assert_eq!(escapes == [true; 3], nowhere, "{}", attack.name);
        assert!(nowhere || !escapes[2], "{}", attack.name);
        assert!(escapes.is_sorted_by(|weak, strong| weak >= strong), "{}", attack.name);
    }
}

#[test]
fn the_table_names_every_attack_once_and_has_every_class() {
    let table = table();
    let names: BTreeSet<&str> = table.iter().map(|attack| attack.name).collect();
    assert_eq!(names.len(), table.len());
    let ways: usize = table.iter().map(Attack::ways).sum();
    assert!(ways >= 120, "{ways} attacks");
    for class in Class::ATTACKS {
        assert!(table.iter().any(|attack| attack.class == class), "{}", class.name());
    }
}

impl Attack {
    /// How many ways of doing it are tried.
    fn ways(&self) -> usize {
        match self.deed {
            Deed::Sql(ways) => ways.len(),
            Deed::Play(_) => 1,
        }
    }
}
