"""psycopg2, with its own pool."""

import contextlib
import io
import select

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool

import dbapi
from report import BASE, BODIES, COPIED, HOST, MINE, PORT, expect, play


def settings(who, **more):
    login = {"user": who["USER"], "dbname": who["DBNAME"], "password": who["TOKEN"]}
    return {"host": HOST, "port": PORT, **login, **more}


class Driver(dbapi.Driver):
    # Bytes come back as memoryview, which `types` looks at below.
    foreign = ("bytea", "uuid")

    def connect(self, who, **more):
        return psycopg2.connect(**settings(who, **more))

    def sqlstate(self, error):
        return error.pgcode

    def document(self, value):
        return psycopg2.extras.Json(value)

    def types(self):
        super().types()
        with self.session() as connection:
            value = self.ask(connection, "SELECT CAST(? AS bytea)", bytes(range(256)))
            expect(bytes(value), bytes(range(256)))

    def copy_in(self):
        with self.session(autocommit=False) as connection:
            cursor = connection.cursor()
            lines = "".join(f"{BASE + number}\tcopied\n" for number in range(1000))
            cursor.copy_from(io.StringIO(lines), "notes", columns=("id", "body"))
            expect(self.ask(connection, COPIED), 1000)
            connection.rollback()
            with contextlib.suppress(psycopg2.DataError):
                cursor.copy_from(io.StringIO("x\ty\n"), "notes", columns=("id", "body"))
                raise AssertionError("COPY took a word for a number")
            connection.rollback()
            expect(self.ask(connection, BODIES), MINE["BODIES"])

    def copy_out(self):
        with self.session() as connection:
            out = io.StringIO()
            connection.cursor().copy_expert(
                "COPY (SELECT generate_series(1, 5000)) TO STDOUT", out
            )
            expect(out.getvalue().split(), [str(number) for number in range(1, 5001)])

    def listen(self):
        channel = dbapi.channel()
        with self.session() as listener, self.session() as sender:
            self.ask(listener, f"LISTEN {channel}")
            self.ask(sender, f"NOTIFY {channel}, 'hello'")
            while not listener.notifies:
                expect(select.select([listener], [], [], 10)[0], [listener])
                listener.poll()
            notify = listener.notifies.pop()
            expect((notify.channel, notify.payload), (channel, "hello"))

    def send_cancel(self, connection):
        connection.cancel()

    @contextlib.contextmanager
    def borrowed(self):
        pool = psycopg2.pool.ThreadedConnectionPool(1, 4, **settings(MINE))

        @contextlib.contextmanager
        def borrow():
            connection = pool.getconn()
            try:
                yield connection
            finally:
                pool.putconn(connection)

        yield borrow
        pool.closeall()


psycopg2.extras.register_uuid()
play(Driver())
