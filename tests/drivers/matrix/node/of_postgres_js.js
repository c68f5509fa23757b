// postgres.js, which prepares what it runs and reconnects by itself.
"use strict";

const assert = require("node:assert/strict");
const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const postgres = require("postgres");
const { BASE, BODIES, HOST, MINE, PORT, eventually, first, play, session } = require("./report");

const open = ({ user, database, password }, ssl, max = 1) => postgres({
  host: HOST, port: PORT, user, database, password, max, onnotice: () => {},
  ...(ssl && { ssl }),
});

const wrapped = (sql) => ({
  sql,
  // Without values it takes the simple protocol, with values a prepared statement.
  ask: async (text, values) => first(await sql.unsafe(text, values, { prepare: true })),
  values: async (text) => (await sql.unsafe(text)).map((row) => row.v),
  transaction: (work) => (sql.begin ?? sql.savepoint)((inside) => work(wrapped(inside))),
  close: () => sql.end({ timeout: 1 }),
});

const driver = {
  // NULL in an array becomes NaN or a word.
  foreign: ["int4[]", "text[]"],

  async connect(who, tls) {
    return wrapped(open(who, tls));
  },

  copyIn: () => session(driver, async ({ sql, ask }) => {
    const lines = Array.from({ length: 1000 }, (_, number) => `${BASE + number}\tcopied\n`);
    const inside = sql.begin(async (open) => {
      await pipeline(
        Readable.from(lines), await open`COPY notes (id, body) FROM STDIN`.writable()
      );
      const [{ count }] = await open`SELECT count(*)::int FROM notes WHERE body = 'copied'`;
      assert.equal(count, 1000);
      throw new Error("changed my mind");
    });
    await assert.rejects(inside, /changed my mind/);
    assert.equal(await ask(BODIES), MINE.bodies);
  }),

  copyOut: () => session(driver, async ({ sql }) => {
    let text = "";
    const out = await sql`COPY (SELECT generate_series(1, 5000)) TO STDOUT`.readable();
    for await (const chunk of out) text += chunk;
    const numbers = text.trim().split("\n").map(Number);
    assert.deepEqual(numbers, Array.from({ length: 5000 }, (_, number) => number + 1));
  }),

  listen: () => session(driver, async ({ sql }) => {
    const channel = `news_${BASE}`;
    let heard;
    await sql.listen(channel, (payload) => {
      heard = payload;
    });
    await sql.notify(channel, "hello");
    assert.equal(await eventually(async () => heard), "hello");
  }),

  cancel: () => session(driver, async ({ sql, ask }) => {
    const sleeping = sql`SELECT pg_sleep(20)`.execute();
    setTimeout(() => sleeping.cancel(), 300);
    await assert.rejects(sleeping, { code: "57014" });
    assert.equal(await ask(BODIES), MINE.bodies);
  }),

  async pool() {
    const sql = open(MINE, undefined, 4);
    const ask = async () => first(await sql.unsafe(BODIES));
    const said = await Promise.all(Array.from({ length: 40 }, ask));
    assert.deepEqual([...new Set(said)], [MINE.bodies]);
    await sql.end();
  },
};

play(driver);
