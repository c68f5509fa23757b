// node-postgres (package pg): client and pool, with pg-copy-streams for COPY.
"use strict";

const assert = require("node:assert/strict");
const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const { Client, Pool } = require("pg");
const { from: copyFrom, to: copyTo } = require("pg-copy-streams");
const { BASE, BODIES, HOST, MINE, PORT, eventually, first, play, session } = require("./report");

const login = ({ user, database, password }, ssl) => ({
  host: HOST, port: PORT, user, database, password, ...(ssl && { ssl }),
});

const wrapped = (client, depth = 0) => ({
  client,
  ask: async (sql, values) => first((await client.query(sql, values)).rows),
  askPrepared: async (text, values) =>
    first((await client.query({ name: "by-id", text, values })).rows),
  values: async (sql) => (await client.query(sql)).rows.map((row) => row.v),
  async transaction(work) {
    await client.query(depth ? `SAVEPOINT s${depth}` : "BEGIN");
    try {
      await work(wrapped(client, depth + 1));
      await client.query(depth ? `RELEASE SAVEPOINT s${depth}` : "COMMIT");
    } catch (error) {
      await client.query(depth ? `ROLLBACK TO SAVEPOINT s${depth}` : "ROLLBACK");
      throw error;
    }
  },
  close: () => client.end(),
});

const driver = {
  async connect(who, tls) {
    const client = new Client(login(who, tls));
    // The end of a session is told here too.
    client.on("error", () => {});
    await client.connect();
    return wrapped(client);
  },

  copyIn: () => session(driver, async ({ client, ask }) => {
    const lines = Array.from({ length: 1000 }, (_, number) => `${BASE + number}\tcopied\n`);
    await client.query("BEGIN");
    const sink = client.query(copyFrom("COPY notes (id, body) FROM STDIN"));
    await pipeline(Readable.from(lines), sink);
    const count = "SELECT count(*)::int FROM notes WHERE body = 'copied'";
    assert.equal(await ask(count), 1000);
    await client.query("ROLLBACK");
    assert.equal(await ask(BODIES), MINE.bodies);
  }),

  copyOut: () => session(driver, async ({ client }) => {
    let text = "";
    const sql = "COPY (SELECT generate_series(1, 5000)) TO STDOUT";
    for await (const chunk of client.query(copyTo(sql))) text += chunk;
    const numbers = text.trim().split("\n").map(Number);
    assert.deepEqual(numbers, Array.from({ length: 5000 }, (_, number) => number + 1));
  }),

  listen: () => session(driver, (listener) => session(driver, async (sender) => {
    const channel = `news_${BASE}`;
    let heard;
    listener.client.on("notification", (notice) => {
      heard = [notice.channel, notice.payload];
    });
    await listener.ask(`LISTEN ${channel}`);
    await sender.ask(`NOTIFY ${channel}, 'hello'`);
    assert.deepEqual(await eventually(async () => heard), [channel, "hello"]);
  })),

  async pool() {
    const pool = new Pool({ ...login(MINE), max: 4 });
    const ask = async () => first((await pool.query(BODIES)).rows);
    const said = await Promise.all(Array.from({ length: 40 }, ask));
    assert.deepEqual([...new Set(said)], [MINE.bodies]);
    await pool.end();
  },
};

play(driver);
