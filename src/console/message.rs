//! Bodies of the messages a console client sends, decoded with every length checked (PostgreSQL
//! manual, 55.7). A body that is not exactly its fields is a protocol violation.

use crate::error::Error;

/// Most result format codes we read; no table of the console has that many columns.
const FORMATS_MAX: usize = 64;

/// What a Parse asks for; the types of parameters are skipped, since no command takes any.
#[derive(Debug, PartialEq, Eq)]
pub struct Parse {
    pub statement: String,
    pub text: String,
}

/// What a Bind asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Bind {
    pub portal: String,
    pub statement: String,
    pub parameters: usize,
    pub formats: Vec<i16>,
}

/// What a Describe or Close means.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    Statement(String),
    Portal(String),
}

/// What an Execute asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Execute {
    pub portal: String,
    /// Most rows to send now; `None` means all.
    pub rows_max: Option<usize>,
}

/// The text of a Query.
pub fn query(body: &[u8]) -> Result<String, Error> {
    let mut reader = Reader(body);
    let text = reader.text()?;
    reader.end(text)
}

/// The body of a Parse.
pub fn parse(body: &[u8]) -> Result<Parse, Error> {
    let mut reader = Reader(body);
    let parse = Parse { statement: reader.text()?, text: reader.text()? };
    let types = reader.count()?;
    reader.skip(types * 4)?;
    reader.end(parse)
}

/// The body of a Bind.
pub fn bind(body: &[u8]) -> Result<Bind, Error> {
    let mut reader = Reader(body);
    let (portal, statement) = (reader.text()?, reader.text()?);
    let parameter_formats = reader.count()?;
    reader.skip(parameter_formats * 2)?;
    let parameters = reader.count()?;
    for _ in 0..parameters {
        // A negative length stands for NULL and has no bytes.
        let length = i32::from_be_bytes(reader.take::<4>()?);
        reader.skip(usize::try_from(length).unwrap_or(0))?;
    }
    let count = reader.count()?;
    if count > FORMATS_MAX {
        return Err(malformed());
    }
    let mut formats = Vec::with_capacity(count);
    for _ in 0..count {
        formats.push(i16::from_be_bytes(reader.take::<2>()?));
    }
    reader.end(Bind { portal, statement, parameters, formats })
}

/// The body of a Describe or Close.
pub fn target(body: &[u8]) -> Result<Target, Error> {
    let mut reader = Reader(body);
    let [kind] = reader.take::<1>()?;
    let name = reader.text()?;
    match kind {
        b'S' => reader.end(Target::Statement(name)),
        b'P' => reader.end(Target::Portal(name)),
        _ => Err(malformed()),
    }
}

/// The body of an Execute.
pub fn execute(body: &[u8]) -> Result<Execute, Error> {
    let mut reader = Reader(body);
    let portal = reader.text()?;
    let rows = i32::from_be_bytes(reader.take::<4>()?);
    let rows_max = usize::try_from(rows).ok().filter(|rows| *rows > 0);
    reader.end(Execute { portal, rows_max })
}

/// The body of a SASLInitialResponse: the mechanism's name and its first message.
pub fn sasl_initial_response(body: &[u8]) -> Result<(String, Vec<u8>), Error> {
    let mut reader = Reader(body);
    let mechanism = reader.text()?;
    let length = i32::from_be_bytes(reader.take::<4>()?);
    let length = usize::try_from(length).map_err(|_| malformed())?;
    let data = reader.bytes(length)?.to_vec();
    reader.end((mechanism, data))
}

fn malformed() -> Error {
    Error::Protocol { what: "invalid message format".into() }
}

/// Steps through a body; each step fails rather than read past its end.
struct Reader<'body>(&'body [u8]);

impl<'body> Reader<'body> {
    fn bytes(&mut self, count: usize) -> Result<&'body [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn take<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], Error> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn skip(&mut self, count: usize) -> Result<(), Error> {
        self.bytes(count).map(|_| ())
    }

    fn count(&mut self) -> Result<usize, Error> {
        Ok(u16::from_be_bytes(self.take::<2>()?).into())
    }

    /// A text that ends with a NUL. Other encodings than UTF-8 are refused rather than bent.
    fn text(&mut self) -> Result<String, Error> {
        let length = memchr::memchr(0, self.0).ok_or_else(malformed)?;
        let text = self.bytes(length)?;
        self.skip(1)?;
        let invalid = |_| Error::Protocol { what: "text is not valid UTF-8".into() };
        std::str::from_utf8(text).map(str::to_owned).map_err(invalid)
    }

    fn end<T>(self, value: T) -> Result<T, Error> {
        if self.0.is_empty() { Ok(value) } else { Err(malformed()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_bodies_are_read_to_their_end() {
        assert_eq!(query(b"SHOW POOLS\0").unwrap(), "SHOW POOLS");
        let parsed = parse(b"s\0SHOW POOLS\0\0\x01\0\0\0\x17").unwrap();
        assert_eq!((parsed.statement.as_str(), parsed.text.as_str()), ("s", "SHOW POOLS"));
        let bound = bind(b"p\0s\0\0\0\0\x01\xff\xff\xff\xff\0\x01\0\x01").unwrap();
        assert_eq!((bound.parameters, bound.formats), (1, vec![1]));
        assert_eq!(target(b"Px\0").unwrap(), Target::Portal("x".to_owned()));
        assert_eq!(execute(b"\0\0\0\0\x02").unwrap().rows_max, Some(2));
        assert_eq!(execute(b"\0\0\0\0\0").unwrap().rows_max, None);
        let first = sasl_initial_response(b"SCRAM-SHA-256\0\0\0\0\x03n,,").unwrap();
        assert_eq!(first, ("SCRAM-SHA-256".to_owned(), b"n,,".to_vec()));
    }

    /// A decoder that says only whether it read the body to its end.
    type Decoder = fn(&[u8]) -> bool;

    #[test]
    fn every_shortened_or_lengthened_body_is_refused() {
        let decoders: [(Decoder, &[u8]); 6] = [
            (|body| query(body).is_ok(), b"SHOW POOLS\0"),
            (|body| parse(body).is_ok(), b"s\0SHOW\0\0\x01\0\0\0\x17"),
            (|body| bind(body).is_ok(), b"p\0s\0\0\x01\0\0\0\x01\0\0\0\x02ab\0\x01\0\x01"),
            (|body| target(body).is_ok(), b"Sx\0"),
            (|body| execute(body).is_ok(), b"p\0\0\0\0\0"),
            (|body| sasl_initial_response(body).is_ok(), b"SCRAM-SHA-256\0\0\0\0\x03n,,"),
        ];
        for (decode, body) in decoders {
            assert!(decode(body));
            assert!(!decode(&[body, b"x"].concat()), "lengthened {body:?}");
            for length in 0..body.len() {
                assert!(!decode(&body[..length]), "{length} bytes of {body:?}");
            }
        }
    }

    #[test]
    fn counts_and_lengths_that_lie_are_refused() {
        assert!(bind(b"p\0s\0\0\0\0\x01\x7f\xff\xff\xff").is_err());
        assert!(bind(b"p\0s\0\xff\xff").is_err());
        assert!(parse(b"s\0SHOW\0\xff\xff").is_err());
        assert!(sasl_initial_response(b"SCRAM-SHA-256\0\xff\xff\xff\xff").is_err());
        assert!(query(b"SHOW \xff\0").is_err());
    }
}
