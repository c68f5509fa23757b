//! `MOVE TENANT`: whom to move, where to, and how long its transactions may take to end. What the
//! words mean is for the gate to say.

use std::fmt;

use crate::console::command::Word;

/// A tenant that is to have another route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveOrder {
    pub tenant: String,
    /// `None`: the one that the settings file says by now.
    pub route: Option<NewRoute>,
    /// For how long its transactions may go on; `None` for the usual time.
    pub within: Option<String>,
}

/// The columns of a route, as `tenantgate_catalog.tenants` has them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct NewRoute {
    pub isolation: String,
    pub cluster: String,
    pub connection_string: Option<String>,
    pub schema: Option<String>,
    pub role: Option<String>,
}

impl fmt::Debug for NewRoute {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "NewRoute({self})")
    }
}

impl fmt::Display for NewRoute {
    /// Without the connection string, which may have a password in it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (isolation, cluster) = (self.isolation.escape_debug(), self.cluster.escape_debug());
        write!(out, "\"{isolation}\" ON \"{cluster}\"")?;
        if self.connection_string.is_some() {
            out.write_str(" CONNECTION_STRING '(hidden)'")?;
        }
        for (word, name) in [("SCHEMA", &self.schema), ("ROLE", &self.role)] {
            if let Some(name) = name {
                write!(out, " {word} '{}'", name.escape_debug())?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for MoveOrder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, " TENANT \"{}\"", self.tenant.escape_debug())?;
        if let Some(route) = &self.route {
            write!(out, " TO {route}")?;
        }
        match &self.within {
            Some(within) => write!(out, " WITHIN '{}'", within.escape_debug()),
            None => Ok(()),
        }
    }
}

/// Reads what stands behind MOVE. An error is the first word that does not fit.
pub fn read(rest: &[Word]) -> Result<MoveOrder, String> {
    let mut words = rest.iter();
    let mut next = || words.next().ok_or_else(String::new);
    let kind = next()?;
    if !kind.is("TENANT") {
        return Err(kind.text());
    }
    let mut order = MoveOrder { tenant: next()?.text(), route: None, within: None };
    let mut rest = words.as_slice();
    if let [to, isolation, on, cluster, more @ ..] = rest
        && to.is("TO")
        && on.is("ON")
    {
        let (isolation, cluster) = (isolation.text().to_ascii_lowercase(), cluster.text());
        order.route = Some(NewRoute { isolation, cluster, ..NewRoute::default() });
        rest = more;
    }
    while let [word, more @ ..] = rest {
        let route = order.route.as_mut();
        let place = match word.keyword().as_str() {
            "CONNECTION_STRING" => route.map(|route| &mut route.connection_string),
            "SCHEMA" => route.map(|route| &mut route.schema),
            "ROLE" => route.map(|route| &mut route.role),
            "WITHIN" => Some(&mut order.within),
            _ => None,
        };
        let place = place.filter(|place| place.is_none()).ok_or_else(|| shown(word))?;
        let [value, more @ ..] = more else { return Err(String::new()) };
        *place = Some(value.text());
        rest = more;
    }
    Ok(order)
}

/// A word for an error: one that is quoted may be a secret in the wrong place.
fn shown(word: &Word) -> String {
    match word {
        Word::Quoted(_) => "a quoted text".to_owned(),
        word => word.text(),
    }
}

#[cfg(test)]
mod tests {
    use crate::console::act::Act;
    use crate::console::command::{self, Statement};

    fn act(text: &str) -> Result<Act, String> {
        command::read(text).map(|mut statements| match statements.pop() {
            Some(Statement::Act(act)) => act,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_move_is_read_whole_and_told_without_its_secret() {
        let text = "move tenant acme to SILO on main connection_string 'host=x password=geheim' \
                    role 'r' schema \"s\" within '10s';";
        let Ok(Act::Move(order)) = act(text) else { panic!("{text}") };
        let route = order.route.clone().unwrap();
        assert_eq!(
            (route.isolation.as_str(), route.cluster.as_str(), order.within.as_deref()),
            ("silo", "main", Some("10s"))
        );
        assert_eq!(route.connection_string.as_deref(), Some("host=x password=geheim"));
        let told = Act::Move(order.clone()).to_string();
        let wanted = "MOVE TENANT \"acme\" TO \"silo\" ON \"main\" CONNECTION_STRING '(hidden)' \
                      SCHEMA 's' ROLE 'r' WITHIN '10s'";
        assert_eq!(told, wanted);
        assert!(!format!("{order:?}").contains("geheim"));
        let Ok(Act::Move(order)) = act("MOVE TENANT to WITHIN 1s") else { panic!() };
        assert_eq!((order.tenant.as_str(), order.route), ("to", None));
    }

    #[test]
    fn a_move_that_does_not_fit_is_refused_at_the_word() {
        for (text, near) in [
            ("MOVE", ""),
            ("MOVE acme", "acme"),
            ("MOVE TENANT", ""),
            ("MOVE TENANT a TO", "TO"),
            ("MOVE TENANT a TO silo", "TO"),
            ("MOVE TENANT a TO silo ON", "TO"),
            ("MOVE TENANT a TO silo AT main", "TO"),
            ("MOVE TENANT a SCHEMA x", "SCHEMA"),
            ("MOVE TENANT a TO silo ON main SCHEMA", ""),
            ("MOVE TENANT a TO silo ON main SCHEMA x SCHEMA y", "SCHEMA"),
            ("MOVE TENANT a TO silo ON main 'password=geheim'", "a quoted text"),
            ("MOVE TENANT a WITHIN", ""),
        ] {
            assert_eq!(act(text), Err(near.to_owned()), "{text}");
        }
    }
}
