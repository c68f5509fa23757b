
-- The login that moves tenants: it may call one function, and read nothing.
DO $do$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = @MOVER_TEXT@) THEN
    CREATE ROLE @MOVER@ LOGIN NOINHERIT;
  END IF;
  IF EXISTS (SELECT FROM pg_catalog.pg_roles
    WHERE rolname = @MOVER_TEXT@ AND (rolsuper OR rolcreaterole OR rolcreatedb
      OR rolreplication OR rolbypassrls)) THEN
    RAISE EXCEPTION 'role %, which is to move tenants, may do more than that',
      pg_catalog.quote_ident(@MOVER_TEXT@)
      USING HINT = 'Name a login without such rights in [catalog] mover_connection_string.';
  END IF;
END $do$;
@MOVER_PASSWORD@GRANT CONNECT ON DATABASE @DATABASE@ TO @MOVER@;
GRANT USAGE ON SCHEMA tenantgate_catalog TO @MOVER@;
GRANT EXECUTE ON FUNCTION tenantgate_catalog.move_tenant(text, jsonb, jsonb) TO @MOVER@;
