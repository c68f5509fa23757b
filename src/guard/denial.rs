//! The table of what level `guard` denies, and sets of its rows.

/// For whom a text is read: which rows of the table are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watch {
    /// Level plain: none.
    #[default]
    Off,
    Silo,
    Schema,
    Row,
}

/// A row of the table, by what it denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    AlterDatabase,
    AlterRole,
    ComputedSetting,
    DoBlock,
    LockTable,
    Routine,
    SettingCap,
    SqlInText,
    UnknownStatement,
    Unreadable,
}

/// What a client and the manual are told of a rule.
struct Facts {
    name: &'static str,
    what: &'static str,
    hint: &'static str,
    /// The weakest kind of tenant it is for: silo stands for all.
    from: Watch,
}

impl Denial {
    /// Every rule, by name.
    pub const ALL: [Self; 10] = [
        Self::AlterDatabase,
        Self::AlterRole,
        Self::ComputedSetting,
        Self::DoBlock,
        Self::LockTable,
        Self::Routine,
        Self::SettingCap,
        Self::SqlInText,
        Self::UnknownStatement,
        Self::Unreadable,
    ];

    fn facts(self) -> Facts {
        let facts = |name, from, what, hint| Facts { name, what, hint, from };
        let dba = "Have an administrator do it over a connection to PostgreSQL itself.";
        match self {
            Self::AlterDatabase => {
                facts("alter-database", Watch::Silo, "alter a database or the system", dba)
            }
            Self::AlterRole => facts("alter-role", Watch::Silo, "alter a role", dba),
            Self::ComputedSetting => facts(
                "computed-setting",
                Watch::Schema,
                "change a setting whose name the gate cannot read",
                "Give the name as a plain string, as in set_config('TimeZone', $1, true).",
            ),
            Self::DoBlock => facts(
                "do-block",
                Watch::Row,
                "run a DO block",
                "Send its statements one by one, or call a function an administrator made.",
            ),
            Self::LockTable => facts(
                "lock-table",
                Watch::Row,
                "lock a shared table",
                "Lock rows with SELECT … FOR UPDATE, or in ACCESS SHARE MODE.",
            ),
            Self::Routine => {
                facts("routine", Watch::Row, "make or alter a routine, language or extension", dba)
            }
            Self::SettingCap => facts(
                "setting-cap",
                Watch::Schema,
                "raise a setting above its cap",
                "Stay within the cap, or have an administrator run the work elsewhere.",
            ),
            Self::SqlInText => facts(
                "sql-in-text",
                Watch::Row,
                "run SQL that is the argument of a function",
                "Send the inner statement itself.",
            ),
            Self::UnknownStatement => facts(
                "unknown-statement",
                Watch::Silo,
                "run a statement the gate does not know",
                "Check its first word; PostgreSQL has no such statement.",
            ),
            Self::Unreadable => facts(
                "unreadable",
                Watch::Silo,
                "run a statement the gate cannot read",
                "Correct it: a quote, a comment or a parenthesis is not closed.",
            ),
        }
    }

    /// Its name in settings, console, metrics and the DETAIL of a refusal.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// What is denied, to be read behind "permission denied to".
    pub fn what(self) -> &'static str {
        self.facts().what
    }

    /// What to do instead, a sentence.
    pub fn hint(self) -> &'static str {
        self.facts().hint
    }

    /// Whether tenants of this kind are held by the rule.
    pub fn is_for(self, watch: Watch) -> bool {
        let weight = |watch| match watch {
            Watch::Off => 0,
            Watch::Silo => 1,
            Watch::Schema => 2,
            Watch::Row => 3,
        };
        watch != Watch::Off && weight(watch) >= weight(self.facts().from)
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A set of rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Denials(u16);

impl Denials {
    pub const NONE: Self = Self(0);

    /// The rules that these words name: names of rules, or `all`.
    ///
    /// # Errors
    ///
    /// The place of the first word that names none.
    pub fn named(words: &[String]) -> Result<Self, usize> {
        let mut set = Self::NONE;
        for (index, word) in words.iter().enumerate() {
            match Denial::ALL.into_iter().find(|rule| rule.name() == word) {
                Some(rule) => set.add(rule),
                None if word == "all" => Denial::ALL.into_iter().for_each(|rule| set.add(rule)),
                None => return Err(index),
            }
        }
        Ok(set)
    }

    pub fn of(rule: Denial) -> Self {
        Self(rule.bit())
    }

    pub fn add(&mut self, rule: Denial) {
        self.0 |= rule.bit();
    }

    pub fn contains(self, rule: Denial) -> bool {
        self.0 & rule.bit() != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Its rules in the order of the table.
    pub fn iter(self) -> impl Iterator<Item = Denial> {
        Denial::ALL.into_iter().filter(move |rule| self.contains(*rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_the_same_rules_for_the_same_tenants() {
        let manual = include_str!("../../docs/isolation.md");
        for rule in Denial::ALL {
            let tenants = match rule.facts().from {
                Watch::Silo => "all",
                Watch::Schema => "row, schema",
                Watch::Row | Watch::Off => "row",
            };
            let row = format!("| `{}` | {tenants} | ", rule.name());
            assert!(manual.contains(&row), "{row}");
        }
    }

    #[test]
    fn words_name_rules_and_all_names_every_one() {
        let words =
            |words: &[&str]| -> Vec<String> { words.iter().map(|it| (*it).into()).collect() };
        let all = Denials::named(&words(&["all"])).unwrap();
        assert!(Denial::ALL.into_iter().all(|rule| all.contains(rule)));
        let two = Denials::named(&words(&["do-block", "routine"])).unwrap();
        assert_eq!(two.iter().collect::<Vec<_>>(), [Denial::DoBlock, Denial::Routine]);
        assert_eq!(Denials::named(&words(&["routine", "bind"])), Err(1));
        assert!(all.without(all).is_empty() && two.with(all) == all);
    }
}
