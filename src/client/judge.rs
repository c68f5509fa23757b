//! What a statement text means for this session: forward it, forward something else in its place,
//! or refuse it. Decides; sends nothing.

use std::ops::Range;
use std::rc::Rc;

use crate::catalog::Tenant;
use crate::client::caps;
use crate::client::carried;
use crate::client::due::{Effect, Step};
use crate::client::prepared::Prepared;
use crate::client::refuse;
use crate::error::Error;
use crate::guard::{self, Command, Denial, Denials, Part, ReadOptions, Reading, SetValue, Touch};
use crate::isolation::quote;
use crate::server::{Settings, Statements};

/// What to do with a text.
#[derive(Debug)]
pub enum Judged {
    /// Forward it as it is.
    Pass {
        harmless: bool,
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
    pub touches: Vec<String>,
    pub harmless: bool,
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
    /// Values of the start-up packet, which RESET returns to.
    pub start: &'session Settings,
    /// No transaction is open, for certain.
    pub outside_transaction: bool,
    pub prepared: &'session Prepared,
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
        Reading::Ordinary(ordinary) => Judged::Pass { harmless: ordinary.harmless },
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
    let mut touched = Vec::new();
    for part in parts {
        part.denied.iter().try_for_each(|rule| deny(rule, bench, &mut plan))?;
        let (step, replacement) = command(&part.command, bench, &mut plan)?;
        plan.steps.push(step);
        touched.push(plan.touches.len());
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
    for (step, touched) in plan.steps.iter_mut().zip(touched) {
        if let Some(Effect::ResetAll(behind) | Effect::DiscardAll(behind)) = &mut step.effect {
            *behind = plan.touches.get(touched..).unwrap_or_default().to_vec();
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
            for touch in touches {
                touched(touch, bench, plan)?;
            }
            untouched()
        }
        Command::Set { names, value, local } => set(names, value, *local, bench, plan),
        Command::Reset { name } => reset(name, "RESET", bench, plan),
        Command::ResetAll => itself("RESET", Effect::ResetAll(Vec::new()), bench),
        Command::DiscardAll => itself("DISCARD ALL", Effect::DiscardAll(Vec::new()), bench),
        Command::DeallocateAll => {
            let step = Step { tag: Some("DEALLOCATE ALL"), effect: Some(Effect::DeallocateAll) };
            Ok((step, Some(NOTHING.to_owned())))
        }
        Command::Deallocate { name } => {
            if bench.prepared.find(name.as_bytes()).is_none() {
                // The server says that it does not exist, in its own words, unless it has one
                // that is not this session's (any more).
                return match bench.held.is_some_and(|held| held.knows(name.as_bytes())) {
                    true => Err(Error::UnknownStatement { name: name.clone() }),
                    false => untouched(),
                };
            }
            let effect = Effect::Deallocate(Rc::from(name.as_bytes()));
            let step = Step { tag: Some("DEALLOCATE"), effect: Some(effect) };
            Ok((step, Some(NOTHING.to_owned())))
        }
        // These end what a pooled server never holds for a session, or holds for this one only.
        Command::DiscardPart
        | Command::CloseAll
        | Command::UnlistenAll
        | Command::AdvisoryUnlockAll => untouched(),
    }
}

/// A call of set_config is SET in other words; whether it is LOCAL cannot be told.
fn touched(touch: &Touch, bench: Bench<'_>, plan: &mut Plan) -> Result<(), Error> {
    let Touch { name, value } = touch;
    if name == "search_path" && value.as_deref().is_some_and(carried::is_system_path) {
        plan.touches.push(name.clone());
        return Ok(());
    }
    check_protected(name, value.as_deref(), bench)?;
    carried::check_seed(name, bench.tenant.isolation)?;
    if name == "client_encoding" {
        match value {
            Some(value) => carried::check_encoding(value)?,
            None => return Err(carried::computed_encoding()),
        }
    }
    check_cap(name, value.as_deref(), bench, plan)?;
    if carried::is_carried(name) {
        plan.touches.push(name.clone());
    }
    Ok(())
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
    Ok((Step { tag: Some(tag), effect: Some(effect) }, Some(NOTHING.to_owned())))
}

fn set(
    names: &[String],
    value: &SetValue,
    local: bool,
    bench: Bench<'_>,
    plan: &mut Plan,
) -> Outcome {
    for name in names {
        let text = match value {
            SetValue::Text(text) => Some(text.as_str()),
            SetValue::Default | SetValue::Other => None,
        };
        if name == "search_path" && bench.tenant.context.owns(name) {
            return set_path(value, local, bench, plan);
        }
        if check_protected(name, text, bench)? {
            // One's own value: accepted, and nothing to do.
            let step = Step { tag: Some("SET"), effect: None };
            return Ok((step, Some(NOTHING.to_owned())));
        }
        carried::check_seed(name, bench.tenant.isolation)?;
        if name == "client_encoding" {
            carried::check_encoding(text.unwrap_or("default"))?;
        }
        if *value != SetValue::Default {
            check_cap(name, text, bench, plan)?;
        }
        if local {
            if name == "standard_conforming_strings" {
                // It decides how the texts behind it are read.
                plan.touches.push(name.clone());
            }
            continue;
        }
        if !carried::is_carried(name) {
            return Err(carried::not_carried(name));
        }
        plan.touches.push(name.clone());
    }
    match (names, value) {
        ([name], SetValue::Default) if !local => reset(name, "SET", bench, plan),
        _ => Ok((Step::default(), None)),
    }
}

/// The path belongs to the context, but may be left for PostgreSQL's own schema and come back.
fn set_path(value: &SetValue, local: bool, bench: Bench<'_>, plan: &mut Plan) -> Outcome {
    let text = match value {
        SetValue::Default => return reset("search_path", "SET", bench, plan),
        SetValue::Text(text) => Some(text.as_str()),
        SetValue::Other => None,
    };
    if !text.is_some_and(carried::is_system_path) {
        check_protected("search_path", text, bench)?;
    }
    if !local {
        plan.touches.push("search_path".to_owned());
    }
    Ok((Step::default(), None))
}

/// RESET returns to the session's start-up value, which the server's own start-up does not know.
fn reset(name: &str, tag: &'static str, bench: Bench<'_>, plan: &mut Plan) -> Outcome {
    let path = bench.tenant.context.value(name).filter(|_| name == "search_path");
    if let Some(path) = path {
        plan.touches.push(name.to_owned());
        // As the context binds it: quoted already.
        let sql = format!("SET search_path TO {path}");
        return Ok((Step { tag: Some(tag), effect: None }, Some(sql)));
    }
    check_protected(name, None, bench)?;
    if !carried::is_carried(name) {
        return Err(carried::not_carried(name));
    }
    plan.touches.push(name.to_owned());
    let Some(value) = bench.start.get(name) else { return Ok((Step::default(), None)) };
    if name == "search_path" {
        // SET would take the quoted constant for one name; the list as the client wrote it is
        // text that nobody has read.
        return Err(carried::not_carried("search_path from the start-up packet"));
    }
    let sql = format!("SET {} TO {}", quote::identifier(name), quote::literal(value));
    Ok((Step { tag: Some(tag), effect: None }, Some(sql)))
}

/// Refuses what would change the context. True if it is set to the very value it has.
fn check_protected(name: &str, value: Option<&str>, bench: Bench<'_>) -> Result<bool, Error> {
    let tenant = bench.tenant;
    let context = &tenant.context;
    let tenant_setting = &tenant.route.cluster.tenant_setting;
    let owned = context.owns(name) || name.eq_ignore_ascii_case(tenant_setting);
    if !owned && !carried::is_protected(name, tenant.isolation) {
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
