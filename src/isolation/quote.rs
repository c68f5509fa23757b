//! Quoting of names and values for the few statements the gate writes itself.

/// An identifier in double quotes, with embedded quotes doubled (PostgreSQL manual, 4.1.1).
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string constant that reads the same whatever `standard_conforming_strings` says: the E form,
/// with quotes and backslashes doubled (PostgreSQL manual, 4.1.2.2).
pub fn literal(value: &str) -> String {
    format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// The names in a list of identifiers as PostgreSQL shows it, such as `"$user", public`: without
/// their quotes, and in lower case where they had none (varlena.c, SplitIdentifierString). A list
/// that is none reads as its text, one name.
pub fn names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = list.trim_start();
    loop {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => match quoted_name(quoted) {
                Some(found) => found,
                None => return vec![list.to_owned()],
            },
            None => {
                let end = rest.find([',', ' ', '\t', '\n']).unwrap_or(rest.len());
                let (name, after) = rest.split_at(end);
                (name.to_ascii_lowercase(), after)
            }
        };
        names.push(name);
        let after = after.trim_start();
        match after.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if after.is_empty() => return names,
            None => return vec![list.to_owned()],
        }
    }
}

/// A name and what comes behind its closing quote.
fn quoted_name(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_names_are_read_as_postgresql_writes_them() {
        assert_eq!(names(r#""$user", public"#), ["$user", "public"]);
        assert_eq!(names(r#"Mixed,"Mixed" , "a""b,c""#), ["mixed", "Mixed", "a\"b,c"]);
        assert_eq!(names(r#""""#), [""]);
        assert_eq!(names(""), [""]);
        assert_eq!(names(r#""open"#), [r#""open"#]);
        assert_eq!(names("two words"), ["two words"]);
    }

    #[test]
    fn quotes_and_backslashes_cannot_end_a_constant() {
        assert_eq!(literal(r"a'b\'c"), r"E'a''b\\''c'");
        assert_eq!(identifier(r#"a"b"#), r#""a""b""#);
    }
}
