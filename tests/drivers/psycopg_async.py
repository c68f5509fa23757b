"""psycopg 3 on asyncio: several connections at once."""

import asyncio

import psycopg
from psycopg import errors

from target import BASE, DBNAME, NOTES, SELECT, TOKEN, expect, login, ok


async def connect(**more):
    settings = login(dbname=DBNAME, sslmode="disable") | more
    return await psycopg.AsyncConnection.connect(**settings)


async def notes(connection):
    cursor = await connection.execute(SELECT)
    return [body for (body,) in await cursor.fetchall()]


async def own_rows_at_once():
    async def one():
        async with await connect() as connection:
            for _ in range(10):
                expect(await notes(connection), NOTES)
                await connection.commit()

    await asyncio.gather(*(one() for _ in range(6)))


async def transactions_at_once():
    async def one(number):
        async with await connect() as connection:
            async with connection.transaction():
                sql = "INSERT INTO notes (id, body) VALUES (%s, %s)"
                await connection.execute(sql, (BASE + number, f"of {number}"))
            cursor = await connection.execute(
                "DELETE FROM notes WHERE id = %s RETURNING body", (BASE + number,)
            )
            expect(await cursor.fetchone(), (f"of {number}",))

    await asyncio.gather(*(one(number) for number in range(6)))


async def cancelled_task():
    async with await connect() as connection:
        try:
            await asyncio.wait_for(connection.execute("SELECT pg_sleep(60)"), 0.2)
            raise AssertionError("the query was not cancelled")
        except asyncio.TimeoutError:
            await connection.rollback()
        expect(await notes(connection), NOTES)


async def error_rolls_back():
    async with await connect() as connection:
        try:
            async with connection.transaction():
                await connection.execute(f"INSERT INTO notes (id, body) VALUES ({BASE}, 'lost')")
                await connection.execute(f"INSERT INTO notes (id, body) VALUES ({BASE}, 'twice')")
            raise AssertionError("a duplicate key went through")
        except errors.UniqueViolation:
            pass
        expect(await notes(connection), NOTES)


async def wrong_token():
    try:
        await connect(password=TOKEN[:-4] + "AAAA")
        raise AssertionError("a wrong token was let in")
    except psycopg.OperationalError as error:
        expect("authentication failed" in str(error), True)


async def main():
    for scenario in [
        own_rows_at_once, transactions_at_once, cancelled_task, error_rolls_back, wrong_token,
    ]:
        await scenario()
        ok(scenario.__name__)


asyncio.run(main())
