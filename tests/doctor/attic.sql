-- TG307: what the tenants of database attic act as, once the settings name it as their role.
CREATE ROLE attic_rw NOLOGIN;
GRANT attic_rw TO tg_attic;
