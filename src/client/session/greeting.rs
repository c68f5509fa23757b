//! What a client hears of its server's parameters at the login. What the servers of a login say is
//! kept for all its tenants; what a tenant's context says is put in for each client anew.

use std::rc::Rc;

use crate::client::back::{PATH, is_hidden};
use crate::client::talk::Talk;
use crate::isolation::Context;
use crate::pool::Greeting;
use crate::server::Bound;

/// Whether clients are told that their login is a superuser: it is the role's, where there is one.
const SUPERUSER: &str = "is_superuser";

/// The greeting of a server for its session's start-up settings: nothing in it is the context's, or
/// one client's alone.
pub(super) fn of_server(bound: &Bound) -> Greeting {
    let mut greeting = bound.facts().greeting.clone();
    let own = |name: &str| name == "application_name" || is_hidden(name);
    let context = bound.context();
    for (name, value) in &bound.reported {
        if own(name) || context.owns(name) {
            continue;
        }
        match greeting.iter_mut().find(|(key, _)| key == name) {
            Some(entry) => entry.1.clone_from(value),
            None => greeting.push((name.clone(), value.clone())),
        }
    }
    greeting
}

impl Talk {
    /// The same with what this session's context says. Nearly always that is nothing, and then it
    /// is shared.
    pub(super) fn greeting_with_context(&self, common: Rc<Greeting>) -> Rc<Greeting> {
        if self.act.is_some() {
            // Its context is that of nobody, until it has a tenant.
            return common;
        }
        let context = &self.tenant.context;
        let differs = |(name, value): &(String, String)| {
            told_by(context, name).is_some_and(|own| own != value)
        };
        if !common.iter().any(differs) {
            return common;
        }
        let mut own = Greeting::clone(&common);
        for (name, value) in &mut own {
            if let Some(told) = told_by(context, name) {
                told.clone_into(value);
            }
        }
        Rc::new(own)
    }
}

/// What the context makes of a parameter that clients are told of.
fn told_by<'context>(context: &'context Context, name: &str) -> Option<&'context str> {
    match name {
        // Nobody is told of it: see `back.rs`.
        PATH => None,
        SUPERUSER => context.owns("role").then_some("off"),
        _ => context.value(name),
    }
}
