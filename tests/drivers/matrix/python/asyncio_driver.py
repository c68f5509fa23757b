"""The scenarios for drivers of asyncio; a script says what its driver does otherwise."""

import asyncio
import contextlib
import uuid

from report import (
    BASE, BODIES, CA, DOCUMENT, MINE, OTHER, TYPES, WRONG_CA, WRONG_TOKEN, Absent, expect,
)


class Driver:
    async def connect(self, who, **more):
        raise NotImplementedError

    async def ask(self, connection, sql, *arguments):
        """The first column of the first row. Parameters are written $1, $2, …"""
        raise NotImplementedError

    def sqlstate(self, error):
        raise NotImplementedError

    def document(self, value):
        raise NotImplementedError

    async def close(self, connection):
        await connection.close()

    @contextlib.asynccontextmanager
    async def session(self, who=MINE, **more):
        connection = await self.connect(who, **more)
        try:
            yield connection
        finally:
            with contextlib.suppress(Exception):
                await self.close(connection)

    async def fails(self, connection, sqlstate, sql):
        try:
            await self.ask(connection, sql)
        except Exception as error:  # pylint: disable=broad-except
            expect(self.sqlstate(error), sqlstate)
            return
        raise AssertionError(f"went through: {sql}")

    async def login(self):
        async with self.session() as connection:
            expect(await self.ask(connection, BODIES), MINE["BODIES"])
        try:
            await self.connect(MINE | {"TOKEN": WRONG_TOKEN})
        except Exception as error:  # pylint: disable=broad-except
            expect("authentication failed" in str(error), True)
            return
        raise AssertionError("a wrong token was let in")

    def tls(self, mode, authority=None):
        return {"sslmode": mode} if authority is None else {
            "sslmode": mode, "sslrootcert": authority
        }

    async def tls_require(self):
        async with self.session(**self.tls("require")) as connection:
            expect(await self.ask(connection, BODIES), MINE["BODIES"])

    async def tls_verify_full(self):
        async with self.session(**self.tls("verify-full", CA)) as connection:
            expect(await self.ask(connection, BODIES), MINE["BODIES"])
        try:
            await self.connect(MINE, **self.tls("verify-full", WRONG_CA))
        except Exception as error:  # pylint: disable=broad-except
            expect("SSL error" in str(error) or "verify failed" in str(error), True)
            return
        raise AssertionError("a certificate of a stranger was accepted")

    async def types(self):
        async with self.session() as connection:
            for name, value in TYPES:
                expect(await self.ask(connection, f"SELECT CAST($1 AS {name})", value), value)
            for name in ("json", "jsonb"):
                sql, value = f"SELECT CAST($1 AS {name})", self.document(DOCUMENT)
                expect(self.read_document(await self.ask(connection, sql, value)), DOCUMENT)

    def read_document(self, value):
        return value

    async def prepared(self):
        bodies = MINE["BODIES"].split("|")
        async with self.session() as connection:
            for turn in range(60):
                number = turn % len(bodies)
                sql = "SELECT body FROM notes WHERE id = $1"
                expect(await self.ask(connection, sql, number + 1), bodies[number])

    async def transaction(self):
        count = f"SELECT count(*) FROM notes WHERE id = {BASE}"
        async with self.session() as connection, self.session() as other:
            await self.ask(connection, "BEGIN")
            await self.ask(connection, f"INSERT INTO notes (id, body) VALUES ({BASE}, 'mine')")
            expect(await self.ask(other, count), 0)
            await self.ask(connection, "COMMIT")
            await self.ask(connection, "BEGIN")
            await self.ask(connection, f"UPDATE notes SET body = 'lost' WHERE id = {BASE}")
            await self.ask(connection, "ROLLBACK")
            sql = f"DELETE FROM notes WHERE id = {BASE} RETURNING body"
            expect(await self.ask(connection, sql), "mine")

    async def savepoint(self):
        async with self.session() as connection:
            await self.ask(connection, "BEGIN")
            await self.ask(connection, f"INSERT INTO notes (id, body) VALUES ({BASE}, 'kept')")
            await self.ask(connection, "SAVEPOINT one")
            await self.fails(connection, "42703", "SELECT no_such_column FROM notes")
            await self.ask(connection, "ROLLBACK TO SAVEPOINT one")
            await self.ask(connection, f"UPDATE notes SET body = 'changed' WHERE id = {BASE}")
            await self.ask(connection, "ROLLBACK TO SAVEPOINT one")
            await self.ask(connection, "RELEASE SAVEPOINT one")
            sql = f"SELECT body FROM notes WHERE id = {BASE}"
            expect(await self.ask(connection, sql), "kept")
            await self.ask(connection, "ROLLBACK")
            expect(await self.ask(connection, BODIES), MINE["BODIES"])

    async def errors(self):
        wrong = [
            ("23505", "INSERT INTO notes (id, body) VALUES (1, 'twice')"),
            ("42601", "SELEC 1"), ("22012", "SELECT 1/0"), ("42P01", "SELECT * FROM nowhere"),
        ]
        async with self.session() as connection:
            for sqlstate, sql in wrong:
                await self.fails(connection, sqlstate, sql)
                expect(await self.ask(connection, BODIES), MINE["BODIES"])
            await self.ask(connection, "BEGIN")
            await self.fails(connection, "22012", "SELECT 1/0")
            await self.fails(connection, "25P02", "SELECT 1")
            await self.ask(connection, "ROLLBACK")
            expect(await self.ask(connection, BODIES), MINE["BODIES"])

    async def copy_in(self):
        raise Absent("the driver has no COPY")

    async def copy_out(self):
        raise Absent("the driver has no COPY")

    async def listen(self):
        raise Absent("the driver has no notifications")

    async def cancel(self):
        raise Absent("the driver has no cancel")

    async def settings(self):
        async with self.session() as connection:
            await self.ask(connection, "SET TimeZone = 'Asia/Tokyo'")
            await self.ask(connection, "SET work_mem = '1234kB'")
            await self.ask(connection, "SET myapp.owner = 'somebody'")
            for _ in range(10):
                expect(await self.ask(connection, "SHOW TimeZone"), "Asia/Tokyo")
                expect(await self.ask(connection, "SHOW work_mem"), "1234kB")
                expect(await self.ask(connection, "SHOW myapp.owner"), "somebody")
            await self.ask(connection, "RESET ALL")
            expect(await self.ask(connection, "SHOW TimeZone") == "Asia/Tokyo", False)

    async def temporary_table(self):
        async with self.session() as connection:
            await self.ask(connection, "CREATE TEMPORARY TABLE scratch (number int)")
            for number in range(10):
                await self.ask(connection, f"INSERT INTO scratch VALUES ({number})")
            expect(await self.ask(connection, "SELECT count(*) FROM scratch"), 10)
            await self.ask(connection, "DROP TABLE scratch")

    async def advisory_lock(self):
        async with self.session() as connection, self.session() as other:
            await self.ask(connection, f"SELECT pg_advisory_lock({BASE})")
            for _ in range(5):
                expect(await self.ask(other, f"SELECT pg_try_advisory_lock({BASE})"), False)
            expect(await self.ask(connection, f"SELECT pg_advisory_unlock({BASE})"), True)
            expect(await self.ask(other, f"SELECT pg_try_advisory_lock({BASE})"), True)
            expect(await self.ask(other, f"SELECT pg_advisory_unlock({BASE})"), True)

    async def sql_prepare(self):
        async with self.session() as connection:
            await self.ask(connection, "PREPARE next (int) AS SELECT $1 + 1")
            for number in range(10):
                expect(await self.ask(connection, f"EXECUTE next ({number})"), number + 1)
            await self.ask(connection, "DEALLOCATE next")
            await self.fails(connection, "26000", "EXECUTE next (1)")

    async def all_rows(self, connection, sql):
        raise NotImplementedError

    async def large(self):
        async with self.session() as connection:
            rows = await self.all_rows(connection, "SELECT generate_series(1, 100000)")
            expect(sum(row[0] for row in rows), 100000 * 100001 // 2)
            expect(len(await self.ask(connection, "SELECT repeat('x', 8000000)")), 8000000)
            expect(await self.ask(connection, "SELECT length($1)", "y" * 3000000), 3000000)

    def borrowed(self):
        """A function that hands out a connection of the driver's pool, as a context."""
        raise Absent("the driver has no pool")

    async def pool(self):
        async with self.borrowed() as borrow:
            async def one():
                async with borrow() as connection:
                    return await self.ask(connection, BODIES)

            expect(set(await asyncio.gather(*(one() for _ in range(40)))), {MINE["BODIES"]})

    async def reconnect(self):
        async with self.session() as connection:
            try:
                await self.ask(connection, "SELECT pg_terminate_backend(pg_backend_pid())")
                ended = False
            except Exception:  # pylint: disable=broad-except
                ended = True
            expect(ended, True)
        async with self.session() as connection:
            expect(await self.ask(connection, BODIES), MINE["BODIES"])

    async def isolation(self):
        async with self.session(MINE) as mine, self.session(OTHER) as other:
            for _ in range(30):
                expect(await self.ask(mine, BODIES), MINE["BODIES"])
                expect(await self.ask(other, BODIES), OTHER["BODIES"])


def channel():
    return f"news_{uuid.uuid4().hex}"
