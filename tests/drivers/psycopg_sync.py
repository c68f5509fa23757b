"""psycopg 3, blocking, as an application uses it."""

import threading

import psycopg
from psycopg import errors

from target import BASE, COPY_IN_WORKS, DBNAME, NOTES, SELECT, TOKEN, expect, login, ok


def connect(**more):
    return psycopg.connect(**(login(dbname=DBNAME, sslmode="disable") | more))


def notes(connection):
    return [body for (body,) in connection.execute(SELECT)]


def own_rows(connection):
    expect(notes(connection), NOTES)
    connection.commit()


def parameters(connection):
    sql = "SELECT %s::int + 1, %s::text, %s::text IS NULL, %b::bytea"
    row = connection.execute(sql, (41, "a'b\\", None, b"\x00\xff")).fetchone()
    expect(row, (42, "a'b\\", True, b"\x00\xff"))
    connection.commit()


def transaction(connection):
    with connection.transaction():
        connection.execute("INSERT INTO notes (id, body) VALUES (%s, %s)", (BASE, "mine"))
        with connection.transaction():
            connection.execute("UPDATE notes SET body = 'still mine' WHERE id = %s", (BASE,))
    row = connection.execute("SELECT body FROM notes WHERE id = %s", (BASE,)).fetchone()
    expect(row, ("still mine",))
    connection.execute("DELETE FROM notes WHERE id = %s", (BASE,))
    connection.commit()


def error_rolls_back(connection):
    try:
        with connection.transaction():
            connection.execute("INSERT INTO notes (id, body) VALUES (%s, 'lost')", (BASE,))
            connection.execute("SELECT 1/0")
        raise AssertionError("division by zero went through")
    except errors.DivisionByZero:
        pass
    own_rows(connection)


def savepoint(connection):
    with connection.transaction():
        try:
            with connection.transaction():
                connection.execute("SELECT no_such_column FROM notes")
        except errors.UndefinedColumn:
            pass
        expect(notes(connection), NOTES)


def prepared_across_transactions(connection):
    sql = "SELECT body FROM notes WHERE id = %s"
    for turn in range(60):
        number = turn % len(NOTES)
        row = connection.execute(sql, (number + 1,), prepare=True).fetchone()
        expect(row, (NOTES[number],))
        connection.commit()


def pipeline(connection):
    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::int", (number,)) for number in range(100)]
        expect([cursor.fetchone()[0] for cursor in cursors], list(range(100)))
    connection.commit()


def copy_in(cursor):
    with cursor.copy("COPY notes (id, body) FROM STDIN") as copy:
        for number in range(1000):
            copy.write_row((BASE + number, "copied " * 20))


def copy_in_refused(connection, cursor):
    try:
        copy_in(cursor)
        raise AssertionError("COPY FROM went around row security")
    except errors.FeatureNotSupported:
        connection.rollback()
    sql = "INSERT INTO notes (id, body) SELECT %s + number, 'x' FROM generate_series(0, 999) number"
    cursor.execute(sql, (BASE,))


def copy_in_and_out(connection):
    with connection.cursor() as cursor:
        copy_in(cursor) if COPY_IN_WORKS else copy_in_refused(connection, cursor)
        sql = f"COPY (SELECT id FROM notes WHERE id >= {BASE} ORDER BY id) TO STDOUT"
        with cursor.copy(sql) as copy:
            expect([int(row[0]) for row in copy.rows()], [BASE + number for number in range(1000)])
    connection.rollback()
    own_rows(connection)


def large_results(connection):
    with connection.cursor(name="window") as cursor:
        cursor.itersize = 5000
        cursor.execute("SELECT generate_series(1, 100000)")
        expect(sum(value for (value,) in cursor), 100000 * 100001 // 2)
    (value,) = connection.execute("SELECT repeat('x', 8000000)").fetchone()
    expect(len(value), 8000000)
    connection.commit()


def cancel(connection):
    timer = threading.Timer(0.2, connection.cancel)
    timer.start()
    try:
        connection.execute("SELECT pg_sleep(60)")
        raise AssertionError("the query was not cancelled")
    except errors.QueryCanceled:
        connection.rollback()
    timer.join()
    own_rows(connection)


def discard_all(connection):
    connection.autocommit = True
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    expect(connection.execute("SHOW TimeZone").fetchone(), ("Asia/Tokyo",))
    connection.execute("DISCARD ALL")
    expect(connection.execute("SHOW TimeZone").fetchone() != ("Asia/Tokyo",), True)
    own_rows(connection)
    prepared_across_transactions(connection)
    connection.execute("RESET ALL")
    own_rows(connection)
    connection.autocommit = False


def wrong_token():
    try:
        connect(password=TOKEN[:-4] + "AAAA")
        raise AssertionError("a wrong token was let in")
    except psycopg.OperationalError as error:
        expect("authentication failed" in str(error), True)


def main():
    scenarios = [
        own_rows, parameters, transaction, error_rolls_back, savepoint,
        prepared_across_transactions, pipeline, copy_in_and_out, large_results, cancel, discard_all,
    ]
    with connect() as connection:
        for scenario in scenarios:
            scenario(connection)
            ok(scenario.__name__)
    wrong_token()
    ok("wrong_token")


main()
