// Drizzle on node-postgres, with a table it knows.
"use strict";

const assert = require("node:assert/strict");
const { asc, lt, sql } = require("drizzle-orm");
const { drizzle } = require("drizzle-orm/node-postgres");
const { integer, pgTable, text } = require("drizzle-orm/pg-core");
const { Pool } = require("pg");
const { HOST, MINE, PORT, first, play } = require("./report");

const notes = pgTable("notes", { id: integer("id").primaryKey(), body: text("body") });

const open = ({ user, database, password }, ssl, max = 1) => {
  const options = { host: HOST, port: PORT, user, database, password, max };
  const pool = new Pool({ ...options, ...(ssl && { ssl }) });
  pool.on("error", () => {});
  return { pool, db: drizzle({ client: pool }) };
};

// Its template takes parts of SQL and values in turn.
const template = (statement, values = []) => {
  const parts = statement.split(/\$\d/);
  if (!values.length) return sql.raw(statement);
  return sql.join(parts.flatMap((part, index) => (
    index < values.length ? [sql.raw(part), sql`${sql.param(values[index])}`] : [sql.raw(part)]
  )));
};

const wrapped = (db, pool) => ({
  db,
  ask: async (statement, values) => first((await db.execute(template(statement, values))).rows),
  values: async (statement) => (await db.execute(sql.raw(statement))).rows.map((row) => row.v),
  transaction: (work) => db.transaction((inside) => work(wrapped(inside))),
  close: () => pool?.end(),
});

const driver = {
  // Without a column of a table it leaves times as text.
  foreign: ["timestamptz"],

  async connect(who, tls) {
    const { pool, db } = open(who, tls);
    return wrapped(db, pool);
  },

  async pool() {
    const { pool, db } = open(MINE, undefined, 4);
    const statement = db.select().from(notes).where(lt(notes.id, 1000))
      .orderBy(asc(notes.id)).prepare("all_notes");
    const ask = async () => (await statement.execute()).map((note) => note.body).join("|");
    const said = await Promise.all(Array.from({ length: 40 }, ask));
    assert.deepEqual([...new Set(said)], [MINE.bodies]);
    await pool.end();
  },
};

play(driver);
