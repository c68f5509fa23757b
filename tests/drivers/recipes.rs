//! The recipes of `docs/applications.md`, run as they stand there: an application with one pool of
//! ten connections asks for the rows of many tenants at once, and gets each tenant's own.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::installed;
use super::matrix::entries::{JARS, go_sources, python};
use crate::harness::cluster::{shared, superuser};
use crate::harness::gate::Gate;
use crate::harness::services::Service;
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::unique;

/// How often a recipe is asked.
const REQUESTS: usize = 200;

/// How many tenants stand behind the four of the estate, for one recipe.
const CROWD: usize = 996;

/// The code of a recipe on the page.
fn recipe(name: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/applications.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once(&format!(" recipe={name}\n")).expect(name);
    rest.split_once("```").unwrap().0.to_owned()
}

/// Puts a recipe beside the program that drives it, and says how that is started.
fn prepare(name: &str, folder: &Path) -> Option<Command> {
    let drivers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/recipes");
    let put = |file: &str| fs::write(folder.join(file), recipe(name)).unwrap();
    let copy = |file: &str| {
        fs::copy(drivers.join(file), folder.join(file)).unwrap();
    };
    let succeeds = |command: &mut Command| {
        let output = command.stdin(Stdio::null()).output();
        let here = output.as_ref().is_ok_and(|output| output.status.success());
        if let (false, Ok(output)) = (here, &output) {
            println!("{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
        here
    };
    let mut run = match name {
        "psycopg_pool" | "sqlalchemy" | "django" => {
            put("recipe.py");
            copy("drive.py");
            succeeds(Command::new(python()).args(["-c", &format!("import {name}")]))
                .then_some(())?;
            let mut run = Command::new(python());
            run.arg("drive.py").env("PYTHONDONTWRITEBYTECODE", "1");
            run
        }
        "node_postgres" | "drizzle" | "knex" => {
            put("recipe.js");
            copy("drive.js");
            let module = match name {
                "node_postgres" => "pg",
                "drizzle" => "drizzle-orm",
                name => name,
            };
            let modules = installed("node_modules");
            let mut probe = Command::new("node");
            probe.args(["-e", &format!("require({module:?})")]).env("NODE_PATH", &modules);
            succeeds(&mut probe).then_some(())?;
            let mut run = Command::new("node");
            run.arg("drive.js").env("NODE_PATH", modules);
            run.env("TG_RECIPE", folder.join("recipe.js"));
            run
        }
        "hikari" => {
            put("Recipe.java");
            copy("Drive.java");
            let mut javac = Command::new("javac");
            javac.args(["-cp", JARS, "Recipe.java", "Drive.java"]).current_dir(folder);
            succeeds(&mut javac).then_some(())?;
            let mut run = Command::new("java");
            run.args(["-XX:TieredStopAtLevel=1", "-cp", &format!("{JARS}:."), "Drive"]);
            run
        }
        _ => {
            put("recipe.go");
            copy("drive.go");
            let mut go = Command::new("go");
            go.args(["build", "-o", "drive", "."]).current_dir(folder);
            succeeds(go_sources(&mut go)).then_some(())?;
            Command::new(folder.join("drive"))
        }
    };
    run.current_dir(folder);
    Some(run)
}

/// Makes row tenants, each with a note of its own; their tables in the settings.
async fn crowd(notes: &mut BTreeMap<String, Vec<String>>) -> String {
    let mark = unique();
    let app = superuser(shared().await, "app").await;
    let fill = format!(
        "INSERT INTO app.notes SELECT 'c{mark}_' || t, 1, 'note of c{mark}_' || t \
         FROM generate_series(1, {CROWD}) t"
    );
    app.batch_execute(&fill).await.unwrap();
    let mut settings = String::new();
    for number in 1..=CROWD {
        let id = format!("c{mark}_{number}");
        settings.push_str(&format!(
            "[tenants.{id}]\nisolation = \"row\"\ncluster = \"main\"\nrole = \"app_rw\"\n\
             schema = \"app\"\n"
        ));
        notes.insert(id.clone(), vec![format!("note of {id}")]);
    }
    settings
}

async fn plays(name: &str) {
    let folder = TempDir::new().unwrap();
    let Some(mut run) = prepare(name, folder.path()) else {
        // The test's own output is shown only on failure; this must be seen.
        let _ = writeln!(std::io::stderr(), "SKIPPED recipe {name}: make drivers installs it");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "recipe {name} is missing");
        return;
    };
    let cluster = shared().await;
    let (estate, service) =
        (Estate::within(cluster).await, Service::new(cluster, "acts_for = \"*\"").await);
    let mut notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for tenant in [&estate.acme, &estate.globex, &estate.umbrella, &estate.stark] {
        let bodies = tenant.notes.iter().map(|(_, body)| body.clone());
        notes.insert(tenant.id.clone(), bodies.collect());
    }
    let mut more = service.table.clone();
    if name == "psycopg_pool" {
        more.push_str(&crowd(&mut notes).await);
    }
    let settings = estate.settings(&Tweaks { more: &more, ..Tweaks::default() });
    let gate = Gate::start(&settings).await;
    let tenants: Vec<&String> = notes.keys().collect();
    let mut random = fastrand::Rng::with_seed(31);
    let requests: Vec<&str> =
        (0..REQUESTS).map(|_| tenants[random.usize(..tenants.len())].as_str()).collect();
    let (port, token) = (gate.port, &service.token);
    run.env("TG_REQUESTS", serde_json::to_string(&requests).unwrap())
        .env(
            "DATABASE_URL",
            format!("postgresql://app:{token}@127.0.0.1:{port}/app?sslmode=disable"),
        )
        .env("JDBC_URL", format!("jdbc:postgresql://127.0.0.1:{port}/app?user=app&sslmode=disable"))
        .env("TOKEN", token)
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || run.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let mut answers = BTreeMap::new();
    for line in said.lines() {
        let (tenant, bodies): (String, Vec<String>) = serde_json::from_str(line).unwrap();
        assert_eq!(bodies, notes[&tenant], "{name} got rows that are not those of {tenant}");
        *answers.entry(tenant).or_insert(0) += 1;
    }
    assert_eq!(answers.values().sum::<usize>(), REQUESTS, "{answers:?}");
}

#[tokio::test]
async fn the_recipe_for_psycopg_pool_works() {
    plays("psycopg_pool").await;
}

#[tokio::test]
async fn the_recipe_for_sqlalchemy_works() {
    plays("sqlalchemy").await;
}

#[tokio::test]
async fn the_recipe_for_django_works() {
    plays("django").await;
}

#[tokio::test]
async fn the_recipe_for_node_postgres_works() {
    plays("node_postgres").await;
}

#[tokio::test]
async fn the_recipe_for_drizzle_works() {
    plays("drizzle").await;
}

#[tokio::test]
async fn the_recipe_for_knex_works() {
    plays("knex").await;
}

#[tokio::test]
async fn the_recipe_for_hikari_works() {
    plays("hikari").await;
}

#[tokio::test]
async fn the_recipe_for_pgx_works() {
    plays("pgx").await;
}
