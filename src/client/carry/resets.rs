//! RESET ALL and DISCARD ALL: they reset the session and never the context, so no server is sent
//! either. Outside of a transaction the gate puts the session's books back, and whoever has the
//! server next gets it scrubbed. Inside of one, RESET ALL is each of the session's settings by
//! itself, so that the transaction can undo it, and DISCARD ALL fails as it does on a server.

use std::collections::BTreeSet;

use crate::catalog::Tenant;
use crate::client::carry::{Touched, idle};
use crate::client::due::{Due, Effect, Step};
use crate::client::forward::{Went, bench};
use crate::client::judge::{Bench, NOTHING, Outcome, Plan, nothing, reset};
use crate::client::relay::{Ended, Exchange};
use crate::error::Error;
use crate::guard::{Command, Part, SetValue, Suspicion};
use crate::isolation::{Isolation, name_sql};
use crate::wire::frame::Header;
use crate::wire::frontend;

/// A statement that fails whenever it runs, and not before; in an aborted transaction it is refused
/// as every other.
const FAILING: &str = "SET transaction_isolation TO 'refused'";

/// With what it fails.
pub const FAILING_SQLSTATE: &str = "22023";

/// The name of the statement and the portal in which the gate puts a setting back.
const OWN_NAME: &[u8] = b"tenantgate_reset";

/// What stands in one message with a statement.
#[derive(Clone, Copy, Debug)]
pub struct Company {
    alone: bool,
    /// All of it is of the kind that the gate can answer for without a transaction.
    of_session: bool,
}

impl Company {
    /// Looks at all statements of a text.
    pub fn of(parts: &[Part]) -> Self {
        let is_other = |part: &Part| {
            let command = &part.command;
            matches!(command, Command::Other { .. } | Command::DiscardAll)
                || matches!(command, Command::Prepare { .. } | Command::Execute { .. })
        };
        Self { alone: parts.len() == 1, of_session: !parts.iter().any(is_other) }
    }
}

/// Whether the tenant may change its role: where the database is its own and the route has none,
/// the login is all that binds it.
pub fn has_role_of_its_own(name: &str, tenant: &Tenant) -> bool {
    let is_role = matches!(name, "role" | "session_authorization");
    is_role && tenant.isolation == Isolation::Silo && tenant.context.value("role").is_none()
}

/// SET ROLE and its kin: the server is asked who it is, and stays with the session as long as that
/// is not its login.
pub fn role(value: &SetValue, plan: &mut Plan) -> (Step, Option<String>) {
    let suspicion = match value {
        SetValue::Default => Suspicion::Release,
        SetValue::Text(text) if text == "none" => Suspicion::Release,
        _ => Suspicion::Some,
    };
    plan.suspicion = plan.suspicion.max(suspicion);
    plan.harmless = false;
    (Step::default(), None)
}

/// Whether a command leaves the role as it is: the context's, or none where it has none.
pub fn keeps_role(name: &str, value: &SetValue, tenant: &Tenant) -> bool {
    let none = || matches!(value, SetValue::Text(text) if text == "none");
    match name {
        "session_authorization" => *value == SetValue::Default,
        "role" => *value == SetValue::Default || none() && tenant.context.value(name).is_none(),
        _ => false,
    }
}

/// RESET ALL.
pub fn reset_all(company: Company, bench: Bench<'_>, plan: &mut Plan) -> Outcome {
    if bench.parsed || bench.outside_transaction && company.of_session {
        let (tag, effect) = (Some("RESET"), Some(Effect::ResetAll));
        return Ok((Step { tag, effect, ..Step::default() }, Some(NOTHING.to_owned())));
    }
    if plan.just_reset {
        return Ok(nothing("RESET"));
    }
    check_known(bench, &plan.touched)?;
    let names = plan.to_reset.get_or_insert_with(|| names(bench, &plan.touched));
    let mut each = each(bench, names)?;
    let texts: Vec<String> = each.iter().map(|(_, text)| text.clone()).collect();
    let Some((last, _)) = each.pop() else { return Ok(nothing("RESET")) };
    plan.check_count(each.len())?;
    let silent = |(step, _)| Step { silent: true, tag: None, ..step };
    plan.steps.extend(each.into_iter().map(silent));
    Ok((Step { tag: Some("RESET"), ..last }, Some(texts.join("; "))))
}

/// DISCARD ALL.
pub fn discard_all(company: Company, bench: Bench<'_>) -> (Step, Option<String>) {
    let tag = "DISCARD ALL";
    if bench.parsed || bench.outside_transaction && company.alone {
        let effect = Some(Effect::DiscardAll);
        return (Step { tag: Some(tag), effect, ..Step::default() }, Some(NOTHING.to_owned()));
    }
    let fails = Some(Error::InsideTransaction { pipeline: false });
    (Step { fails, ..Step::default() }, Some(FAILING.to_owned()))
}

/// Refuses where a setting was changed that cannot be told.
fn check_known(bench: Bench<'_>, earlier: &Touched) -> Result<(), Error> {
    if !earlier.unknown && !bench.talk.touched.is_unknown() {
        return Ok(());
    }
    let what = "RESET ALL in a transaction that set a setting by a computed name".into();
    Err(Error::NotSupported { what, hint: "Send it when the transaction is over." })
}

/// Each setting that the session has, or its transaction may have changed.
fn names(bench: Bench<'_>, earlier: &Touched) -> BTreeSet<String> {
    let talk = bench.talk;
    let own = talk.now.iter().filter(|(name, value)| talk.start.get(name) != Some(value));
    let gone = talk.start.iter().filter(|(name, _)| talk.now.get(name).is_none());
    let changed = talk.touched.all_names().chain(earlier.all_names());
    own.chain(gone).map(|(name, _)| name).chain(changed).map(str::to_owned).collect()
}

/// What puts each of them back.
fn each(bench: Bench<'_>, names: &BTreeSet<String>) -> Result<Vec<(Step, String)>, Error> {
    let back = |name: &String| {
        let name = if name == idle::OWN { idle::NAME } else { name };
        let (step, text) = reset(name, "RESET", false, bench)?;
        Ok((step, text.unwrap_or_else(|| format!("RESET {}", name_sql(name)))))
    };
    names.iter().map(back).collect()
}

impl Exchange<'_> {
    /// Runs a portal of RESET ALL or DISCARD ALL: what it does depends on whether something runs
    /// before it in its transaction, so everything before it must be answered.
    pub(in crate::client) fn execute_reset(
        &mut self,
        header: Header,
        step: Box<Step>,
    ) -> Result<Went, Ended> {
        if !self.relay.due.is_empty() {
            return Ok(self.wait_for_answers(None));
        }
        let block = self.relay.status != b'I';
        if matches!(step.effect, Some(Effect::DiscardAll)) {
            if block || self.relay.executed {
                let error = Error::InsideTransaction { pipeline: !block };
                return Ok(self.refuse_in_batch(header, error));
            }
            self.send_frame(header, Due::Execute(Some(step)));
            return Ok(Went::Next);
        }
        let bench = bench(self.talk, &self.relay, None);
        let earlier = Touched::default();
        let known = check_known(bench, &earlier);
        let each = match known.and_then(|()| each(bench, &names(bench, &earlier))) {
            Ok(each) => each,
            Err(error) => return Ok(self.refuse_in_batch(header, error)),
        };
        // Alone it is more: what nobody saw being set goes as well.
        let inside = block || self.relay.executed;
        let effect = step.effect.clone().filter(|_| !inside);
        self.run_each(header, each, Step { effect, ..*step });
        Ok(Went::Next)
    }

    /// Runs statements of the gate's own in the place of the client's portal, whose end is theirs.
    fn run_each(&mut self, header: Header, each: Vec<(Step, String)>, whole: Step) {
        let mut last = Some(Box::new(whole));
        if each.is_empty() {
            return self.send_frame(header, Due::Execute(last));
        }
        let mut dues = Vec::new();
        let count = each.len();
        self.replace_frame(header, |out| {
            for (_, text) in &each {
                frontend::put_run(out, OWN_NAME, text.as_bytes());
            }
            frontend::put_close_both(out, OWN_NAME);
        });
        for (at, (step, _)) in each.into_iter().enumerate() {
            self.talk.touches_soon(&step.touched);
            dues.extend([b'3', b'3', b'1', b'2'].map(Due::Own));
            match last.take_if(|_| at + 1 == count) {
                Some(mut whole) => {
                    whole.touched.extend(&step.touched);
                    dues.push(Due::Execute(Some(whole)));
                }
                None => dues.push(Due::Execute(Some(Box::new(Step {
                    silent: true,
                    tag: None,
                    ..step
                })))),
            }
        }
        dues.extend([b'3', b'3'].map(Due::Own));
        dues.into_iter().for_each(|due| self.begin(due));
    }
}
