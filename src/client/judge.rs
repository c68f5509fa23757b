//! What a statement text means for this session: forward it, forward something else in its place,
//! or refuse it. Decides; sends nothing.

use std::ops::Range;
use std::rc::Rc;

use crate::catalog::Tenant;
use crate::client::carry::Touched;
use crate::client::carry::caps;
use crate::client::carry::carried;
use crate::client::due::{Effect, Step};
use crate::client::refuse;
use crate::client::talk::Talk;
use crate::error::Error;
use crate::guard::{
    self, Command, Denial, Denials, Part, ReadOptions, Reading, SetValue, Suspicion, Touch,
};
use crate::isolation::{Isolation, quote, set_sql};
use crate::server::Statements;

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
    /// Rules of level guard that would have refused it, were they not only reported.
    pub would_refuse: Denials,
}

impl Plan {
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
    /// What the server has prepared, for this session or another of the tenant.
    pub held: Option<&'session Statements>,
    /// How the text was read, where the server has a function that stands in for `set_config`.
    pub stand_in: Option<ReadOptions>,
}

/// What is sent in the place of a statement that the gate carries out itself: it does nothing on a
/// server that listens to nothing, takes no snapshot, and is allowed on a standby (measured:
/// 2.4 µs).
const NOTHING: &str = "UNLISTEN *";

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
    let mut spliced = Vec::new();
    let mut copied = 0;
    for part in parts {
        part.denied.iter().try_for_each(|rule| deny(rule, bench, &mut plan))?;
        let (step, replacement) = command(&part.command, bench, &mut plan)?;
        plan.suspicion = plan.suspicion.max(part.suspicion);
        plan.steps.push(step);
        if let Some(replacement) = replacement {
            spliced.extend_from_slice(text.get(copied..part.range.start).unwrap_or_default());
            spliced.extend_from_slice(replacement.as_bytes());
            copied = part.range.end;
        }
        for call in calls(text, part, bench) {
            spliced.extend_from_slice(text.get(copied..call.start).unwrap_or_default());
            spliced.extend_from_slice(STAND_IN);
            copied = call.end;
        }
    }
    if copied > 0 {
        spliced.extend_from_slice(text.get(copied..).unwrap_or_default());
        plan.text = Some(spliced);
    }
    for step in &mut plan.steps {
        if plan.suspicion == Suspicion::Lock && step.effect == Some(Effect::UnlockAll) {
            // Which came first is not looked at.
            step.effect = None;
        }
    }
    Ok(plan)
}

/// Where a statement calls `set_config`, if another function stands in for it.
fn calls(text: &[u8], part: &Part, bench: Bench<'_>) -> Vec<Range<usize>> {
    let Command::Other { touches, .. } = &part.command else { return Vec::new() };
    let Some(options) = bench.stand_in.filter(|_| !touches.is_empty()) else { return Vec::new() };
    let start = part.range.start;
    let statement = text.get(part.range.clone()).unwrap_or_default();
    let calls = guard::set_config_calls(statement, options).unwrap_or_default();
    calls.into_iter().map(|call| start + call.start..start + call.end).collect()
}

/// Refuses, unless the tenant has the rule only reported.
fn deny(rule: Denial, bench: Bench<'_>, plan: &mut Plan) -> Result<(), Error> {
    if bench.tenant.report_only.contains(rule) {
        plan.would_refuse.add(rule);
        return Ok(());
    }
    Err(refuse::denied(rule))
}

type Outcome = Result<(Step, Option<String>), Error>;

fn command(command: &Command, bench: Bench<'_>, plan: &mut Plan) -> Outcome {
    let untouched = || Ok((Step::default(), None));
    match command {
        Command::Other { harmless, touches, unknown_settings } => {
            plan.harmless &= harmless & !unknown_settings & touches.is_empty();
            let mut touched = Touched { unknown: *unknown_settings, ..Touched::default() };
            for touch in touches {
                if called(touch, bench, plan)? {
                    touched.add(&touch.name);
                }
            }
            Ok((Step { touched, ..Step::default() }, None))
        }
        Command::Set { names, value, local } => set(names, value, *local, bench, plan),
        Command::Reset { name } => reset(name, "RESET", false, bench),
        Command::ResetAll => itself("RESET", Effect::ResetAll, bench),
        Command::DiscardAll => itself("DISCARD ALL", Effect::DiscardAll, bench),
        Command::DeallocateAll => {
            let (tag, effect) = (Some("DEALLOCATE ALL"), Some(Effect::DeallocateAll));
            let step = Step { tag, effect, ..Step::default() };
            Ok((step, Some(NOTHING.to_owned())))
        }
        Command::Deallocate { name } => {
            if bench.talk.prepared.find(name.as_bytes()).is_none() {
                // The server says that it does not exist, in its own words, unless it has one
                // that is not this session's (any more).
                return match bench.held.is_some_and(|held| held.knows(name.as_bytes())) {
                    true => Err(Error::UnknownStatement { name: name.clone() }),
                    false => untouched(),
                };
            }
            let effect = Effect::Deallocate(Rc::from(name.as_bytes()));
            let step = Step { tag: Some("DEALLOCATE"), effect: Some(effect), ..Step::default() };
            Ok((step, Some(NOTHING.to_owned())))
        }
        Command::Listen if bench.tenant.isolation == Isolation::Silo => untouched(),
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

/// RESET ALL and DISCARD ALL reset the session, never the context: the gate does it. Inside a
/// transaction block PostgreSQL would undo the one and refuse the other.
fn itself(tag: &'static str, effect: Effect, bench: Bench<'_>) -> Outcome {
    if !bench.outside_transaction {
        let what = format!("{tag} inside a transaction block or a pipelined batch").into();
        let hint = "Send it alone, after COMMIT or ROLLBACK.";
        return Err(Error::NotSupported { what, hint });
    }
    Ok((Step { tag: Some(tag), effect: Some(effect), ..Step::default() }, Some(NOTHING.to_owned())))
}

fn set(
    names: &[String],
    value: &SetValue,
    local: bool,
    bench: Bench<'_>,
    plan: &mut Plan,
) -> Outcome {
    let mut touched = Touched::default();
    for name in names {
        let text = match value {
            SetValue::Text(text) => Some(text.as_str()),
            SetValue::Default | SetValue::Other => None,
        };
        if name == "search_path" && bench.tenant.context.owns(name) {
            return set_path(value, local, bench);
        }
        if check_protected(name, text, bench)? {
            // One's own value: accepted, and nothing to do.
            let step = Step { tag: Some("SET"), ..Step::default() };
            return Ok((step, Some(NOTHING.to_owned())));
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
        // SET LOCAL ends with its transaction, but this one decides how the texts behind are read.
        let lasts = !local || name == "standard_conforming_strings";
        if lasts && follows(name, text, bench)? {
            touched.add(name);
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
fn reset(name: &str, tag: &'static str, local: bool, bench: Bench<'_>) -> Outcome {
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
        None if follows => Ok((touches(name, local), None)),
        None => Ok((Step::default(), None)),
    }
}

/// A step that changes one setting, for as long as the session or only its transaction lasts.
fn touches(name: &str, local: bool) -> Step {
    let mut touched = Touched::default();
    if !local || name == "standard_conforming_strings" {
        touched.add(name);
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
