//! Names and passwords that are made of tenants' ids, so that a login per tenant needs no list of
//! logins, and the SQL that gives one tenant its login and schema.

use std::fmt::Write;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postgres_protocol::password::scram_sha_256;

use crate::isolation::quote;
use crate::secret::Secret;

/// What stands for the id in a template.
const TENANT: &str = "{tenant}";

/// A name with a place for a tenant's id, such as `t_{tenant}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    before: String,
    after: String,
}

/// Why a text is not a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("it has {{tenant}} {0} times instead of once")]
    NotOnce(usize),
    #[error("it has a brace that is not {{tenant}}'s")]
    Brace,
    #[error("it has a control character")]
    Control,
}

impl Template {
    /// Takes a text with `{tenant}` in it once.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let found = text.matches(TENANT).count();
        let (before, after) = match (found, text.split_once(TENANT)) {
            (1, Some(halves)) => halves,
            _ => return Err(TemplateError::NotOnce(found)),
        };
        let has = |wrong: fn(char) -> bool| before.contains(wrong) || after.contains(wrong);
        if has(|one| matches!(one, '{' | '}')) {
            return Err(TemplateError::Brace);
        }
        if has(char::is_control) {
            return Err(TemplateError::Control);
        }
        Ok(Self { before: before.to_owned(), after: after.to_owned() })
    }

    /// The name of one tenant's. Different ids give different names.
    pub fn expand(&self, tenant: &str) -> String {
        format!("{}{tenant}{}", self.before, self.after)
    }
}

/// What the passwords of a cluster's tenant logins are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginSecret(Secret);

impl LoginSecret {
    /// Fewest bytes: what SHA-256 makes of them is not worth more.
    pub const BYTES_MIN: usize = 32;
    /// Most bytes; a key is shorter.
    pub const BYTES_MAX: usize = 4096;

    /// Takes a secret of 32 bytes or more; of anything shorter there is none.
    pub fn new(secret: Secret) -> Option<Self> {
        (secret.expose().len() >= Self::BYTES_MIN).then_some(Self(secret))
    }

    /// The password of a login: base64url, without padding, of
    /// `HMAC-SHA256(secret, "tenantgate login v1|" + cluster + "|" + login)`. A cluster's name has
    /// no `|` in it.
    pub fn password(&self, cluster: &str, login: &str) -> Secret {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.expose());
        let text = format!("tenantgate login v1|{cluster}|{login}");
        Secret::new(URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes())))
    }
}

/// What PostgreSQL keeps of a password: with a salt of its own each time, and useless to log in
/// with, so that it may stand in a script (PostgreSQL manual, 53.4).
pub fn verifier(password: &Secret) -> String {
    scram_sha_256(password.expose())
}

/// Holds up, until the end of the transaction, whoever else makes tenants in the same database:
/// of two transactions that grant on one database PostgreSQL lets one fail (XX000, "tuple
/// concurrently updated").
pub const ONE_AT_A_TIME: &str = "DO 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(\
    pg_catalog.hashtextextended(''tenantgate install'', 0)); END';\n";

/// A schema tenant as the database must know it.
#[derive(Clone, Copy, Debug)]
pub struct SchemaTenant<'tenant> {
    pub dbname: &'tenant str,
    pub login: &'tenant str,
    /// The role it acts as, if the login itself has no rights.
    pub role: Option<&'tenant str>,
    pub schema: &'tenant str,
    /// See [`verifier`]; without one the password is left as it is.
    pub verifier: Option<&'tenant str>,
}

impl SchemaTenant<'_> {
    /// The SQL that makes the login, its role and its schema, and grants what the tenant needs
    /// there and nothing elsewhere. To be run in its database, in one transaction, by a superuser
    /// or by a role with CREATEROLE that owns the database; may be run again.
    pub fn sql(&self) -> String {
        let Self { dbname, login, role, schema, verifier } = *self;
        let (schema_name, login_name) = (quote::identifier(schema), quote::identifier(login));
        let database = quote::identifier(dbname);
        let mut sql = ONE_AT_A_TIME.to_owned();
        sql.push_str(&create_role(login, "LOGIN"));
        // Writing to a String cannot fail.
        let _ = write!(
            sql,
            "ALTER ROLE {login_name} LOGIN NOINHERIT;\n\
             ALTER ROLE {login_name} RESET ALL;\n\
             ALTER ROLE {login_name} IN DATABASE {database} RESET ALL;\n\
             GRANT CONNECT ON DATABASE {database} TO {login_name};\n"
        );
        if let Some(verifier) = verifier {
            let verifier = quote::literal(verifier);
            let _ = writeln!(sql, "ALTER ROLE {login_name} PASSWORD {verifier};");
        }
        let mut holder = login_name.clone();
        if let Some(role) = role {
            holder = quote::identifier(role);
            sql.push_str(&create_role(role, "NOLOGIN"));
            sql.push_str(&membership(&holder, &login_name));
        }
        let _ = write!(
            sql,
            "CREATE SCHEMA IF NOT EXISTS {schema_name};\n\
             REVOKE ALL ON SCHEMA {schema_name} FROM PUBLIC;\n\
             GRANT USAGE, CREATE ON SCHEMA {schema_name} TO {holder};\n\
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema_name} \
             TO {holder};\n\
             GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema_name} TO {holder};\n\
             ALTER DEFAULT PRIVILEGES IN SCHEMA {schema_name} \
             GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {holder};\n\
             ALTER DEFAULT PRIVILEGES IN SCHEMA {schema_name} \
             GRANT USAGE, SELECT ON SEQUENCES TO {holder};\n"
        );
        sql
    }
}

/// CREATE ROLE has no IF NOT EXISTS.
fn create_role(name: &str, kind: &str) -> String {
    let (text, name) = (quote::literal(name), quote::identifier(name));
    block(&format!(
        "IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {text}) THEN \
         CREATE ROLE {name} {kind}; END IF;"
    ))
}

/// A membership that can be SET and is not inherited; PostgreSQL 15 knows that of the login only.
fn membership(role: &str, login: &str) -> String {
    let grant = format!("GRANT {role} TO {login}");
    let with = quote::literal(&format!("{grant} WITH INHERIT FALSE, SET TRUE"));
    block(&format!(
        "IF pg_catalog.current_setting('server_version_num')::int >= 160000 THEN \
         EXECUTE {with}; ELSE {grant}; END IF;"
    ))
}

/// The body is a constant like any other, so that no name can end it.
fn block(body: &str) -> String {
    format!("DO {};\n", quote::literal(&format!("BEGIN {body} END")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_one_place_for_the_id() {
        let template = Template::parse("t_{tenant}_x").unwrap();
        assert_eq!(template.expand("acme"), "t_acme_x");
        let refused = [
            ("t_", TemplateError::NotOnce(0)),
            ("", TemplateError::NotOnce(0)),
            ("{Tenant}", TemplateError::NotOnce(0)),
            ("{tenant}{tenant}", TemplateError::NotOnce(2)),
            ("{{tenant}}", TemplateError::Brace),
            ("{tenant}{", TemplateError::Brace),
            ("a\0{tenant}", TemplateError::Control),
            ("{tenant}\n", TemplateError::Control),
        ];
        for (text, error) in refused {
            assert_eq!(Template::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_password_is_what_the_manual_says() {
        let secret = |byte: u8| LoginSecret::new(Secret::new(vec![byte; 32])).unwrap();
        let password = |secret: &LoginSecret, cluster, login| {
            String::from_utf8(secret.password(cluster, login).expose().to_vec()).unwrap()
        };
        // printf '%s' 'tenantgate login v1|main|t_acme' | openssl dgst -sha256 -mac HMAC
        // -macopt hexkey:0101… -binary | basenc --base64url
        let one = password(&secret(1), "main", "t_acme");
        assert_eq!(one, "SNXbKd_1D3XwoN2nMKqo8Z-Uv6q7HOoksFx0drdjD3A");
        let others = [
            password(&secret(2), "main", "t_acme"),
            password(&secret(1), "east", "t_acme"),
            password(&secret(1), "main", "t_beta"),
        ];
        assert!(!others.contains(&one));
        assert_eq!(LoginSecret::new(Secret::new(vec![1; 31])), None);
        assert!(!format!("{:?}", secret(1)).contains('1'));
    }

    #[test]
    fn a_verifier_is_postgresqls() {
        let verifier = verifier(&Secret::new(*b"x"));
        assert!(verifier.starts_with("SCRAM-SHA-256$4096:"), "{verifier}");
    }
}
