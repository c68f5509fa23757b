//! Texts that mean the same tomorrow, as long as PostgreSQL itself notices what has changed under
//! them: what may be parsed once and run again and again in the place of being parsed each time.

use crate::guard::lexer::{Kind, Lexer, Token};

/// The longest name PostgreSQL keeps; of a longer one it says at each Parse that it was cut short.
const NAME_BYTES_MAX: usize = 63;

/// The words a query begins with.
const FIRST: [&str; 6] = ["select", "insert", "update", "delete", "values", "with"];

/// The words that may stand before a parenthesis: syntax that cannot be the name of a function.
/// Functions may be overloaded at any time, and PostgreSQL does not look again at what was parsed
/// before.
const OPENING: [&str; 27] = [
    "all",
    "and",
    "any",
    "as",
    "case",
    "coalesce",
    "else",
    "exists",
    "from",
    "greatest",
    "having",
    "in",
    "least",
    "limit",
    "not",
    "nullif",
    "offset",
    "on",
    "or",
    "returning",
    "select",
    "some",
    "then",
    "using",
    "values",
    "when",
    "where",
];

/// The types that a cast may name: PostgreSQL's own, which stay what they are. It does not look at
/// others again in what was parsed before.
const TYPES: [&str; 28] = [
    "bigint",
    "bool",
    "boolean",
    "bytea",
    "char",
    "date",
    "decimal",
    "double",
    "float4",
    "float8",
    "inet",
    "int",
    "int2",
    "int4",
    "int8",
    "integer",
    "interval",
    "json",
    "jsonb",
    "numeric",
    "real",
    "smallint",
    "text",
    "time",
    "timestamp",
    "timestamptz",
    "uuid",
    "varchar",
];

/// The first number that PostgreSQL gives to what is made after `initdb` (`FirstNormalObjectId`).
const MADE_LATER: u32 = 16_384;

/// Words with which a text reads or makes something that cannot be told from it.
const NEVER: [&str; 5] = ["collate", "operator", "table", "tablesample", "into"];

/// Whether every word of a text is such that PostgreSQL would take it for the same at a later
/// Parse, or notices that it would not. So no strings (their type is found by what stands around
/// them, and `'now'` is a time), no functions but count(*), no `*`, no parameter whose type is left
/// to the server, no type but the server's own, nothing but ASCII. And there is a parameter: what
/// has none PostgreSQL plans once for all uses of a statement, and only what it plans anew sees
/// what functions have become that a view calls. `types` are the parameters' types as they stand in
/// the Parse message, count included.
pub fn is_lasting(text: &[u8], types: &[u8]) -> bool {
    let oids = types.get(2..).unwrap_or_default().chunks_exact(4);
    let mut oids = oids.map(|oid| oid.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)));
    text.is_ascii() && oids.all(|oid| oid < MADE_LATER) && Look::new(text, types).lasts()
}

/// The type whose values the server takes for what stands around them: 705, as in a Parse message.
const UNKNOWN: [u8; 4] = 705_u32.to_be_bytes();

/// What a token must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Any,
    /// The `::` behind a parameter.
    Cast,
    /// The `*` of `count(*)`.
    Star,
    /// What closes it.
    Close,
    /// Nothing, behind a semicolon.
    End,
}

struct Look<'text> {
    text: &'text [u8],
    types: &'text [u8],
    /// It is in the INSERT INTO that it begins with, up to the first parenthesis or word.
    insert: bool,
    /// A parameter was there.
    varies: bool,
    /// The last token, and the one before it.
    before: [Option<Token>; 2],
}

impl<'text> Look<'text> {
    fn new(text: &'text [u8], types: &'text [u8]) -> Self {
        Self { text, types, insert: false, varies: false, before: [None; 2] }
    }

    fn lasts(mut self) -> bool {
        let mut next = Next::Any;
        // No string is let pass, so it does not matter how one would be read.
        for token in Lexer::new(self.text, true) {
            let Some(then) = token.ok().and_then(|token| self.takes(token, next)) else {
                return false;
            };
            next = then;
        }
        matches!(next, Next::Any | Next::End) && self.varies
    }

    /// What must follow; `None` if the token itself may not stand here.
    fn takes(&mut self, token: Token, due: Next) -> Option<Next> {
        let kind = token.kind;
        let next = match due {
            Next::Cast if kind != Kind::Cast => return None,
            Next::Close if kind != Kind::Close => return None,
            Next::Star if token.bytes(self.text) != b"*" => return None,
            Next::Star => Next::Close,
            Next::End => return None,
            _ => self.plainly(token)?,
        };
        self.before = [Some(token), self.before[0]];
        Some(next)
    }

    fn plainly(&mut self, token: Token) -> Option<Next> {
        let bytes = token.bytes(self.text);
        self.varies |= token.kind == Kind::Parameter;
        match (self.before[0].map(|token| token.kind), token.kind) {
            (Some(Kind::Cast), _) if !TYPES.iter().any(|it| token.is(self.text, it)) => {
                return None;
            }
            // A part of a value of many, which may be renamed.
            (Some(Kind::Close), Kind::Dot) => return None,
            _ => {}
        }
        match token.kind {
            Kind::Word => self.word(token)?,
            Kind::QuotedName if bytes.len() <= NAME_BYTES_MAX => {}
            Kind::Number | Kind::Close | Kind::Comma | Kind::Dot | Kind::Cast => {}
            Kind::Operator if !bytes.contains(&b'*') => {}
            Kind::Mark if matches!(bytes, b"[" | b"]") => {}
            Kind::Parameter if self.is_typed(bytes) => {}
            Kind::Parameter => return Some(Next::Cast),
            Kind::Open => return self.opens(),
            Kind::Semicolon if self.before[0].is_some() => return Some(Next::End),
            _ => return None,
        }
        Some(Next::Any)
    }

    fn word(&mut self, token: Token) -> Option<()> {
        let is_one = |words: &[&str]| words.iter().any(|word| token.is(self.text, word));
        if token.bytes_len() > NAME_BYTES_MAX {
            return None;
        }
        let Some(last) = self.before[0] else {
            self.insert = token.is(self.text, "insert");
            return is_one(&FIRST).then_some(());
        };
        let inserts = self.before[1].is_none() && self.insert && token.is(self.text, "into");
        let qualified = last.kind == Kind::Dot;
        // Behind the table's name.
        self.insert &= inserts || qualified || last.is(self.text, "into");
        (inserts || qualified || !is_one(&NEVER)).then_some(())
    }

    /// Whether the client has said of which type a parameter is.
    fn is_typed(&self, parameter: &[u8]) -> bool {
        let digits = parameter.get(1..).and_then(|digits| std::str::from_utf8(digits).ok());
        let number = digits.and_then(|digits| digits.parse::<usize>().ok());
        let Some(at) = number.and_then(|number| number.checked_sub(1)) else { return false };
        let oids = self.types.get(2..).unwrap_or_default();
        oids.chunks_exact(4)
            .nth(at)
            .is_some_and(|oid| ![[0; 4], UNKNOWN].iter().any(|it| it == oid))
    }

    /// A parenthesis: what stands before it must be syntax.
    fn opens(&mut self) -> Option<Next> {
        let target = std::mem::take(&mut self.insert);
        let [Some(last), behind] = self.before else { return None };
        let qualified = behind.is_some_and(|token| token.kind == Kind::Dot);
        match last.kind {
            Kind::Open | Kind::Comma | Kind::Operator => return Some(Next::Any),
            // The columns behind INSERT INTO and the table's name.
            Kind::Word | Kind::QuotedName if target => return Some(Next::Any),
            Kind::Word if !qualified => {}
            _ => return None,
        }
        if last.is(self.text, "count") {
            return Some(Next::Star);
        }
        OPENING.iter().any(|word| last.is(self.text, word)).then_some(Next::Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_TYPES: &[u8] = &[0, 0];
    /// int4, unknown, not said.
    const TYPES: &[u8] = &[0, 3, 0, 0, 0, 23, 0, 0, 2, 193, 0, 0, 0, 0];

    #[test]
    fn what_applications_send_most_is_lasting() {
        for text in [
            "select id, body from notes where id = $1;",
            "SELECT \"n\".\"id\" FROM \"app\".\"notes\" AS \"n\" WHERE (\"n\".\"id\" = $1) LIMIT 1",
            "SELECT count(*) FROM a JOIN b USING (id) WHERE a.x IN ($1, 2, 3.5) OR NOT (b.y)",
            "INSERT INTO app.notes (id, body) VALUES ($1, $2::text) RETURNING id",
            "UPDATE notes SET body = $2::text, at = CURRENT_TIMESTAMP WHERE id = $1",
            "DELETE FROM notes WHERE id = ANY ($2::int4[])",
            "WITH x AS (SELECT id FROM notes) SELECT id FROM x WHERE id > $1 FOR UPDATE",
            "VALUES (coalesce($1, 2)) /* said 'by' somebody */",
        ] {
            assert!(is_lasting(text.as_bytes(), TYPES), "{text}");
        }
    }

    #[test]
    fn what_may_mean_something_else_is_not() {
        for text in [
            "",
            ";",
            "SELECT 1",
            "SELECT body FROM notes ORDER BY id",
            "SELECT $2::mood, $1",
            "SELECT $2::app.mood, $1",
            "SELECT $2::\"text\", $1",
            "SELECT $2::unknown, $1",
            "SELECT (n.place).city FROM notes n WHERE id = $1",
            "SHOW all",
            "TABLE notes",
            "SELECT * FROM notes",
            "SELECT notes.* FROM notes",
            "SELECT a * 2 FROM notes",
            "SELECT count(*), now() FROM notes",
            "SELECT app.count(*) FROM notes",
            "SELECT count(* , a)",
            "SELECT count(id) FROM notes",
            "SELECT lower(body) FROM notes",
            "SELECT \"lower\"(body) FROM notes",
            "SELECT app.in(1)",
            "SELECT by(1), set(1)",
            "SELECT id FROM notes WHERE at > 'now'",
            "SELECT id FROM notes WHERE at > E'now'",
            "SELECT id FROM notes WHERE at > $$now$$",
            "SELECT id FROM notes WHERE at > U&'now'",
            "SELECT B'1'",
            "SELECT timestamptz 'now'",
            "SELECT id FROM notes WHERE id = $2",
            "SELECT id FROM notes WHERE id = $3",
            "SELECT id FROM notes WHERE id = $4",
            "SELECT id FROM notes WHERE id = $0",
            "SELECT id FROM notes WHERE id = $2",
            "SELECT body COLLATE x FROM notes",
            "SELECT 1 OPERATOR(app.+) 1",
            "SELECT id INTO x FROM notes",
            "INSERT INTO notes SELECT f(1)",
            "INSERT INTO notes SELECT f (1)",
            "INSERT INTO notes (a) SELECT f(1)",
            "INSERT INTO app.notes VALUES (f(1))",
            "SELECT 1::numeric(10, 2)",
            "SELECT 1; SELECT 2",
            "SELECT 1;;",
            "SELECT U&\"a\" FROM notes",
            "SELECT 'a",
            "SELECT \u{e9} FROM notes",
            "SELECT id FROM notes WHERE a = :x",
        ] {
            assert!(!is_lasting(text.as_bytes(), TYPES), "{text}");
            // Each for its own reason, whether a parameter is there or not.
            let varied = text.replacen("SELECT ", "SELECT $1, ", 1);
            let alone = ["SELECT 1", "SELECT body FROM notes ORDER BY id"];
            assert!(alone.contains(&text) || !is_lasting(varied.as_bytes(), TYPES), "{varied}");
        }
        let mood = [0, 1, 0, 0, 0x40, 0];
        assert!(
            !is_lasting(b"SELECT $1", &mood) && is_lasting(b"SELECT $1", &[0, 1, 0, 0, 0x3f, 255])
        );
        let long = format!("SELECT {} FROM notes", "n".repeat(64));
        assert!(!is_lasting(long.as_bytes(), TYPES));
        assert!(!is_lasting(b"SELECT $1", NO_TYPES) && !is_lasting(b"SELECT $1", b""));
    }

    #[test]
    fn random_texts_never_panic() {
        let words = ["select", "insert", "into", "count", "(", "*", ")", "$1", "::", ".", "'", ";"];
        let mut random = fastrand::Rng::with_seed(23);
        for _ in 0..50_000 {
            let some: Vec<&str> =
                (0..random.usize(..9)).filter_map(|_| random.choice(words)).collect();
            let (text, types) = (some.concat(), &TYPES[..random.usize(..=TYPES.len())]);
            let spaced = some.join(" ");
            let lasts = is_lasting(spaced.as_bytes(), types) || is_lasting(text.as_bytes(), types);
            assert!(!lasts || !spaced.contains('\''), "{spaced}");
        }
    }
}
