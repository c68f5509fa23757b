-- Row security for a table of tenants' rows. Replace "orders" and run it as the table's owner,
-- who must not be the role that tenants act as (app_rw here).
--
-- What it keeps:
--   * only rows whose tenant_id is the setting app.tenant_id can be seen, changed or written;
--   * without the setting, or with an empty one, there are no rows at all: a setting that was
--     made once and reset reads as '' and not as NULL, so nullif is not decoration;
--   * FORCE: the table's owner is held by the policy too.
-- What it does not keep: SQL that sets app.tenant_id on purpose. The gate refuses that from its
-- level "guard" on, and makes it impossible at "sealed".

CREATE TABLE IF NOT EXISTS orders (
  tenant_id text NOT NULL DEFAULT nullif(current_setting('app.tenant_id', true), ''),
  id        bigint GENERATED ALWAYS AS IDENTITY,
  item      text NOT NULL,
  -- The tenant leads every key: a key without it would tell one tenant what another has.
  PRIMARY KEY (tenant_id, id)
);

ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE orders FORCE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS tenant_rows ON orders;
CREATE POLICY tenant_rows ON orders
  USING      (tenant_id = nullif(current_setting('app.tenant_id', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('app.tenant_id', true), ''));

-- Row security does not hold TRUNCATE, REFERENCES and TRIGGER: nobody gets them.
REVOKE ALL ON orders FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO app_rw;

-- A view runs with its owner's rights unless it says otherwise; tenants' views say otherwise.
CREATE OR REPLACE VIEW recent_orders WITH (security_invoker = true) AS
  SELECT id, item FROM orders ORDER BY id DESC LIMIT 10;
REVOKE ALL ON recent_orders FROM PUBLIC;
GRANT SELECT ON recent_orders TO app_rw;
