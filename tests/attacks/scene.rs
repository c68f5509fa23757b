//! The stage and one attack on it: who plays, what is heard, and whether the victim is as it was.

use std::cell::RefCell;

use tokio_postgres::{Client, SimpleQueryMessage};

use tenantgate::demo::{Cluster, Plan, Template};
use tenantgate::isolation::Level;

use super::{Attack, Deed, Verdict, Who, careless};
use crate::harness::cluster::{of, superuser};
use crate::harness::gate::Gate;
use crate::harness::messages::{self, Frame, transcript};
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tenant, Tweaks};
use crate::harness::wire::{Login, Wire};

/// What nobody but a victim ever says.
pub const CANARY: &str = "CANARY";

/// A cluster at a level, and two gates in front of it: one with a single server connection, one
/// with several.
pub struct Stage {
    level: Level,
    estate: Estate,
    gate: Gate,
    roomy: Gate,
    app: Client,
    silo: Client,
    /// Victims' sessions from the last attack.
    waiting: RefCell<Vec<Waiting>>,
    _cluster: Cluster,
}

/// A victim's session that nothing has happened to.
struct Waiting {
    id: String,
    port: u16,
    wire: Wire,
    /// What it was told last.
    session: Vec<String>,
    /// What was true then, for this attacker.
    truth: (String, Truth),
}

/// What only a superuser sees.
#[derive(Clone, PartialEq, Eq)]
struct Truth {
    /// May not change.
    others: String,
    /// The attacker's own rows and large objects: may change, and are put back.
    own: String,
}

/// One attack: the attacker's session, the victim's, and all that the attacker hears.
pub struct Scene<'stage> {
    pub stage: &'stage Stage,
    pub gate: &'stage Gate,
    pub attacker: &'stage Tenant,
    pub victim: &'stage Tenant,
    pub own: Wire,
    pub other: Wire,
    session: Vec<String>,
    truth: Truth,
    heard: Vec<Frame>,
    /// Where in it the second protocol's part begins.
    second: usize,
    changed: Vec<String>,
    extended: bool,
    pins: bool,
}

const NOTES: &str = "SELECT body FROM notes ORDER BY id";

/// What the victim finds in its session; every answer must stay as it was before the attack.
const SESSION: [&str; 4] = [
    NOTES,
    "SELECT current_user, session_user, current_setting('search_path'), \
     current_setting('TimeZone'), current_setting('work_mem'), \
     nullif(current_setting('app.tenant_id', true), ''), current_setting('row_security'), \
     current_setting('session_replication_role'), current_setting('client_encoding'), \
     current_setting('statement_timeout'), current_setting('transaction_read_only')",
    "SELECT string_agg(name || '=' || setting, ',' ORDER BY name) FROM pg_settings \
     WHERE source = 'session' AND name NOT LIKE 'transaction_%'",
    "SELECT (SELECT count(*) FROM pg_cursors), (SELECT count(*) FROM pg_listening_channels()), \
     (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), \
     (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), \
     (SELECT count(*) FROM pg_proc WHERE pronamespace = pg_my_temp_schema()), \
     nullif(current_setting('evil.mark', true), '')",
];

/// What only a superuser sees, and no attack may change: rows, who owns what and may do what, what
/// logins start with, large objects, locks, prepared transactions. `$1` is the attacker's id.
const TRUTH: &str = "
concat_ws(E'\\n',
  (SELECT string_agg(n::text, ' ' ORDER BY tenant_id, id) FROM app.notes n WHERE tenant_id <> $1),
  (SELECT string_agg(format('%s %s %s %s %s', relname, relowner, relacl, relrowsecurity,
     relforcerowsecurity), ' ' ORDER BY oid) FROM pg_class
     WHERE relnamespace::regnamespace::text !~ '^(pg_|information_schema)'),
  (SELECT string_agg(format('%s %s', proname, md5(p::text)), ' ' ORDER BY oid) FROM pg_proc p
     WHERE pronamespace::regnamespace::text !~ '^(pg_temp|pg_catalog|information_schema)'),
  (SELECT md5(string_agg(p::text, '' ORDER BY oid)) FROM pg_policy p),
  (SELECT string_agg(format('%s %s %s', rolname, md5(rolpassword), (SELECT string_agg(
     setconfig::text, '') FROM pg_db_role_setting WHERE setrole = a.oid)), ' ' ORDER BY rolname)
     FROM pg_authid a WHERE rolname !~ '^pg_' AND rolname <> 'tg_' || $1),
  (SELECT md5(string_agg(m::text, '' ORDER BY roleid, member)) FROM pg_auth_members m),
  (SELECT md5(string_agg(l::text, '' ORDER BY loid, pageno)) FROM pg_largeobject l),
  (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),
  (SELECT count(*) FROM pg_prepared_xacts))";

impl Stage {
    pub async fn new(level: Level, template: &Template) -> Self {
        let cluster = of(template, &Plan::default()).await;
        let estate = Estate::at(&cluster, level).await;
        let app = superuser(&cluster, "app").await;
        let silo = superuser(&cluster, &estate.initech.id).await;
        let tenant = match level {
            Level::Sealed => "tenantgate.tenant_id()",
            _ => "nullif(current_setting('app.tenant_id', true), '')",
        };
        let left_behind = careless::LEFT_BEHIND.replace("$TENANT", tenant);
        app.batch_execute(&left_behind).await.unwrap();
        let schemas = careless::IN_SCHEMAS.replace("$OWN", &estate.stark.id);
        let schemas = schemas.replace("$OTHER", &estate.umbrella.id);
        app.batch_execute(&schemas).await.unwrap();
        app.batch_execute("ANALYZE").await.unwrap();
        let start = async |capacity| {
            Gate::start(&estate.settings(&Tweaks { capacity, ..Tweaks::default() })).await
        };
        let (gate, roomy) = (start(1).await, start(4).await);
        let waiting = RefCell::default();
        Self { level, estate, gate, roomy, app, silo, waiting, _cluster: cluster }
    }

    /// Whether there are tenants of this kind at this level.
    pub fn has(&self, who: Who) -> bool {
        match self.level {
            Level::Plain | Level::Guard => true,
            Level::Sealed => who == Who::Row,
            Level::Strict => who != Who::Row,
        }
    }

    fn cast(&self, who: Who) -> (&Tenant, &Tenant) {
        let Estate { acme, globex, umbrella, stark, initech, .. } = &self.estate;
        match who {
            Who::Row => (acme, globex),
            Who::Schema => (stark, umbrella),
            Who::Silo => (initech, umbrella),
        }
    }

    /// Plays every way of an attack; each with its verdict and what was heard. Both protocols in
    /// one session, unless the first is expected to leave nothing to try.
    pub async fn play(
        &self,
        attack: &Attack,
        who: Who,
        expected: Verdict,
    ) -> Vec<(String, Verdict, String)> {
        let ways = match attack.deed {
            Deed::Sql(ways) => ways,
            Deed::Play(deed) => {
                let mut scene = Scene::new(self, attack, who).await;
                deed(&mut scene).await;
                let (verdict, heard) = scene.end().await;
                return vec![("(code)".to_owned(), verdict, heard)];
            }
        };
        let mut told = Vec::new();
        for way in ways {
            let sessions: &[&[bool]] = match (way.contains(';'), expected) {
                (true, _) => &[&[false]],
                (false, Verdict::Escapes) => &[&[false], &[true]],
                (false, _) if attack.pins => &[&[false], &[true]],
                (false, _) => &[&[false, true]],
            };
            for protocols in sessions {
                let mut scene = Scene::new(self, attack, who).await;
                for extended in *protocols {
                    scene.extended = *extended;
                    scene.lines(way).await;
                }
                let (verdict, heard) = scene.end().await;
                told.push((format!("{way} (extended: {protocols:?})"), verdict, heard));
            }
        }
        told
    }

    /// What is true while `attacker` plays, as the superuser sees it.
    async fn truth(&self, attacker: &Tenant) -> Truth {
        let Estate { umbrella, stark, initech, .. } = &self.estate;
        let id = &attacker.id;
        let (mut own, mut others) =
            (all("app.notes", &format!("tenant_id = '{id}'")), String::new());
        for tenant in [umbrella, stark] {
            let to = if tenant.id == *id { &mut own } else { &mut others };
            *to += &format!(" || {}", all(&format!("{}.notes", tenant.id), "true"));
        }
        let sql = format!("SELECT {TRUTH} {others}, {own}").replace("$1", &format!("'{id}'"));
        let messages = self.app.simple_query(&sql).await.unwrap();
        let Some(SimpleQueryMessage::Row(row)) = messages.get(1) else { panic!("no row") };
        let [others, mut own] = [0, 1].map(|column| row.get(column).unwrap().to_owned());
        if initech.id == *id {
            let sql = format!("SELECT {}", all("notes", "true"));
            own += &self.silo.query_one(&sql, &[]).await.unwrap().get::<_, String>(0);
        }
        Truth { others, own }
    }

    /// Puts back what an attack that succeeded, or was meant to harm only its sender, has changed.
    async fn restore(&self, ends_sessions: bool) {
        let Estate { acme, globex, stark, umbrella, initech, .. } = &self.estate;
        let mut sql = String::from("SELECT lo_unlink(oid) FROM pg_largeobject_metadata;");
        for tenant in [acme, globex] {
            let id = &tenant.id;
            sql += &format!("DELETE FROM app.notes WHERE tenant_id = '{id}';");
            for (number, body) in &tenant.notes {
                sql += &format!("INSERT INTO app.notes VALUES ('{id}', {number}, '{body}');");
            }
        }
        for tenant in [stark, umbrella] {
            let id = &tenant.id;
            sql += &format!("DELETE FROM {id}.notes;");
            for (number, body) in &tenant.notes {
                sql += &format!("INSERT INTO {id}.notes VALUES ({number}, '{body}');");
            }
        }
        let own_logins = [stark, umbrella, initech].map(|tenant| format!("tg_{}", tenant.id));
        for login in own_logins.iter().map(String::as_str).chain(["tg_login"]) {
            sql += &format!("ALTER ROLE {login} RESET ALL;");
            sql += &format!("ALTER ROLE {login} PASSWORD '{LOGIN_PASSWORD}';");
        }
        sql += "ALTER ROLE app_rw RESET ALL; ALTER ROLE app_rw PASSWORD NULL;";
        self.app.batch_execute(&sql).await.unwrap();
        let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE backend_type = 'client backend' AND usename <> 'postgres'";
        if ends_sessions {
            self.app.batch_execute(ended).await.unwrap();
        }
    }
}

/// An expression: all rows of a table.
fn all(table: &str, filter: &str) -> String {
    let rows = "coalesce(string_agg(n::text, ' ' ORDER BY id), '')";
    format!("(SELECT {rows} FROM {table} n WHERE {filter})")
}

impl<'stage> Scene<'stage> {
    async fn new(stage: &'stage Stage, attack: &Attack, who: Who) -> Self {
        let (attacker, victim) = stage.cast(who);
        let gate = if attack.apart { &stage.roomy } else { &stage.gate };
        let is_it = |it: &Waiting| it.id == victim.id && it.port == gate.port;
        let found = stage.waiting.borrow().iter().position(is_it);
        let waiting = found.map(|at| stage.waiting.borrow_mut().swap_remove(at));
        let (other, session, truth) = match waiting {
            Some(Waiting { wire, session, truth: (of, truth), .. }) if of == attacker.id => {
                (wire, session, truth)
            }
            _ => {
                let mut other = gate.wire(victim).await;
                other.query("SET TIME ZONE 'Asia/Tokyo'").await;
                let session = session(&mut other).await;
                (other, session, stage.truth(attacker).await)
            }
        };
        assert!(session.iter().all(|said| !said.starts_with("not")), "{session:?}");
        let own = gate.wire(attacker).await;
        let (heard, changed) = (Vec::new(), Vec::new());
        let (extended, second) = (false, 0);
        let pins = attack.pins;
        Self {
            stage,
            gate,
            attacker,
            victim,
            own,
            other,
            session,
            truth,
            heard,
            second,
            changed,
            extended,
            pins,
        }
    }

    /// A further session of the attacker's, with these start-up parameters and this name, token and
    /// database in the usual places. What it hears counts.
    pub async fn login(&mut self, login: &Login<'_>) -> Wire {
        let mut wire = Wire::connect(self.gate.port).await;
        let frames = wire.authenticate(login).await;
        self.heard.extend(frames);
        wire
    }

    /// Sends bytes as the attacker; hears everything up to ReadyForQuery or the end.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> String {
        if self.own.try_send(bytes).await.is_err() {
            return String::new();
        }
        let frames = self.own.until_ready().await;
        let said = transcript(&frames);
        self.heard.extend(frames);
        said
    }

    /// Drops the attacker's session without a word.
    pub async fn leaves(&mut self) {
        let unused = Wire::connect(self.gate.port).await;
        drop(std::mem::replace(&mut self.own, unused));
    }

    /// What another connection of the attacker's heard counts too.
    pub fn hears(&mut self, frames: Vec<Frame>) {
        self.heard.extend(frames);
    }

    /// Something that is the victim's is not as it was.
    pub fn is_changed(&mut self, what: impl Into<String>) {
        self.changed.push(what.into());
    }

    /// Names in a text.
    pub fn fill(&self, text: &str) -> String {
        let login = |tenant: &Tenant| match tenant.isolation {
            "row" => "tg_login".to_owned(),
            _ => format!("tg_{}", tenant.id),
        };
        text.replace("$OTHERLOGIN", &login(self.victim))
            .replace("$LOGIN", &login(self.attacker))
            .replace("$OTHER", &self.victim.id)
            .replace("$OWN", &self.attacker.id)
    }

    /// Plays lines, and reads one's notes at the end: if the context moved, they are the victim's.
    async fn lines(&mut self, lines: &str) {
        self.second = self.heard.len();
        let mut attacked = !lines.contains("victim: ") && !lines.contains("dba: ");
        for line in lines.lines().map(str::trim) {
            let line = self.fill(line);
            if let Some(sql) = line.strip_prefix("victim: ") {
                // It may have been ended.
                if self.other.try_send(messages::query(sql)).await.is_ok() {
                    self.other.until_ready().await;
                }
            } else if let Some(sql) = line.strip_prefix("dba: ") {
                self.stage.app.batch_execute(sql).await.unwrap();
            } else {
                if !attacked {
                    // What the victim and the DBA did first is as it should be.
                    attacked = true;
                    self.truth = self.stage.truth(self.attacker).await;
                }
                self.say(&line).await;
            }
        }
        let status = self.say(NOTES).await;
        // Inside a transaction the attacker keeps the only server: it has to go first.
        if !status.ends_with("Z(I)") {
            self.say("ROLLBACK").await;
        }
    }

    async fn say(&mut self, sql: &str) -> String {
        match self.extended {
            true => self.send(messages::extended(sql, &[])).await,
            false => self.send(messages::query(sql)).await,
        }
    }

    /// Notes what is not as it was; gives what is true now.
    async fn compare(&mut self) -> Truth {
        let after = session(&mut self.other).await;
        if after != self.session {
            self.changed.push(format!("session {:?} became {after:?}", self.session));
        }
        let truth = self.stage.truth(self.attacker).await;
        if truth.others != self.truth.others {
            let known = |line: &&str| self.truth.others.contains(*line);
            let now = truth.others.lines().find(|line| !known(line)).unwrap_or("less");
            self.changed.push(format!("truth became {now}"));
        }
        truth
    }

    /// The verdict, and everything back in its place.
    async fn end(mut self) -> (Verdict, String) {
        if self.pins && self.own.try_send(messages::terminate()).await.is_ok() {
            self.own.until_closed().await;
        }
        let truth = self.compare().await;
        let bytes: Vec<u8> = self.heard.iter().flat_map(Frame::bytes).collect();
        let text = String::from_utf8_lossy(&bytes);
        let notes = self.victim.notes.iter().map(|(_, body)| body.as_str());
        let seen: Vec<&str> = notes.chain([CANARY]).filter(|it| text.contains(it)).collect();
        let first_error = |heard: &[Frame]| {
            let error = heard.iter().find(|frame| frame.tag == b'E');
            error.and_then(|frame| frame.field('C'))
        };
        let (first, second) = self.heard.split_at(self.second);
        let sqlstate = first_error(second);
        // Both protocols are to be answered in the same way.
        let differs = self.second > 0 && first_error(first) != sqlstate;
        let heard = format!("{} {:?}", transcript(&self.heard), self.changed);
        let verdict = match (seen.is_empty() && self.changed.is_empty(), sqlstate) {
            (false, _) => Verdict::Escapes,
            _ if differs => Verdict::Stopped("differs"),
            (true, Some(code)) => Verdict::Stopped(known(&code)),
            (true, None) => Verdict::Harmless,
        };
        let (stage, clean) = (self.stage, verdict != Verdict::Escapes);
        // Gone before anything is put back.
        let _ = self.own.try_send(messages::terminate()).await;
        drop(self.own);
        if clean {
            let (id, port) = (self.victim.id.clone(), self.gate.port);
            let truth = (self.attacker.id.clone(), self.truth.clone());
            let (wire, session) = (self.other, self.session);
            stage.waiting.borrow_mut().push(Waiting { id, port, wire, session, truth });
        }
        if !clean || truth != self.truth {
            // Passwords are made anew: what is known of the truth is no more.
            stage.waiting.borrow_mut().clear();
            stage.restore(!clean).await;
        }
        (verdict, heard)
    }
}

/// What a victim finds in its session.
async fn session(wire: &mut Wire) -> Vec<String> {
    let mut answers = Vec::new();
    for sql in SESSION {
        if wire.try_send(messages::query(sql)).await.is_err() {
            return vec!["gone".to_owned()];
        }
        let said = transcript(&wire.until_ready().await);
        // It must not be that everything is refused, now as before.
        let answered = said.ends_with("Z(I)") && !said.contains("E(");
        answers.push(if answered { said } else { format!("not answered: {said}") });
    }
    answers
}

/// A SQLSTATE as one of the texts the table has; any other is its own surprise.
fn known(code: &str) -> &'static str {
    const KNOWN: [&str; 22] = [
        "08003", "08P01", "0A000", "22012", "22023", "22P02", "25001", "25P02", "55000", "26000",
        "28000", "28P01", "2F003", "34000", "3D000", "3F000", "42501", "42601", "42704", "42883",
        "42P01", "54000",
    ];
    KNOWN.into_iter().find(|known| *known == code).unwrap_or("?")
}
