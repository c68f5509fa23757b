"""ODBC: pyodbc over psqlODBC, whose library TG_ODBC names."""

import os

import pyodbc

import dbapi
from report import BODIES, HOST, MINE, PORT, TYPES, Absent, expect, play


class Driver(dbapi.Driver):
    parameter = "?"
    # ODBC knows no arrays, no uuid as such, and no time with a zone.
    foreign = ("int4[]", "text[]", "uuid", "timestamptz", "bool")
    aborts = False

    def connect(self, who, **more):
        values = {
            "Driver": os.environ["TG_ODBC"], "Server": HOST, "Port": PORT, "UID": who["USER"],
            "Database": who["DBNAME"], "PWD": who["TOKEN"], **more,
        }
        return pyodbc.connect(";".join(f"{key}={value}" for key, value in values.items()))

    def sqlstate(self, error):
        return error.args[0]

    def tls_require(self):
        with self.session(SSLmode="require") as connection:
            expect(self.ask(connection, BODIES), MINE["BODIES"])

    def tls_options(self, mode, authority):
        # The driver has no key for it; libpq, which it sits on, reads this.
        os.environ["PGSSLROOTCERT"] = authority
        return {"SSLmode": mode}

    def tls_verify_full(self):
        try:
            super().tls_verify_full()
        finally:
            del os.environ["PGSSLROOTCERT"]

    def document(self, value):
        raise Absent("ODBC has no documents")

    def types(self):
        with self.session() as connection:
            same = [(name, value) for name, value in TYPES if name not in self.foreign]
            for name, value in [*same, ("text[]", '{"a,b",NULL}'), ("json", '{"a": [1, null]}')]:
                expect(self.ask(connection, f"SELECT CAST(? AS {name})", value), value)

    def send_cancel(self, connection):
        self.cursor.cancel()


play(Driver())
