// Knex on node-postgres: its own pool, transactions and query builder.
"use strict";

const assert = require("node:assert/strict");
const knex = require("knex");
const { BODIES, HOST, MINE, PORT, first, play } = require("./report");

const open = ({ user, database, password }, ssl, max = 1) => knex({
  client: "pg",
  connection: { host: HOST, port: PORT, user, database, password, ...(ssl && { ssl }) },
  pool: { min: 0, max },
});

// What it writes as ? is $1 to the driver.
const raw = async (db, sql, values) => {
  const text = sql.replaceAll("?", "\\?").replaceAll(/\$\d/g, values ? "?" : "$&");
  return (await (values ? db.raw(text, values) : db.raw(text))).rows;
};

const wrapped = (db) => ({
  db,
  ask: async (sql, values) => first(await raw(db, sql, values)),
  values: async (sql) => (await raw(db, sql)).map((row) => row.v),
  transaction: (work) => db.transaction((inside) => work(wrapped(inside))),
  close: () => db.destroy(),
});

const driver = {
  async connect(who, tls) {
    return wrapped(open(who, tls));
  },

  async cancel() {
    const db = open(MINE, undefined, 2);
    const sleeping = db.raw("SELECT pg_sleep(20)").timeout(300, { cancel: true });
    await assert.rejects(sleeping, { name: "KnexTimeoutError" });
    assert.equal(first((await db.raw(BODIES)).rows), MINE.bodies);
    await db.destroy();
  },

  async pool() {
    const db = open(MINE, undefined, 4);
    const ask = async () => (await db("notes").select("body").where("id", "<", 1000).orderBy("id"))
      .map((row) => row.body).join("|");
    const said = await Promise.all(Array.from({ length: 40 }, ask));
    assert.deepEqual([...new Set(said)], [MINE.bodies]);
    await db.destroy();
  },
};

play(driver);
