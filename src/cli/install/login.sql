
-- @PURPOSE@
DO $do$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = @NAME@) THEN
    CREATE ROLE @LOGIN@ LOGIN NOINHERIT;
  END IF;
  IF EXISTS (SELECT FROM pg_catalog.pg_roles
    WHERE rolname = @NAME@ AND (rolsuper OR rolcreaterole OR rolcreatedb
      OR rolreplication OR rolbypassrls)) THEN
    RAISE EXCEPTION 'role %, which is to @TASK@',
      pg_catalog.quote_ident(@NAME@)
      USING HINT = 'Name a login without such rights in [catalog] @KEY@.';
  END IF;
  IF EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r
    ON r.oid = m.member WHERE r.rolname = @NAME@) THEN
    RAISE EXCEPTION 'role %, which is to @TASK@',
      pg_catalog.quote_ident(@NAME@)
      USING HINT = 'Name a login that is a member of no role in [catalog] @KEY@.';
  END IF;
END $do$;
@PASSWORD@GRANT CONNECT ON DATABASE @DATABASE@ TO @LOGIN@;
GRANT USAGE ON SCHEMA tenantgate_catalog TO @LOGIN@;
