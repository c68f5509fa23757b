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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_cannot_end_a_constant() {
        assert_eq!(literal(r"a'b\'c"), r"E'a''b\\''c'");
        assert_eq!(identifier(r#"a"b"#), r#""a""b""#);
    }
}
