"""asyncpg through its own pool, whose reset runs between two users of a connection."""

import asyncio

import asyncpg

from target import BASE, COPY_IN_WORKS, DBNAME, NOTES, SELECT, TOKEN, expect, login, ok


async def notes(connection):
    return [row["body"] for row in await connection.fetch(SELECT)]


async def own_rows(pool):
    # Every release sends asyncpg's reset; the rows must be there after it as before.
    for _ in range(20):
        async with pool.acquire() as connection:
            expect(await notes(connection), NOTES)


async def parameters(pool):
    row = await pool.fetchrow("SELECT $1::int + 1, $2::text, $3::text IS NULL", 41, "a'b\\", None)
    expect(tuple(row), (42, "a'b\\", True))


async def transaction(pool):
    async with pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute("INSERT INTO notes (id, body) VALUES ($1, $2)", BASE, "mine")
    deleted = await pool.fetchval("DELETE FROM notes WHERE id = $1 RETURNING body", BASE)
    expect(deleted, "mine")


async def error_rolls_back(pool):
    async with pool.acquire() as connection:
        try:
            async with connection.transaction():
                await connection.execute(f"INSERT INTO notes (id, body) VALUES ({BASE}, 'lost')")
                await connection.execute("SELECT 1/0")
            raise AssertionError("division by zero went through")
        except asyncpg.DivisionByZeroError:
            pass
        expect(await notes(connection), NOTES)


async def prepared_across_transactions(pool):
    async with pool.acquire() as connection:
        statement = await connection.prepare("SELECT body FROM notes WHERE id = $1")
        for turn in range(60):
            number = turn % len(NOTES)
            expect(await statement.fetchval(number + 1), NOTES[number])


async def many_at_once(pool):
    async def one(number):
        expect(await pool.fetchval("SELECT $1::int", number), number)
        expect([row["body"] for row in await pool.fetch(SELECT)], NOTES)

    await asyncio.gather(*(one(number) for number in range(50)))


async def copy_in_refused(connection, records):
    if COPY_IN_WORKS:
        return
    try:
        await connection.copy_records_to_table("notes", records=records, columns=["id", "body"])
        raise AssertionError("COPY FROM went around row security")
    except asyncpg.FeatureNotSupportedError:
        pass


async def copy_in_and_out(pool):
    records = [(BASE + number, "copied " * 20) for number in range(1000)]
    lines = []

    async def sink(data):
        lines.append(data)

    async with pool.acquire() as connection:
        await copy_in_refused(connection, records)
        transaction = connection.transaction()
        await transaction.start()
        if COPY_IN_WORKS:
            await connection.copy_records_to_table(
                "notes", records=records, columns=["id", "body"]
            )
        else:
            await connection.executemany("INSERT INTO notes (id, body) VALUES ($1, $2)", records)
        sql = f"SELECT id FROM notes WHERE id >= {BASE} ORDER BY id"
        await connection.copy_from_query(sql, output=sink)
        await transaction.rollback()
        expect([int(line) for line in b"".join(lines).split()], [one for one, _ in records])
        expect(await notes(connection), NOTES)


async def large_results(pool):
    async with pool.acquire() as connection:
        async with connection.transaction():
            total = 0
            cursor = connection.cursor("SELECT generate_series(1, 100000) AS value", prefetch=5000)
            async for row in cursor:
                total += row["value"]
            expect(total, 100000 * 100001 // 2)
        expect(len(await connection.fetchval("SELECT repeat('x', 8000000)")), 8000000)


async def cancel(pool):
    async with pool.acquire() as connection:
        try:
            await connection.fetch("SELECT pg_sleep(60)", timeout=0.2)
            raise AssertionError("the query was not cancelled")
        except asyncio.TimeoutError:
            pass
        expect(await notes(connection), NOTES)


async def settings_do_not_survive_release(pool):
    async with pool.acquire() as connection:
        await connection.execute("SET TimeZone = 'Asia/Tokyo'")
        expect(await connection.fetchval("SHOW TimeZone"), "Asia/Tokyo")
    for _ in range(4):
        async with pool.acquire() as connection:
            expect(await connection.fetchval("SHOW TimeZone") != "Asia/Tokyo", True)


async def wrong_token():
    try:
        await asyncpg.connect(
            **(login(database=DBNAME, ssl=False) | dict(password=TOKEN[:-4] + "AAAA"))
        )
        raise AssertionError("a wrong token was let in")
    except asyncpg.InvalidPasswordError as error:
        expect(error.sqlstate, "28P01")


async def main():
    settings = login(database=DBNAME, ssl=False)
    async with asyncpg.create_pool(min_size=1, max_size=4, **settings) as pool:
        for scenario in [
            own_rows, parameters, transaction, error_rolls_back, prepared_across_transactions,
            many_at_once, copy_in_and_out, large_results, cancel, settings_do_not_survive_release,
        ]:
            await scenario(pool)
            ok(scenario.__name__)
    await wrong_token()
    ok("wrong_token")


asyncio.run(main())
