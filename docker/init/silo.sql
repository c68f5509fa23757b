-- The silo cluster of the example: tenant initech has a database of its own.

CREATE ROLE tg_initech LOGIN NOINHERIT PASSWORD 'login-of-the-example';
CREATE TABLE notes (id integer PRIMARY KEY, body text NOT NULL);
INSERT INTO notes VALUES (1, 'cover sheet'), (2, 'stapler');
GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO tg_initech;
