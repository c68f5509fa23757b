//! What a statement text means for this session: forward it, forward something else in its place,
//! or refuse it. Decides; sends nothing.

pub(super) mod verdict;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::rc::Rc;

use foldhash::fast::RandomState;

use crate::catalog::Tenant;
use crate::client::carry::carried;
use crate::client::carry::resets::{self, Company};
use crate::client::carry::{Touched, caps, decides_reading, idle};
use crate::client::due::{Effect, Executes, Step};
use crate::client::prepared::{Known, Need, Needs};
use crate::client::refuse;
use crate::client::talk::Talk;
use crate::error::Error;
use crate::guard::{
    self, Command, Denial, Denials, Part, ReadOptions, Reading, STATEMENTS_MAX, SetValue,
    Suspicion, Touch,
};
use crate::isolation::{Isolation, quote, set_sql};
use crate::server::Statement;

/// What to do with a text.
#[derive(Debug)]
pub enum Judged {
    /// Forward it as it is.
    Pass {
        harmless: bool,
        suspicion: Suspicion,
    },
    /// The gate has a part in it.
    Script(Box<Plan>),
    Refuse(Error),
}

/// The gate's part in a text.
#[derive(Debug, Default)]
pub struct Plan {
    /// What to send instead; `None` is the text itself.
    pub text: Option<Vec<u8>>,
    /// One per statement.
    pub steps: Vec<Step>,
    pub harmless: bool,
    pub suspicion: Suspicion,
    pub needs: Needs,
    /// Names of statements that the text is about, up to here.
    met: HashSet<Rc<[u8]>, RandomState>,
    /// How many statements it prepares, up to here, and of how many bytes.
    prepares: (usize, usize),
    /// What its statements may change, up to here.
    pub(super) touched: Touched,
    /// What RESET ALL puts back, up to here, if it has one.
    pub(super) to_reset: Option<BTreeSet<String>>,
    /// RESET ALL is the statement before.
    pub(super) just_reset: bool,
    /// Rules of level guard that would have refused it, were they not only reported.
    pub would_refuse: Denials,
}

impl Plan {
    /// The server must have, or lack, this one as the session does, unless what stands before it in
    /// the text decides about it.
    fn need(&mut self, name: &str, need: Need, bench: Bench<'_>) -> Result<Rc<[u8]>, Error> {
        if !name.is_ascii() && !bench.talk.is_in_utf8() {
            let what = "the name of a statement that is not ASCII, in this client_encoding".into();
            return Err(Error::NotSupported { what, hint: "Use UTF8, or a name in ASCII." });
        }
        let name: Rc<[u8]> = name.as_bytes().into();
        if self.met.insert(name.clone()) {
            self.needs.names.push((name.clone(), need));
        }
        Ok(name)
    }

    /// Takes in what one more statement comes to.
    fn add(&mut self, step: Step, talk: &Talk) -> Result<(), Error> {
        let before = self.touched.names.len();
        self.touched.extend(&step.touched);
        // Each of them alone may have found room.
        if self.touched.names.len() > before && !talk.has_room_for(&self.touched.names) {
            return Err(carried::too_many());
        }
        if let Some(names) = &mut self.to_reset {
            names.extend(step.touched.all_names().map(str::to_owned));
        }
        self.steps.push(step);
        self.check_count(0)
    }

    /// Refuses so many more statements, if they are too many.
    pub(super) fn check_count(&self, more: usize) -> Result<(), Error> {
        if self.steps.len() + more <= STATEMENTS_MAX {
            return Ok(());
        }
        let what = format!("RESET ALL that comes to more than {STATEMENTS_MAX} statements").into();
        let hint = "Send it in a message of its own, and once.";
        Err(Error::NotSupported { what, hint })
    }

    /// Whether success changes the session's own books, so that nothing may be sent behind it
    /// before it is answered.
    pub fn has_effect(&self) -> bool {
        self.steps.iter().any(|step| step.effect.is_some())
    }
}

/// What of the session matters to the judgement.
#[derive(Clone, Copy, Debug)]
pub struct Bench<'session> {
    pub tenant: &'session Tenant,
    pub talk: &'session Talk,
    /// No transaction is open, for certain.
    pub outside_transaction: bool,
    /// It is prepared, and runs some other time.
    pub parsed: bool,
    /// How the text was read, where the server has a function that stands in for `set_config`.
    pub stand_in: Option<ReadOptions>,
}

/// What is sent in the place of a statement that the gate carries out itself: it does nothing on a
/// server that listens to nothing, takes no snapshot, and is allowed on a standby (measured:
/// 2.4 µs).
pub(super) const NOTHING: &str = "UNLISTEN tenantgate_nothing";

/// The function that stands in for `set_config`, where the revoke pack has taken that.
const STAND_IN: &[u8] = b"tenantgate.set_config";

/// Judges a text that was read.
pub fn judge(text: &[u8], reading: Reading, bench: Bench<'_>) -> Judged {
    match reading {
        Reading::Ordinary(ordinary) => {
            let (harmless, suspicion) = (ordinary.harmless, ordinary.suspicion);
            Judged::Pass { harmless, suspicion }
        }
        Reading::Refused { what, hint } => Judged::Refuse(Error::NotSupported { what, hint }),
        Reading::Special(parts) => match plan(text, &parts, bench) {
            Ok(plan) => Judged::Script(Box::new(plan)),
            Err(error) => Judged::Refuse(error),
        },
    }
}

fn plan(text: &[u8], parts: &[Part], bench: Bench<'_>) -> Result<Plan, Error> {
    let mut plan = Plan { harmless: true, ..Plan::default() };
    let bytes_max = bench.talk.env.settings.borrow().statement_bytes;
    let mut splice = Splice::new(text, bytes_max);
    let company = Company::of(parts);
    for part in parts {
        part.denied.iter().try_for_each(|rule| deny(rule, bench, &mut plan))?;
        let calls = calls(text, part, bench);
        if !matches!(part.command, Command::Prepare { .. }) {
            plan.suspicion = plan.suspicion.max(part.suspicion);
        }
        let (step, replacement) = match &part.command {
            Command::ResetAll => resets::reset_all(company, bench, &mut plan)?,
            Command::DiscardAll => resets::discard_all(company, bench),
            Command::Prepare { name, runs } => {
                // Of a text that is one statement all is kept, as PostgreSQL keeps it.
                let alone = parts.len() == 1;
                let range = if alone { 0..text.len() } else { part.range.clone() };
                let asked = (!calls.is_empty()).then(|| text.get(range.clone()));
                let asked = asked.flatten().map(Box::from);
                let text = with_stand_ins(text, range, &calls);
                let inner = Inner { text, asked, runs, suspicion: part.suspicion, alone };
                (prepare(name, inner, bench, &mut plan)?, None)
            }
            other => command(other, bench, &mut plan)?,
        };
        plan.just_reset = matches!(part.command, Command::ResetAll);
        plan.add(step, bench.talk)?;
        if let Some(replacement) = replacement {
            splice.put(part.range.clone(), replacement.as_bytes())?;
        }
        for call in calls {
            splice.put(call, STAND_IN)?;
        }
    }
    plan.text = splice.finish()?;
    for step in &mut plan.steps {
        if plan.suspicion == Suspicion::Lock && matches!(step.effect, Some(Effect::UnlockAll)) {
            // Which came first is not looked at.
            step.effect = None;
        }
    }
    Ok(plan)
}

/// A text with others in the place of its pieces. What a tenant has put into its session comes
/// back with every RESET of it, so the length has a bound of its own.
struct Splice<'text> {
    text: &'text [u8],
    out: Vec<u8>,
    /// Up to where the text was copied.
    copied: usize,
    bytes_max: usize,
}

impl<'text> Splice<'text> {
    fn new(text: &'text [u8], bytes_max: usize) -> Self {
        Self { text, out: Vec::new(), copied: 0, bytes_max }
    }

    /// Puts something in the place of a piece, which lies behind those before it.
    fn put(&mut self, piece: Range<usize>, instead: &[u8]) -> Result<(), Error> {
        let between = self.text.get(self.copied..piece.start).unwrap_or_default();
        self.copied = piece.end;
        self.extend(between)?;
        self.extend(instead)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.out.len() + bytes.len() > self.bytes_max {
            return Err(Error::StatementTooLong { bytes_max: self.bytes_max });
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// The whole, if it is another than the text.
    fn finish(mut self) -> Result<Option<Vec<u8>>, Error> {
        if self.copied == 0 {
            return Ok(None);
        }
        let rest = self.text.get(self.copied..).unwrap_or_default();
        self.extend(rest)?;
        Ok(Some(self.out))
    }
}

/// Where a statement calls `set_config`, if another function stands in for it.
fn calls(text: &[u8], part: &Part, bench: Bench<'_>) -> Vec<Range<usize>> {
    let command = match &part.command {
        Command::Prepare { runs, .. } => runs,
        command => command,
    };
    let Command::Other { touches, .. } = command else { return Vec::new() };
    let Some(options) = bench.stand_in.filter(|_| !touches.is_empty()) else { return Vec::new() };
    let start = part.range.start;
    let statement = text.get(part.range.clone()).unwrap_or_default();
    let calls = guard::set_config_calls(statement, options).unwrap_or_default();
    calls.into_iter().map(|call| start + call.start..start + call.end).collect()
}

/// A piece of a text, with the stand-in for every call that lies in it.
fn with_stand_ins(text: &[u8], piece: Range<usize>, calls: &[Range<usize>]) -> Vec<u8> {
    let mut spliced = Vec::with_capacity(piece.len() + calls.len() * STAND_IN.len());
    let mut copied = piece.start;
    for call in calls {
        spliced.extend_from_slice(text.get(copied..call.start).unwrap_or_default());
        spliced.extend_from_slice(STAND_IN);
        copied = call.end;
    }
    spliced.extend_from_slice(text.get(copied..piece.end).unwrap_or_default());
    spliced
}

/// Refuses, unless the tenant has the rule only reported.
fn deny(rule: Denial, bench: Bench<'_>, plan: &mut Plan) -> Result<(), Error> {
    if bench.tenant.report_only.contains(rule) {
        plan.would_refuse.add(rule);
        return Ok(());
    }
    Err(refuse::denied(rule))
}

pub(super) type Outcome = Result<(Step, Option<String>), Error>;

fn command(command: &Command, bench: Bench<'_>, plan: &mut Plan) -> Outcome {
    let untouched = || Ok((Step::default(), None));
    match command {
        Command::Other { .. } => {
            let ran = run(command, bench, plan)?;
            plan.harmless &= ran.harmless;
            plan.needs.all |= ran.lists;
            Ok((Step { touched: ran.touched, ..Step::default() }, None))
        }
        Command::Execute { name, around, named } => {
            let ran = run(around, bench, plan)?;
            plan.harmless &= ran.harmless;
            let name = plan.need(name, Need::Itself, bench)?;
            let named = named.iter().filter(|name| carried::is_own_name(name)).cloned().collect();
            let executes = Some(Box::new(Executes { name, named }));
            Ok((Step { touched: ran.touched, executes, ..Step::default() }, None))
        }
        // It is read with the text around it.
        Command::Prepare { .. } => Err(Error::Internal),
        Command::Set { names, value, local } => set(names, value, *local, bench, plan),
        Command::Reset { name } if resets::has_role_of_its_own(name, bench.tenant) => {
            Ok(resets::role(&SetValue::Default, plan))
        }
        Command::Reset { name } => reset(name, "RESET", false, bench),
        // Carried out with a look at what stands beside them: see `resets.rs`.
        Command::ResetAll | Command::DiscardAll => untouched(),
        Command::ShowIdle => Ok(idle::show()),
        Command::DeallocateAll => {
            Ok((Step { effect: Some(Effect::DeallocateAll), ..Step::default() }, None))
        }
        Command::Deallocate { name } => {
            let effect = Effect::Deallocate(plan.need(name, Need::Any, bench)?);
            Ok((Step { effect: Some(effect), ..Step::default() }, None))
        }
        Command::Listen if bench.tenant.isolation == Isolation::Silo && !acts(bench) => untouched(),
        Command::Listen => {
            let what = "LISTEN in a database of several tenants".into();
            let hint = "Give the tenant a database of its own, or listen over a direct connection.";
            Err(Error::NotSupported { what, hint })
        }
        // What these end the server holds for this session only: see `pin.rs`.
        Command::DiscardPart | Command::CloseAll | Command::UnlistenAll => untouched(),
        Command::AdvisoryUnlockAll => {
            Ok((Step { effect: Some(Effect::UnlockAll), ..Step::default() }, None))
        }
    }
}

/// Whether the session has its tenant for one transaction only, and hears nothing after it.
fn acts(bench: Bench<'_>) -> bool {
    bench.talk.act.as_ref().is_some_and(|act| act.is_local())
}

/// What a statement does that is no command of the session.
struct Ran {
    touched: Touched,
    harmless: bool,
    /// It reads the list of prepared statements.
    lists: bool,
}

fn run(command: &Command, bench: Bench<'_>, plan: &mut Plan) -> Result<Ran, Error> {
    let Command::Other { harmless, touches, unknown_settings, lists_prepared } = command else {
        // It lets go of locks, and no more.
        return Ok(Ran { touched: Touched::default(), harmless: true, lists: false });
    };
    let mut touched = Touched { unknown: *unknown_settings, ..Touched::default() };
    for touch in touches {
        if called(touch, bench, plan)? {
            touched.add(&touch.name);
        }
    }
    let harmless = *harmless && !unknown_settings && touches.is_empty();
    Ok(Ran { touched, harmless, lists: *lists_prepared })
}

/// What a PREPARE makes.
struct Inner<'reading> {
    /// From the word PREPARE.
    text: Vec<u8>,
    /// The same as the client sent it, if that is another.
    asked: Option<Box<[u8]>>,
    runs: &'reading Command,
    suspicion: Suspicion,
    /// It has a text of its own.
    alone: bool,
}

/// The session keeps the text, to run it on every server it comes to.
fn prepare(name: &str, inner: Inner<'_>, bench: Bench<'_>, plan: &mut Plan) -> Result<Step, Error> {
    let Inner { text, asked, runs, suspicion, alone } = inner;
    let Ran { touched, harmless, lists } = run(runs, bench, plan)?;
    plan.prepares = (plan.prepares.0 + 1, plan.prepares.1 + text.len());
    let (count, bytes) = plan.prepares;
    bench.talk.prepared.check_room(count, bytes)?;
    let name = plan.need(name, Need::Any, bench)?;
    // What stands behind it may execute it.
    plan.needs.all |= lists && !alone;
    let read_under = bench.talk.reads_under(&text);
    let types = Box::new([0, 0]);
    let statement = Statement { text: text.into(), types, from_sql: true, read_under };
    let known = Known {
        statement: Rc::new(statement),
        harmless,
        suspicion,
        control: false,
        ends_transaction: false,
        read_as: None,
        watch: bench.tenant.watch(),
        audience: Cell::new(bench.talk.audience),
        asked,
        special: (!touched.is_empty()).then(|| Box::new(Step { touched, ..Step::default() })),
        needs: Needs { all: lists, ..Needs::default() },
        shape: RefCell::default(),
    };
    let effect = Some(Effect::Prepare(name, Rc::new(known)));
    Ok(Step { effect, ..Step::default() })
}

/// A call of set_config is SET in other words; whether it is LOCAL cannot be told. True if the
/// setting must be read back.
fn called(touch: &Touch, bench: Bench<'_>, plan: &mut Plan) -> Result<bool, Error> {
    let Touch { name, value } = touch;
    if name == "search_path" && value.as_deref().is_some_and(carried::is_system_path) {
        return Ok(true);
    }
    check_protected(name, value.as_deref(), bench)?;
    carried::check_name(name)?;
    carried::check_seed(name, bench.tenant.isolation)?;
    if name == "client_encoding" {
        match value {
            Some(value) => carried::check_encoding(value)?,
            None => return Err(carried::computed_encoding()),
        }
    }
    check_cap(name, value.as_deref(), bench, plan)?;
    follows(name, value.as_deref(), bench)
}

/// Whether the setting is to be read back; refused if the session has too many.
fn follows(name: &str, value: Option<&str>, bench: Bench<'_>) -> Result<bool, Error> {
    if !carried::follows(name) {
        return Ok(false);
    }
    match bench.talk.has_room(name, value.map_or(0, str::len)) {
        true => Ok(true),
        false => Err(carried::too_many()),
    }
}

/// Refuses a value above the setting's cap, or one that cannot be told.
fn check_cap(
    name: &str,
    value: Option<&str>,
    bench: Bench<'_>,
    plan: &mut Plan,
) -> Result<(), Error> {
    let capped = Denial::SettingCap.is_for(bench.tenant.watch());
    match capped && !caps::is_within(name, value) {
        true => deny(Denial::SettingCap, bench, plan),
        false => Ok(()),
    }
}

fn set(
    names: &[String],
    value: &SetValue,
    local: bool,
    bench: Bench<'_>,
    plan: &mut Plan,
) -> Outcome {
    let mut touched = Touched::default();
    if names.iter().any(|name| name == idle::NAME) {
        return idle::set(value, local, bench.talk);
    }
    for name in names {
        let text = match value {
            SetValue::Text(text) => Some(text.as_str()),
            SetValue::Default | SetValue::Other => None,
        };
        if name == "search_path" && bench.tenant.context.owns(name) {
            return set_path(value, local, bench);
        }
        if resets::has_role_of_its_own(name, bench.tenant) {
            return Ok(resets::role(value, plan));
        }
        if resets::keeps_role(name, value, bench.tenant) || check_protected(name, text, bench)? {
            // One's own value: accepted, and nothing to do.
            return Ok(nothing("SET"));
        }
        carried::check_name(name)?;
        carried::check_seed(name, bench.tenant.isolation)?;
        if name == "client_encoding" {
            match (value, text) {
                (SetValue::Default, _) => {}
                (_, Some(text)) => carried::check_encoding(text)?,
                // Also bytes that are no UTF-8: the server leaves them out of the name.
                (_, None) => return Err(carried::computed_encoding()),
            }
        }
        if *value != SetValue::Default {
            check_cap(name, text, bench, plan)?;
        }
        // SET LOCAL ends with its transaction, but some decide how the texts behind are read.
        let lasts = !local || decides_reading(name);
        if lasts && follows(name, text, bench)? {
            touched.add(name);
        }
        if local {
            touched.passes(name);
        }
    }
    match (names, value) {
        ([name], SetValue::Default) => reset(name, "SET", local, bench),
        _ => Ok((Step { touched, ..Step::default() }, None)),
    }
}

/// The path belongs to the context, but may be left for PostgreSQL's own schema and come back.
fn set_path(value: &SetValue, local: bool, bench: Bench<'_>) -> Outcome {
    let text = match value {
        SetValue::Default => return reset("search_path", "SET", local, bench),
        SetValue::Text(text) => Some(text.as_str()),
        SetValue::Other => None,
    };
    if !text.is_some_and(carried::is_system_path) {
        check_protected("search_path", text, bench)?;
    }
    Ok((touches("search_path", local), None))
}

/// RESET returns to the session's start-up value, which the server's own start-up does not know.
pub(super) fn reset(name: &str, tag: &'static str, local: bool, bench: Bench<'_>) -> Outcome {
    if resets::keeps_role(name, &SetValue::Default, bench.tenant) {
        return Ok(nothing(tag));
    }
    if name == idle::NAME {
        return idle::reset(tag, local, bench.talk);
    }
    let scope = if local { "LOCAL " } else { "" };
    let step = Step { tag: Some(tag), ..touches(name, local) };
    let path = bench.tenant.context.value(name).filter(|_| name == "search_path");
    if let Some(path) = path {
        // As the context binds it: quoted already.
        return Ok((step, Some(format!("SET {scope}search_path TO {path}"))));
    }
    check_protected(name, None, bench)?;
    carried::check_name(name)?;
    let follows = follows(name, None, bench)?;
    match bench.talk.start.get(name).filter(|_| follows) {
        Some(value) => Ok((step, Some(format!("SET {scope}{}", set_sql(name, value))))),
        None if follows => {
            if local {
                return Ok((touches(name, local), None));
            }
            let mut touched = Touched::default();
            touched.resets(name);
            Ok((Step { touched, ..Step::default() }, None))
        }
        None => Ok((Step::default(), None)),
    }
}

/// Nothing is done, and the client is told that it was.
pub(super) fn nothing(tag: &'static str) -> (Step, Option<String>) {
    (Step { tag: Some(tag), ..Step::default() }, Some(NOTHING.to_owned()))
}

/// A step that changes one setting, for as long as the session or only its transaction lasts.
pub(super) fn touches(name: &str, local: bool) -> Step {
    let mut touched = Touched::default();
    if !local || decides_reading(name) {
        touched.add(name);
    }
    if local {
        touched.passes(name);
    }
    Step { touched, ..Step::default() }
}

/// Refuses what would change the context. True if it is set to the very value it has.
fn check_protected(name: &str, value: Option<&str>, bench: Bench<'_>) -> Result<bool, Error> {
    let tenant = bench.tenant;
    let context = &tenant.context;
    let tenant_setting = &tenant.route.cluster.tenant_setting;
    if !carried::is_owned(name, tenant) {
        return Ok(false);
    }
    let own = match name {
        "row_security" => Some("on"),
        _ if name.eq_ignore_ascii_case(tenant_setting) => Some(tenant.id.as_str()),
        _ => context.value(name),
    };
    let same = |own: &str, value: &str| own == value || own == quote::identifier(value);
    match own.zip(value).is_some_and(|(own, value)| same(own, value)) {
        true => Ok(true),
        false => Err(Error::ContextProtected { setting: name.to_owned() }),
    }
}
