//! Every script of the corpus, directly and through gates: one whose only server is taken away
//! between any two requests, one with servers to spare, and one that prepares unnamed statements.
//! All that is said must be equal. `PARITY=words` plays only scripts that have these words in room
//! and name, and these in every way; without it the two gates whose servers nobody takes get each
//! script with one isolation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::Mutex;

use crate::harness::gate::Gate;
use crate::parity::player::{Side, Transcript, play};
use crate::parity::script::{Script, corpus};
use crate::parity::stage::{ISOLATIONS, Stage};
use crate::parity::thieves::Thieves;

/// The most differences that may be meant.
const ENTRIES_MAX: usize = 9;

/// A difference that is meant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    pub what: String,
    pub reason: String,
    /// One of these is in the gate's first other line.
    pub gate: Vec<String>,
    /// As `room: name`.
    pub scripts: BTreeSet<String>,
    /// Those of them that may be equal as well: it depends on which server they get.
    #[serde(default)]
    pub sometimes: BTreeSet<String>,
}

/// Scripts that wait for somebody's work.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    pub whom: String,
    pub scripts: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lists {
    pub expected: Vec<Expected>,
    pub pending: Vec<Pending>,
}

/// `tests/protocol/corpus/differences.toml`.
pub fn lists() -> Lists {
    let path = "tests/protocol/corpus/differences.toml";
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    toml::from_str(&text).unwrap()
}

/// A gate that is compared, and who takes its servers.
struct Rival {
    mode: &'static str,
    servers: usize,
    gate: Gate,
    thieves: Option<Arc<Mutex<Thieves>>>,
}

const PREPARING: &str = "preparing";

/// What came out for one script, by isolation and mode.
#[derive(Default)]
struct Verdict {
    runs: usize,
    /// What differs, ready to be printed, and the gate's first other line.
    differences: Vec<(String, String)>,
}

fn title(script: &Script) -> String {
    format!("{}: {}", script.room, script.name)
}

/// Plays in a task of its own, so that silence is one script's failure.
async fn told(side: &Side, script: &Script, thieves: Option<&Arc<Mutex<Thieves>>>) -> Transcript {
    let (with, own, thieves) = (side.clone(), script.clone(), thieves.cloned());
    let playing = tokio::spawn(async move {
        match thieves {
            Some(thieves) => play(&with, &own, Some(&mut *thieves.lock().await)).await,
            None => play(&with, &own, None).await,
        }
    });
    playing.await.unwrap_or_else(|silence| {
        let lines = vec![format!("  not played to its end, {} {silence}", side.port)];
        Transcript { lines, errors: Vec::new(), ended: false }
    })
}

/// The first other line with those before it, and the gate's.
fn difference(direct: &[String], gated: &[String]) -> Option<(String, String)> {
    let longest = direct.len().max(gated.len());
    let at = (0..longest).find(|at| direct.get(*at) != gated.get(*at))?;
    let line = |lines: &[String], at: usize| lines.get(at).map_or("(nothing)", |it| it).to_owned();
    let mut shown = String::new();
    for before in direct.iter().take(at).skip(at.saturating_sub(6)) {
        writeln!(shown, "      {before}").unwrap();
    }
    for later in at..longest.min(at + 4) {
        writeln!(shown, "    - {}", line(direct, later)).unwrap();
        writeln!(shown, "    + {}", line(gated, later)).unwrap();
    }
    Some((shown, line(gated, at)))
}

/// Whether it may leave anything behind in the database.
fn is_dirty(script: &Script) -> bool {
    const WORDS: [&str; 11] = [
        "create", "insert", "update", "delete", "drop", "alter", "copy", "truncate", "lo_", "into",
        "merge",
    ];
    let lines = script.steps.iter().map(|step| step.line.to_lowercase());
    lines.into_iter().any(|line| WORDS.iter().any(|word| line.contains(word)))
}

impl Rival {
    /// One whose servers are all taken away between any two requests.
    async fn stolen(stage: &Stage, isolation: &str, servers: usize) -> Self {
        // A cluster never gives all its servers to those that keep them.
        let capacity = if servers == 1 { 1 } else { servers + 1 };
        // Nobody else takes any: a script says where its session needs the server it has.
        let gate = stage.gate(capacity, "linger = \"1h\"", "").await;
        let thieves = Thieves::new(&stage.thief(isolation, &gate), capacity).await;
        Self { mode: "stolen", servers, gate, thieves: Some(Arc::new(Mutex::new(thieves))) }
    }

    /// One with servers to spare.
    async fn kept(stage: &Stage) -> Self {
        Self { mode: "kept", servers: 8, gate: stage.gate(8, "", "").await, thieves: None }
    }

    /// One with servers to spare that prepares unnamed statements at once.
    async fn preparing(stage: &Stage) -> Self {
        let gate = stage.gate(8, "linger = \"1h\"", "prepare_threshold = 1").await;
        Self { mode: PREPARING, servers: 8, gate, thieves: None }
    }

    /// Plays, and starts anew if it did not come to an end.
    async fn told(&mut self, stage: &Stage, isolation: &str, script: &Script) -> Transcript {
        let side = stage.gated(isolation, &self.gate);
        let said = told(&side, script, self.thieves.as_ref()).await;
        if !said.ended {
            *self = match self.thieves {
                Some(_) => Self::stolen(stage, isolation, self.servers).await,
                None if self.mode == PREPARING => Self::preparing(stage).await,
                None => Self::kept(stage).await,
            };
        }
        said
    }
}

/// Plays all scripts with a tenant of one isolation.
async fn compare(stage: &Stage, isolation: &str, verdicts: &mut BTreeMap<String, Verdict>) {
    let mut rivals = vec![
        Rival::stolen(stage, isolation, 1).await,
        Rival::stolen(stage, isolation, 2).await,
        Rival::kept(stage).await,
        Rival::preparing(stage).await,
    ];
    let direct = stage.direct(isolation);
    let whole = std::env::var_os("PARITY").is_some();
    let mut dirty = true;
    for script in chosen().iter().filter(|it| it.on.iter().any(|on| on == isolation)) {
        let verdict = verdicts.entry(title(script)).or_default();
        let fresh = async |dirty: bool| {
            if dirty {
                stage.refresh(isolation).await;
            }
        };
        fresh(dirty).await;
        dirty = is_dirty(script);
        let wanted = told(&direct, script, None).await;
        if wanted.errors != script.errors {
            let (is, lines) = (wanted.errors.join(" "), wanted.lines.join("\n      "));
            let shown = format!("  direct, {isolation}: errors: {is}\n      {lines}\n");
            verdict.differences.push((shown, String::new()));
        }
        for rival in &mut rivals {
            let asked = match rival.thieves {
                Some(_) => rival.servers == script.servers,
                None => whole || script.on.first().is_some_and(|first| first == isolation),
            };
            if !asked {
                continue;
            }
            fresh(dirty).await;
            let said = rival.told(stage, isolation, script).await;
            verdict.runs += 1;
            if let Some((shown, line)) = difference(&wanted.lines, &said.lines) {
                let heading = format!("  {}, {isolation}:\n", rival.mode);
                verdict.differences.push((heading + &shown, line));
            }
        }
    }
}

fn chosen() -> Vec<Script> {
    let words = std::env::var("PARITY").unwrap_or_default();
    corpus().into_iter().filter(|it| title(it).contains(&words)).collect()
}

/// A room's row of the table.
#[derive(Default)]
struct Row {
    scripts: usize,
    runs: usize,
    equal: usize,
    listed: usize,
    pending: usize,
    wrong: usize,
}

/// The table, and what is wrong.
fn judged(verdicts: &BTreeMap<String, Verdict>, lists: &Lists) -> (String, Vec<String>) {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut told = String::new();
    for (title, Verdict { runs, differences }) in verdicts {
        let row = rows.entry(title.split(':').next().unwrap()).or_default();
        row.scripts += 1;
        row.runs += runs;
        let expected = lists.expected.iter().find(|it| it.scripts.contains(title));
        let pending = lists.pending.iter().find(|it| it.scripts.contains(title));
        let as_listed = |it: &Expected| {
            let has = |line: &String| it.gate.iter().any(|words| line.contains(words));
            let told = differences.iter().all(|(_, line)| has(line));
            told && (!differences.is_empty() || it.sometimes.contains(title))
        };
        match (expected, pending) {
            (Some(expected), _) if as_listed(expected) => row.listed += 1,
            (_, Some(pending)) if !differences.is_empty() => {
                row.pending += 1;
                writeln!(told, "PENDING, {}: {title}", pending.whom).unwrap();
            }
            (_, Some(pending)) => {
                row.equal += 1;
                writeln!(told, "PENDING NO MORE, {}: {title}", pending.whom).unwrap();
            }
            (None, None) if differences.is_empty() => row.equal += 1,
            _ => {
                row.wrong += 1;
                let shown: String = differences.iter().map(|(shown, _)| shown.as_str()).collect();
                let listed = expected.map_or("", |_| " (not as listed)");
                wrong.push(format!("{title}{listed}\n{shown}"));
            }
        }
    }
    told += &table(&rows);
    for Expected { what, reason, scripts, .. } in &lists.expected {
        writeln!(told, "listed: {what} ({} scripts): {reason}", scripts.len()).unwrap();
    }
    (told, wrong)
}

fn table(rows: &BTreeMap<&str, Row>) -> String {
    let mut text = String::new();
    let mut line = |name: &str, row: &Row| {
        let Row { scripts, runs, equal, listed, pending, wrong } = row;
        writeln!(text, "{name:14} {scripts:7} {runs:6} {equal:6} {listed:8} {pending:8} {wrong:6}")
            .unwrap();
    };
    let mut all = Row::default();
    for (name, row) in rows {
        line(name, row);
        all.scripts += row.scripts;
        all.runs += row.runs;
        all.equal += row.equal;
        all.listed += row.listed;
        all.pending += row.pending;
        all.wrong += row.wrong;
    }
    line("all", &all);
    let heading = "room           scripts   runs  equal   listed  pending  wrong\n";
    format!("{heading}{text}")
}

/// Also where the tests' output is kept from view.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gate_says_what_postgresql_says() {
    let stage = Stage::new().await;
    let mut verdicts = BTreeMap::new();
    for isolation in ISOLATIONS {
        compare(&stage, isolation, &mut verdicts).await;
    }
    let (told, wrong) = judged(&verdicts, &lists());
    say(&told);
    let shown = wrong.join("\n");
    assert!(wrong.is_empty(), "{} scripts differ (- direct, + gate):\n{shown}", wrong.len());
}

#[test]
fn the_lists_name_scripts_that_exist_and_are_short() {
    let titles: Vec<String> = corpus().iter().map(title).collect();
    let known: BTreeSet<String> = titles.iter().cloned().collect();
    assert_eq!(known.len(), titles.len(), "a name of a script is there twice");
    let lists = lists();
    assert!(lists.expected.len() <= ENTRIES_MAX, "{} differences are meant", lists.expected.len());
    let expected = lists.expected.iter().flat_map(|it| &it.scripts);
    let pending = lists.pending.iter().flat_map(|it| &it.scripts);
    let gone: Vec<&String> = expected.chain(pending).filter(|it| !known.contains(*it)).collect();
    assert!(gone.is_empty(), "no such scripts: {gone:?}");
}

#[test]
fn another_word_another_order_and_silence_are_differences() {
    let said = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let direct = said(&["a> Q: SELECT 1", "  D 1", "  Z I"]);
    assert_eq!(difference(&direct, &direct), None);
    for (gate, line) in [
        (said(&["a> Q: SELECT 1", "  D 2", "  Z I"]), "  D 2"),
        (said(&["a> Q: SELECT 1", "  Z I", "  D 1"]), "  Z I"),
        (said(&["a> Q: SELECT 1", "  D 1"]), "(nothing)"),
        (said(&["a> Q: SELECT 1", "  D 1", "  Z I", "  N x"]), "  N x"),
    ] {
        assert_eq!(difference(&direct, &gate).unwrap().1, line);
    }
}
