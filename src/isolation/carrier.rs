//! The carrier: the setting that holds a sealed tenant inside PostgreSQL, how an id is written in
//! it, and the two functions of schema `tenantgate` that write and read it.
//!
//! The carrier is `backtrace_functions`: a built-in setting that only a superuser, or who was
//! granted it, may set (PostgreSQL manual, 20.17 and 5.8), so no SQL of a tenant can.

use crate::isolation::{Level, quote};

/// The setting that carries a sealed tenant.
pub const CARRIER: &str = "backtrace_functions";

/// The role without login that owns schema `tenantgate` and may set the carrier.
pub const OWNER: &str = "tenantgate_owner";

/// What is installed; rises with every change of the functions, tables or grants.
pub const VERSION: u32 = 2;

/// Arguments of [`ENTER_BODY`], as in CREATE FUNCTION.
pub const ENTER_ARGUMENTS: &str = "tenant pg_catalog.text, kid pg_catalog.text, \
                                   expires pg_catalog.int8, signature pg_catalog.bytea";

/// Longest time a signature may still be good for, in seconds, when it is used. The gate signs for
/// half of it.
pub const SIGNATURE_SECONDS_MAX: i64 = 60;

/// The body of `tenantgate.enter(tenant, kid, expires, signature) RETURNS text`: PL/pgSQL,
/// volatile, SECURITY DEFINER, owned by [`OWNER`], without SET clause (what it sets would be undone
/// at its end). It may be called with any `search_path`, so every name and operator is qualified.
/// Digests of both signatures are compared, so that time tells nothing of the right one. It answers
/// what the carrier then holds, whatever `tenant_id()` reads at this level.
pub const ENTER_BODY: &str = "
DECLARE
  inner_key pg_catalog.bytea;
  outer_key pg_catalog.bytea;
  message pg_catalog.text;
  seconds pg_catalog.float8;
  wanted pg_catalog.bytea;
BEGIN
  IF pg_catalog.current_setting('backtrace_functions') OPERATOR(pg_catalog.<>) '' THEN
    RAISE EXCEPTION USING ERRCODE = '28000', MESSAGE = 'a tenant is bound already';
  END IF;
  SELECT k.ikey, k.okey INTO inner_key, outer_key FROM tenantgate.keys AS k
    WHERE k.kid OPERATOR(pg_catalog.=) enter.kid;
  message := pg_catalog.concat('v1|', enter.kid, '|', enter.tenant, '|', enter.expires, '|',
    pg_catalog.pg_backend_pid(), '|', pg_catalog.current_database());
  wanted := pg_catalog.sha256(outer_key OPERATOR(pg_catalog.||) pg_catalog.sha256(
    inner_key OPERATOR(pg_catalog.||) pg_catalog.convert_to(message, 'UTF8')));
  IF (pg_catalog.sha256(wanted) OPERATOR(pg_catalog.=) pg_catalog.sha256(enter.signature))
      IS NOT TRUE THEN
    RAISE EXCEPTION USING ERRCODE = '28000', MESSAGE = 'the signature is not the gate''s';
  END IF;
  seconds := enter.expires OPERATOR(pg_catalog.-)
    pg_catalog.date_part('epoch', pg_catalog.clock_timestamp());
  IF (seconds OPERATOR(pg_catalog.>=) 0 AND seconds OPERATOR(pg_catalog.<=) 60) IS NOT TRUE THEN
    RAISE EXCEPTION USING ERRCODE = '28000', MESSAGE = 'the signature is out of its time';
  END IF;
  IF (enter.tenant OPERATOR(pg_catalog.~) '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$') IS NOT TRUE THEN
    RAISE EXCEPTION USING ERRCODE = '28000', MESSAGE = 'this is not a tenant id';
  END IF;
  PERFORM pg_catalog.set_config('backtrace_functions', pg_catalog.concat('0',
    pg_catalog.replace(pg_catalog.replace(enter.tenant, '.', ',0'), '-', ' 0')), false);
  RETURN pg_catalog.replace(pg_catalog.replace(pg_catalog.substr(
    pg_catalog.current_setting('backtrace_functions'), 2), ' 0', '-'), ',0', '.');
END
";

/// The body of `tenantgate.tenant_id() RETURNS text` at level sealed: PL/pgSQL, STABLE, PARALLEL
/// SAFE. NULL without a tenant, so that a policy shows no row.
const TENANT_ID_SEALED: &str = "
BEGIN
  IF pg_catalog.current_setting('backtrace_functions') OPERATOR(pg_catalog.=) '' THEN
    RETURN NULL;
  END IF;
  RETURN pg_catalog.replace(pg_catalog.replace(pg_catalog.substr(
    pg_catalog.current_setting('backtrace_functions'), 2), ' 0', '-'), ',0', '.');
END
";

/// The body of `tenantgate.tenant_id()` for a level. Below sealed it reads the cluster's
/// `tenant_setting`, so policies can call it from the first day on.
pub fn tenant_id_body(level: Level, tenant_setting: &str) -> String {
    if level >= Level::Sealed {
        return TENANT_ID_SEALED.to_owned();
    }
    let setting = quote::literal(tenant_setting);
    format!(
        "
BEGIN
  IF pg_catalog.current_setting({setting}, true) OPERATOR(pg_catalog.=) '' THEN
    RETURN NULL;
  END IF;
  RETURN pg_catalog.current_setting({setting}, true);
END
"
    )
}

/// Arguments of [`set_config_body`], as in CREATE FUNCTION; those of `pg_catalog.set_config`.
pub const SET_CONFIG_ARGUMENTS: &str = "setting_name pg_catalog.text, \
                                        new_value pg_catalog.text, is_local pg_catalog.bool";

/// Settings that `tenantgate.set_config` leaves alone: they belong to the context, outlive every
/// scrub, or would end a pooled connection behind the gate's back.
const LEFT_ALONE: [&str; 13] = [
    // Unseen, they would change how the gate should read texts.
    "client_encoding",
    "standard_conforming_strings",
    "role",
    "session_authorization",
    "row_security",
    "seed",
    CARRIER,
    "idle_session_timeout",
    "client_connection_check_interval",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_keepalives_count",
    "tcp_user_timeout",
];

/// The body of `tenantgate.set_config(setting_name, new_value, is_local) RETURNS text`, which
/// stands in for the function of PostgreSQL that the revoke pack takes from everybody: PL/pgSQL,
/// volatile, SECURITY DEFINER, owned by [`OWNER`], without SET clause. It changes what any user may
/// and no context depends on. Names are compared as PostgreSQL does, in which only the case of
/// ASCII letters makes no difference; one that is not known, and so nobody's, has a dot.
pub fn set_config_body(tenant_setting: &str) -> String {
    let (upper, lower) = ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz");
    let tenant_setting = tenant_setting.to_ascii_lowercase();
    let names = LEFT_ALONE.iter().copied().chain([tenant_setting.as_str()]);
    let names: Vec<String> = names.map(quote::literal).collect();
    let names = names.join(", ");
    format!(
        "
DECLARE
  folded pg_catalog.text := pg_catalog.translate(setting_name, '{upper}', '{lower}');
BEGIN
  IF folded OPERATOR(pg_catalog.=) ANY (ARRAY[{names}])
    OR pg_catalog.starts_with(folded, 'tenantgate.')
    OR folded OPERATOR(pg_catalog.=) 'search_path' AND
      (new_value OPERATOR(pg_catalog.=) ANY (ARRAY['', 'pg_catalog'])) IS NOT TRUE
    OR pg_catalog.strpos(folded, '.') OPERATOR(pg_catalog.=) 0 AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_settings AS s
      WHERE s.context OPERATOR(pg_catalog.=) 'user'
      AND pg_catalog.translate(s.name, '{upper}', '{lower}') OPERATOR(pg_catalog.=) folded)
  THEN
    RAISE EXCEPTION USING ERRCODE = '42501',
      MESSAGE = pg_catalog.concat('setting \"', setting_name, '\" cannot be changed by a function'),
      HINT = 'Use SET where it is allowed.';
  END IF;
  RETURN pg_catalog.set_config(setting_name, new_value, is_local);
END
"
    )
}

/// How an id reads in the carrier. The setting takes letters, digits, `_`, `,` and blanks, and is
/// meant for names of C functions: what starts with a digit is none. No two ids read the same.
pub fn carried(tenant: &str) -> String {
    format!("0{}", tenant.replace('.', ",0").replace('-', " 0"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn no_two_ids_read_the_same_in_the_carrier() {
        let letters = ['a', '0', '_', '.', '-'];
        let mut seen: HashMap<String, String> = HashMap::new();
        let mut ids: Vec<String> = vec![String::new()];
        for _ in 0..6 {
            let longer = ids.iter().flat_map(|id| letters.map(|letter| format!("{id}{letter}")));
            ids = longer.collect();
            for id in &ids {
                if let Some(other) = seen.insert(carried(id), id.clone()) {
                    panic!("{id:?} and {other:?} read the same");
                }
            }
        }
    }

    #[test]
    fn every_part_of_it_starts_with_a_digit() {
        let carried = carried("-palloc.exec_simple_query-x");
        assert!(carried.split([',', ' ']).all(|name| name.starts_with('0')));
    }
}
