"""The scenarios for drivers of Python's DB-API; a script says what its driver does otherwise."""

import concurrent.futures
import contextlib
import threading
import uuid

from report import (
    BASE, BODIES, DOCUMENT, MINE, OTHER, TYPES, WRONG_CA, WRONG_TOKEN, CA, Absent, expect,
)


class Driver:
    """One driver. `connect` and `sqlstate` are its own; the others fit most."""

    parameter = "%s"
    # Types whose values the driver does not take or give back as they are.
    foreign = ()
    # Whether an error leaves the transaction open, to be rolled back.
    aborts = True

    def connect(self, who, **more):
        raise NotImplementedError

    def sqlstate(self, error):
        raise NotImplementedError

    def document(self, value):
        raise NotImplementedError

    def autocommit(self, connection):
        connection.autocommit = True

    @contextlib.contextmanager
    def session(self, who=MINE, autocommit=True, **more):
        connection = self.connect(who, **more)
        try:
            if autocommit:
                self.autocommit(connection)
            yield connection
        finally:
            with contextlib.suppress(Exception):
                connection.close()

    def ask(self, connection, sql, *arguments):
        """The first column of the first row."""
        self.cursor = cursor = connection.cursor()
        if arguments:
            cursor.execute(sql.replace("?", self.parameter), arguments)
        else:
            cursor.execute(sql)
        row = cursor.fetchone() if cursor.description else None
        cursor.close()
        return row[0] if row else None

    def fails(self, connection, sqlstate, sql, *arguments):
        try:
            self.ask(connection, sql, *arguments)
        except Exception as error:  # pylint: disable=broad-except
            expect(self.sqlstate(error), sqlstate)
            return
        raise AssertionError(f"went through: {sql}")

    def login(self):
        with self.session() as connection:
            expect(self.ask(connection, BODIES), MINE["BODIES"])
        try:
            self.connect(MINE | {"TOKEN": WRONG_TOKEN})
        except Exception as error:  # pylint: disable=broad-except
            expect("authentication failed" in str(error), True)
            return
        raise AssertionError("a wrong token was let in")

    def tls_options(self, mode, authority):
        return {"sslmode": mode, "sslrootcert": authority}

    def tls_require(self):
        with self.session(sslmode="require") as connection:
            expect(self.ask(connection, BODIES), MINE["BODIES"])

    def tls_verify_full(self):
        with self.session(**self.tls_options("verify-full", CA)) as connection:
            expect(self.ask(connection, BODIES), MINE["BODIES"])
        try:
            self.connect(MINE, **self.tls_options("verify-full", WRONG_CA))
        except Exception as error:  # pylint: disable=broad-except
            expect("SSL error" in str(error) or "verify failed" in str(error), True)
            return
        raise AssertionError("a certificate of a stranger was accepted")

    def types(self):
        with self.session() as connection:
            for name, value in TYPES:
                if name not in self.foreign:
                    expect(self.ask(connection, f"SELECT CAST(? AS {name})", value), value)
            for name in ("json", "jsonb"):
                value = self.document(DOCUMENT)
                expect(self.ask(connection, f"SELECT CAST(? AS {name})", value), DOCUMENT)

    def execute_prepared(self, connection, number):
        """A statement that the driver prepares by itself when it is used often."""
        return self.ask(connection, "SELECT body FROM notes WHERE id = ?", number)

    def prepared(self):
        bodies = MINE["BODIES"].split("|")
        with self.session(autocommit=False) as connection:
            for turn in range(60):
                number = turn % len(bodies)
                expect(self.execute_prepared(connection, number + 1), bodies[number])
                connection.commit()

    def transaction(self):
        with self.session(autocommit=False) as connection:
            self.ask(connection, f"INSERT INTO notes (id, body) VALUES ({BASE}, 'mine')")
            with self.session() as other:
                expect(self.ask(other, f"SELECT count(*) FROM notes WHERE id = {BASE}"), 0)
            connection.commit()
            self.ask(connection, f"UPDATE notes SET body = 'lost' WHERE id = {BASE}")
            connection.rollback()
            deleted = self.ask(connection, f"DELETE FROM notes WHERE id = {BASE} RETURNING body")
            expect(deleted, "mine")
            connection.commit()

    def savepoint(self):
        with self.session(autocommit=False) as connection:
            self.ask(connection, f"INSERT INTO notes (id, body) VALUES ({BASE}, 'kept')")
            self.ask(connection, "SAVEPOINT one")
            self.fails(connection, "42703", "SELECT no_such_column FROM notes")
            self.ask(connection, "ROLLBACK TO SAVEPOINT one")
            self.ask(connection, f"UPDATE notes SET body = 'changed' WHERE id = {BASE}")
            self.ask(connection, "ROLLBACK TO SAVEPOINT one")
            self.ask(connection, "RELEASE SAVEPOINT one")
            expect(self.ask(connection, f"SELECT body FROM notes WHERE id = {BASE}"), "kept")
            connection.rollback()
            expect(self.ask(connection, BODIES), MINE["BODIES"])

    def errors(self):
        wrong = [
            ("23505", "INSERT INTO notes (id, body) VALUES (1, 'twice')"),
            ("42601", "SELEC 1"), ("22012", "SELECT 1/0"), ("42P01", "SELECT * FROM nowhere"),
        ]
        with self.session() as connection:
            for sqlstate, sql in wrong:
                self.fails(connection, sqlstate, sql)
                expect(self.ask(connection, BODIES), MINE["BODIES"])
        with self.session(autocommit=False) as connection:
            self.fails(connection, "22012", "SELECT 1/0")
            if self.aborts:
                self.fails(connection, "25P02", "SELECT 1")
            connection.rollback()
            expect(self.ask(connection, BODIES), MINE["BODIES"])

    def copy_in(self):
        raise Absent("the driver has no COPY")

    def copy_out(self):
        raise Absent("the driver has no COPY")

    def listen(self):
        raise Absent("the driver has no notifications")

    def send_cancel(self, connection):
        raise Absent("the driver has no cancel")

    def cancel(self):
        with self.session() as connection:
            # A cancel that comes before the query is lost, so it is sent until it hits.
            done = threading.Event()

            def cancels():
                while not done.wait(0.2):
                    self.send_cancel(connection)

            if type(self).send_cancel is Driver.send_cancel:
                self.send_cancel(connection)
            thread = threading.Thread(target=cancels)
            thread.start()
            try:
                self.fails(connection, "57014", "SELECT pg_sleep(20)")
            finally:
                done.set()
                thread.join()
            self.settle(connection)
            expect(self.ask(connection, BODIES), MINE["BODIES"])

    def settle(self, connection):
        """Waits until no cancel is on its way, where the driver does not wait itself."""

    def settings(self):
        with self.session() as connection:
            self.ask(connection, "SET TimeZone = 'Asia/Tokyo'")
            self.ask(connection, "SET work_mem = '1234kB'")
            self.ask(connection, "SET myapp.owner = 'somebody'")
            for _ in range(10):
                expect(self.ask(connection, "SHOW TimeZone"), "Asia/Tokyo")
                expect(self.ask(connection, "SHOW work_mem"), "1234kB")
                expect(self.ask(connection, "SELECT current_setting('myapp.owner')"), "somebody")
            self.ask(connection, "DISCARD ALL")
            expect(self.ask(connection, "SHOW TimeZone") == "Asia/Tokyo", False)

    def temporary_table(self):
        with self.session() as connection:
            self.ask(connection, "CREATE TEMPORARY TABLE scratch (number int)")
            for number in range(10):
                self.ask(connection, f"INSERT INTO scratch VALUES ({number})")
            expect(self.ask(connection, "SELECT count(*) FROM scratch"), 10)
            self.ask(connection, "DROP TABLE scratch")

    def advisory_lock(self):
        with self.session() as connection, self.session() as other:
            self.ask(connection, f"SELECT pg_advisory_lock({BASE})")
            for _ in range(5):
                expect(self.ask(other, f"SELECT pg_try_advisory_lock({BASE})::text"), "false")
            expect(self.ask(connection, f"SELECT pg_advisory_unlock({BASE})::text"), "true")
            expect(self.ask(other, f"SELECT pg_try_advisory_lock({BASE})::text"), "true")
            expect(self.ask(other, f"SELECT pg_advisory_unlock({BASE})::text"), "true")

    def sql_prepare(self):
        with self.session() as connection:
            self.ask(connection, "PREPARE next (int) AS SELECT $1 + 1")
            for number in range(10):
                expect(self.ask(connection, f"EXECUTE next ({number})"), number + 1)
            self.ask(connection, "DEALLOCATE next")
            self.fails(connection, "26000", "EXECUTE next (1)")

    def large(self):
        with self.session() as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT generate_series(1, 100000)")
            expect(sum(value for (value,) in cursor.fetchall()), 100000 * 100001 // 2)
            expect(len(self.ask(connection, "SELECT repeat('x', 8000000)")), 8000000)
            expect(self.ask(connection, "SELECT length(?)", "y" * 3000000), 3000000)

    def borrowed(self):
        """A function that hands out a connection of the driver's pool, as a context."""
        raise Absent("the driver has no pool")

    def pool(self):
        with self.borrowed() as borrow:
            def one(_):
                with borrow() as connection:
                    return self.ask(connection, BODIES)

            with concurrent.futures.ThreadPoolExecutor(4) as threads:
                expect(set(threads.map(one, range(40))), {MINE["BODIES"]})

    def reconnect(self):
        with self.session() as connection:
            try:
                self.ask(connection, "SELECT pg_terminate_backend(pg_backend_pid())")
                raise AssertionError("the session went on")
            except AssertionError:
                raise
            except Exception as error:  # pylint: disable=broad-except
                del error
        with self.session() as connection:
            expect(self.ask(connection, BODIES), MINE["BODIES"])

    def isolation(self):
        with self.session(MINE) as mine, self.session(OTHER) as other:
            for _ in range(30):
                expect(self.ask(mine, BODIES), MINE["BODIES"])
                expect(self.ask(other, BODIES), OTHER["BODIES"])


def channel():
    return f"news_{uuid.uuid4().hex}"
