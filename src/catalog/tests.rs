//! Catalogs built from plans: what is refused, and what changes from one to the next.

use std::time::Duration;

use super::*;
use crate::isolation::Isolation;

const LOGIN: &str = "host=127.0.0.1 user=tg dbname=app";

pub(crate) fn cluster(capacity: usize, connection_string: Option<&str>) -> ClusterPlan {
    ClusterPlan {
        cluster: Cluster::new("main".to_owned(), capacity),
        connection_string: connection_string.map(str::to_owned),
        tenant_setting: TENANT_SETTING_DEFAULT.to_owned(),
        names: NamesPlan::default(),
        roles: BTreeMap::new(),
        default_role: None,
        read_only_role: None,
    }
}

pub(crate) fn tenant(isolation: Isolation) -> TenantPlan {
    TenantPlan {
        schema: (isolation == Isolation::Schema).then(|| "s".to_owned()),
        ..TenantPlan::new(isolation, "main".to_owned())
    }
}

pub(crate) fn token(line: &str) -> TokenPlan {
    TokenPlan { line: line.to_owned(), ..TokenPlan::default() }
}

fn at(isolation: Isolation, connection_string: &str) -> TenantPlan {
    TenantPlan { connection_string: Some(connection_string.to_owned()), ..tenant(isolation) }
}

pub(crate) fn plan<const N: usize>(tenants: [(&str, TenantPlan); N]) -> CatalogPlan {
    CatalogPlan {
        has_table: false,
        clusters: [("main".to_owned(), cluster(5, Some(LOGIN)))].into(),
        tenants: tenants.map(|(id, tenant)| (id.to_owned(), tenant)).into(),
        ..CatalogPlan::default()
    }
}

pub(crate) fn build(plan: &CatalogPlan) -> Catalog {
    Catalog::build(plan).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

/// The only fault's place, key and message.
fn fault(plan: &CatalogPlan) -> (Place, Option<&'static str>, String) {
    let faults = Catalog::build(plan).err().unwrap_or_default();
    assert_eq!(faults.len(), 1, "{faults:#?}");
    let fault = faults.into_iter().next().unwrap();
    (fault.place, fault.key, fault.message)
}

fn find(catalog: &Catalog, id: &str) -> Option<Arc<Tenant>> {
    catalog.known(id).cloned()
}

#[test]
fn a_tenant_is_found_by_its_exact_id() {
    let catalog = build(&plan([("acme", tenant(Isolation::Row))]));
    assert_eq!(find(&catalog, "acme").unwrap().context.value("app.tenant_id"), Some("acme"));
    assert!(find(&catalog, "Acme").is_none() && find(&catalog, "").is_none());
    assert_eq!(catalog.version(), 1);
    assert_eq!(Catalog::default().tenants().len(), 0);
}

#[test]
fn a_tenants_limits_lie_over_its_tiers() {
    let mut plan = plan([("acme", tenant(Isolation::Row)), ("beta", tenant(Isolation::Row))]);
    let tier = LimitsPlan {
        clients: Some(3),
        queries_per_second: Some(10),
        budget_wait: Some(Duration::from_secs(1)),
        ..LimitsPlan::default()
    };
    plan.tiers.insert("default".to_owned(), tier.clone());
    plan.tiers.insert("pro".to_owned(), LimitsPlan { clients: Some(9), ..tier });
    let acme = plan.tenants.get_mut("acme").unwrap();
    acme.tier = Some("pro".to_owned());
    acme.limits.queries_burst = Some(50);
    acme.limits.budget_wait = Some(Duration::ZERO);
    let catalog = build(&plan);
    let (acme, beta) = (find(&catalog, "acme").unwrap(), find(&catalog, "beta").unwrap());
    assert_eq!((acme.limits.clients, acme.limits.queries_per_second), (Some(9), Some(10)));
    assert_eq!((acme.limits.queries_burst, acme.limits.budget_wait), (Some(50), Duration::ZERO));
    assert_eq!((beta.limits.clients, beta.tier.as_str()), (Some(3), "default"));
    assert_eq!(beta.limits.budget_wait, Duration::from_secs(1));
}

#[test]
fn only_what_changed_gets_a_new_version() {
    let line = new_token().unwrap().line;
    let mut words = plan([("acme", tenant(Isolation::Row)), ("beta", tenant(Isolation::Row))]);
    let first = build(&words);
    words.tenants.get_mut("beta").unwrap().state = TenantState::Disabled;
    words.tenants.get_mut("acme").unwrap().tokens.push(token(&line));
    words.tenants.insert("gamma".to_owned(), tenant(Isolation::Row));
    let second = build(&words).next(&first);
    assert_eq!(second.version(), 2);
    let same = |id: &str| Arc::ptr_eq(&find(&first, id).unwrap(), &find(&second, id).unwrap());
    assert!(same("acme") && !same("beta"));
    assert_eq!(find(&second, "beta").unwrap().version, 2);
    assert_eq!(find(&second, "gamma").unwrap().version, 2);
    let third = build(&words).next(&second);
    assert_eq!(find(&third, "beta").unwrap().version, 2, "nothing changed");
    words.clusters.insert("main".to_owned(), cluster(6, Some(LOGIN)));
    let fourth = build(&words).next(&third);
    assert_eq!(find(&fourth, "acme").unwrap().version, 4, "its cluster changed");
    let context = |catalog: &Catalog| find(catalog, "acme").unwrap().context.clone();
    assert!(Arc::ptr_eq(&context(&third), &context(&fourth)), "servers bound to it still are");
    words.tenants.get_mut("acme").unwrap().schema = Some("other".to_owned());
    let fifth = build(&words).next(&fourth);
    assert!(!Arc::ptr_eq(&context(&fourth), &context(&fifth)), "it binds something else now");
}

#[test]
fn names_that_could_be_mistaken_are_refused() {
    let refused = |id: &str| fault(&plan([(id, tenant(Isolation::Row))])).2;
    assert!(refused("a b").contains("not a tenant id"));
    assert!(refused(&"x".repeat(64)).contains("not a tenant id"));
    assert!(refused("TenantGate").contains("console"));
    let twins = plan([("Acme", tenant(Isolation::Row)), ("acme", tenant(Isolation::Row))]);
    assert!(fault(&twins).2.contains("only in case"));
    let role = |role: &str| {
        let role = Some(role.to_owned());
        fault(&plan([("acme", TenantPlan { role, ..tenant(Isolation::Row) })]))
    };
    for name in ["none", "NONE", "pg_read_all_data", "", &"r".repeat(64)] {
        assert_eq!(role(name).1, Some("role"), "{name}");
    }
    let schema = |schema: &str| {
        let schema = Some(schema.to_owned());
        fault(&plan([("acme", TenantPlan { schema, ..tenant(Isolation::Schema) })]))
    };
    for name in ["$user", "pg_catalog", "pg_temp", "information_schema", ""] {
        assert_eq!(schema(name).1, Some("schema"), "{name}");
    }
    let bare = TenantPlan { schema: None, ..tenant(Isolation::Schema) };
    assert!(fault(&plan([("acme", bare)])).2.contains("needs a schema"));
}

#[test]
fn what_a_tenant_names_must_exist() {
    let lost = TenantPlan { cluster: "mian".to_owned(), ..tenant(Isolation::Row) };
    assert_eq!(fault(&plan([("acme", lost)])).1, Some("cluster"));
    let lost = TenantPlan { tier: Some("free".to_owned()), ..tenant(Isolation::Row) };
    assert_eq!(fault(&plan([("acme", lost)])).1, Some("tier"));
    let mut bare = plan([("acme", tenant(Isolation::Row))]);
    bare.clusters.insert("main".to_owned(), cluster(5, None));
    assert!(fault(&bare).2.contains("neither the tenant nor its cluster"));
    let daring = TenantPlan { allow_superuser: true, ..tenant(Isolation::Row) };
    assert_eq!(fault(&plan([("acme", daring)])).1, Some("allow_superuser"));
    let daring = TenantPlan { allow_superuser: true, ..tenant(Isolation::Silo) };
    let catalog = build(&plan([("acme", daring)]));
    assert!(find(&catalog, "acme").unwrap().route.allow_superuser);
}

#[test]
fn a_token_belongs_to_one_tenant() {
    let line = new_token().unwrap().line;
    let with = |tokens: &[&String]| TenantPlan {
        tokens: tokens.iter().map(|line| token(line)).collect(),
        ..tenant(Isolation::Row)
    };
    let catalog = build(&plan([("acme", with(&[&line]))]));
    let id = line.split(':').next().unwrap();
    assert_eq!(catalog.token(id).unwrap().tenant.as_str(), "acme");
    let twice = plan([("acme", with(&[&line])), ("beta", with(&[&line]))]);
    let (place, key, message) = fault(&twice);
    assert_eq!((place, key), (Place::Tenant("beta".to_owned()), Some("tokens")));
    assert!(message.contains("\"acme\" too"));
    assert!(fault(&plan([("acme", with(&[&"x".to_owned()]))])).2.contains("not a token's line"));
}

#[test]
fn a_schema_tenant_needs_a_login_of_its_own() {
    let sharing = plan([("acme", tenant(Isolation::Row)), ("beta", tenant(Isolation::Schema))]);
    let (place, _, message) = fault(&sharing);
    assert_eq!(place, Place::Tenant("acme".to_owned()));
    assert!(message.contains("schema tenant \"beta\""), "{message}");
    let elsewhere = at(Isolation::Silo, "host=127.0.0.1 user=tg dbname=other");
    assert_eq!(
        fault(&plan([("acme", elsewhere), ("beta", tenant(Isolation::Schema))])).1,
        Some("connection_string")
    );
    let own = at(Isolation::Schema, "host=127.0.0.1 user=beta dbname=app");
    build(&plan([("acme", tenant(Isolation::Row)), ("beta", own.clone())]));
    let third = at(Isolation::Schema, "host=127.0.0.1 user=gamma dbname=app");
    assert_eq!(fault(&plan([("beta", own), ("gamma", third)])).1, Some("schema"));
}

#[test]
fn a_silo_has_its_database_to_itself() {
    let silo = at(Isolation::Silo, "host=127.0.0.1 user=silo dbname=app");
    let (place, _, message) = fault(&plan([("acme", tenant(Isolation::Row)), ("zeta", silo)]));
    assert_eq!(place, Place::Tenant("acme".to_owned()));
    assert!(message.contains("silo tenant \"zeta\""), "{message}");
    let own = at(Isolation::Silo, "host=127.0.0.1 user=silo dbname=silo");
    build(&plan([("acme", tenant(Isolation::Row)), ("zeta", own)]));
}

#[test]
fn one_instance_is_one_cluster() {
    let mut twice = plan([("acme", tenant(Isolation::Row))]);
    let other = ClusterPlan {
        cluster: Cluster::new("other".to_owned(), 5),
        ..cluster(5, Some("host=localhost user=tg dbname=else"))
    };
    twice.clusters.insert("other".to_owned(), other.clone());
    assert_eq!(fault(&twice).0, Place::Cluster("other".to_owned()));
    let far = ClusterPlan { connection_string: Some("host=db user=tg".to_owned()), ..other };
    twice.clusters.insert("other".to_owned(), far);
    build(&twice);
    let astray = at(Isolation::Silo, "host=DB user=x dbname=y");
    twice.tenants.insert("beta".to_owned(), astray);
    assert_eq!(fault(&twice).0, Place::Tenant("beta".to_owned()));
}

#[test]
fn row_tenants_of_one_database_share_a_login_or_have_roles() {
    let with_role = |login: &str, role: Option<&str>| TenantPlan {
        role: role.map(str::to_owned),
        ..at(Isolation::Row, &format!("host=127.0.0.1 user={login} dbname=app"))
    };
    let two = |role| plan([("acme", with_role("a", Some("r"))), ("beta", with_role("b", role))]);
    build(&two(Some("r")));
    assert_eq!(fault(&two(None)).0, Place::Tenant("beta".to_owned()));
    build(&plan([("acme", with_role("a", None)), ("beta", with_role("a", Some("r")))]));
    let roles = [("acme", with_role("a", Some("q"))), ("beta", with_role("a", Some("r")))];
    assert_eq!(fault(&plan(roles)).1, Some("role"));
}

#[test]
fn numbers_nobody_could_live_with_are_refused() {
    let limits = LimitsPlan { queries_burst: Some(5), ..LimitsPlan::default() };
    let bursting = plan([("acme", TenantPlan { limits, ..tenant(Isolation::Row) })]);
    assert_eq!(fault(&bursting).1, Some("queries_burst"));
    let limits = LimitsPlan { query_time: Some(Duration::ZERO), ..LimitsPlan::default() };
    let mut zero = plan([]);
    zero.tiers.insert("free".to_owned(), limits);
    assert_eq!(
        fault(&zero),
        (Place::Tier("free".to_owned()), Some("query_time"), "query_time is zero".to_owned())
    );
    for capacity in [0, 300_000] {
        let mut wrong = plan([]);
        wrong.clusters.insert("main".to_owned(), cluster(capacity, None));
        assert_eq!(fault(&wrong).1, Some("capacity"));
    }
    for setting in ["tenant", "app.", "1app.x", "app.a b", "tenantgate.tenant", "app.x'"] {
        let mut wrong = plan([]);
        let words = ClusterPlan { tenant_setting: setting.to_owned(), ..cluster(1, None) };
        wrong.clusters.insert("main".to_owned(), words);
        assert_eq!(fault(&wrong).1, Some("tenant_setting"), "{setting}");
    }
}

#[test]
fn more_servers_than_a_cluster_has_are_promised_to_nobody() {
    let minimum =
        |servers_min| LimitsPlan { servers_min: Some(servers_min), ..LimitsPlan::default() };
    let of_tier = |own: LimitsPlan| TenantPlan {
        tier: Some("gold".to_owned()),
        limits: own,
        ..tenant(Isolation::Row)
    };
    let message = "servers_min is 6, and the capacity of cluster \"main\" is 5".to_owned();
    let mut words = plan([("acme", TenantPlan { limits: minimum(6), ..tenant(Isolation::Row) })]);
    let own = Place::TenantLimits("acme".to_owned());
    assert_eq!(fault(&words), (own, Some("servers_min"), message.clone()));
    words = plan([("acme", of_tier(LimitsPlan::default())), ("globex", of_tier(minimum(5)))]);
    words.tenants.insert("umbrella".to_owned(), of_tier(LimitsPlan::default()));
    words.tiers.insert("gold".to_owned(), minimum(6));
    let tier = Place::Tier("gold".to_owned());
    assert_eq!(fault(&words), (tier, Some("servers_min"), message), "once for all of its tenants");
    words.clusters.insert("main".to_owned(), cluster(6, Some(LOGIN)));
    build(&words);
}

#[test]
fn a_spread_is_held_to_its_clusters() {
    let spread = |name: &str, clusters: &[&str]| {
        let clusters = clusters.iter().map(|it| (*it).to_owned()).collect();
        let spreads = [(name.to_owned(), clusters)].into();
        CatalogPlan { spreads, ..plan([]) }
    };
    build(&spread("eu", &["main"]));
    let place = || Place::Spread("eu".to_owned());
    let told = |plan: &CatalogPlan| {
        let (place, key, message) = fault(plan);
        (place, key.unwrap_or_default(), message)
    };
    let twice = "cluster \"main\" stands here twice".to_owned();
    assert_eq!(told(&spread("eu", &["main", "main"])), (place(), "clusters", twice));
    let none = "there is no cluster \"maim\"".to_owned();
    assert_eq!(told(&spread("eu", &["maim"])), (place(), "clusters", none));
    assert_eq!(told(&spread("eu", &[])).2, "a spread without clusters");
    assert_eq!(told(&spread("main", &["main"])).2, "a cluster is named \"main\", too");
    assert_eq!(told(&spread("e u", &["main"])).2, "\"e u\" is not a name");

    let on = |spread: &str, plan: TenantPlan| TenantPlan { cluster: spread.to_owned(), ..plan };
    let with = |tenant: TenantPlan| CatalogPlan {
        tenants: [("acme".to_owned(), tenant)].into(),
        ..spread("eu", &["main"])
    };
    let catalog = build(&with(on("eu", tenant(Isolation::Row))));
    assert_eq!(find(&catalog, "acme").unwrap().route.cluster.name, "main");
    // Where it lives is the spread's to say, for its roles as well.
    let own = told(&with(on("eu", at(Isolation::Silo, LOGIN))));
    assert_eq!((own.0, own.1), (Place::Tenant("acme".to_owned()), "connection_string"));
    let role = RolePlan { connection_string: Some(LOGIN.to_owned()), ..RolePlan::default() };
    let roles = [("editor".to_owned(), role)].into();
    let words = TenantPlan { roles, ..on("eu", tenant(Isolation::Row)) };
    assert!(Catalog::build(&with(words)).is_err());
    assert!(told(&with(on("eo", tenant(Isolation::Row)))).2.contains("\"eo\""));
}

pub(crate) fn row(id: &str, rank: i64, plan: TenantPlan) -> Change {
    Change::Put(Row { id: id.to_owned(), rank, plan: Ok(Box::new(plan)), faults: Vec::new() })
}

/// As the tables' reader would: a silo of its own on the cluster's instance.
pub(crate) fn silo(dbname: &str) -> TenantPlan {
    at(Isolation::Silo, &format!("host=127.0.0.1 user=x dbname={dbname}"))
}

/// Ids in force, and ids at fault.
pub(super) fn standing(composer: &Composer) -> (Vec<String>, Vec<String>) {
    let catalog = composer.catalog();
    let ids = catalog.tenants().map(|tenant| tenant.id.to_string()).collect();
    (ids, catalog.faults().map(|(id, _)| id.to_owned()).collect())
}

#[test]
fn one_changed_row_leaves_all_other_tenants_the_very_same() {
    let mut composer = Composer::new(build(&plan([("file", tenant(Isolation::Row))])));
    let rows = (0..100).map(|at| row(&format!("t{at}"), at, tenant(Isolation::Row)));
    assert_eq!(composer.apply(rows.collect()).len(), 100);
    let before = composer.catalog();
    let changed = TenantPlan { state: TenantState::Disabled, ..tenant(Isolation::Row) };
    let moved = composer.apply(vec![row("t7", 7, changed.clone()), row("file", 1, changed)]);
    assert_eq!(moved.iter().filter_map(Moved::id).collect::<Vec<_>>(), ["t7"]);
    let after = composer.catalog();
    assert_eq!(after.version(), before.version() + 1);
    let others = before.tenants().filter(|tenant| tenant.id.as_str() != "t7");
    for tenant in others {
        assert!(Arc::ptr_eq(tenant, after.known(tenant.id.as_str()).unwrap()), "{}", tenant.id);
    }
    assert_eq!(after.known("t7").unwrap().version, after.version());
    let context = |catalog: &Catalog| catalog.known("t7").unwrap().context.clone();
    assert!(Arc::ptr_eq(&context(&before), &context(&after)), "its servers stay bound");
    assert_eq!(standing(&composer).1, ["file"], "the file's is in force");
}

#[test]
fn of_rows_that_cannot_be_side_by_side_the_later_waits_for_the_earlier_to_go() {
    let mut composer = Composer::new(build(&plan([("file", silo("taken"))])));
    let rows = vec![row("b", 2, silo("one")), row("a", 3, silo("one")), row("c", 1, silo("taken"))];
    composer.apply(rows);
    let told = |composer: &Composer| {
        let (there, at_fault) = standing(composer);
        (there.join(" "), at_fault.join(" "))
    };
    let is = |there: &str, at_fault: &str| (there.to_owned(), at_fault.to_owned());
    assert_eq!(told(&composer), is("b file", "a c"));
    // It moves away and comes back: now it is the later one.
    composer.apply(vec![row("b", 4, silo("two"))]);
    assert_eq!(told(&composer), is("a b file", "c"));
    composer.apply(vec![row("b", 5, silo("one"))]);
    assert_eq!(told(&composer), is("a file", "b c"));
    // Two swap in one change.
    composer.apply(vec![row("b", 6, silo("two"))]);
    composer.apply(vec![row("a", 7, silo("two")), row("b", 7, silo("one"))]);
    assert_eq!(told(&composer), is("a b file", "c"));
    // The file lets go of its own.
    composer.reload(build(&plan([])));
    assert_eq!(told(&composer), is("a b c", ""));
    composer.apply(vec![Change::Gone("a".to_owned()), Change::Gone("b".to_owned())]);
    assert_eq!(told(&composer), is("c", ""));
}

#[test]
fn any_order_of_changes_holds_what_the_whole_file_would_be_held_to() {
    let mut random = fastrand::Rng::with_seed(5);
    let kinds = [Isolation::Row, Isolation::Schema, Isolation::Silo];
    for _ in 0..60 {
        let mut composer = Composer::new(build(&plan([("file", silo("taken"))])));
        let mut words: BTreeMap<String, TenantPlan> = BTreeMap::new();
        let mut ranks: BTreeMap<String, i64> = BTreeMap::new();
        for next in 0..60 {
            let id = ["a", "B", "b", "c", "d", "e"][random.usize(..6)];
            if random.usize(..4) == 0 {
                words.remove(id);
                composer.apply(vec![Change::Gone(id.to_owned())]);
            } else {
                let (login, dbname) =
                    (["x", "y"][random.usize(..2)], ["m", "n"][random.usize(..2)]);
                let place = format!("host=127.0.0.1 user={login} dbname={dbname}");
                let role = [None, Some("r"), Some("s")][random.usize(..3)].map(str::to_owned);
                let plan = TenantPlan { role, ..at(kinds[random.usize(..3)], &place) };
                // A fault of its own, which it may lose without losing its place.
                let tier = (random.usize(..4) == 0).then(|| "nobody's".to_owned());
                let former = words.get(id).filter(|_| random.bool()).cloned();
                let moves = former.is_none() || !ranks.contains_key(id);
                let plan = TenantPlan { tier, ..former.unwrap_or(plan) };
                let rank = if moves { next } else { ranks[id] };
                words.insert(id.to_owned(), plan.clone());
                ranks.insert(id.to_owned(), rank);
                composer.apply(vec![row(id, rank, plan)]);
            }
            // Whoever starts now comes to the same.
            let mut fresh = Composer::new(build(&plan([("file", silo("taken"))])));
            let all = words.iter().map(|(id, plan)| row(id, ranks[id], plan.clone()));
            fresh.apply(all.collect());
            assert_eq!(standing(&composer), standing(&fresh));
            // Those in force make a file without a fault.
            let catalog = composer.catalog();
            let mut whole = plan([("file", silo("taken"))]);
            let there = words.iter().filter(|(id, _)| catalog.known(id).is_some());
            whole.tenants.extend(there.map(|(id, plan)| (id.clone(), plan.clone())));
            build(&whole);
            // The others are told why.
            for id in words.keys().filter(|id| catalog.known(id).is_none()) {
                assert!(!catalog.faults_of(id).is_empty(), "{id}");
            }
        }
    }
}

#[test]
fn of_a_part_of_the_rows_is_said_what_all_of_them_together_would_say() {
    let mut random = fastrand::Rng::with_seed(7);
    let kinds = [Isolation::Row, Isolation::Schema, Isolation::Silo];
    let ids = ["a", "B", "b", "c", "d", "e", "file"];
    for _ in 0..12 {
        let file = || build(&plan([("file", silo("taken"))]));
        let live = Arc::new(Live::new(Catalog::default()));
        let lookups = Arc::new(Lookups::new(live.clone(), 2));
        let mut whole = Composer::new(file());
        let mut part = Composer::with_lookups(file(), Some(lookups));
        let mut words: BTreeMap<&str, Row> = BTreeMap::new();
        for version in 1..60 {
            let id = ids[random.usize(..ids.len())];
            let user = ["x", "y"][random.usize(..2)];
            let place = format!("host=127.0.0.1 user={user} dbname={}", random.u8(b'm'..b'p'));
            let role = [None, Some("r"), Some("s")][random.usize(..3)].map(str::to_owned);
            let tier = (random.usize(..4) == 0).then(|| "nobody's".to_owned());
            let wanted = TenantPlan { role, tier, ..at(kinds[random.usize(..3)], &place) };
            let change = match random.usize(..4) {
                0 => Change::Gone(id.to_owned()),
                1 if words.contains_key(id) => row(id, words[id].rank, wanted),
                _ => row(id, version, wanted),
            };
            match &change {
                Change::Put(row) => drop(words.insert(id, row.clone())),
                Change::Gone(_) => drop(words.remove(id)),
            }
            whole.apply(vec![change.clone()]);
            if random.usize(..8) == 0 {
                // All are read: another server, or too many changes.
                let mut survey = part.survey();
                let mut order: Vec<Row> = words.values().cloned().collect();
                order.sort_by(|one, two| (one.rank, &one.id).cmp(&(two.rank, &two.id)));
                survey.add(&order);
                let known = part.known();
                let known = known.iter().filter_map(|id| words.get(id.as_str()).cloned());
                assert!(part.take_survey(survey, known.collect(), version).is_some());
            } else {
                part.apply(vec![change]);
                part.stand_at(Some(version));
            }
            live.share(part.catalog());
            for id in ids {
                assert_eq!(whole.standing(id), part.standing(id), "{id}");
                let (all, some) = (whole.catalog(), part.catalog());
                let same = |one: &Arc<Tenant>| all.known(id).is_some_and(|it| it.same_facts(one));
                assert!(some.known(id).is_none_or(same), "{id}");
            }
            if !part.is_partial() {
                continue;
            }
            let id = ids[random.usize(..ids.len())];
            let keys = [Key::Tenant(id.to_owned())];
            let found = |version, changed| {
                let rows: Vec<Row> = words.get(id).cloned().into_iter().collect();
                let changed = rows.iter().map(|row| (row.id.clone(), changed)).collect();
                Found { rows, version, changed, ..Found::default() }
            };
            assert_eq!(part.admit(&keys, found(version - 1, 0)), keys, "a state before this one");
            if words.contains_key(id) && part.catalog().known(id).is_none() {
                let behind = found(version + 1, version + 1);
                assert_eq!(part.admit(&keys, behind), keys, "it is another in that state");
                assert!(part.catalog().known(id).is_none(), "{id}");
            }
            // In a later state it may still be the same.
            let later = random.i64(0..3);
            assert_eq!(part.admit(&keys, found(version + later, version)), []);
            let known = |composer: &Composer| composer.catalog().known(id).is_some();
            assert_eq!(known(&part), known(&whole), "{id}");
            assert!(part.known().len() <= 2);
        }
    }
}

#[test]
fn tokens_of_rows_come_and_go_with_them() {
    let (one, two) = (new_token().unwrap().line, new_token().unwrap().line);
    let with = |lines: &[&String]| TenantPlan {
        tokens: lines.iter().map(|line| token(line)).collect(),
        ..tenant(Isolation::Row)
    };
    let mut composer = Composer::new(build(&plan([("file", with(&[&one]))])));
    let of = |composer: &Composer, line: &str| {
        let catalog = composer.catalog();
        catalog.token(line.split(':').next().unwrap()).map(|record| record.tenant.to_string())
    };
    composer.apply(vec![row("a", 1, with(&[&one, &two]))]);
    assert_eq!(of(&composer, &one).as_deref(), Some("file"), "the file's stays the file's");
    assert_eq!(of(&composer, &two).as_deref(), Some("a"));
    assert_eq!(standing(&composer).1, ["a"], "it is told, and in force");
    let moved = composer.apply(vec![row("a", 1, with(&[]))]);
    assert_eq!(moved.len(), 1, "its sessions must be looked at, though its facts are the same");
    assert_eq!(of(&composer, &two), None);
    assert_eq!(of(&composer, &one).as_deref(), Some("file"));
}
