//! What a database must have, step by step, lowest level first.

use crate::cli::install::Place;
use crate::cli::install::step::Step;
use crate::isolation::carrier::{self, CARRIER, ENTER_ARGUMENTS, ENTER_BODY, OWNER, VERSION};
use crate::isolation::{Level, StoredKey, pack, quote};
use crate::secret::Secret;

use Level::{Guard, Plain, Sealed};

/// All of it for one database, to be run in that database.
pub(super) fn steps(place: &Place) -> Vec<Step> {
    let mut steps = vec![not_newer()];
    for pair in &place.logins {
        steps.extend([
            role(&pair.role),
            login(place, &pair.login),
            humble(&pair.login, &pair.role),
        ]);
        steps.push(membership(&pair.login, &pair.role));
    }
    steps.extend([database(place), public_schema(place), owner(), schema()]);
    steps.extend([tenant_id(place), writer(place.level), set_config(place)]);
    if place.keys.is_empty() {
        steps.push(no_keys());
    } else {
        steps.extend([carrier(), keys_table()]);
        steps.extend(place.keys.iter().map(key));
        steps.extend([other_keys(place), enter(place)]);
    }
    steps.push(version(place.level));
    if place.level >= Guard {
        let roles: Vec<&str> = place.roles().collect();
        steps.extend(pack::PACK.iter().map(|entry| revoke(entry, &roles)));
    }
    steps
}

fn role_exists(name: &str) -> String {
    let name = quote::literal(name);
    format!("EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {name})")
}

fn oid_of(role: &str) -> String {
    let role = quote::literal(role);
    format!("(SELECT oid FROM pg_catalog.pg_roles WHERE rolname = {role})")
}

fn role(name: &str) -> Step {
    let why = "Tenants act as it. It holds the rights on tables and owns none of them, so row\n\
               security applies to it. Nobody logs in as it.";
    let sql = format!("CREATE ROLE {} NOLOGIN", quote::identifier(name));
    Step::new(format!("role {name}"), Plain, why)
        .there(role_exists(name))
        .once(sql, role_exists(name))
}

fn login(place: &Place, name: &str) -> Step {
    let why = "The login of the gate. NOINHERIT: between two tenants it can do nothing, because a\n\
               membership counts only after SET ROLE. Its settings are cleared, since a default\n\
               that sits on a role comes back with every RESET. Its password is yours to set.";
    let (login, dbname) = (quote::identifier(name), quote::identifier(&place.dbname));
    let oid = oid_of(name);
    let has = |what: &str| {
        format!("EXISTS (SELECT FROM pg_catalog.pg_roles WHERE oid = {oid} AND {what})")
    };
    let settings = |database: &str| {
        format!(
            "NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting \
             WHERE setrole = {oid} AND setdatabase = {database})"
        )
    };
    let here = "(SELECT oid FROM pg_catalog.pg_database \
                WHERE datname = pg_catalog.current_database())";
    Step::new(format!("login {name}"), Plain, why)
        .there(role_exists(name))
        .once(format!("CREATE ROLE {login} LOGIN NOINHERIT"), role_exists(name))
        .again(format!("ALTER ROLE {login} LOGIN NOINHERIT"), has("rolcanlogin AND NOT rolinherit"))
        .again(format!("ALTER ROLE {login} RESET ALL"), settings("0"))
        .again(format!("ALTER ROLE {login} IN DATABASE {dbname} RESET ALL"), settings(here))
}

fn humble(login: &str, role: &str) -> Step {
    let names = format!("{}, {}", quote::literal(login), quote::literal(role));
    let select = format!(
        "SELECT $sql$DO $do$ BEGIN RAISE EXCEPTION USING ERRCODE = '42501',\n  \
         MESSAGE = 'SUPERUSER, BYPASSRLS, CREATEROLE, CREATEDB or REPLICATION is set';\n  \
         END $do$$sql$\n  \
         WHERE EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname IN ({names})\n  \
         AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication))"
    );
    let why = "Neither may be above row security; roles that were there before are only checked.";
    Step::new(format!("rights of {login} and {role}"), Plain, why).query(select)
}

fn membership(login: &str, role: &str) -> Step {
    let grant = format!("GRANT {} TO {}", quote::identifier(role), quote::identifier(login));
    let (role_oid, login_oid) = (oid_of(role), oid_of(login));
    let members = format!(
        "FROM pg_catalog.pg_auth_members m WHERE m.roleid = {role_oid} AND m.member = {login_oid}"
    );
    let option = |name: &str, default: &str| {
        format!("coalesce(pg_catalog.to_jsonb(m) ->> '{name}', '{default}')")
    };
    let (inherit, set) = (option("inherit_option", "false"), option("set_option", "true"));
    let select = format!(
        "SELECT {} || CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 160000\n  \
         THEN ' WITH INHERIT FALSE, SET TRUE' ELSE '' END\n  \
         WHERE NOT EXISTS (SELECT {members} AND {set} = 'true')\n  \
         OR EXISTS (SELECT {members} AND {inherit} = 'true')",
        quote::literal(&grant)
    );
    let why = "Membership that can be SET and is not inherited. PostgreSQL 15 knows that as a\n\
               property of the login (NOINHERIT), later versions as one of the grant.";
    Step::new(format!("{login} as {role}"), Plain, why).query(select)
}

const HERE: &str =
    "(SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";

fn database(place: &Place) -> Step {
    let dbname = quote::identifier(&place.dbname);
    let why = "Who may connect. PUBLIC loses what every login would have otherwise.";
    let all =
        format!("NOT pg_catalog.has_database_privilege(0, {HERE}, 'CONNECT, TEMPORARY, CREATE')");
    let step = Step::new(format!("rights on database {}", place.dbname), Plain, why)
        .verb("revoked")
        .again(format!("REVOKE ALL ON DATABASE {dbname} FROM PUBLIC"), all);
    let step = place.logins.iter().fold(step, |step, pair| {
        let login = quote::identifier(&pair.login);
        let oid = oid_of(&pair.login);
        let done = format!("pg_catalog.has_database_privilege({oid}, {HERE}, 'CONNECT')");
        step.again(format!("GRANT CONNECT ON DATABASE {dbname} TO {login}"), done)
    });
    // No row where there is no such login yet: a service's is not made here.
    place.services.iter().fold(step, |step, login| {
        let grant = format!("GRANT CONNECT ON DATABASE {dbname} TO {}", quote::identifier(login));
        let (grant, name) = (quote::literal(&grant), quote::literal(login));
        step.query(format!(
            "SELECT {grant} FROM pg_catalog.pg_roles r\n  WHERE r.rolname = {name} \
             AND NOT pg_catalog.has_database_privilege(r.oid, {HERE}, 'CONNECT')"
        ))
    })
}

fn public_schema(place: &Place) -> Step {
    let why = "Nobody makes objects there that others would run into. Then give the roles their\n\
               rights, table by table, after row security is in place (config/rls.sql):\n\
               GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE … TO …;\n\
               GRANT USAGE ON SEQUENCE … TO …\n\
               Not TRUNCATE, REFERENCES or TRIGGER: row security does not hold them.";
    let public = "pg_catalog.to_regnamespace('public')";
    let lacks = format!(
        "{public} IS NULL OR NOT pg_catalog.has_schema_privilege(0, {public}::oid, 'CREATE')"
    );
    let step = Step::new("rights on schema public", Plain, why)
        .verb("revoked")
        .again("REVOKE CREATE ON SCHEMA public FROM PUBLIC", lacks);
    place.logins.iter().fold(step, |step, pair| {
        let (role, oid) = (quote::identifier(&pair.role), oid_of(&pair.role));
        let has = format!("pg_catalog.has_schema_privilege({oid}, {public}::oid, 'USAGE')");
        let done = format!("{public} IS NULL OR {has}");
        step.again(format!("GRANT USAGE ON SCHEMA public TO {role}"), done)
    })
}

/// What the schema's comment says; also read by people.
fn comment(level: Level) -> String {
    format!("tenantgate install, version {VERSION}, level {}", level.name())
}

const COMMENT: &str = "pg_catalog.obj_description(\
                       pg_catalog.to_regnamespace('tenantgate'), 'pg_namespace')";

fn not_newer() -> Step {
    let select = format!(
        "SELECT $sql$DO $do$ BEGIN RAISE EXCEPTION USING ERRCODE = '55000',\n  \
         MESSAGE = 'a newer tenantgate has installed here'; END $do$$sql$\n  \
         WHERE pg_catalog.substring({COMMENT}, 'version ([0-9]+)')::int > {VERSION}"
    );
    Step::new("newer version", Plain, "Nothing newer is replaced.").query(select).first()
}

fn owner() -> Step {
    let why =
        "Owns everything in schema tenantgate. Nobody logs in as it, and no tenant can become it.";
    let member = format!(
        "SELECT 'GRANT {OWNER} TO CURRENT_USER'\n  \
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles\n    \
         WHERE rolname = current_user AND rolsuper)\n  \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.roleid = {}\n    \
         AND m.member = {}\n    \
         AND coalesce(pg_catalog.to_jsonb(m) ->> 'set_option', 'true') = 'true'\n    \
         AND coalesce(pg_catalog.to_jsonb(m) ->> 'inherit_option', 'true') = 'true')",
        oid_of(OWNER),
        "(SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user)"
    );
    let nologin = format!(
        "EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{OWNER}' AND NOT rolcanlogin)"
    );
    Step::new(format!("role {OWNER}"), Plain, why)
        .there(role_exists(OWNER))
        .once(format!("CREATE ROLE {OWNER} NOLOGIN NOINHERIT"), role_exists(OWNER))
        .again(format!("ALTER ROLE {OWNER} NOLOGIN"), nologin)
        .query(member)
}

fn schema() -> Step {
    let oid = "pg_catalog.to_regnamespace('tenantgate')";
    let owned = format!(
        "EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE oid = {oid} AND nspowner = {})",
        oid_of(OWNER)
    );
    let usable = format!("pg_catalog.has_schema_privilege(0, {oid}::oid, 'USAGE')");
    let others = strangers(
        "CREATE ON SCHEMA tenantgate",
        &format!(
            "pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a WHERE n.oid = {oid}"
        ),
        "a.privilege_type = 'CREATE'",
        &[OWNER],
    );
    Step::new("schema tenantgate", Plain, "What the gate needs in this database, and nothing else.")
        .there(format!("{oid} IS NOT NULL"))
        .once(
            format!("CREATE SCHEMA tenantgate AUTHORIZATION {OWNER}"),
            format!("{oid} IS NOT NULL"),
        )
        .again(format!("ALTER SCHEMA tenantgate OWNER TO {OWNER}"), owned)
        .again("GRANT USAGE ON SCHEMA tenantgate TO PUBLIC", usable)
        .query(others)
}

/// A SELECT of the REVOKE that is needed so that nobody but these roles has a privilege.
fn strangers(privilege: &str, acl: &str, which: &str, friends: &[&str]) -> String {
    let friends: Vec<String> = friends.iter().map(|name| quote::literal(name)).collect();
    format!(
        "SELECT pg_catalog.format('REVOKE {privilege} FROM %s CASCADE',\n  \
         pg_catalog.string_agg(DISTINCT\n  \
         coalesce(pg_catalog.quote_ident(r.rolname), 'PUBLIC'), ', '))\n  \
         FROM (SELECT a.grantee FROM {acl} AND {which}) g\n  \
         LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee\n  \
         WHERE r.rolname IS NULL OR r.rolname NOT IN ({})\n  \
         HAVING pg_catalog.count(*) > 0",
        friends.join(", ")
    )
}

fn carrier() -> Step {
    let why = "The right to write the setting that carries the tenant. A superuser gives it, once.";
    let done = format!("pg_catalog.has_parameter_privilege({}, '{CARRIER}', 'SET')", oid_of(OWNER));
    Step::new(format!("SET {CARRIER}"), Sealed, why)
        .verb("granted")
        .again(format!("GRANT SET ON PARAMETER {CARRIER} TO {OWNER}"), done)
}

/// The owner's functions go on calling `set_config` after the pack took it from PUBLIC.
fn writer(level: Level) -> Step {
    let explicit = format!(
        "EXISTS (SELECT FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a\n  \
         WHERE p.proname = 'set_config'\n  \
         AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND a.grantee = {})",
        oid_of(OWNER)
    );
    let able = format!(
        "pg_catalog.has_function_privilege({}, \
         'pg_catalog.set_config(text,text,boolean)', 'EXECUTE')",
        oid_of(OWNER)
    );
    let sql =
        format!("GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO {OWNER}");
    let why = "Its functions call it, after they have checked what they are asked for.";
    Step::new(format!("set_config for {OWNER}"), Guard, why)
        .verb("granted")
        .again(sql, if level >= Guard { explicit } else { able })
}

fn keys_table() -> Step {
    let oid = "pg_catalog.to_regclass('tenantgate.keys')";
    let owned = format!(
        "EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = {oid} AND relowner = {})",
        oid_of(OWNER)
    );
    let others = strangers(
        "ALL ON tenantgate.keys",
        &format!("pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a WHERE c.oid = {oid}"),
        "true",
        &[OWNER],
    );
    let why = "What tenantgate.enter() checks signatures with: per key the two halves that\n\
               HMAC-SHA256 needs. Nobody but its owner reads it.";
    let sql = "CREATE TABLE tenantgate.keys (\n  kid pg_catalog.text PRIMARY KEY,\n  \
               ikey pg_catalog.bytea NOT NULL,\n  okey pg_catalog.bytea NOT NULL,\n  \
               added_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now())";
    Step::new("table tenantgate.keys", Sealed, why)
        .there(format!("{oid} IS NOT NULL"))
        .once(sql, format!("{oid} IS NOT NULL"))
        .again(format!("ALTER TABLE tenantgate.keys OWNER TO {OWNER}"), owned)
        .query(others)
}

fn key(key: &StoredKey) -> Step {
    let hex = |secret: &Secret| {
        let digits: String = secret.expose().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("'\\x{digits}'::pg_catalog.bytea")
    };
    let (kid, inner, outer) = (quote::literal(&key.kid), hex(&key.inner), hex(&key.outer));
    let sql = format!(
        "INSERT INTO tenantgate.keys AS k (kid, ikey, okey)\n  VALUES ({kid}, {inner}, {outer})\n  \
         ON CONFLICT (kid) DO UPDATE SET ikey = excluded.ikey, okey = excluded.okey,\n  \
         added_at = pg_catalog.now()"
    );
    let done = format!(
        "EXISTS (SELECT FROM tenantgate.keys \
         WHERE kid = {kid} AND ikey = {inner} AND okey = {outer})"
    );
    Step::new(format!("key {}", key.kid), Sealed, "From the key file, for this database only.")
        .secret()
        .there(format!("EXISTS (SELECT FROM tenantgate.keys WHERE kid = {kid})"))
        .again(sql, done)
}

/// What is not in the key file any more opens nothing any more.
fn other_keys(place: &Place) -> Step {
    let kids: Vec<String> = place.keys.iter().map(|key| quote::literal(&key.kid)).collect();
    let kids = kids.join(", ");
    let delete = quote::literal(&format!("DELETE FROM tenantgate.keys WHERE kid NOT IN ({kids})"));
    let select = format!(
        "SELECT {delete}\n  WHERE EXISTS (SELECT FROM tenantgate.keys WHERE kid NOT IN ({kids}))"
    );
    let why = "What is not in the key file any more opens nothing any more.";
    Step::new("other keys", Sealed, why).verb("removed").query(select)
}

/// Without a key file nobody enters.
fn no_keys() -> Step {
    Step::new("keys and tenantgate.enter()", Plain, "The settings name no key file.")
        .verb("removed")
        .query(drop_functions("enter"))
        .query(DROP_KEYS)
}

/// A SELECT of what takes every function of this name out of schema tenantgate.
pub(super) fn drop_functions(name: &str) -> String {
    format!(
        "SELECT 'DROP FUNCTION ' || p.oid::pg_catalog.regprocedure FROM pg_catalog.pg_proc p\n  \
         WHERE p.pronamespace = pg_catalog.to_regnamespace('tenantgate') AND p.proname = '{name}'"
    )
}

pub(super) const DROP_KEYS: &str = "SELECT 'DROP TABLE tenantgate.keys'\n  \
                                    WHERE pg_catalog.to_regclass('tenantgate.keys') IS NOT NULL";

/// What a function of ours must be.
struct Function<'text> {
    name: &'text str,
    arguments: &'text str,
    types: &'text str,
    body: &'text str,
    /// As in CREATE FUNCTION, and as an expression over `pg_proc p`.
    options: &'text str,
    property: &'text str,
}

impl Function<'_> {
    fn steps(&self, step: Step) -> Step {
        let Self { name, arguments, types, body, options, property } = self;
        let create = format!(
            "CREATE OR REPLACE FUNCTION tenantgate.{name}({arguments})\n  \
             RETURNS pg_catalog.text LANGUAGE plpgsql {options} AS $body${body}$body$"
        );
        let mine = format!(
            "p.pronamespace = pg_catalog.to_regnamespace('tenantgate') AND p.proname = '{name}'"
        );
        let same = format!("{mine} AND p.proargtypes::pg_catalog.text = '{types}'");
        let body = quote::literal(body);
        let made = format!(
            "EXISTS (SELECT FROM pg_catalog.pg_proc p\n  \
             JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE {same}\n  \
             AND p.prosrc = {body} AND p.proconfig IS NULL AND l.lanname = 'plpgsql'\n  \
             AND p.prorettype = 'pg_catalog.text'::pg_catalog.regtype AND {property})"
        );
        let owned = format!(
            "EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE {same} AND p.proowner = {})",
            oid_of(OWNER)
        );
        let others =
            format!("{}\n  AND p.proargtypes::pg_catalog.text <> '{types}'", drop_functions(name));
        // Another signature would be another function, so those of other versions go first.
        step.there(format!("EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE {mine})"))
            .query(others)
            .once(create, made)
            .again(format!("ALTER FUNCTION tenantgate.{name} OWNER TO {OWNER}"), owned)
    }

    /// The same for one that everybody may call.
    fn steps_for_everybody(&self, step: Step) -> Step {
        let name = self.name;
        let done = format!(
            "(SELECT pg_catalog.bool_and(\n  \
             pg_catalog.has_function_privilege(0, p.oid, 'EXECUTE'))\n  \
             FROM pg_catalog.pg_proc p WHERE p.proname = '{name}'\n  \
             AND p.pronamespace = pg_catalog.to_regnamespace('tenantgate'))"
        );
        let grant = format!("GRANT EXECUTE ON FUNCTION tenantgate.{name} TO PUBLIC");
        self.steps(step).again(grant, done)
    }
}

fn tenant_id(place: &Place) -> Step {
    let body = carrier::tenant_id_body(place.level, &place.tenant_setting);
    let why = "What policies call. Its body depends on the level: below sealed it reads the\n\
               tenant's setting, at sealed the carrier.";
    let function = Function {
        name: "tenant_id",
        arguments: "",
        types: "",
        body: &body,
        options: "STABLE PARALLEL SAFE",
        property: "NOT p.prosecdef AND p.provolatile = 's' AND p.proparallel = 's'",
    };
    function.steps_for_everybody(Step::new("tenantgate.tenant_id()", Plain, why))
}

fn set_config(place: &Place) -> Step {
    let body = carrier::set_config_body(&place.tenant_setting);
    let why = "What the gate puts in the place of set_config where a statement of a tenant calls\n\
               it. It changes ordinary settings only.";
    let function = Function {
        name: "set_config",
        arguments: carrier::SET_CONFIG_ARGUMENTS,
        types: "25 25 16",
        body: &body,
        options: "VOLATILE SECURITY DEFINER",
        property: "p.prosecdef AND p.provolatile = 'v'",
    };
    function.steps_for_everybody(Step::new("tenantgate.set_config()", Guard, why))
}

fn enter(place: &Place) -> Step {
    let why = "What the gate calls to write the tenant into the carrier, with a signature that is\n\
               good for this backend, this database and a minute at most. Only the gate's\n\
               logins may.";
    let function = Function {
        name: "enter",
        arguments: ENTER_ARGUMENTS,
        types: "25 25 20 17",
        body: ENTER_BODY,
        options: "VOLATILE SECURITY DEFINER",
        property: "p.prosecdef AND p.provolatile = 'v'",
    };
    let oid = "p.pronamespace = pg_catalog.to_regnamespace('tenantgate') AND p.proname = 'enter'";
    let mut friends: Vec<&str> = place.logins.iter().map(|pair| pair.login.as_str()).collect();
    friends.push(OWNER);
    // Without an entry of its own, a function is everybody's.
    let acl = format!(
        "pg_catalog.pg_proc p, pg_catalog.aclexplode(coalesce(p.proacl,\n    \
         pg_catalog.acldefault('f', p.proowner))) a WHERE {oid}"
    );
    let others = strangers("ALL ON FUNCTION tenantgate.enter", &acl, "true", &friends);
    let step = function.steps(Step::new("tenantgate.enter()", Sealed, why)).query(others);
    place.logins.iter().fold(step, |step, pair| {
        let (login, role) = (quote::identifier(&pair.login), oid_of(&pair.login));
        let done = format!(
            "(SELECT pg_catalog.has_function_privilege({role}, p.oid, 'EXECUTE')\n  \
             FROM pg_catalog.pg_proc p WHERE {oid})"
        );
        step.again(format!("GRANT EXECUTE ON FUNCTION tenantgate.enter TO {login}"), done)
    })
}

fn version(level: Level) -> Step {
    let text = quote::literal(&comment(level));
    Step::new(format!("version {VERSION}"), Plain, "Told in the schema's comment.")
        .there(format!("{COMMENT} IS NOT NULL"))
        .again(format!("COMMENT ON SCHEMA tenantgate IS {text}"), format!("{COMMENT} = {text}"))
}

fn revoke(entry: &'static pack::Entry, roles: &[&str]) -> Step {
    let select = entry.revoke_sql(roles.iter().copied());
    Step::new(format!("revoke {}", entry.name), Guard, entry.reason).verb("revoked").query(select)
}
