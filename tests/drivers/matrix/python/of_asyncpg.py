"""asyncpg, with its own pool."""

import asyncio
import io
import json
import ssl

import asyncpg

import asyncio_driver
from report import BASE, BODIES, COPIED, HOST, MINE, PORT, expect, play_async


def settings(who, **more):
    login = {"user": who["USER"], "database": who["DBNAME"], "password": who["TOKEN"]}
    return {"host": HOST, "port": PORT, **login, **more}


class Driver(asyncio_driver.Driver):
    async def connect(self, who, **more):
        return await asyncpg.connect(**settings(who, **more))

    async def ask(self, connection, sql, *arguments):
        return await connection.fetchval(sql, *arguments)

    async def all_rows(self, connection, sql):
        return await connection.fetch(sql)

    def sqlstate(self, error):
        return error.sqlstate

    def document(self, value):
        return json.dumps(value)

    def read_document(self, value):
        return json.loads(value)

    def tls(self, mode, authority=None):
        if authority is None:
            return {"ssl": mode}
        return {"ssl": ssl.create_default_context(cafile=authority)}

    async def prepared(self):
        await super().prepared()
        async with self.session() as connection:
            statement = await connection.prepare("SELECT $1::int + 1")
            for number in range(30):
                expect(await statement.fetchval(number), number + 1)
                expect(await self.ask(connection, BODIES), MINE["BODIES"])

    async def copy_in(self):
        records = [(BASE + number, "copied") for number in range(1000)]
        async with self.session() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.copy_records_to_table(
                "notes", records=records, columns=["id", "body"]
            )
            sql = COPIED
            expect(await self.ask(connection, sql), 1000)
            await transaction.rollback()
            expect(await self.ask(connection, BODIES), MINE["BODIES"])

    async def copy_out(self):
        async with self.session() as connection:
            out = io.BytesIO()
            await connection.copy_from_query("SELECT generate_series(1, 5000)", output=out)
            expect([int(line) for line in out.getvalue().split()], list(range(1, 5001)))

    async def listen(self):
        channel, heard = asyncio_driver.channel(), asyncio.Queue()
        async with self.session() as listener, self.session() as sender:
            await listener.add_listener(channel, lambda *said: heard.put_nowait(said[2:]))
            await self.ask(sender, f"NOTIFY {channel}, 'hello'")
            expect(await asyncio.wait_for(heard.get(), 10), (channel, "hello"))
            await listener.reset()

    async def cancel(self):
        async with self.session() as connection:
            try:
                await connection.fetch("SELECT pg_sleep(20)", timeout=0.3)
                timed_out = False
            except asyncio.TimeoutError:
                timed_out = True
            expect(timed_out, True)
            expect(await self.ask(connection, BODIES), MINE["BODIES"])

    def borrowed(self):
        return Pool()


class Pool:
    async def __aenter__(self):
        self.pool = await asyncpg.create_pool(min_size=1, max_size=4, **settings(MINE))
        return self.pool.acquire

    async def __aexit__(self, *_):
        await self.pool.close()


asyncio.run(play_async(Driver()))
