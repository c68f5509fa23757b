"""psycopg 3, blocking, with psycopg_pool."""

import contextlib

import psycopg
import psycopg_pool
from psycopg.types.json import Json

import dbapi
from report import BASE, BODIES, COPIED, HOST, MINE, PORT, expect, play


def settings(who, **more):
    login = {"user": who["USER"], "dbname": who["DBNAME"], "password": who["TOKEN"]}
    return {"host": HOST, "port": PORT, **login, **more}


class Driver(dbapi.Driver):
    def connect(self, who, **more):
        return psycopg.connect(**settings(who, **more))

    def sqlstate(self, error):
        return error.sqlstate

    def document(self, value):
        return Json(value)

    def copy_in(self):
        with self.session(autocommit=False) as connection:
            cursor = connection.cursor()
            with cursor.copy("COPY notes (id, body) FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["int4", "text"])
                for number in range(1000):
                    copy.write_row((BASE + number, "copied"))
            expect(self.ask(connection, COPIED), 1000)
            connection.rollback()
            with contextlib.suppress(ZeroDivisionError):
                with cursor.copy("COPY notes (id, body) FROM STDIN") as copy:
                    copy.write_row((BASE, "copied"))
                    raise ZeroDivisionError
            connection.rollback()
            expect(self.ask(connection, BODIES), MINE["BODIES"])

    def copy_out(self):
        with self.session() as connection:
            with connection.cursor().copy(
                "COPY (SELECT generate_series(1, 5000)) TO STDOUT"
            ) as copy:
                expect([int(row[0]) for row in copy.rows()], list(range(1, 5001)))

    def prepared(self):
        super().prepared()
        with self.session() as connection, connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", (number,)) for number in range(200)]
            expect([cursor.fetchone()[0] for cursor in cursors], list(range(200)))

    def listen(self):
        channel = dbapi.channel()
        with self.session() as listener, self.session() as sender:
            self.ask(listener, f"LISTEN {channel}")
            self.ask(sender, f"NOTIFY {channel}, 'hello'")
            notes = list(listener.notifies(timeout=10, stop_after=1))
            expect([(note.channel, note.payload) for note in notes], [(channel, "hello")])

    def send_cancel(self, connection):
        connection.cancel_safe()

    @contextlib.contextmanager
    def borrowed(self):
        with psycopg_pool.ConnectionPool(kwargs=settings(MINE), min_size=1, max_size=4) as pool:
            yield pool.connection


play(Driver())
