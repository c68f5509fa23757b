//! Tenants that are looked up: who hears what, when others come, leave and change at that moment.

use super::BATCH_MAX;
use crate::catalog::credential::CredentialKind;
use crate::catalog::tests::{build, plan, row, silo, tenant};
use crate::catalog::*;
use crate::isolation::Isolation;
use crate::secret::scram::Verifier;

/// Tables with so many row tenants, of which so many are known. `t0` came first.
struct Tables {
    live: Arc<Live<Catalog>>,
    lookups: Arc<Lookups>,
    composer: Composer,
}

fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|at| format!("t{at}"))
}

fn row_of(id: &str) -> Row {
    match row(id, 1, tenant(Isolation::Row)) {
        Change::Put(row) => row,
        Change::Gone(_) => unreachable!("it was put"),
    }
}

fn key(id: &str) -> Key {
    Key::Tenant(id.to_owned())
}

fn found(ids: &[&str]) -> Found {
    Found { rows: ids.iter().map(|id| row_of(id)).collect(), version: 1, ..Found::default() }
}

fn tables(count: usize, known: usize) -> Tables {
    let live = Arc::new(Live::new(Catalog::default()));
    let lookups = Arc::new(Lookups::new(live.clone(), known));
    let mut composer = Composer::with_lookups(build(&plan([])), Some(lookups.clone()));
    composer.apply(names(count).map(|id| Change::Put(row_of(&id))).collect());
    composer.stand_at(Some(1));
    live.share(composer.catalog());
    assert!(composer.is_partial() && composer.known().len() == known);
    Tables { live, lookups, composer }
}

#[test]
fn what_changed_while_the_file_was_read_again_waits_until_all_rows_are_read() {
    let live = Arc::new(Live::new(Catalog::default()));
    let lookups = Arc::new(Lookups::new(live, 1));
    let mut composer = Composer::with_lookups(build(&plan([])), Some(lookups.clone()));
    composer.apply(vec![row("u", 1, silo("u")), row("e", 2, silo("e"))]);
    composer.stand_at(Some(2));
    assert_eq!(composer.known(), ["u"], "e is in force, and not known");
    assert_eq!(composer.admit(&[key("e")], of_e()), []);
    assert_eq!(composer.known(), ["e"]);
    composer.reload(build(&plan([])));
    let moves = row("e", 3, silo("u"));
    assert!(composer.follow(vec![moves.clone()], 3).is_none());
    let catalog = composer.catalog();
    assert_eq!(catalog.known("e").unwrap().route.conninfo.dbname, "e", "not on another's data");
    assert!(composer.position().is_none() && lookups.is_away());
    assert_eq!(composer.admit(&[key("u")], found(&[])), [key("u")], "nobody is said to be nobody");
    let mut survey = composer.survey();
    let rows = [row("u", 1, silo("u")), moves].map(|change| match change {
        Change::Put(row) => row,
        Change::Gone(_) => unreachable!("it was put"),
    });
    survey.add(&rows);
    assert!(composer.take_survey(survey, rows.to_vec(), 3).is_some());
    assert_eq!(composer.known(), ["u"]);
    assert!(composer.follow(Vec::new(), 4).is_some() && composer.position() == Some(4));
}

fn of_e() -> Found {
    let Change::Put(row) = row("e", 2, silo("e")) else { unreachable!("it was put") };
    Found { rows: vec![row], version: 2, ..Found::default() }
}

#[test]
fn whoever_knows_an_answer_finds_the_catalog_that_has_it() {
    let Tables { live, mut composer, .. } = tables(8, 2);
    let id = names(8).find(|id| composer.catalog().known(id).is_none()).unwrap();
    assert_eq!(composer.admit(&[key(&id)], found(&[&id])), []);
    assert!(live.load().known(&id).is_some(), "before the answer is told");
}

/// Answers questions as long as somebody asks.
async fn answer(lookups: Arc<Lookups>, mut composer: Composer, count: usize) {
    loop {
        let keys = lookups.questions().await;
        let wanted = names(count).filter(|id| keys.contains(&key(id)));
        let rows = wanted.map(|id| row_of(&id)).collect();
        let open = composer.admit(&keys, Found { rows, version: 1, ..Found::default() });
        assert_eq!(open, []);
        lookups.answer(&keys, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn whoever_is_there_is_never_said_to_be_nobody_however_many_come_and_leave() {
    let Tables { live, lookups, composer } = tables(16, 4);
    let answers = tokio::spawn(answer(lookups, composer, 16));
    let ask = |seed: u64| {
        let live = live.clone();
        async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut told = 0;
            for _ in 0..200 {
                let id = format!("t{}", random.usize(..16));
                let old = live.load();
                // Very many come at once: some may hear that it cannot be told.
                let Ok(fresh) = old.with(&[key(&id)]).await else { continue };
                assert!(fresh.unwrap().known(&id).is_some(), "{id}");
                told += 1;
            }
            told
        }
    };
    let clients: Vec<_> = (0..6).map(|seed| tokio::spawn(ask(seed))).collect();
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    answers.abort();
}

#[test]
fn whoever_is_asked_for_again_stays_beside_those_who_come() {
    let Tables { live, mut composer, .. } = tables(8, 2);
    let known = composer.known();
    let other = names(8).find(|id| !known.contains(id)).unwrap();
    for id in &known {
        let keys = [key(id), key(&other)];
        assert_eq!(composer.admit(&keys, found(&[id, &other])), []);
        assert!(keys.iter().all(|key| matches!(key, Key::Tenant(id) if is_in(&live, id))));
        composer.admit(&[key(&known[0]), key(&known[1])], found(&[&known[0], &known[1]]));
    }
}

fn is_in(live: &Live<Catalog>, id: &str) -> bool {
    live.load().known(id).is_some()
}

#[tokio::test]
async fn those_who_are_in_use_keep_nobody_else_out() {
    let Tables { live, lookups, mut composer } = tables(4, 1);
    let inside = composer.known().remove(0);
    let (_, pin) = live.load().seek(&inside).await.unwrap().unwrap();
    assert!(pin.is_some());
    let others: Vec<String> = names(4).filter(|id| *id != inside).collect();
    let [one, two] = [&others[0], &others[1]];
    let moves = composer.moves();
    assert_eq!(composer.admit(&[key(one)], found(&[one])), []);
    assert_ne!(composer.moves(), moves, "the copy on disk has others");
    let (_, second) = live.load().seek(one).await.unwrap().unwrap();
    assert!(second.is_some(), "it came, and stays");
    drop(second);
    assert_eq!(composer.admit(&[key(two)], found(&[two])), []);
    assert!(live.load().known(one).is_none(), "the next one takes its place");
    assert!(live.load().known(&inside).is_some() && live.load().known(two).is_some());
    let moves = composer.moves();
    assert_eq!(composer.admit(&[key("x")], found(&[])), []);
    assert_eq!(composer.moves(), moves, "nobody came");
    assert!(lookups.is_pinned(&inside));
}

#[tokio::test]
async fn nobody_asks_the_tables_for_what_they_cannot_have() {
    let Tables { live, lookups, .. } = tables(4, 1);
    let long = "x".repeat(1100);
    let keys = [key("a\0"), key(&long), Key::User("a\0".to_owned()), Key::User(long.clone())];
    let names = [Key::Certificate(format!("cn:{long}")), Key::Certificate("cn:\0".to_owned())];
    for key in keys.into_iter().chain(names) {
        let catalog = live.load();
        // Nobody answers, so whoever is asked for cannot be told of.
        assert!(catalog.with(std::slice::from_ref(&key)).await.is_ok(), "{key:?}");
    }
    assert!(live.load().seek("a\0").await.unwrap().is_none());
    lookups.never(&[Key::User("e\u{301}".to_owned())]);
    assert!(live.load().with(&[Key::User("e\u{301}".to_owned())]).await.is_ok());
}

#[tokio::test]
async fn whoever_asks_first_is_answered_first() {
    let Tables { live, lookups, .. } = tables(4, 1);
    let keys: Vec<Key> = (0..BATCH_MAX + 5).map(|at| key(&format!("x{at}"))).collect();
    let asked = tokio::spawn(async move { live.load().with(&keys).await.map(drop) });
    let first = lookups.questions().await;
    assert_eq!(first.len(), BATCH_MAX);
    assert!(first.contains(&key("x0")), "it has waited longest");
    let rest = lookups.questions().await;
    assert!(rest.contains(&key(&format!("x{}", BATCH_MAX + 4))) && rest.len() == 5);
    asked.abort();
}

#[tokio::test]
async fn what_was_said_of_a_user_counts_on_while_the_tables_are_away() {
    let Tables { live, lookups, mut composer } = tables(4, 1);
    let inside = composer.known().remove(0);
    let user = Key::User("app".to_owned());
    let whose = [("app".to_owned(), Whose::One(inside.clone()))].into();
    let said = Found { version: 1, whose, ..Found::default() };
    assert_eq!(composer.admit(std::slice::from_ref(&user), said), []);
    assert!(live.load().is_alone("app", &inside));
    lookups.age();
    lookups.set_away(true);
    assert!(live.load().with(std::slice::from_ref(&user)).await.is_ok());
    lookups.set_away(false);
    let asks = live.load();
    let asked = tokio::spawn(async move { asks.with(&[user]).await.map(drop) });
    let keys = lookups.questions().await;
    assert_eq!(keys, [Key::User("app".to_owned())], "it is asked again");
    lookups.answer(&keys, Err(CannotTell));
    assert_eq!(asked.await.unwrap(), Err(CannotTell));
}

#[test]
fn without_tables_a_reload_makes_up_verifiers_as_a_start_does() {
    let with = |text: &str| {
        let verifier = postgres_protocol::password::scram_sha_256(text.as_bytes());
        let credential = CredentialPlan {
            kind: CredentialKind::Scram,
            name: None,
            user: Some("app".to_owned()),
            verifier: Some(crate::catalog::credential::HiddenText(verifier)),
            san: None,
            cn: None,
        };
        build(&plan([("a", TenantPlan { credentials: vec![credential], ..silo("a") })]))
    };
    let made_up = |catalog: &Catalog| catalog.credentials().mock().verifier("nobody");
    let (file, mut composer) = (with("x"), Composer::new(build(&plan([]))));
    composer.reload(file.clone());
    assert_eq!(made_up(&composer.catalog()), made_up(&file));
    // With a secret of the tables it stays what it was.
    let sample = Verifier::parse(&postgres_protocol::password::scram_sha_256(b"y")).unwrap();
    composer.mock(b"secret", &[sample]);
    let before = made_up(&composer.catalog());
    composer.reload(file);
    assert_eq!(made_up(&composer.catalog()), before);
    assert!(!format!("{composer:?}").contains("115, 101, 99"), "nobody sees the secret");
}

#[test]
fn whoever_was_the_files_is_kept_when_it_is_of_the_tables() {
    let Tables { live, lookups, mut composer } = tables(4, 1);
    let inside = composer.known().remove(0);
    let pin = live.load().keep(&inside).unwrap();
    assert!(pin.is_some() && lookups.is_pinned(&inside));
    let other = names(4).find(|id| *id != inside).unwrap();
    assert!(live.load().keep(&other).is_none(), "it may have changed unnoticed");
    composer.reload(build(&plan([("file", silo("taken"))])));
    live.share(composer.catalog());
    assert!(live.load().keep("file").is_some_and(|pin| pin.is_none()));
    assert!(live.load().keep(&inside).is_some());
    drop(pin);
}

#[tokio::test]
async fn who_is_in_use_stays_known_and_is_followed() {
    let live = Arc::new(Live::new(Catalog::default()));
    let lookups = Arc::new(Lookups::new(live.clone(), 2));
    let mut composer = Composer::with_lookups(build(&plan([])), Some(lookups));
    composer.apply(vec![row("used", 1, tenant(Isolation::Row))]);
    live.share(composer.catalog());
    // While all are kept, too: it may not stay so.
    let (_, pin) = composer.catalog().seek("used").await.unwrap().unwrap();
    assert!(pin.is_some());
    let others = (0..9).map(|at| row(&format!("t{at}"), 2, tenant(Isolation::Row)));
    composer.apply(others.collect());
    composer.stand_at(Some(2));
    live.share(composer.catalog());
    assert!(composer.is_partial() && composer.known().len() == 2);
    let disabled = TenantPlan { state: TenantState::Disabled, ..tenant(Isolation::Row) };
    let moved = composer.apply(vec![row("used", 1, disabled.clone()), row("t0", 2, disabled)]);
    assert_eq!(moved.iter().filter_map(Moved::id).collect::<Vec<_>>(), ["used"]);
    // At fault for a while, it comes back to whoever has it.
    let wrong = TenantPlan { tier: Some("none".to_owned()), ..tenant(Isolation::Row) };
    composer.apply(vec![row("used", 1, wrong)]);
    assert!(composer.catalog().known("used").is_none());
    composer.apply(vec![row("used", 1, tenant(Isolation::Row))]);
    assert!(composer.catalog().known("used").is_some());
    drop(pin);
    let keys = ["t1", "t2"].map(|id| Key::Tenant(id.to_owned()));
    let rows = ["t1", "t2"].map(|id| match row(id, 2, tenant(Isolation::Row)) {
        Change::Put(row) => row,
        Change::Gone(_) => unreachable!("it was put"),
    });
    let found = Found { rows: rows.into(), version: 2, ..Found::default() };
    assert_eq!(composer.admit(&keys, found), []);
    assert_eq!(composer.known(), ["t1", "t2"], "nobody has it any more");
}
