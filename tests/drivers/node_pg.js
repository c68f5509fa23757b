// node-postgres (package pg): client and pool, with pg-copy-streams for COPY.
"use strict";

const assert = require("node:assert/strict");
const net = require("node:net");
const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const { Client, Pool } = require("pg");
const { from: copyFrom, to: copyTo } = require("pg-copy-streams");

// PostgreSQL itself refuses COPY FROM into a row-secured table.
const COPY_IN_WORKS = process.env.TG_COPY_IN === "works";
const NOTES = JSON.parse(process.env.TG_NOTES);
const BASE = process.pid * 100;
const SELECT = "SELECT body FROM notes ORDER BY id";
const LOGIN = {
  host: process.env.TG_HOST,
  port: Number(process.env.TG_PORT),
  user: process.env.TG_USER,
  database: process.env.TG_DBNAME,
  password: process.env.TG_TOKEN,
  ssl: false,
};

async function ownRows(client) {
  const { rows } = await client.query(SELECT);
  assert.deepEqual(rows.map((row) => row.body), NOTES);
}

async function parameters(client) {
  const sql = "SELECT $1::int + 1 AS a, $2::text AS b, $3::text IS NULL AS c";
  const { rows } = await client.query(sql, [41, "a'b\\", null]);
  assert.deepEqual(rows, [{ a: 42, b: "a'b\\", c: true }]);
}

async function transaction(client) {
  await client.query("BEGIN");
  await client.query("INSERT INTO notes (id, body) VALUES ($1, $2)", [BASE, "mine"]);
  await client.query("COMMIT");
  const { rows } = await client.query("DELETE FROM notes WHERE id = $1 RETURNING body", [BASE]);
  assert.deepEqual(rows, [{ body: "mine" }]);
}

async function errorRollsBack(client) {
  await client.query("BEGIN");
  await client.query("INSERT INTO notes (id, body) VALUES ($1, 'lost')", [BASE]);
  await assert.rejects(client.query("SELECT 1/0"), { code: "22012" });
  await assert.rejects(client.query(SELECT), { code: "25P02" });
  await client.query("ROLLBACK");
  await ownRows(client);
}

async function preparedAcrossTransactions(client) {
  for (let turn = 0; turn < 60; turn += 1) {
    const number = turn % NOTES.length;
    const { rows } = await client.query({
      name: "note-by-id",
      text: "SELECT body FROM notes WHERE id = $1",
      values: [number + 1],
    });
    assert.deepEqual(rows, [{ body: NOTES[number] }]);
  }
}

async function severalStatementsInOneQuery(client) {
  const results = await client.query("SELECT 1 AS a; SELECT 2 AS a");
  assert.deepEqual(results.map((result) => result.rows), [[{ a: 1 }], [{ a: 2 }]]);
}

async function copyInAndOut(client) {
  const ids = Array.from({ length: 1000 }, (_, number) => BASE + number);
  const lines = ids.map((id) => `${id}\t${"copied ".repeat(20)}\n`);
  const copyIn = () =>
    pipeline(Readable.from(lines), client.query(copyFrom("COPY notes (id, body) FROM STDIN")));
  if (!COPY_IN_WORKS) await assert.rejects(copyIn(), { code: "0A000" });
  await client.query("BEGIN");
  if (COPY_IN_WORKS) await copyIn();
  else {
    const sql = "INSERT INTO notes (id, body) SELECT unnest($1::int[]), 'x'";
    await client.query(sql, [ids]);
  }
  const sql = `COPY (SELECT id FROM notes WHERE id >= ${BASE} ORDER BY id) TO STDOUT`;
  let text = "";
  for await (const chunk of client.query(copyTo(sql))) text += chunk;
  assert.deepEqual(text.trim().split("\n").map(Number), ids);
  await client.query("ROLLBACK");
  await ownRows(client);
}

async function largeResults(client) {
  const { rows } = await client.query("SELECT generate_series(1, 100000) AS value");
  assert.equal(rows.reduce((sum, row) => sum + row.value, 0), (100000 * 100001) / 2);
  const wide = await client.query("SELECT repeat('x', 8000000) AS value");
  assert.equal(wide.rows[0].value.length, 8000000);
}

// The driver has no call for it, so the CancelRequest is written here with the driver's key.
function sendCancel(client) {
  const packet = Buffer.alloc(16);
  [16, 80877102, client.processID, client.secretKey].forEach((value, index) => {
    packet.writeInt32BE(value, index * 4);
  });
  const socket = net.connect(LOGIN.port, LOGIN.host, () => socket.end(packet));
}

async function cancel(client) {
  const sleeping = assert.rejects(client.query("SELECT pg_sleep(60)"), { code: "57014" });
  const timer = setTimeout(() => sendCancel(client), 200);
  await sleeping;
  clearTimeout(timer);
  await ownRows(client);
}

async function discardAll(client) {
  await client.query("SET TimeZone = 'Asia/Tokyo'");
  await client.query("DISCARD ALL");
  const { rows } = await client.query("SHOW TimeZone");
  assert.notEqual(rows[0].TimeZone, "Asia/Tokyo");
  await ownRows(client);
}

async function poolOfMany() {
  const pool = new Pool({ ...LOGIN, max: 5 });
  await Promise.all(Array.from({ length: 50 }, () => ownRows(pool)));
  await pool.end();
}

async function wrongToken() {
  const client = new Client({ ...LOGIN, password: `${LOGIN.password.slice(0, -4)}AAAA` });
  await assert.rejects(client.connect(), { code: "28P01" });
}

async function main() {
  const client = new Client(LOGIN);
  await client.connect();
  const scenarios = [
    ownRows, parameters, transaction, errorRollsBack, preparedAcrossTransactions,
    severalStatementsInOneQuery, copyInAndOut, largeResults, cancel, discardAll,
  ];
  for (const scenario of scenarios) {
    await scenario(client);
    console.log(`ok ${scenario.name}`);
  }
  await client.end();
  for (const scenario of [poolOfMany, wrongToken]) {
    await scenario();
    console.log(`ok ${scenario.name}`);
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
