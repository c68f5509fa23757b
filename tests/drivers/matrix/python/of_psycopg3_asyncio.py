"""psycopg 3 on asyncio, with the asynchronous pool of psycopg_pool."""

import asyncio
import contextlib

import psycopg
import psycopg_pool
from psycopg.types.json import Json

import asyncio_driver
from report import BASE, BODIES, COPIED, HOST, MINE, PORT, expect, play_async


def settings(who, **more):
    login = {"user": who["USER"], "dbname": who["DBNAME"], "password": who["TOKEN"]}
    return {"host": HOST, "port": PORT, **login, **more}


class Driver(asyncio_driver.Driver):
    async def connect(self, who, **more):
        return await psycopg.AsyncConnection.connect(autocommit=True, **settings(who, **more))

    async def ask(self, connection, sql, *arguments):
        sql = sql.replace("$1", "%s") if arguments else sql
        cursor = await connection.execute(sql, arguments or None)
        return (await cursor.fetchone())[0] if cursor.description else None

    async def all_rows(self, connection, sql):
        return await (await connection.execute(sql)).fetchall()

    def sqlstate(self, error):
        return error.sqlstate

    def document(self, value):
        return Json(value)

    async def copy_in(self):
        async with self.session() as connection:
            with contextlib.suppress(psycopg.Rollback):
                async with connection.transaction(force_rollback=True):
                    sql = "COPY notes (id, body) FROM STDIN"
                    async with connection.cursor().copy(sql) as copy:
                        for number in range(1000):
                            await copy.write_row((BASE + number, "copied"))
                    sql = COPIED
                    expect(await self.ask(connection, sql), 1000)
            expect(await self.ask(connection, BODIES), MINE["BODIES"])

    async def copy_out(self):
        async with self.session() as connection:
            sql = "COPY (SELECT generate_series(1, 5000)) TO STDOUT"
            async with connection.cursor().copy(sql) as copy:
                rows = [int(row[0]) async for row in copy.rows()]
            expect(rows, list(range(1, 5001)))

    async def listen(self):
        channel = asyncio_driver.channel()
        async with self.session() as listener, self.session() as sender:
            await self.ask(listener, f"LISTEN {channel}")
            await self.ask(sender, f"NOTIFY {channel}, 'hello'")
            notes = [note async for note in listener.notifies(timeout=10, stop_after=1)]
            expect([(note.channel, note.payload) for note in notes], [(channel, "hello")])

    async def cancel(self):
        async with self.session() as connection:
            try:
                await asyncio.wait_for(self.ask(connection, "SELECT pg_sleep(20)"), 0.3)
                cancelled = False
            except asyncio.TimeoutError:
                cancelled = True
            expect(cancelled, True)
            expect(await self.ask(connection, BODIES), MINE["BODIES"])

    @contextlib.asynccontextmanager
    async def borrowed(self):
        pool = psycopg_pool.AsyncConnectionPool(
            kwargs=settings(MINE), min_size=1, max_size=4, open=False
        )
        async with pool:
            yield pool.connection


asyncio.run(play_async(Driver()))
