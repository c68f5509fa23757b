"""What is new in libpq 17 and 18: protocol 3.2 with its long cancel keys, and TLS without asking.
TG_USER has further connection parameters instead of a name."""

import threading

import psycopg

from target import DBNAME, TOKEN, HOST, PORT, expect, ok
import os

MORE = os.environ["TG_USER"]


def connect(more):
    base = f"host={HOST} port={PORT} user=app dbname={DBNAME} {more}"
    return psycopg.connect(base, password=TOKEN, autocommit=True)


def cancelled(connection, cancel):
    """Cancels until it hits: one that comes before its query is lost."""
    done = threading.Event()

    def again():
        while not done.wait(0.05):
            cancel()

    thread = threading.Thread(target=again)
    thread.start()
    try:
        connection.execute("SELECT pg_sleep(60)")
        raise AssertionError("nothing was cancelled")
    except psycopg.errors.QueryCanceled:
        pass
    finally:
        done.set()
        thread.join()
    expect(connection.execute("SELECT 1").fetchone(), (1,))


def main():
    if psycopg.pq.version() < 180000:
        print("ok skipped: libpq is", psycopg.pq.version())
        return
    for versions in ["min_protocol_version=3.2 max_protocol_version=3.2", ""]:
        with connect(f"{MORE} {versions}") as connection:
            expect(connection.execute("SELECT 1").fetchone(), (1,))
            cancelled(connection, connection.cancel)
            cancelled(connection, connection.cancel_safe)
        ok(f"protocol {versions}")


main()
