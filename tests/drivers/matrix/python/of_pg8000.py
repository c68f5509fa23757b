"""pg8000, which is Python all through."""

import io
import ssl

import pg8000.dbapi
import pg8000.native

import dbapi
from report import BASE, BODIES, COPIED, HOST, MINE, PORT, expect, play


class Driver(dbapi.Driver):
    foreign = ("uuid",)

    def connect(self, who, **more):
        return pg8000.dbapi.connect(
            user=who["USER"], database=who["DBNAME"], password=who["TOKEN"],
            host=HOST, port=PORT, **more,
        )

    def sqlstate(self, error):
        return error.args[0]["C"]

    def document(self, value):
        return value

    def tls_require(self):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with self.session(ssl_context=context) as connection:
            expect(self.ask(connection, BODIES), MINE["BODIES"])

    def tls_options(self, mode, authority):
        return {"ssl_context": ssl.create_default_context(cafile=authority)}

    def prepared(self):
        # Its DB-API prepares nothing by name; its other face does.
        bodies = MINE["BODIES"].split("|")
        connection = pg8000.native.Connection(
            MINE["USER"], database=MINE["DBNAME"], password=MINE["TOKEN"], host=HOST, port=PORT
        )
        statement = connection.prepare("SELECT body FROM notes WHERE id = :id")
        for turn in range(60):
            number = turn % len(bodies)
            expect(statement.run(id=number + 1), [[bodies[number]]])
        statement.close()
        connection.close()

    def copy_in(self):
        with self.session(autocommit=False) as connection:
            lines = "".join(f"{BASE + number}\tcopied\n" for number in range(1000))
            cursor = connection.cursor()
            cursor.execute("COPY notes (id, body) FROM STDIN", stream=io.StringIO(lines))
            expect(self.ask(connection, COPIED), 1000)
            connection.rollback()
            expect(self.ask(connection, BODIES), MINE["BODIES"])

    def copy_out(self):
        with self.session() as connection:
            out = io.BytesIO()
            connection.cursor().execute(
                "COPY (SELECT generate_series(1, 5000)) TO STDOUT", stream=out
            )
            expect([int(line) for line in out.getvalue().split()], list(range(1, 5001)))

    def listen(self):
        channel = dbapi.channel()
        with self.session() as listener, self.session() as sender:
            self.ask(listener, f"LISTEN {channel}")
            self.ask(sender, f"NOTIFY {channel}, 'hello'")
            # It has no call that waits; what arrived is seen with the next answer.
            for _ in range(1000):
                self.ask(listener, "SELECT 1")
                if listener.notifications:
                    break
            notes = [(name, payload) for _, name, payload in listener.notifications]
            expect(notes, [(channel, "hello")])


play(Driver())
