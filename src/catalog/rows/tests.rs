//! What counts while it is not known what all rows take up, and what is known of rows that are not
//! kept.

use std::sync::Arc;

use crate::catalog::tests::{build, plan, row, silo, standing, tenant};
use crate::catalog::*;
use crate::isolation::Isolation;

fn key(id: &str) -> Key {
    Key::Tenant(id.to_owned())
}

fn rows(changes: Vec<Change>) -> Vec<Row> {
    let row = |change| match change {
        Change::Put(row) => Some(row),
        Change::Gone(_) => None,
    };
    changes.into_iter().filter_map(row).collect()
}

/// On the cluster's own database, in one of their own, and in one that is not loaded.
fn three() -> Vec<Change> {
    let (e, u) = (row("e", 2, silo("e")), row("u", 3, silo("u")));
    vec![row("a", 1, tenant(Isolation::Row)), e, u]
}

/// These rows, of which those are known.
fn known(file: &CatalogPlan, changes: Vec<Change>, known: &[&str]) -> (Composer, Arc<Lookups>) {
    let lookups = Arc::new(Lookups::new(Arc::new(Live::new(Catalog::default())), known.len()));
    let mut composer = Composer::with_lookups(build(file), Some(lookups.clone()));
    composer.apply(changes.clone());
    composer.stand_at(Some(1));
    let mut found = rows(changes);
    found.retain(|row| known.contains(&row.id.as_str()));
    let keys: Vec<Key> = known.iter().map(|id| key(id)).collect();
    composer.admit(&keys, Found { rows: found, version: 1, ..Found::default() });
    // Those who came last make the others leave.
    composer.apply(Vec::new());
    assert_eq!(composer.known(), known);
    (composer, lookups)
}

/// A file in which the cluster's own database is another.
fn on(dbname: &str) -> CatalogPlan {
    let mut plan = plan([]);
    for cluster in plan.clusters.values_mut() {
        cluster.connection_string = Some(format!("host=127.0.0.1 user=tg dbname={dbname}"));
    }
    plan
}

fn dbname(catalog: &Catalog, id: &str) -> Option<String> {
    catalog.known(id).map(|tenant| tenant.route.conninfo.dbname.clone())
}

#[test]
fn nobody_has_another_seat_before_all_rows_are_held_against_each_other() {
    let (mut composer, lookups) = known(&plan([]), three(), &["a", "e"]);
    composer.reload(build(&on("u")));
    assert_eq!(composer.known(), ["e"], "a would be on the data of u, who is not known");
    assert_eq!(dbname(&composer.catalog(), "e").as_deref(), Some("e"));
    assert!(lookups.is_away(), "nobody is said to be nobody");
    let found = || Found { rows: rows(three()), version: 1, ..Found::default() };
    assert_eq!(composer.admit(&[key("a")], found()), [key("a")]);
    // Read again as it was: a waits all the same, since nobody held it against all others since.
    composer.reload(build(&plan([])));
    assert_eq!(composer.known(), ["e"]);

    let mut survey = composer.survey();
    survey.add(&rows(three()));
    let e = rows(vec![row("e", 2, silo("e"))]);
    assert!(composer.take_survey(survey, e, 1).is_some());
    assert_eq!(composer.admit(&[key("a")], found()), []);
    assert_eq!(dbname(&composer.catalog(), "a").as_deref(), Some("app"));
}

#[test]
fn of_a_copy_those_count_who_have_the_seat_they_had_in_it() {
    let (composer, _) = known(&plan([]), three(), &["a", "e"]);
    let seat = |id: &str| composer.catalog().known(id).map(Tenant::seat);
    let copied = |without: &str| -> Vec<(Row, Option<String>)> {
        let kept = rows(three()).into_iter().filter(|row| row.id != "u");
        kept.map(|row| (row.clone(), seat(&row.id).filter(|_| row.id != without))).collect()
    };
    let start = |file: &CatalogPlan, rows| {
        let lookups = Arc::new(Lookups::new(Arc::new(Live::new(Catalog::default())), 2));
        let mut composer = Composer::with_lookups(build(file), Some(lookups.clone()));
        composer.restore_part(rows);
        assert!(composer.is_partial() && composer.position().is_none() && lookups.is_away());
        composer.known()
    };
    assert_eq!(start(&plan([]), copied("")), ["a", "e"]);
    assert_eq!(start(&on("u"), copied("")), ["e"]);
    assert_eq!(start(&plan([]), copied("a")), ["e"], "nobody says what it was");
}

#[test]
fn while_all_rows_are_read_those_who_are_known_are_followed() {
    let (mut composer, _) = known(&plan([]), three(), &["a", "e"]);
    composer.reload(build(&plan([])));
    let disabled = TenantPlan { state: TenantState::Disabled, ..tenant(Isolation::Row) };
    let moved = composer.hear(vec![row("a", 1, disabled), row("u", 3, silo("n"))]);
    assert_eq!(moved.iter().filter_map(Moved::id).collect::<Vec<_>>(), ["a"]);
    assert_eq!(composer.catalog().known("a").unwrap().state, TenantState::Disabled);
    composer.hear(vec![row("e", 4, silo("u"))]);
    assert_eq!(composer.known(), ["a"], "it waits to be held against u");
    composer.hear(vec![Change::Gone("a".to_owned())]);
    assert!(composer.known().is_empty() && composer.position().is_none());
}

fn to(dbname: &str) -> RoutePlan {
    let silo = silo(dbname);
    let connection_string = silo.connection_string;
    RoutePlan {
        isolation: silo.isolation,
        cluster: silo.cluster,
        connection_string,
        schema: None,
        role: None,
    }
}

#[test]
fn a_move_is_held_against_those_who_are_not_known_and_leaves_nothing_to_them() {
    let mut all = three();
    all.push(row("heir", 4, silo("e")));
    let (mut composer, _) = known(&plan([]), all, &["a", "e"]);
    let refused = |composer: &mut Composer, id: &str, dbname: &str| {
        composer.on_route(id, &to(dbname)).err().unwrap_or_default()
    };
    assert!(refused(&mut composer, "e", "u").contains("tenant \"u\"'s"));
    assert!(refused(&mut composer, "e", "new").ends_with(": heir"));
    assert!(refused(&mut composer, "u", "new").contains("at fault, or gone"), "it is not known");
    // Another number says the same: nothing was changed by asking.
    assert!(refused(&mut composer, "e", "new").ends_with(": heir"));
    composer.follow(vec![Change::Gone("heir".to_owned())], 2);
    let (found, former) = composer.on_route("e", &to("new")).unwrap();
    assert_eq!(found.then.route.conninfo.dbname, "new");
    assert!(former == to("e") && composer.route_of("e") == Ok(Some(former)));
    composer.reload(build(&plan([])));
    assert!(refused(&mut composer, "e", "new").contains("are being read as a whole"));
}

#[test]
fn while_all_rows_are_read_nobody_says_that_a_moved_tenant_is_elsewhere() {
    let (mut composer, _) = known(&plan([]), three(), &["a", "e"]);
    composer.hear(vec![row("e", 2, silo("new"))]);
    assert!(composer.catalog().known("e").is_none(), "it waits to be held against the others");
    assert!(composer.route_of("e").is_err(), "the route may well be the new one");
    let now = rows(vec![row("a", 1, tenant(Isolation::Row)), row("e", 2, silo("new"))]);
    let mut survey = composer.survey();
    survey.add(&now);
    assert!(composer.take_survey(survey, now, 2).is_some());
    assert_eq!(composer.route_of("e"), Ok(Some(to("new"))));
    composer.follow(vec![Change::Gone("e".to_owned())], 3);
    assert_eq!(composer.route_of("e"), Ok(None));
}

#[test]
fn nobody_is_looked_up_against_what_is_not_followed_any_more() {
    let (mut composer, lookups) = known(&plan([]), three(), &["a", "e"]);
    let found = || Found { rows: rows(three()), version: 1, ..Found::default() };
    // More has changed than is read one by one: who is known is followed while all are read.
    composer.hear(vec![Change::Gone("e".to_owned())]);
    assert!(composer.position().is_none() && lookups.is_away());
    assert_eq!(composer.admit(&[key("u")], found()), [key("u")]);
}

#[test]
fn a_files_tenant_moves_only_where_no_row_becomes_another() {
    let file = |of_file: &str| plan([("f", silo(of_file))]);
    let mut all = three();
    all.push(row("heir", 4, silo("g")));
    let (mut composer, _) = known(&file("f"), all, &["a", "e"]);
    let mut told = |file: &CatalogPlan| composer.in_file("f", &build(file)).err();
    assert_eq!(told(&file("new")), None);
    assert!(told(&file("u")).unwrap().contains("tenant \"u\"'s"));
    let mut faster = file("new");
    faster.tiers.insert("free".to_owned(), LimitsPlan::default());
    assert!(told(&faster).unwrap().contains("tiers"), "rows may have it");
    let more = |id: &str, dbname: &str| plan([("f", silo("new")), (id, silo(dbname))]);
    assert!(told(&more("u", "own")).unwrap().ends_with(": u"));
    assert!(told(&more("own", "u")).unwrap().ends_with(": own"));
    assert_eq!(told(&more("own", "own")), None);
    let waiting = vec![row("waits", 5, silo("f"))];
    composer.follow(waiting, 2);
    let told = composer.in_file("f", &build(&file("new"))).err().unwrap();
    assert!(told.ends_with(": waits"), "{told}");
}

#[test]
fn names_mean_those_who_are_not_known_as_well() {
    let (mut composer, _) = known(&plan([]), three(), &["a", "e"]);
    assert!(composer.has("u") && composer.has("a") && !composer.has("nobody"));
    let on = |dbname: &str| ("main".to_owned(), dbname.to_owned());
    assert_eq!(composer.databases("u"), [on("u")]);
    assert_eq!(composer.databases("u@main"), [on("u")]);
    assert_eq!(composer.databases("app"), [on("app")]);
    assert!(composer.databases("nowhere").is_empty() && composer.databases("@main").is_empty());
    let e = composer.catalog().known("e").cloned().unwrap();
    let a = composer.catalog().known("a").cloned().unwrap();
    assert!(!composer.is_shared(&on("e"), &e) && composer.is_shared(&on("u"), &e));
    assert!(!composer.is_shared(&on("app"), &a));
    composer.follow(vec![row("b", 5, tenant(Isolation::Row))], 2);
    assert!(composer.is_shared(&on("app"), &a), "b leads there");
    composer.reload(build(&plan([])));
    assert!(composer.has("nobody"), "it may be one: nobody knows yet");
}

#[test]
fn nobody_comes_into_force_on_what_a_move_leaves() {
    let mut composer = Composer::new(build(&plan([("file", silo("taken"))])));
    let rows = [row("a", 1, silo("one")), row("b", 2, silo("one")), row("c", 3, silo("taken"))];
    composer.apply(rows.to_vec());
    let elsewhere = RoutePlan {
        isolation: Isolation::Silo,
        cluster: "main".to_owned(),
        connection_string: silo("two").connection_string,
        schema: None,
        role: None,
    };
    let before = standing(&composer);
    let refused = composer.on_route("a", &elsewhere).err().unwrap();
    assert!(refused.ends_with("first: b"), "{refused}");
    let refused = composer.in_file("file", &build(&plan([("file", silo("three"))]))).unwrap_err();
    assert!(refused.ends_with("as well: c"), "{refused}");
    assert_eq!(standing(&composer), before, "to look changes nothing");
    // Who is at fault for something else as well gets nothing by it.
    composer.apply(vec![row("b", 2, TenantPlan { cluster: "lost".to_owned(), ..silo("one") })]);
    composer.apply(vec![Change::Gone("c".to_owned())]);
    assert_eq!(
        composer.on_route("a", &elsewhere).ok().unwrap().0.then.route.conninfo.dbname,
        "two"
    );
    composer.in_file("file", &build(&plan([("file", silo("three"))]))).unwrap();
}
