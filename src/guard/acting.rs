//! What a session without a tenant of its own says about whom it acts for: the choice of a tenant
//! in every spelling the gate takes, and the beginnings and ends of transactions around it.

use crate::guard::lexer::{Kind, Lexer, Token};
use crate::guard::{Command, ReadOptions, Reading, SetValue, literal};

/// What the settings of a choice begin with. No server has settings of such names.
pub const OWN_PREFIX: &str = "tenantgate.";

/// Most tokens of a statement that is told from others by its shape.
const SHAPE_MAX: usize = 40;

/// How a tenant is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `tenantgate.tenant`: by its id.
    Tenant,
    /// `tenantgate.token`: by a token of its own.
    Token,
}

impl Key {
    /// The setting of this name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "tenantgate.tenant" => Some(Self::Tenant),
            "tenantgate.token" => Some(Self::Token),
            _ => None,
        }
    }
}

/// What is done with a savepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Set,
    Release,
    Return,
}

/// One statement, as far as acting for tenants goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// It has no part in it.
    Other,
    /// No statement at all.
    Empty,
    /// BEGIN or START TRANSACTION with its modes, spelled plainly.
    Begin { sql: String, tag: &'static str },
    /// SAVEPOINT, RELEASE or ROLLBACK TO.
    Mark { mark: Mark, name: String },
    /// COMMIT or ROLLBACK, by any of their names, alone.
    End { commit: bool },
    /// One of them with AND CHAIN.
    Chain,
    /// Several statements, and one of them begins or ends a transaction.
    Mixed,
    /// SET and RESET of one of the settings; `None` is no tenant.
    Set { key: Key, value: Option<String>, local: bool, tag: &'static str },
    /// SELECT set_config(…) of one of them, or of a name that is a parameter.
    Call(Call),
    /// SHOW tenantgate.tenant.
    Show,
    /// It asks for, or gives, something of these names that the gate does not answer.
    Hidden,
}

/// A call of set_config that is a whole statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub name: Argument,
    pub value: Argument,
    pub local: Argument,
    /// What the result's column is called.
    pub label: String,
}

/// An argument of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    Text(String),
    /// `$1` is 1.
    Parameter(usize),
}

impl Argument {
    /// The text, if it stands in the statement.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Parameter(_) => None,
        }
    }
}

impl Call {
    /// How many parameters the statement has.
    pub fn parameters(&self) -> usize {
        let number = |argument: &Argument| match argument {
            Argument::Text(_) => 0,
            Argument::Parameter(number) => *number,
        };
        [&self.name, &self.value, &self.local].into_iter().map(number).max().unwrap_or(0)
    }
}

/// Reads a text of which `reading` is known already.
pub fn act(text: &[u8], options: ReadOptions, reading: &Reading) -> Act {
    if let Reading::Special(parts) = reading
        && let [part] = &**parts
        && let Some(set) = set(&part.command)
    {
        return set;
    }
    let Some(shape) = Shape::of(text, options) else { return Act::Other };
    match shape.statements {
        0 => Act::Empty,
        1 => shape.single(text),
        _ if shape.control => Act::Mixed,
        _ => Act::Other,
    }
}

fn set(command: &Command) -> Option<Act> {
    let (name, value, local, tag) = match command {
        Command::Set { names, value, local } => match &names[..] {
            [name] => (name, Some(value), *local, "SET"),
            _ => return None,
        },
        Command::Reset { name } => (name, None, false, "RESET"),
        _ => return None,
    };
    if !name.starts_with(OWN_PREFIX) {
        return None;
    }
    let Some(key) = Key::named(name) else { return Some(Act::Hidden) };
    let value = match value {
        None | Some(SetValue::Default) => None,
        Some(SetValue::Text(text)) => Some(text.clone()).filter(|text| !text.is_empty()),
        Some(SetValue::Other) => return Some(Act::Hidden),
    };
    Some(Act::Set { key, value, local, tag })
}

/// How many statements a text has, and the tokens of the first.
struct Shape {
    statements: usize,
    control: bool,
    first: Vec<Token>,
    /// The first has more tokens than are kept.
    long: bool,
}

impl Shape {
    /// `None` if the text cannot be read: the server will run none of it.
    fn of(text: &[u8], options: ReadOptions) -> Option<Self> {
        let mut shape = Self { statements: 0, control: false, first: Vec::new(), long: false };
        let (mut depth, mut within, mut head) = (0_usize, false, Vec::<Token>::new());
        for token in Lexer::new(text, options.standard_conforming_strings) {
            let token = token.ok()?;
            match token.kind {
                Kind::Open => depth += 1,
                Kind::Close => depth = depth.checked_sub(1)?,
                Kind::Semicolon if depth == 0 => {
                    shape.control |= is_control(text, &head);
                    (within, head) = (false, Vec::new());
                    continue;
                }
                _ => {}
            }
            if !within {
                within = true;
                shape.statements += 1;
            }
            if head.len() < 3 {
                head.push(token);
            }
            if shape.statements == 1 {
                shape.long |= shape.first.len() >= SHAPE_MAX;
                if !shape.long {
                    shape.first.push(token);
                }
            }
        }
        shape.control |= is_control(text, &head);
        Some(shape)
    }

    fn single(&self, text: &[u8]) -> Act {
        if self.long {
            return Act::Other;
        }
        let mut rest = Rest { text, tokens: &self.first };
        let read = match () {
            () if rest.word("select") => rest.call(),
            () if rest.word("show") => rest.show(),
            () if rest.word("begin") => rest.begin("BEGIN"),
            () if rest.word("start") => {
                if rest.word("transaction") {
                    rest.begin("START TRANSACTION")
                } else {
                    None
                }
            }
            () if rest.word("savepoint") => rest.mark(Mark::Set),
            () if rest.word("release") => {
                rest.word("savepoint");
                rest.mark(Mark::Release)
            }
            () if rest.word("commit") || rest.word("end") => rest.end(true),
            () if rest.word("rollback") || rest.word("abort") => rest.end(false),
            () => None,
        };
        read.unwrap_or(Act::Other)
    }
}

/// Whether every statement of a text reads and does nothing else, by its first word.
pub fn only_looks(text: &[u8], options: ReadOptions) -> bool {
    let (mut depth, mut within) = (0_usize, false);
    for token in Lexer::new(text, options.standard_conforming_strings) {
        let Ok(token) = token else { return false };
        match token.kind {
            Kind::Semicolon if depth == 0 => {
                within = false;
                continue;
            }
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !within {
            within = true;
            if !["select", "show", "values"].iter().any(|word| token.is(text, word)) {
                return false;
            }
        }
    }
    true
}

/// Whether a statement that starts so begins or ends a transaction.
fn is_control(text: &[u8], head: &[Token]) -> bool {
    let is = |at: usize, word: &str| head.get(at).is_some_and(|token| token.is(text, word));
    if is(0, "rollback") {
        let filler = is(1, "work") || is(1, "transaction");
        return !is(if filler { 2 } else { 1 }, "to");
    }
    ["begin", "start", "commit", "end", "abort"].iter().any(|word| is(0, word))
}

/// Tokens that were not looked at yet.
struct Rest<'text> {
    text: &'text [u8],
    tokens: &'text [Token],
}

impl Rest<'_> {
    fn next(&mut self) -> Option<Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(*first)
    }

    fn word(&mut self, word: &str) -> bool {
        let is = self.tokens.first().is_some_and(|token| token.is(self.text, word));
        if is {
            self.next();
        }
        is
    }

    fn words(&mut self, words: &[&str]) -> bool {
        let is = |(at, word): (usize, &&str)| {
            self.tokens.get(at).is_some_and(|token| token.is(self.text, word))
        };
        let all = words.iter().enumerate().all(is);
        if all {
            self.tokens = self.tokens.get(words.len()..).unwrap_or_default();
        }
        all
    }

    fn kind(&mut self, kind: Kind) -> bool {
        let is = self.tokens.first().is_some_and(|token| token.kind == kind);
        if is {
            self.next();
        }
        is
    }

    fn begin(&mut self, tag: &'static str) -> Option<Act> {
        const MODES: [&[&str]; 8] = [
            &["isolation", "level", "serializable"],
            &["isolation", "level", "repeatable", "read"],
            &["isolation", "level", "read", "committed"],
            &["isolation", "level", "read", "uncommitted"],
            &["read", "only"],
            &["read", "write"],
            &["not", "deferrable"],
            &["deferrable"],
        ];
        if tag == "BEGIN" && !self.word("work") {
            self.word("transaction");
        }
        let mut sql = tag.to_owned();
        while !self.tokens.is_empty() {
            if sql.len() > tag.len() && self.kind(Kind::Comma) {
                sql.push(',');
            }
            let mode = MODES.iter().find(|mode| self.words(mode))?;
            sql.push(' ');
            sql.push_str(&mode.join(" "));
        }
        Some(Act::Begin { sql, tag })
    }

    fn end(&mut self, commit: bool) -> Option<Act> {
        if !self.word("work") {
            self.word("transaction");
        }
        if self.words(&["and", "chain"]) {
            return self.tokens.is_empty().then_some(Act::Chain);
        }
        if !commit && self.word("to") {
            self.word("savepoint");
            return self.mark(Mark::Return);
        }
        self.words(&["and", "no", "chain"]);
        self.tokens.is_empty().then_some(Act::End { commit })
    }

    fn mark(&mut self, mark: Mark) -> Option<Act> {
        let name = literal::name(self.text, self.next()?)?;
        self.tokens.is_empty().then_some(Act::Mark { mark, name })
    }

    fn show(&mut self) -> Option<Act> {
        let mut name = literal::name(self.text, self.next()?)?;
        while self.kind(Kind::Dot) {
            name.push('.');
            name.push_str(&literal::name(self.text, self.next()?)?);
        }
        let own = self.tokens.is_empty() && name.to_ascii_lowercase().starts_with(OWN_PREFIX);
        match Key::named(&name).filter(|_| own) {
            Some(Key::Tenant) => Some(Act::Show),
            Some(Key::Token) => Some(Act::Hidden),
            None => own.then_some(Act::Hidden),
        }
    }

    /// `[pg_catalog.]set_config(name, value, local) [[AS] label]`.
    fn call(&mut self) -> Option<Act> {
        if self.is_name("pg_catalog", 1) {
            self.next();
            self.next();
        }
        if !self.is_name("set_config", 0) {
            return None;
        }
        self.next();
        self.kind(Kind::Open).then_some(())?;
        let name = self.argument()?;
        self.kind(Kind::Comma).then_some(())?;
        let value = self.argument();
        let ours = |name: &str| name.to_ascii_lowercase().starts_with(OWN_PREFIX);
        if name.text().is_some_and(|name| !ours(name)) {
            return None;
        }
        // From here on it is the gate's, if the name is.
        let otherwise = name.text().map(|_| Act::Hidden);
        let known = name.text().is_none_or(|name| Key::named(name).is_some());
        let Some(value) = value.filter(|_| known && self.kind(Kind::Comma)) else {
            return otherwise;
        };
        let Some(local) = self.argument().filter(|_| self.kind(Kind::Close)) else {
            return otherwise;
        };
        let label = match self.label() {
            Some(label) if self.tokens.is_empty() => label,
            _ => return otherwise,
        };
        if name.text().is_none() && value.text().is_some() {
            // What would go to a server could be a token.
            return Some(Act::Hidden);
        }
        Some(Act::Call(Call { name, value, local, label }))
    }

    /// Whether a name stands here, with a dot behind it or without.
    fn is_name(&self, name: &str, dots: usize) -> bool {
        let Some(first) = self.tokens.first().filter(|token| token.kind.is_name()) else {
            return false;
        };
        let dot = self.tokens.get(1).is_some_and(|token| token.kind == Kind::Dot);
        literal::name(self.text, *first).as_deref() == Some(name) && dot == (dots == 1)
    }

    fn argument(&mut self) -> Option<Argument> {
        let token = self.next()?;
        let argument = match token.kind {
            Kind::Parameter => {
                let digits = token.bytes(self.text).get(1..)?;
                let number = std::str::from_utf8(digits).ok()?.parse::<u16>().ok()?;
                Argument::Parameter(usize::from(number).max(1))
            }
            Kind::Word if token.is(self.text, "true") => Argument::Text("true".to_owned()),
            Kind::Word if token.is(self.text, "false") => Argument::Text("false".to_owned()),
            _ => Argument::Text(literal::string(self.text, token)?),
        };
        if self.kind(Kind::Cast) {
            let types = ["text", "varchar", "bool", "boolean"];
            types.iter().any(|name| self.word(name)).then_some(())?;
        }
        Some(argument)
    }

    fn label(&mut self) -> Option<String> {
        let named = self.word("as");
        match self.next() {
            None if named => None,
            None => Some("set_config".to_owned()),
            Some(token) => literal::name(self.text, token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::{Watch, read};

    fn of(text: &str) -> Act {
        let options = ReadOptions { standard_conforming_strings: true, watch: Watch::Off };
        act(text.as_bytes(), options, &read(text.as_bytes(), options))
    }

    fn chosen(value: &str, local: bool) -> Act {
        let value = Some(value.to_owned());
        Act::Set { key: Key::Tenant, value, local, tag: "SET" }
    }

    #[test]
    fn a_choice_is_read_in_every_spelling() {
        let local = [
            "SET LOCAL tenantgate.tenant = 'acme'",
            "/* a */ set local TENANTGATE.Tenant TO acme -- b",
            "SET LOCAL \"tenantgate\".\"tenant\" = E'ac\\x6de';",
            "SET LOCAL \"TenantGate.tenant\" = 'acme'",
            "SET LOCAL U&\"tenant\\0067ate\".tenant = U&'\\0061cme'",
            "SET LOCAL tenantgate.tenant = $$acme$$",
        ];
        for text in local {
            assert_eq!(of(text), chosen("acme", true), "{text}");
        }
        assert_eq!(of("SET tenantgate.tenant = 'acme'"), chosen("acme", false));
        assert_eq!(of("SET SESSION tenantgate.tenant = 'acme'"), chosen("acme", false));
        let none = |tag, local| Act::Set { key: Key::Tenant, value: None, local, tag };
        assert_eq!(of("RESET tenantgate.tenant"), none("RESET", false));
        assert_eq!(of("SET tenantgate.tenant TO DEFAULT"), none("SET", false));
        assert_eq!(of("SET LOCAL tenantgate.tenant TO ''"), none("SET", true));
        assert_eq!(of("SHOW tenantgate.tenant"), Act::Show);
        assert_eq!(of("SHOW \"tenantgate\" . Tenant;"), Act::Show);
    }

    #[test]
    fn calls_of_set_config_are_read_with_their_parameters() {
        let Act::Call(call) = of("SELECT set_config('tenantgate.token', $1, true)") else {
            panic!("not read as a call")
        };
        assert_eq!((call.parameters(), call.label.as_str()), (1, "set_config"));
        assert_eq!(call.value, Argument::Parameter(1));
        let calls = [
            "select pg_catalog.set_config($1, $2, $3) AS set_config_1",
            "SELECT \"set_config\"('tenantgate.tenant'::text, $1::varchar, 't') x;",
            "SELECT set_config(U&'tenantgate\\002etenant', 'a', false)",
        ];
        for text in calls {
            assert!(matches!(of(text), Act::Call(_)), "{text}: {:?}", of(text));
        }
        let others = [
            "SELECT set_config('app.x', $1, true)",
            "SELECT set_config('tenantgate' || '.tenant', 'a', true)",
            "SELECT public.set_config($1, $2, $3)",
            "SELECT 1",
        ];
        for text in others {
            assert_eq!(of(text), Act::Other, "{text}");
        }
        let hidden = [
            "SELECT set_config('tenantgate.tenant', upper('a'), true)",
            "SELECT set_config('tenantgate.tenant', 'a', true), 1",
            "SELECT set_config('tenantgate.tenant', 'a', true) FROM pg_class",
            "SELECT set_config('tenantgate.other', 'a', true)",
            "SET tenantgate.other = 1",
            "SET LOCAL tenantgate.tenant FROM CURRENT",
            "SHOW tenantgate.token",
        ];
        for text in hidden {
            assert_eq!(of(text), Act::Hidden, "{text}");
        }
    }

    #[test]
    fn beginnings_and_ends_of_transactions_are_told_apart() {
        let Act::Begin { sql, tag } =
            of("begin/**/transaction Isolation LEVEL serializable, read only")
        else {
            panic!("not read as BEGIN")
        };
        assert_eq!((sql.as_str(), tag), ("BEGIN isolation level serializable, read only", "BEGIN"));
        assert!(matches!(of("START TRANSACTION READ WRITE NOT DEFERRABLE"), Act::Begin { .. }));
        for text in ["BEGIN ISOLATION LEVEL", "BEGIN , READ ONLY", "START", "BEGIN READ ONLY,"] {
            assert_eq!(of(text), Act::Other, "{text}");
        }
        for text in ["COMMIT", "end work", "COMMIT TRANSACTION AND NO CHAIN;"] {
            assert_eq!(of(text), Act::End { commit: true }, "{text}");
        }
        for text in ["ROLLBACK", "abort transaction"] {
            assert_eq!(of(text), Act::End { commit: false }, "{text}");
        }
        for text in ["COMMIT AND CHAIN", "ROLLBACK WORK AND CHAIN"] {
            assert_eq!(of(text), Act::Chain, "{text}");
        }
        for text in
            ["SELECT 1; COMMIT", "COMMIT; BEGIN", ";;SELECT 1;; /*x*/ end ;", "a(b;c); abort"]
        {
            assert_eq!(of(text), Act::Mixed, "{text}");
        }
        let marks = [
            ("SAVEPOINT \"_pg3_1\"", Mark::Set),
            ("release _pg3_1", Mark::Release),
            ("ROLLBACK TO SAVEPOINT _pg3_1", Mark::Return),
        ];
        for (text, mark) in marks {
            assert_eq!(of(text), Act::Mark { mark, name: "_pg3_1".to_owned() }, "{text}");
        }
        for text in ["SELECT 1; SELECT 2", "SAVEPOINT a; ROLLBACK WORK TO a"] {
            assert_eq!(of(text), Act::Other, "{text}");
        }
        for text in ["", ";", " -- ping", "/* x */;"] {
            assert_eq!(of(text), Act::Empty, "{text}");
        }
    }

    #[test]
    fn random_texts_never_panic() {
        let words = concat!(
            "SELECT set_config ( ) 'tenantgate.tenant' , $1 true ; BEGIN COMMIT AND CHAIN ",
            "SET LOCAL tenantgate . tenant = ' \" U&\" E'\\ $$ SHOW :: text AS /* -- \n TO ",
            "SAVEPOINT",
        );
        let words: Vec<&str> = words.split(' ').collect();
        let mut random = fastrand::Rng::with_seed(29);
        for _ in 0..30_000 {
            let count = random.usize(..12);
            let text: Vec<&str> = (0..count).map(|_| words[random.usize(..words.len())]).collect();
            let _ = of(&text.join([" ", ""][random.usize(..2)]));
        }
    }
}
