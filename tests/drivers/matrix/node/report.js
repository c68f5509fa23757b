// Where to connect, the scenarios, and how a script says what became of each. A script hands over
// its driver: `connect(who, tls)` gives `{ ask(sql, values), rows(sql), close() }`, and so on.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");

const env = process.env;
const HOST = env.TG_HOST;
const PORT = Number(env.TG_PORT);
const tenant = (prefix) => ({
  user: env[`${prefix}USER`],
  database: env[`${prefix}DBNAME`],
  password: env[`${prefix}TOKEN`],
  bodies: env[`${prefix}BODIES`],
});
const MINE = tenant("TG_");
const OTHER = tenant("TG_OTHER_");
const WRONG = { ...MINE, password: `${MINE.password.slice(0, -1)}!` };
const BODIES = "SELECT string_agg(body, '|' ORDER BY id) FROM notes WHERE id < 1000";
const BASE = Number(env.TG_BASE);
const TLS = {
  require: { rejectUnauthorized: false },
  verifyFull: { ca: fs.readFileSync(env.TG_CA, "utf8") },
  stranger: { ca: fs.readFileSync(env.TG_WRONG_CA, "utf8") },
};

const DOCUMENT = { a: [1, null, "ü"], b: { c: true } };

class Absent extends Error {}

const absent = (why) => async () => {
  throw new Absent(why);
};

async function session(driver, work, who = MINE, tls = undefined) {
  const connection = await driver.connect(who, tls);
  try {
    return await work(connection);
  } finally {
    await Promise.resolve(connection.close()).catch(() => {});
  }
}

async function fails(connection, code, sql) {
  const error = await connection.ask(sql).then(() => undefined, (wrong) => wrong);
  assert.ok(error, `went through: ${sql}`);
  assert.equal(error.code ?? error.cause?.code, code);
}

const scenarios = {
  async login(driver) {
    await session(driver, async (one) => assert.equal(await one.ask(BODIES), MINE.bodies));
    const refused = session(driver, (one) => one.ask("SELECT 1"), WRONG);
    const error = await refused.then(() => undefined, (wrong) => wrong);
    assert.equal(error?.code ?? error?.cause?.code, "28P01");
  },

  async tls_require(driver) {
    const looks = async (one) => assert.equal(await one.ask(BODIES), MINE.bodies);
    await session(driver, looks, MINE, TLS.require);
  },

  async tls_verify_full(driver) {
    const looks = async (one) => assert.equal(await one.ask(BODIES), MINE.bodies);
    await session(driver, looks, MINE, TLS.verifyFull);
    await assert.rejects(session(driver, looks, MINE, TLS.stranger));
  },

  async types(driver) {
    const noon = new Date("2024-02-29T12:34:56.789Z");
    const values = [
      ["int4", -2147483648], ["float8", 0.1], ["bool", true], ["timestamptz", noon],
      ["int8", "9223372036854775807"], ["numeric", "12345678901234567890.123456789"],
      ["text", "zażółć 'gęś' \\ $1 你好 🐘"], ["text", null],
      ["uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"],
      ["bytea", Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))],
      ["int4[]", [1, null, -3]], ["text[]", ["a,b", '"q" \\', null, "ü"]],
    ];
    await session(driver, async (one) => {
      for (const [name, value] of values) {
        if (driver.foreign?.includes(name)) continue;
        assert.deepEqual(await one.ask(`SELECT CAST($1 AS ${name}) AS v`, [value]), value, name);
      }
      for (const name of ["json", "jsonb"]) {
        const value = driver.document ? driver.document(DOCUMENT) : DOCUMENT;
        assert.deepEqual(await one.ask(`SELECT CAST($1 AS ${name}) AS v`, [value]), DOCUMENT);
      }
      const day = await one.ask("SELECT CAST('2024-02-29' AS date) AS v");
      assert.equal(new Date(day).getUTCFullYear(), 2024);
    });
  },

  async prepared(driver) {
    const bodies = MINE.bodies.split("|");
    await session(driver, async (one) => {
      for (let turn = 0; turn < 60; turn += 1) {
        const number = turn % bodies.length;
        const sql = "SELECT body FROM notes WHERE id = $1";
        const ask = one.askPrepared ?? one.ask;
        assert.equal(await ask(sql, [number + 1]), bodies[number]);
      }
    });
  },

  async transaction(driver) {
    const count = `SELECT count(*)::int FROM notes WHERE id = ${BASE}`;
    await session(driver, async (one) => {
      await one.transaction(async (inside) => {
        await inside.ask(`INSERT INTO notes (id, body) VALUES (${BASE}, 'mine')`);
        await session(driver, async (two) => assert.equal(await two.ask(count), 0));
      });
      await assert.rejects(one.transaction(async (inside) => {
        await inside.ask(`UPDATE notes SET body = 'lost' WHERE id = ${BASE}`);
        throw new Error("changed my mind");
      }), /changed my mind/);
      const deleted = await one.ask(`DELETE FROM notes WHERE id = ${BASE} RETURNING body`);
      assert.equal(deleted, "mine");
    });
  },

  async savepoint(driver) {
    await session(driver, async (one) => {
      const inside = one.transaction(async (outer) => {
        await outer.ask(`INSERT INTO notes (id, body) VALUES (${BASE}, 'kept')`);
        const lost = outer.transaction(async (inner) => {
          await inner.ask(`UPDATE notes SET body = 'changed' WHERE id = ${BASE}`);
          await inner.ask("SELECT no_such_column FROM notes");
        });
        const error = await lost.then(() => undefined, (wrong) => wrong);
        assert.equal(error?.code ?? error?.cause?.code, "42703");
        assert.equal(await outer.ask(`SELECT body FROM notes WHERE id = ${BASE}`), "kept");
        throw new Error("changed my mind");
      });
      await assert.rejects(inside, /changed my mind/);
      assert.equal(await one.ask(BODIES), MINE.bodies);
    });
  },

  async errors(driver) {
    const wrong = [
      ["23505", "INSERT INTO notes (id, body) VALUES (1, 'twice')"],
      ["42601", "SELEC 1"], ["22012", "SELECT 1/0"], ["42P01", "SELECT * FROM nowhere"],
    ];
    await session(driver, async (one) => {
      for (const [code, sql] of wrong) {
        await fails(one, code, sql);
        assert.equal(await one.ask(BODIES), MINE.bodies);
      }
    });
  },

  copy_in: (driver) => (driver.copyIn ?? absent("the driver has no COPY"))(),
  copy_out: (driver) => (driver.copyOut ?? absent("the driver has no COPY"))(),
  listen: (driver) => (driver.listen ?? absent("the driver has no notifications"))(),
  cancel: (driver) => (driver.cancel ?? absent("the driver has no cancel"))(),

  async settings(driver) {
    await session(driver, async (one) => {
      await one.ask("SET TimeZone = 'Asia/Tokyo'");
      await one.ask("SET work_mem = '1234kB'");
      await one.ask("SET myapp.owner = 'somebody'");
      for (let turn = 0; turn < 10; turn += 1) {
        assert.equal(await one.ask("SHOW TimeZone"), "Asia/Tokyo");
        assert.equal(await one.ask("SHOW work_mem"), "1234kB");
        assert.equal(await one.ask("SELECT current_setting('myapp.owner')"), "somebody");
      }
      await one.ask("RESET ALL");
      assert.notEqual(await one.ask("SHOW TimeZone"), "Asia/Tokyo");
    });
  },

  async temporary_table(driver) {
    await session(driver, async (one) => {
      await one.ask("CREATE TEMPORARY TABLE scratch (number int)");
      for (let turn = 0; turn < 10; turn += 1) {
        await one.ask(`INSERT INTO scratch VALUES (${turn})`);
      }
      assert.equal(await one.ask("SELECT count(*)::int FROM scratch"), 10);
      await one.ask("DROP TABLE scratch");
    });
  },

  async advisory_lock(driver) {
    await session(driver, (one) => session(driver, async (two) => {
      await one.ask(`SELECT pg_advisory_lock(${BASE})::text`);
      for (let turn = 0; turn < 5; turn += 1) {
        assert.equal(await two.ask(`SELECT pg_try_advisory_lock(${BASE})`), false);
      }
      assert.equal(await one.ask(`SELECT pg_advisory_unlock(${BASE})`), true);
      assert.equal(await two.ask(`SELECT pg_try_advisory_lock(${BASE})`), true);
      assert.equal(await two.ask(`SELECT pg_advisory_unlock(${BASE})`), true);
    }));
  },

  async sql_prepare(driver) {
    await session(driver, async (one) => {
      await one.ask("PREPARE next (int) AS SELECT $1 + 1");
      for (let turn = 0; turn < 10; turn += 1) {
        assert.equal(await one.ask(`EXECUTE next (${turn})`), turn + 1);
      }
      await one.ask("DEALLOCATE next");
      await fails(one, "26000", "EXECUTE next (1)");
    });
  },

  async large(driver) {
    await session(driver, async (one) => {
      const values = await one.values("SELECT generate_series(1, 100000) AS v");
      assert.equal(values.reduce((sum, value) => sum + value, 0), (100000 * 100001) / 2);
      assert.equal((await one.ask("SELECT repeat('x', 8000000)")).length, 8000000);
      assert.equal(await one.ask("SELECT length($1) AS v", ["y".repeat(3000000)]), 3000000);
    });
  },

  pool: (driver) => (driver.pool ?? absent("the driver has no pool"))(),

  async reconnect(driver) {
    const last = "SELECT pg_terminate_backend(pg_backend_pid())";
    await assert.rejects(session(driver, (one) => one.ask(last)));
    await session(driver, async (one) => assert.equal(await one.ask(BODIES), MINE.bodies));
  },

  async isolation(driver) {
    await session(driver, (mine) => session(driver, async (other) => {
      for (let turn = 0; turn < 30; turn += 1) {
        assert.equal(await mine.ask(BODIES), MINE.bodies);
        assert.equal(await other.ask(BODIES), OTHER.bodies);
      }
    }, OTHER));
  },
};

async function play(driver) {
  for (const [name, scenario] of Object.entries(scenarios)) {
    try {
      await scenario(driver);
      console.log(`ok ${name}`);
    } catch (error) {
      const why = `${error.message} ${error.cause?.message ?? ""}`.replaceAll(/\s+/g, " ").trim();
      console.log(error instanceof Absent ? `absent ${name}: ${why}` : `not ok ${name}: ${why}`);
    }
  }
}

// What comes first in the first row of an answer.
const first = (rows) => (rows?.[0] === undefined ? undefined : Object.values(rows[0])[0]);

// Runs `work` until it has given something, for ten seconds.
async function eventually(work) {
  const end = Date.now() + 10000;
  while (Date.now() < end) {
    const found = await work();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error("it did not happen in time");
}

module.exports = { BASE, BODIES, HOST, MINE, PORT, eventually, first, play, session };
