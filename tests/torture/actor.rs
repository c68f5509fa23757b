//! A client: logs in over any door, asks at random, knows what its session must be, and holds every
//! answer against it. It leaves in good order, or at any byte.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::harness::messages::{Frame, terminate, transcript};
use crate::harness::tenants::jwt;
use crate::harness::wire::{Login, Wire, cancel};
use crate::torture::requests::random;
use crate::torture::script::{Cancel, Hears, Request};
use crate::torture::stage::{GATE_NAME, Stage};
use crate::torture::tally::Part;
use crate::torture::town::{Kind, Tenant};

/// How many of a client's last events are kept.
const EVENTS_MAX: usize = 60;

/// An event's text is cut there.
const EVENT_BYTES_MAX: usize = 600;

/// What a client did and heard last.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<Events>>);

#[derive(Debug, Default)]
struct Events {
    last: VecDeque<String>,
    ended_well: bool,
}

impl Journal {
    fn note(&self, event: String) {
        let mut events = self.0.lock().unwrap();
        if events.last.len() == EVENTS_MAX {
            events.last.pop_front();
        }
        let cut = event.chars().take(EVENT_BYTES_MAX).collect();
        events.last.push_back(cut);
    }

    /// Whether its client ended by a panic.
    pub fn has_failed(&self) -> bool {
        let events = self.0.lock().unwrap();
        !events.ended_well && events.last.back().is_some_and(|last| last.starts_with("WRONG"))
    }

    pub fn text(&self) -> String {
        Vec::from(self.0.lock().unwrap().last.clone()).join("\n")
    }
}

/// One session, and what it must find.
pub struct Actor {
    pub stage: Arc<Stage>,
    pub tenant: Arc<Tenant>,
    pub rng: Rng,
    wire: Wire,
    /// Settings as the session has set them; `start` is what RESET returns to.
    pub now: Settings,
    pub start: Settings,
    /// Statements it has prepared: name and what each answers in front of its parameter.
    pub prepared: BTreeMap<String, String>,
    journal: Journal,
    /// When it last heard what it should.
    well: Instant,
}

type Settings = BTreeMap<&'static str, String>;

/// The session ended as it may when something was done to its server, its gate or its cluster.
#[derive(Debug)]
pub struct Lost;

/// SQLSTATEs of losses. Which of them came is not held against what was done: the order in which
/// two ends of a line notice is nobody's.
const LOSSES: [&str; 9] =
    ["57P01", "57P02", "57P03", "57014", "08006", "08001", "58000", "28P01", "53300"];

/// The life of one client: sessions one after the other, until the round is over.
pub async fn live(stage: Arc<Stage>, mut rng: Rng, journal: Journal) {
    while !stage.is_over() {
        let tenant = stage.tenants[rng.usize(..stage.tenants.len())].clone();
        let Some(mut actor) = Actor::log_in(&stage, tenant, rng.fork(), &journal).await else {
            continue;
        };
        // A lost session is counted where it was lost.
        let _ = actor.session().await;
    }
    journal.0.lock().unwrap().ended_well = true;
}

fn defaults(kind: Kind) -> Settings {
    let mut defaults: Settings = [
        ("application_name", "tenantgate"),
        ("TimeZone", "Etc/UTC"),
        ("DateStyle", "ISO, MDY"),
        ("work_mem", "4MB"),
        ("statement_timeout", "0"),
        ("standard_conforming_strings", "on"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into();
    if kind == Kind::Silo {
        defaults.insert("search_path", "\"$user\", public".to_owned());
    }
    defaults
}

impl Actor {
    /// `None` if what was done to servers or tenants kept it out.
    async fn log_in(
        stage: &Arc<Stage>,
        tenant: Arc<Tenant>,
        mut rng: Rng,
        journal: &Journal,
    ) -> Option<Self> {
        let (mut start, mut more) = (defaults(tenant.kind), Vec::new());
        let name = format!("{}_{}", tenant.id, rng.u16(..));
        if rng.bool() {
            more.push(("application_name", name.as_str()));
            start.insert("application_name", name.clone());
        }
        if rng.usize(..4) == 0 {
            more.push(("options", "-c work_mem=77kB -c TimeZone=Asia/Tokyo"));
            start.insert("work_mem", "77kB".to_owned());
            start.insert("TimeZone", "Asia/Tokyo".to_owned());
        }
        let token = if rng.bool() { jwt(&tenant.id, 3600) } else { tenant.token.clone() };
        let (well, wire) = (Instant::now(), connect(stage, &mut rng).await);
        let (now, prepared) = (start.clone(), BTreeMap::new());
        let (stage, journal) = (stage.clone(), journal.clone());
        let mut actor = Self { stage, tenant, rng, wire, now, start, prepared, journal, well };
        let dbname = actor.tenant.dbname().to_owned();
        let login = Login { user: "app", dbname: &dbname, password: &token, more: &more };
        actor.journal.note(format!("login as {} {more:?}", actor.tenant.id));
        let frames = actor.wire.authenticate(&login).await;
        frames.iter().for_each(|frame| actor.look(frame));
        let heard = transcript(&frames);
        actor.journal.note(format!("< {heard}"));
        if heard.ends_with("Z(I)") {
            actor.check_told();
            actor.count(Part::Session, "logins");
            return Some(actor);
        }
        let code = frames.last().and_then(|frame| frame.field('C')).unwrap_or_default();
        if !(actor.is_excused() && (code.is_empty() || LOSSES.contains(&code.as_str()))) {
            actor.wrong(&format!("the login was answered {heard}"));
        }
        actor.count(Part::Session, "logins refused");
        None
    }

    async fn session(&mut self) -> Result<(), Lost> {
        for _ in 0..self.rng.usize(1..60) {
            if self.stage.is_over() {
                break;
            }
            let request = random(self);
            if self.rng.usize(..40) == 0 {
                return self.leave_at_a_byte(request).await;
            }
            self.ask(request).await?;
        }
        if self.rng.bool() {
            self.wire.try_send(terminate()).await.map_err(|_| Lost)?;
        }
        self.count(Part::Session, "left in good order");
        Ok(())
    }

    /// Hangs up in the middle of a request: closes, resets, or closes only its own half.
    async fn leave_at_a_byte(&mut self, request: Request) -> Result<(), Lost> {
        if request.steps.len() == 1 && request.holds_always {
            self.stage.books.lock().unwrap().never(self.tenant.number, &request.never);
        }
        let (what, bytes) = (request.what, request.bytes());
        drop(request);
        let cut = self.rng.usize(..=bytes.len());
        self.journal.note(format!("> {what} up to byte {cut} of {}", bytes.len()));
        // It may have been closed meanwhile: then so be it.
        let _ = self.wire.try_send(&bytes[..cut]).await;
        if self.rng.usize(..3) > 0 {
            let what = if self.wire.resets { "reset at a byte" } else { "cut at a byte" };
            self.count(Part::Session, what);
            return Ok(());
        }
        self.count(Part::Session, "half closed");
        let _ = self.wire.half_close().await;
        while let Some(frame) = self.wire.maybe_frame().await {
            self.look(&frame);
        }
        Ok(())
    }

    async fn ask(&mut self, request: Request) -> Result<(), Lost> {
        let Request { what, steps, then, cancel, commits, never, holds_always, slow } = request;
        if holds_always {
            self.stage.books.lock().unwrap().never(self.tenant.number, &never);
        }
        self.journal
            .note(format!("> {what} {}", cancel.map_or(String::new(), |it| format!("{it:?}"))));
        let hit = matches!(cancel, Some(Cancel::After(_)));
        for (number, step) in steps.into_iter().enumerate() {
            self.journal.note(format!("  > {}", step.bytes.escape_ascii()));
            self.send_in_pieces(&step.bytes).await?;
            if let Some(cancel) =
                cancel.filter(|cancel| number == 0 && !matches!(cancel, Cancel::Late))
            {
                self.cancel(cancel).await;
            }
            for hears in &step.hears {
                self.hear(what, hears, hit, slow).await?;
            }
        }
        if let Some(cancel @ Cancel::Late) = cancel {
            self.cancel(cancel).await;
        }
        let mut books = self.stage.books.lock().unwrap();
        books.commit(self.tenant.number, commits);
        books.never(self.tenant.number, &never);
        drop(books);
        self.count(Part::Answered, what);
        if let Some(then) = then {
            then(self);
        }
        self.check_told();
        Ok(())
    }

    /// Returns when the gate has closed the cancel's connection: from then on it hits nothing new.
    async fn cancel(&mut self, cancel_when: Cancel) {
        let mut secret = self.wire.secret;
        match cancel_when {
            Cancel::After(pause) => tokio::time::sleep(pause).await,
            Cancel::Wrong => secret ^= 1 << self.rng.u8(..31),
            Cancel::Late => {}
        }
        self.journal.note(format!("  cancel {cancel_when:?}"));
        cancel(self.stage.doors.port, self.wire.pid, secret).await;
        self.count(Part::Session, "cancel requests");
    }

    /// In pieces of any length, so that frames are cut everywhere.
    async fn send_in_pieces(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        let mut rest = bytes;
        let longest =
            [bytes.len(), 4000, 40, 7, 1][self.rng.usize(..5)].max(bytes.len() / 500).max(1);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(self.rng.usize(1..=longest).min(rest.len()));
            if self.wire.try_send(piece).await.is_err() {
                // What the gate said before it closed is still to be read and held against what is
                // due; here it is enough that there was a reason.
                return self.lose("the gate took no more bytes");
            }
            tokio::task::yield_now().await;
            rest = after;
        }
        Ok(())
    }

    /// Reads one answer. `hit` says that a cancel may end it.
    async fn hear(&mut self, what: &str, hears: &Hears, hit: bool, slow: bool) -> Result<(), Lost> {
        let length = hears.any_of[0].len();
        let (mut heard, mut code) = (Vec::new(), None);
        let mut fatal = false;
        while let Some(frame) = self.wire.maybe_frame().await {
            self.look(&frame);
            if matches!(frame.tag, b'S' | b'N') {
                continue;
            }
            if slow && heard.len() % 20 == 19 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            heard.push(frame.to_string());
            if frame.tag == b'E' {
                code = frame.field('C');
                fatal = frame.field('V').as_deref() != Some("ERROR");
            }
            let ends_part = !hears.to_ready && (frame.tag == b'E' || heard.len() == length);
            if frame.tag == b'Z' || fatal || ends_part {
                break;
            }
        }
        self.journal.note(format!("  < {}", heard.join(" ")));
        if hears.is(&heard) {
            self.well = Instant::now();
            if heard.last().is_some_and(|last| last == "Z(I)") {
                self.count(Part::Session, "transactions");
            }
            return Ok(());
        }
        if fatal && let Some(more) = self.wire.maybe_frame().await {
            self.wrong(&format!("{what}: behind FATAL came {more:?}"));
        }
        let right_so_far: Vec<String> =
            heard.iter().take_while(|it| !it.starts_with("E(")).cloned().collect();
        let cancelled = hit && code.as_deref() == Some("57014");
        let lost = code.as_deref().is_none_or(|code| LOSSES.contains(&code));
        if cancelled || self.is_excused() && lost && hears.begins_with(&right_so_far) {
            self.count(Part::Session, if cancelled { "cancelled" } else { "lost" });
            return Err(Lost);
        }
        let wanted = &hears.any_of;
        self.wrong(&format!("{what}\nexpected {wanted:?}\nheard    {heard:?}"));
    }

    fn lose(&self, what: &str) -> Result<(), Lost> {
        if !self.is_excused() {
            self.wrong(what);
        }
        self.count(Part::Session, "lost");
        Err(Lost)
    }

    /// Whether something was done since it last heard what it should that explains a loss.
    fn is_excused(&self) -> bool {
        self.stage.weather.excuses(self.well)
    }

    fn look(&self, frame: &Frame) {
        self.stage.tally.add(Part::Bytes, "bytes", frame.body.len() as u64 + 5);
        if let Err(what) = self.stage.keys.look(&self.tenant.id, frame) {
            self.wrong(&what);
        }
    }

    /// What the client was told of parameters is what its session has set.
    fn check_told(&self) {
        let told = ["application_name", "TimeZone", "DateStyle", "standard_conforming_strings"];
        for name in told {
            let told = &self.wire.parameters[name];
            if *told != self.now[name] {
                self.wrong(&format!("told {told} of {name}, it set {}", self.now[name]));
            }
        }
        for name in ["search_path", "role"] {
            if let Some(value) = self.wire.parameters.get(name) {
                self.wrong(&format!("told of {name}: {value}"));
            }
        }
    }

    fn wrong(&self, what: &str) -> ! {
        let (tenant, well) = (&self.tenant.id, self.well.elapsed());
        self.journal.note(format!("WRONG {what}"));
        panic!("tenant {tenant}, last well {well:?} ago: {what}");
    }

    fn count(&self, part: Part, name: &'static str) {
        self.stage.tally.count(part, name);
    }
}

/// By TCP, TLS or the Unix socket; some will reset the connection when they leave.
async fn connect(stage: &Stage, rng: &mut Rng) -> Wire {
    let doors = &stage.doors;
    match rng.usize(..4) {
        0 => {
            let tls = Wire::connect_tls(doors.port, doors.tls.clone(), GATE_NAME).await;
            tls.expect("the gate shakes hands")
        }
        1 => Wire::connect_unix(&doors.unix).await,
        kind => {
            let socket = TcpStream::connect(("127.0.0.1", doors.port)).await.expect("port accepts");
            socket.set_nodelay(true).unwrap();
            if kind == 2 {
                SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
            }
            let mut wire = Wire::over(socket);
            wire.resets = kind == 2;
            wire
        }
    }
}
